//! What all blitters between the same two devices share: the records, and the thread that makes trials.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ash::vk::Handle;

use super::trials::Trials;
use super::trials_end::TrialsEnd;
use crate::blit::choose::Allowed;
use crate::blit::choose::records::Records;
use crate::blit::copy::frame::Frame;
use crate::blit::options::{BlitDevice, Gpu};
use crate::device::NodeId;
use crate::sys::process::Owner;

/// How long the drop of a pair waits for a trial.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two devices with the GPUs that copy for them.
pub(in crate::blit) struct Pair {
    pub(in crate::blit) records: Arc<Records>,
    trials: Trials,
    process: Owner,
    /// Until when the drop may wait for a trial, if the program closed the last blitter with a deadline.
    deadline: Mutex<Option<Instant>>,
}

/// For each end: its DRM device, and its physical device or the program's own Vulkan device.
type Key = [(Option<NodeId>, u64); 2];

/// The pairs that blitters use.
static PAIRS: Mutex<Vec<(Key, Weak<Pair>)>> = Mutex::new(Vec::new());

impl Pair {
    /// The pair of these devices; a new one if there is none.
    pub(in crate::blit) fn of(sides: &[BlitDevice; 2]) -> Arc<Self> {
        let key = [key(&sides[0]), key(&sides[1])];
        let mut pairs = PAIRS.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.retain(|(_, pair)| pair.strong_count() > 0);
        let known = pairs.iter().filter(|(of, _)| *of == key);
        let known = known.filter_map(|(_, pair)| pair.upgrade());
        // In a forked child, pairs of the parent are not used.
        let known = { known }.find(|pair| pair.process.is_here());
        known.unwrap_or_else(|| {
            let records = Arc::<Records>::default();
            let pair = Arc::new(Self {
                trials: Trials::new(sides.clone(), records.clone()),
                records,
                process: Owner::current(),
                deadline: Mutex::new(None),
            });
            pairs.push((key, Arc::downgrade(&pair)));
            pair
        })
    }

    /// Asks for the trials that frames like this one still need. Does not wait.
    pub(in crate::blit) fn want_trials(&self, frame: &Frame, allowed: &Allowed) {
        self.trials.want(frame, allowed);
    }

    /// Makes the drop wait for a trial until this deadline at most.
    pub(in crate::blit) fn end_by(&self, deadline: Instant) {
        let mut of_end = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *of_end = Some(deadline);
    }

    /// See [`Trials::tell_at_end`].
    pub(in crate::blit) fn tell_at_end(&self, frame: &Frame, end: &TrialsEnd) -> bool {
        self.trials.tell_at_end(frame, end)
    }

    /// Waits until a trial has ended, or for the timeout.
    pub(in crate::blit) fn wait_for_news(&self, timeout: Duration) {
        self.trials.wait_for_news(timeout);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.process.is_here() {
            return self.trials.forget();
        }
        let deadline = self.deadline.get_mut();
        let deadline = *deadline.unwrap_or_else(PoisonError::into_inner);
        let deadline = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        if !self.trials.close_wait(deadline) {
            log::error!("a trial of a blit strategy does not end: it is left to itself");
        }
    }
}

fn key(side: &BlitDevice) -> (Option<NodeId>, u64) {
    let drm = side.drm.as_ref().map(|drm| drm.node().id);
    let gpu = match &side.gpu {
        Gpu::None => 0,
        Gpu::Own(physical) => physical.raw().as_raw(),
        Gpu::Host(device) => device.raw().handle().as_raw(),
    };
    (drm, gpu)
}
