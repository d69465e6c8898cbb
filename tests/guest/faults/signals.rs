//! A thread that is interrupted all the time.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The time between two signals: short enough to interrupt every operation, and long enough for it to make
/// progress.
const PERIOD_NS: i64 = 100_000;

static RECEIVED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    RECEIVED.fetch_add(1, Ordering::Relaxed);
}

/// Runs `work` while a timer signals this thread all the time. (A thread that sends the signals would not
/// run on a machine with one CPU.) `work` is given a function that says how many signals have come, which
/// any thread may call.
///
/// System calls are not restarted: waits get EINTR.
pub(crate) fn under<R>(work: impl FnOnce(&(dyn Fn() -> u64 + Sync)) -> R) -> R {
    let before = RECEIVED.load(Ordering::Relaxed);
    let _handler = Handler::install();
    let _timer = Timer::start();
    work(&|| RECEIVED.load(Ordering::Relaxed) - before)
}

/// A handler that counts SIGUSR1, without SA_RESTART. The drop puts back the handler of before.
struct Handler(libc::sigaction);

impl Handler {
    fn install() -> Self {
        // SAFETY: zeroes are an empty mask and no flags.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
        Self(exchange(&action))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        exchange(&self.0);
    }
}

fn exchange(action: &libc::sigaction) -> libc::sigaction {
    let mut old = MaybeUninit::uninit();
    // SAFETY: the handler only counts, and both structures outlive the call.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, action, old.as_mut_ptr()) };
    assert_eq!(set, 0);
    // SAFETY: filled in on success.
    unsafe { old.assume_init() }
}

/// Sends SIGUSR1 to the thread that started it.
struct Timer(libc::timer_t);

impl Timer {
    fn start() -> Self {
        // SAFETY: zeroes are no value, no signal, no thread.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGUSR1;
        // SAFETY: touches nothing.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both outlive the call.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        assert_eq!(made, 0);
        let timer = Self(timer);
        let period = libc::timespec {
            tv_sec: 0,
            tv_nsec: PERIOD_NS,
        };
        let times = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: the timer was just made, and `times` outlives the call.
        let set = unsafe { libc::timer_settime(timer.0, 0, &times, ptr::null_mut()) };
        assert_eq!(set, 0);
        timer
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // What it has sent is received before the call returns, so the handler may go then.
        // SAFETY: made in `start`, and deleted once.
        let deleted = unsafe { libc::timer_delete(self.0) };
        assert_eq!(deleted, 0);
    }
}
