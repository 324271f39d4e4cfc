"""What the always-replay mode tests: the tests of the engine, without those whose subject a resume contradicts."""

_ENGINE = """
    budgets cache cancellation dropped end_to_end fanout inputs journal_parts middleware middleware_examples models
    outside pii_guard plugins prompts provider_plugins recording runs scale step_plugins steps stub time workflows
    yaml_cli yaml_workflows
"""
ENGINE = frozenset(_ENGINE.split())
"""The modules of tests that it takes."""

_BY_REASON = {
    "what is below a finished result (steps, attempts, usage) is not made again, so metrics do not tell of it": """
        test_a_body_may_recurse_plainly
        test_a_hundred_calls_at_once_are_counted_exactly
        test_a_price_that_raises_does_not_lose_the_answer
        test_a_provider_may_say_its_price
        test_a_rate_limit_is_waited_for
        test_a_step_is_tried_again
        test_a_sync_step_is_tried_again
        test_a_sync_step_may_run_an_event_loop_of_its_own
        test_a_whole_run_may_happen_in_a_loop_of_a_steps_own
        test_a_workflow_called_in_an_async_body_is_a_child_run
        test_a_workflow_runs_end_to_end
        test_an_answer_without_usage_is_unknown_and_counted
        test_an_async_step_is_tried_again
        test_answers_come_from_the_file
        test_errors_are_replayed_so_that_retries_are
        test_every_step_is_a_step_with_its_own_name
        test_offline_is_a_choice
        test_steps_in_a_fan_out_belong_to_the_step_around
        test_there_is_one_record_for_each_attempt
    """,
    "a recorded call holds its arguments until it ends": """
        test_async_code_can_let_go_of_its_arguments
    """,
    "the body begins again, and middleware of runs and observers see it each time": """
        test_a_registered_function_is_a_step
        test_a_run_keeps_the_settings_it_began_with
        test_events_tell_of_a_step_in_order
        test_middleware_knows_the_step_and_the_run
        test_middleware_of_any_colour_wraps_in_async_runs
        test_middleware_of_any_colour_wraps_steps_and_runs
        test_middleware_without_annotation_wraps_everything
        test_observers_hear_events_in_order
        test_observers_may_come_from_any_iterable
        test_what_has_finished_is_not_done_again
    """,
    "a result that was kept is read back, and is another object": """
        test_nothing_is_converted
    """,
    "of a finished step its result is kept, not the context variables that it set": """
        test_context_variables_come_through_middleware
    """,
    "calls in flight when the run was stopped are made again": """
        test_a_call_within_an_equal_call_around_its_run_is_made
        test_a_call_within_an_equal_call_is_made
        test_a_nervous_interpreter_loses_nothing
        test_concurrent_calls_open_once
        test_independent_steps_run_at_once
    """,
    "a Ctrl-C at the very moment in which a run is claimed leaves the claim with the process until its end": """
        test_ctrl_c_at_any_point_leaves_no_run_behind
    """,
    "code that changes while the run is stopped is told": """
        test_a_constant_of_the_module_tells_results_apart
    """,
    "what the journal has of the run is not looked up in the cache": """
        test_a_result_is_made_once
        test_of_calls_that_would_wait_for_one_another_one_is_made
        test_of_equal_calls_in_tasks_one_is_made
        test_when_the_one_that_is_made_fails_the_next_is_made
    """,
    "the value has shared parts, and as JSON it is 2^40 times as large": """
        test_shared_parts_are_looked_at_once
    """,
}

LEFT_OUT = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}
