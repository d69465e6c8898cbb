//! A thread whose end can be waited for with a deadline.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::Errno;
use crate::sys;

/// A thread of the library's own.
pub(in crate::blit) struct Thread {
    handle: JoinHandle<()>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    ended: Mutex<bool>,
    changed: Condvar,
}

/// Tells of the end of the thread, also if it panics.
struct End(Arc<State>);

impl Drop for End {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl Thread {
    pub(in crate::blit) fn spawn(
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Errno> {
        let state = Arc::<State>::default();
        let end = End(state.clone());
        let handle = sys::thread::spawn(name, move || {
            let _end = end;
            work();
        });
        let handle = handle.map_err(sys::errno)?;
        Ok(Self { handle, state })
    }

    /// Waits for the end of the thread. `false` if it still runs at the deadline: it is left to itself.
    pub(in crate::blit) fn join_until(self, deadline: Instant) -> bool {
        let ended = self.state.ended.lock();
        let ended = ended.unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let runs = |ended: &mut bool| !*ended;
        let waited = self.state.changed.wait_timeout_while(ended, left, runs);
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let has_ended = *ended;
        drop(ended);
        if has_ended && self.handle.join().is_err() {
            log::error!("a thread of the blitter has panicked");
        }
        has_ended
    }

    /// Forgets the thread, in a forked child, to whose parent it belongs.
    pub(in crate::blit) fn forget(self) {
        std::mem::forget(self);
    }
}
