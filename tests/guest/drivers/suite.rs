//! The tests of Vulkan and of transfers once more, by venus instead of lavapipe. Tests that import memory of
//! other devices are left out, since venus takes none. So are the blitter's tests, which all copy between
//! buffers of two devices, and the tests of fences, which are about the kernel.

use std::time::Duration;

use super::vtest::Server;
use super::{Environment, VENUS, environment};
use crate::child::{Child, Ending};
use crate::support::{can_run, in_guest};

const PATIENCE: Duration = Duration::from_secs(300);

/// Modules of tests that make sense.
const TESTS: &[&str] = &["vulkan::", "transfer::"];

/// Those of these tests that import memory of other devices.
const WITH_FOREIGN_MEMORY: &[&str] = &[
    "vulkan::a_copy_",
    "vulkan::a_single_copy_",
    "vulkan::an_image_keeps_the_memory_",
    "vulkan::fds::",
    "vulkan::host::images_are_shared_",
    "vulkan::host::the_hosts_own_lock_",
    "vulkan::host::transfers_are_recorded_",
    "vulkan::host::what_the_host_left_out_",
    "vulkan::host::what_the_host_wants_kept_",
    "vulkan::matrix::",
    "vulkan::refusals::",
    "vulkan::several_copies_",
    "vulkan::shared::",
    "vulkan::unfinished::",
    "vulkan::unlike_pictures_",
    "vulkan::views::",
];

/// Tests by which Vulkan waits for pending sync files. The module `venus` says why venus cannot.
const WITH_PENDING_SYNC_FILES: &[&str] = &[
    "vulkan::fences::work_waits_for_all_sync_files",
    "vulkan::fences::work_between_sync_files",
];

/// Tests for which Vulkan has to share semaphores and fences by fd.
const WITH_SYNC_FILES: &[&str] = &["vulkan::fences::"];

/// Runs them all by a driver, but for `left_out`.
fn pass(environment: &Environment, left_out: &[&[&str]]) {
    let left_out = left_out.iter().copied().flatten();
    let skips = left_out.flat_map(|test| ["--skip", test]);
    let arguments: Vec<&str> = TESTS.iter().copied().chain(skips).collect();
    let mut tests = Child::of(&arguments, environment);
    let ending = tests.wait(PATIENCE);
    let output = tests.output();
    assert!(matches!(ending, Ending::Exited(0)), "{ending}\n{output}");
    assert!(!output.contains(" 0 passed"), "nothing has run:\n{output}");
}

#[test]
fn venus_on_virtio_gpu_passes_what_needs_no_foreign_memory() {
    in_guest(|guest| {
        if can_run(guest.has_gpu(), "the guest gpu") {
            let venus = environment("venus", &[VENUS]);
            pass(&venus, &[WITH_FOREIGN_MEMORY, WITH_PENDING_SYNC_FILES]);
        }
    });
}

#[test]
fn venus_by_vtest_passes_what_needs_neither_foreign_memory_nor_sync_files() {
    in_guest(|guest| {
        if can_run(guest.has_third(), "the guest current") {
            let server = Server::start();
            let mut venus = environment("venus", &[VENUS]);
            venus.extend(server.environment());
            pass(&venus, &[WITH_FOREIGN_MEMORY, WITH_SYNC_FILES]);
        }
    });
}
