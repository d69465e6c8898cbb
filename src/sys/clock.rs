//! `clock_gettime(2)`.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// How long the machine has been suspended since it was booted: the clock that goes on meanwhile against
/// the one that does not. No system call (both are in the vDSO).
pub(crate) fn suspended() -> Duration {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    let running = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(running)
}
