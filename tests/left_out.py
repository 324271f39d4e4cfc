"""The tests that the always-replay mode leaves out, by what they count: a resume does these things by design."""

_BY_REASON = {
    "a finished result is taken as it is: what was below it (steps, attempts, usage) is not made again": """
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
        test_answers_come_from_the_file
        test_errors_are_replayed_so_that_retries_are
        test_every_step_is_a_step_with_its_own_name
        test_offline_is_a_choice
        test_steps_in_a_fan_out_belong_to_the_step_around
        test_the_order_is_that_of_asking
        test_there_is_one_record_for_each_attempt
    """,
    "the body runs again, and middleware of runs, observers and context variables see it each time": """
        test_a_run_keeps_the_settings_it_began_with
        test_context_variables_come_through_middleware
        test_events_tell_of_a_step_in_order
        test_middleware_knows_the_step_and_the_run
        test_middleware_of_any_colour_wraps_in_async_runs
        test_middleware_of_any_colour_wraps_steps_and_runs
        test_middleware_without_annotation_wraps_everything
        test_observers_hear_events_in_order
        test_observers_may_come_from_any_iterable
    """,
    "calls in flight when the run was stopped are made again": """
        test_a_nervous_interpreter_loses_nothing
        test_concurrent_calls_open_once
    """,
    "the mode itself keeps what was passed, and a journal in memory grows": """
        test_a_step_of_an_object_does_not_keep_it_alive
        test_many_runs_leave_nothing_behind
        test_runs_are_freed_without_the_collector
    """,
}

LEFT_OUT = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}
