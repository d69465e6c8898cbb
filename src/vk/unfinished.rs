//! Work that is still being executed when its deadline comes, and what it may use.
//!
//! An object that a GPU uses must not be destroyed (VUID-vkDestroyImage-image-01000 and its like).
//! While a device has such work, nothing of the device is destroyed: it leaks, and so does the device.
//! If the work ends after all, objects that are dropped later are destroyed as usual.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
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

/// The unfinished work of a device.
#[derive(Default)]
pub(super) struct All {
    any: AtomicBool,
    work: Mutex<Vec<Unfinished>>,
}

impl All {
    pub(super) fn add(&self, work: Unfinished) {
        let mut all = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(work);
        self.any.store(true, Ordering::Release);
    }

    /// Whether some of it is still being executed. What has ended is destroyed.
    fn is_any(&self) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut all = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.iter().all(Unfinished::has_ended) {
            return true;
        }
        let ended = std::mem::take(&mut *all);
        self.any.store(false, Ordering::Release);
        // The semaphores' end asks the same question.
        drop(all);
        for work in ended {
            // SAFETY: it has ended, and nobody else knows the pool and the fence.
            unsafe {
                work.device.raw().destroy_fence(work.fence, None);
                work.device.raw().destroy_command_pool(work.pool, None);
            }
        }
        false
    }
}

impl Device {
    /// Destroys an object of this device. If work is unfinished that may use it, the object leaks. In a
    /// forked child nothing is destroyed: the driver would close handles that are the parent's as well.
    pub(super) fn destroy(&self, destroy: impl FnOnce(&ash::Device)) {
        if !self.is_here() {
            return;
        }
        match self.unfinished().is_any() {
            false => destroy(self.raw()),
            true => log::debug!("{self:?}: an object leaks: unfinished work may use it"),
        }
    }
}
