//! What every engine must do, tried with a real guest. A new engine joins by a line in [`engines!`].
//!
//! The tests are ignored by default since they need a boot bundle: `make test` runs them.

mod balloon;
mod death;
mod guest;
mod limits;
mod network;
mod saved;
mod streams;

use cellule_engine::qemu::QemuEngine;

/// Makes a test of each case for each engine.
macro_rules! engines {
    ($($module:ident: { $($case:ident),* $(,)? })*) => {
        mod qemu {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs a guest; run through `make test`"]
                async fn $case() {
                    super::$module::$case(&super::QemuEngine::new(None)).await;
                }
            )*)*
        }
    };
}

engines! {
    streams: {
        a_guest_boots_and_its_console_is_heard,
        bytes_go_both_ways_unchanged,
        a_closed_stream_can_be_opened_again,
        a_stream_follows_another_at_once,
        only_one_stream_is_open_at_a_time,
        a_flooded_console_is_bounded,
        a_console_log_is_bounded,
    }
    limits: {
        the_guest_sees_the_memory_it_was_given,
        the_guest_sees_the_cpus_it_was_given,
        a_disk_is_found_by_its_serial_and_read,
        all_disks_can_be_read_from_many_threads,
        a_read_only_disk_can_not_be_written,
        a_writable_disk_keeps_what_is_written,
        the_guest_has_no_device_that_it_was_not_given,
        a_paused_guest_stands_still_and_goes_on,
        the_guests_clock_is_true_while_the_host_is_busy,
        the_least_memory_boots,
    }
    network: {
        frames_go_both_ways_and_so_they_do_in_a_copy,
        the_largest_frames_go_both_ways,
        frames_that_nobody_takes_stay_whole_across_a_pause,
        a_guest_without_a_network_goes_on,
        frames_that_come_while_a_guest_stands_still_reach_it_later,
    }
    saved: {
        a_saved_guest_goes_on_and_so_does_its_copy,
        many_copies_share_what_they_do_not_change,
        a_copy_of_a_copy_has_all_of_both,
        a_guest_with_several_cpus_and_a_disk_goes_on,
        a_copy_of_its_base_takes_what_changed_and_is_whole,
        a_guest_that_is_saved_again_and_again_goes_on,
        a_copys_clock_goes_on_from_the_moment_of_the_save,
        a_running_guest_is_not_saved,
        a_copy_has_no_host_until_one_comes,
        what_was_saved_elsewhere_is_refused,
        a_damaged_state_is_refused_in_time,
        a_file_that_takes_nothing_leaves_the_guest_as_it_was,
    }
    balloon: {
        freed_memory_goes_back_to_the_host_and_the_base_is_as_it_was,
        a_guest_gives_memory_up_and_has_it_again,
        a_guest_that_booted_gives_all_of_it_back,
        what_was_given_back_is_the_bases_in_a_save,
    }
    death: {
        a_power_off_is_told,
        a_reset_is_told_and_not_obeyed,
        a_panic_is_told_with_its_reason,
        the_death_of_init_is_told,
        a_guest_without_memory_is_told,
        a_kill_is_told,
        a_killed_paused_guest_is_told,
        a_dropped_machine_leaves_nothing,
        a_dead_engine_is_told_within_a_second,
        a_dead_owner_takes_the_machine_along,
        a_kernel_that_can_not_boot_is_named,
        a_missing_directory_is_named,
        commands_after_the_end_say_so,
        a_long_path_is_no_obstacle,
    }
}

/// Not an engine's case: what `doctor` asks of the host, with a real device if there is one.
#[test]
#[ignore = "touches /dev/kvm; run through `make test`"]
fn the_probe_of_this_hosts_kvm_ends_and_does_not_contradict_itself() {
    let before = std::time::Instant::now();
    let probe = cellule_engine::kvm::KvmProbe::run();
    println!("{probe:?} after {:?}", before.elapsed());
    assert!(before.elapsed() < std::time::Duration::from_secs(4));
    assert_eq!(probe.runs_guest.is_some(), probe.device == cellule_engine::kvm::KvmDevice::Open);
}
