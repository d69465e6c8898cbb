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
/// The kernel's drivers reset a GPU that hangs after 10 s or less (amdgpu's `lockup_timeout`,
/// nouveau; others are faster), and the device is lost then. What takes longer never ends: it waits
/// for a fence that nobody signals, or the driver has lost it.
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

    /// The work, with what waited for its end, if all of it has ended. Else keeps the object.
    fn ended(&self, destroy: Destroy) -> Option<(State, Destroy)> {
        let mut state = self.lock();
        if !state.work.iter().all(Unfinished::has_ended) {
            state.later.push(destroy);
            return None;
        }
        self.any.store(false, Ordering::Release);
        Some((std::mem::take(&mut *state), destroy))
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
        // Without the lock: the semaphores' end comes here again.
        let Some((State { work, later }, last)) = self.unfinished().ended(Box::new(destroy)) else {
            log::debug!("{self:?}: an object is kept: unfinished work may use it");
            return;
        };
        for work in work {
            // SAFETY: it has ended, and nobody else knows the pool and the fence.
            unsafe {
                self.raw().destroy_fence(work.fence, None);
                self.raw().destroy_command_pool(work.pool, None);
            }
        }
        for destroy in later.into_iter().chain([last]) {
            destroy(self.raw());
        }
    }
}
