"""The providers that come with flowlet; each imports its SDK when it is first called."""
