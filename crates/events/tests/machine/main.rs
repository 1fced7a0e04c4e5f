//! Real processes, the kernel's connector, real namespaces. The program runs itself again as what lives in a container, so it
//! has a runner of its own: one test after the other, those whose name contains the first argument.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod connector;
mod door;
mod isolation;
mod nested;
mod role;
mod subscribers;
mod watch;

use std::panic::catch_unwind;

/// Each test by its module and its name.
macro_rules! tests {
    ($($module:ident::$test:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($test)), $module::$test)),*]
    };
}

const TESTS: &[(&str, fn())] = tests![
    connector::the_life_of_processes_is_told_in_order,
    connector::threads_are_no_processes,
    connector::a_storm_is_told_without_loss_and_without_a_scan,
    connector::the_socket_has_room_for_a_burst,
    connector::an_overflow_is_a_gap_and_one_scan,
    connector::a_storm_of_losses_is_no_storm_of_scans,
    connector::who_waits_for_it_has_a_loss_made_up_for_at_once,
    connector::forged_datagrams_are_rejected,
    connector::other_users_cannot_even_send_forged_ones,
    connector::in_a_container_it_says_that_it_does_not_serve,
    connector::polling_finds_what_stays_long_enough,
    connector::polling_looks_at_once_for_who_is_named,
    subscribers::who_never_reads_slows_nobody_and_gets_a_gap,
    subscribers::who_never_reads_is_remembered_so_much_of_and_no_more,
    subscribers::a_source_that_fails_ends_all_streams,
    subscribers::rubbish_from_a_subscriber_is_refused,
    subscribers::who_hangs_up_is_forgotten,
    subscribers::the_service_ends_with_its_last_subscriber,
    subscribers::the_service_ends_with_a_first_subscriber_that_is_refused,
    subscribers::who_subscribes_again_and_again_has_proc_read_once,
    subscribers::a_service_is_fed_by_whoever_reads_the_source,
    subscribers::a_service_whose_thread_panics_ends_all_streams,
    subscribers::a_user_has_only_so_many_subscriptions,
    nested::containers_two_deep_see_their_own,
    nested::a_storm_in_a_container_is_told_completely,
    nested::an_unprivileged_user_nests_as_deep,
    isolation::nothing_outside_leaves_a_trace_inside,
    isolation::nothing_outside_leaves_a_trace_inside_of_a_users_container,
    nested::who_enters_from_outside_and_stays_is_told_of,
    nested::an_outer_daemon_that_restarts_is_a_gap,
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--role") {
        return role::play(&arguments[1..]);
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = TESTS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str())));
    let mut failed = 0;
    for (name, test) in chosen {
        let passed = catch_unwind(test).is_ok();
        failed += i32::from(!passed);
        eprintln!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    std::process::exit(failed.min(1));
}
