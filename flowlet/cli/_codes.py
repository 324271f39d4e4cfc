"""The exit codes, as docs/cli.md tells them."""

OK = 0
FAILED = 1
USAGE = 2
TIMEOUT = 124
INTERRUPTED = 130
BROKEN_PIPE = 141

EPILOGUE = """\
Exit codes:

    0   done
    1   the workflow failed
    2   the command line, an input, a setting, a plugin, the module or the journal is wrong
  124   the run did not end within its timeout
  130   cancelled by Ctrl-C (143 by SIGTERM)
  141   nobody reads the output"""
