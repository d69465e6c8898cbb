//! Work that is still being executed when its deadline comes, and what it may use.
//!
//! An object that a GPU uses must not be destroyed (VUID-vkDestroyImage-image-01000 and its like).
//! While a device has such work, nothing of the device is destroyed, nor the device. All of it leaks,
//! unless the work ends after all: then it is destroyed as soon as another object of the device is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ash::vk;

use super::{Device, Point};

/// The longest wait for work that nobody else waits for.
///
/// Kernel drivers reset a GPU that hangs after 10 s or less (amdgpu's `lockup_timeout`, nouveau; others are
/// faster), and the device is lost then. Work that takes longer never ends: it waits for a fence that nobody
/// signals, or the driver has forgotten it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Work whose end nobody waits for any more.
pub(super) struct Unfinished {
    /// Keeps the device, which keeps this.
    pub(super) device: Device,
    pub(super) pool: vk::CommandPool,
    pub(super) fence: vk::Fence,
    /// The semaphores that it waits for and signals.
    pub(super) _points: Vec<Point>,
}

impl Unfinished {
    fn has_ended(&self) -> bool {
        // SAFETY: the fence is alive.
        match unsafe { self.device.raw().get_fence_status(self.fence) } {
            Ok(is_signalled) => is_signalled,
            Err(result) => result == vk::Result::ERROR_DEVICE_LOST,
        }
    }
}

/// Destroys an object.
type Destroy = Box<dyn FnOnce(&ash::Device) + Send>;

/// The unfinished work of a device, and the objects that were to be destroyed meanwhile.
#[derive(Default)]
pub(super) struct All {
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    work: Vec<Unfinished>,
    later: Vec<Destroy>,
}

impl All {
    pub(super) fn add(&self, work: Unfinished) {
        self.lock().work.push(work);
        self.any.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work, with what waited for its end, if all of it has ended. Keeps one object more for that,
    /// if there is one.
    fn ended(&self, destroy: Option<Destroy>) -> Option<State> {
        let mut state = self.lock();
        state.later.extend(destroy);
        if !state.work.iter().all(Unfinished::has_ended) {
            return None;
        }
        self.any.store(false, Ordering::Release);
        Some(std::mem::take(&mut *state))
    }
}

impl Device {
    /// Destroys an object of this device, or keeps that for later if unfinished work may use it. In a
    /// forked child nothing is destroyed: the driver would close handles that are the parent's as well.
    pub(super) fn destroy(&self, destroy: impl FnOnce(&ash::Device) + Send + 'static) {
        if !self.is_here() {
            return;
        }
        if !self.unfinished().any.load(Ordering::Acquire) {
            return destroy(self.raw());
        }
        match self.unfinished().ended(Some(Box::new(destroy))) {
            Some(ended) => self.destroy_all(ended),
            None => log::debug!("{self:?}: an object is kept: unfinished work may use it"),
        }
    }

    /// Destroys what was kept for unfinished work if that has ended. Whether nothing is kept any more.
    pub(crate) fn let_go_of_unfinished(&self) -> bool {
        if !self.is_here() || !self.unfinished().any.load(Ordering::Acquire) {
            return true;
        }
        let ended = self.unfinished().ended(None);
        let has_ended = ended.is_some();
        ended.into_iter().for_each(|ended| self.destroy_all(ended));
        has_ended
    }

    /// Without the lock: the semaphores' end comes to [`Self::destroy`] again.
    fn destroy_all(&self, State { work, later }: State) {
        for work in work {
            // SAFETY: it has ended, and nobody else knows the pool and the fence.
            unsafe {
                self.raw().destroy_fence(work.fence, None);
                self.raw().destroy_command_pool(work.pool, None);
            }
        }
        for destroy in later {
            destroy(self.raw());
        }
    }
}
