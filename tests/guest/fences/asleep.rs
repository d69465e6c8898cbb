//! Finding out that a thread waits.

use std::fs;
use std::sync::mpsc;
use std::thread;

/// Runs `wait` in a thread of its own, and `meanwhile` once that thread sleeps in the kernel.
pub(crate) fn meanwhile<R: Send>(wait: impl FnOnce() -> R + Send, meanwhile: impl FnOnce()) -> R {
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        let waiter = scope.spawn(move || {
            // SAFETY: touches nothing.
            send.send(unsafe { libc::gettid() }).unwrap();
            wait()
        });
        until_asleep(receive.recv().unwrap(), || waiter.is_finished());
        assert!(!waiter.is_finished(), "it did not wait");
        meanwhile();
        waiter.join().unwrap()
    })
}

/// Returns once the thread sleeps, or is over.
fn until_asleep(thread: libc::pid_t, over: impl Fn() -> bool) {
    let path = format!("/proc/self/task/{thread}/stat");
    while !over() {
        // `tid (name) state …`; gone once the thread has ended.
        let stat = fs::read_to_string(&path).unwrap_or_default();
        if stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" S"))
        {
            return;
        }
        thread::yield_now();
    }
}
