//! The agent's sessions and execs, in an ordinary process on this host: no guest, no privileges.
//!
//! The agent reaps every child of its process, so it gets one of its own: this test binary started again with one ignored
//! test, which serves a Unix socket as if it were the guest's port.
//!
//! Agents like this one are known to fail in these ways, each of which has its test. Those marked with a star need control
//! groups or a root of its own to be shown whole, and have another among the end-to-end tests.
//!
//! | fault | test |
//! |---|---|
//! | the user is ignored | `chain::staged_files_are_there_before_the_program_runs`, `terminal::it_belongs_to_its_user_and_nobody_else_reads_it` |
//! | a timeout kills only the main process, and grandchildren hold the session * | `exec::a_time_limit_ends_the_program_and_its_children` |
//! | a timer outlives its exec, a signal meets whoever has the number now | `exec::an_exit_within_the_limit_is_no_timeout`, `exec::signals_of_an_exec_that_is_gone_reach_nobody`, `detached::one_that_runs_is_not_forgotten_and_can_be_signalled_by_its_id` |
//! | a terminal knows no timeout | `terminal::a_time_limit_holds_on_a_terminal_too` |
//! | a host's leaving leaves its shell alive | `terminal::a_host_that_vanishes_leaves_no_shell_behind`, `session::a_hang_up_kills_what_was_running` |
//! | what fails at the start says nothing | `exec::what_cannot_start_says_why`, `terminal::what_cannot_start_on_a_terminal_says_why`, `exec::more_than_the_agent_runs_are_refused_with_the_reason` |
//! | a death by signal loses its reason, codes lose bits | `exec::a_death_by_signal_names_the_signal`, `exec::three_hundred_execs_at_once_each_get_their_own`; in the protocol's client `a_code_keeps_all_of_its_bits_and_a_signal_is_no_code` |
//! | the exit is told only once the input is closed | `exec::unread_input_delays_neither_kill_nor_exit`, `exec::an_exit_is_told_while_the_input_stays_open` |
//! | input that nobody reads delays a resize, a kill, a time limit | `terminal::a_new_size_is_told_to_the_program_whatever_its_input_waits_for`, `exec::unread_input_delays_neither_kill_nor_exit`, `exec::a_time_limit_holds_whatever_the_input_waits_for` |
//! | a daemonised child holds the exec | `exec::a_survivor_that_holds_the_pipe_does_not_hold_the_exec`, `terminal::a_survivor_that_holds_the_terminal_does_not_hold_the_exec` |
//! | an empty argv, a NUL byte, a huge argument end the agent or are changed in silence | `exec::what_cannot_start_says_why` |
//! | limits of streams or connections are silent, or leak their places | `exec::one_more_than_a_session_holds_is_refused_and_the_others_are_none_the_worse`, `detached::readers_of_a_silent_exec_that_leave_hold_no_streams` |
//! | descriptors leak into programs | `terminal::a_child_on_a_terminal_gets_no_other_descriptors`, `exec::children_get_default_signals_an_empty_mask_and_no_descriptors` |
//! | an error of the port or of a session ends the agent | `session::garbage_in_the_midst_of_a_session_ends_it_and_only_it`, `hostile::no_bytes_of_a_host_keep_the_agent_from_the_next` |
//! | a missing directory is ignored on a terminal | `terminal::what_cannot_start_on_a_terminal_says_why` |
//! | orphans are never reaped * | `exec::orphans_are_reaped` |
//! | an exit that says nothing is success | in the protocol's client `an_exit_that_says_nothing_is_no_success`; `session::an_agent_that_vanishes_leaves_no_exit_code` |
//! | writes to a closed input are dropped in silence | `detached::a_program_without_input_breaks_the_pipe_of_whoever_writes`, `exec::a_write_to_an_input_that_the_program_closed_fails` |
//! | a program that succeeds at its deadline is called timed out | `exec::an_exit_at_the_deadline_is_either_success_or_a_timeout` |
//! | a connection loses its end, or a cut looks like one | `ports::each_direction_ends_by_itself`, `ports::a_cut_is_a_cut_on_either_side` |
//! | a terminal that is hung up keeps the agent busy for ever | `terminal::a_terminal_that_is_left_and_taken_again_keeps_the_agent_from_nothing` |

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for other code")]

mod chain;
mod detached;
mod exec;
mod files;
mod files_tar;
mod files_transfer;
mod files_watch;
mod hostile;
mod insight;
mod ports;
mod session;
mod support;
mod terminal;
