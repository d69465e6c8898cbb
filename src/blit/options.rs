//! How a [`Blitter`](super::Blitter) works, and between which devices.

use std::time::Duration;

use super::Error;
use super::choose::Allowed;
use super::strategy::Strategy;
use crate::{device, vk};

/// The environment variable that forces strategies.
const VARIABLE: &str = "PRIMESHARE_BLIT";

/// A device that takes part in copies: as much of it as there is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlitDevice {
    /// For people.
    pub name: String,
    /// The DRM device whose buffers they are. With it memory for staging can be made there.
    pub drm: Option<device::Device>,
    /// The GPU that imports for it, usually the same device's.
    pub gpu: Gpu,
    /// What kind of queue copies are made on, where the devices are the blitter's own: one of high
    /// priority by default.
    pub queue: vk::QueueWish,
}

/// What makes the Vulkan copies of a [`BlitDevice`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Gpu {
    /// Nothing: the CPU copies.
    None,
    /// Vulkan devices of the blitter's own, made of this physical device when they are needed. A
    /// driver that loses one costs the program nothing: it is made anew.
    Own(vk::PhysicalDevice),
    /// The program's device. It makes only what trials on devices of the blitter's own have shown
    /// to work. If it is lost, its strategies have failed for this blitter.
    Host(vk::Device),
}

impl BlitDevice {
    /// A DRM device, named after it, and the physical device that imports for it.
    pub fn new(drm: &device::Device, gpu: Option<&vk::PhysicalDevice>) -> Self {
        Self {
            name: drm.to_string(),
            drm: Some(drm.clone()),
            gpu: gpu.cloned().map_or(Gpu::None, Gpu::Own),
            queue: vk::QueueWish::high(),
        }
    }

    /// A GPU without a DRM device that could be opened.
    pub fn of_gpu(gpu: &vk::PhysicalDevice) -> Self {
        Self {
            name: gpu.name().to_owned(),
            drm: None,
            gpu: Gpu::Own(gpu.clone()),
            queue: vk::QueueWish::high(),
        }
    }

    /// As [`Self::new`], with a Vulkan device of the program's for what is known to work.
    pub fn with_host(drm: &device::Device, device: &vk::Device) -> Self {
        Self {
            name: drm.to_string(),
            drm: Some(drm.clone()),
            gpu: Gpu::Host(device.clone()),
            queue: vk::QueueWish::high(),
        }
    }

    pub(super) fn physical(&self) -> Option<&vk::PhysicalDevice> {
        match &self.gpu {
            Gpu::None => None,
            Gpu::Own(physical) => Some(physical),
            Gpu::Host(device) => Some(device.physical()),
        }
    }

    pub(super) fn is_software(&self) -> bool {
        self.physical().is_some_and(vk::PhysicalDevice::is_software)
    }
}

/// How a [`Blitter`](super::Blitter) works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Copies under way at a time: from 1 to 64 ([`Error::InFlight`](super::Error::InFlight) for others).
    /// An fd is kept for each.
    pub in_flight: usize,
    /// How long a copy waits for its fences before it fails, where the CPU waits for them.
    pub input_timeout: Duration,
    /// The strategies to choose from, in any order. For debugging, the environment variable
    /// `PRIMESHARE_BLIT` goes before it: [names](Strategy::name) with commas between them. Names
    /// that are unknown are logged and left out.
    pub strategies: Vec<Strategy>,
    /// Whether `PRIMESHARE_BLIT` is looked at.
    pub environment: bool,
    /// Whether strategies by which the source's GPU imports the destination are chosen like others.
    pub push: Push,
    /// From which GPUs sync files are wanted.
    pub sync_files: SyncFiles,
}

/// When the source's GPU may import the destination ([`Strategy::Push`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Push {
    /// Never: destinations are shown on a screen, and must stay where they are.
    Never,
    /// Where nothing else works.
    #[default]
    Last,
    /// Whenever it is the fastest.
    Freely,
}

/// From which GPUs a [`Blitter`](super::Blitter) wants a sync file for each copy.
///
/// With sync files the caller hands a copy to the GPU right away, where it is known which one
/// makes it (or both, the second waiting for the first one's sync file), with the fences it is to
/// wait for; the copy's own fence is there before it is made
/// ([`Completion::sync_file`](super::Completion::sync_file)), for KMS (`IN_FENCE_FD`), a Wayland
/// client or another driver, and in the dma-bufs for those who synchronise implicitly.
///
/// What is handed over cannot be taken back: the GPU waits for its fences without a deadline. Twenty
/// seconds after the [input timeout](Options::input_timeout) the copy ends with
/// [`Failure::Deadline`](super::Failure::Deadline) all the same, and is left to the GPU with what it uses.
/// Where the GPU fails after all, the picture is made again by another strategy, but only after the sync
/// file was signalled: source and destination must stay as they are until the
/// [`Completion`](super::Completion) is, which comes a moment later and is the end of the copy.
///
/// On the program's device ([`Gpu::Host`]) all that the program submits would wait with a copy. There one
/// is handed over when its fences are signalled, and has its sync file from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncFiles {
    /// From none. Nobody sees the end of a copy before the whole picture is there.
    Never,
    /// From GPUs, not from Vulkan devices that are the CPU.
    #[default]
    Hardware,
    /// From all that have them. lavapipe (up to 26.1 at least) has one of a copy only when it is
    /// done, so that [`Blitter::blit`](super::Blitter::blit) waits for the copy, and for what that
    /// waits for; meanwhile no other copy's fence is signalled. For tests.
    Always,
}

impl Default for Options {
    /// Three in flight, ten seconds for the fences, all strategies, the environment looked at, push
    /// where nothing else works, sync files from GPUs.
    fn default() -> Self {
        Self {
            in_flight: 3,
            input_timeout: Duration::from_secs(10),
            strategies: Strategy::LIST.to_vec(),
            environment: true,
            push: Push::default(),
            sync_files: SyncFiles::default(),
        }
    }
}

impl Options {
    /// With this many copies under way at a time.
    #[must_use]
    pub fn in_flight(mut self, in_flight: usize) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// With this time for the fences that the CPU waits for.
    #[must_use]
    pub fn input_timeout(mut self, input_timeout: Duration) -> Self {
        self.input_timeout = input_timeout;
        self
    }

    /// With these strategies to choose from.
    #[must_use]
    pub fn strategies(mut self, strategies: impl IntoIterator<Item = Strategy>) -> Self {
        self.strategies = strategies.into_iter().collect();
        self
    }

    /// With or without a look at `PRIMESHARE_BLIT`.
    #[must_use]
    pub fn environment(mut self, environment: bool) -> Self {
        self.environment = environment;
        self
    }

    /// With this rule for imports of the destination by the source's GPU.
    #[must_use]
    pub fn push(mut self, push: Push) -> Self {
        self.push = push;
        self
    }

    /// With sync files from these GPUs.
    #[must_use]
    pub fn sync_files(mut self, sync_files: SyncFiles) -> Self {
        self.sync_files = sync_files;
        self
    }

    /// The strategies that may be used. [`Error::NoStrategies`] where that is none.
    pub(super) fn allowed(&self) -> Result<Allowed, Error> {
        let forced = match self.environment {
            true => std::env::var(VARIABLE).ok().and_then(|names| named(&names)),
            false => None,
        };
        let named = forced.as_ref().unwrap_or(&self.strategies);
        let is_allowed = |strategy: &Strategy| {
            named.contains(strategy) && !(strategy.is_push() && self.push == Push::Never)
        };
        let allowed: Allowed = Strategy::LIST.into_iter().filter(is_allowed).collect();
        match allowed.is_empty() {
            true => Err(Error::NoStrategies),
            false => Ok(allowed),
        }
    }
}

/// The strategies of these names; `None` where there are none.
fn named(names: &str) -> Option<Vec<Strategy>> {
    let known = names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let known = known.filter_map(|name| match name.parse::<Strategy>() {
        Ok(strategy) => Some(strategy),
        Err(unknown) => {
            log::warn!("{VARIABLE}: {unknown}");
            None
        }
    });
    Some(known.collect()).filter(|known: &Vec<_>| !known.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_unknown_are_left_out() {
        assert_eq!(
            named("pull, cpu"),
            Some(vec![Strategy::Pull, Strategy::Cpu])
        );
        assert_eq!(named("teleport,cpu"), Some(vec![Strategy::Cpu]));
        assert_eq!(named("teleport"), None);
        assert_eq!(named(" , "), None);
    }

    #[test]
    fn a_screens_buffer_is_never_pushed_into() {
        let options = |strategies: &[Strategy], push| {
            let options = Options::default().environment(false).push(push);
            options.strategies(strategies.iter().copied())
        };
        let both = [Strategy::Push, Strategy::Cpu];
        let allowed = |push| options(&both, push).allowed().unwrap();
        assert_eq!(allowed(Push::Never)[..], [Strategy::Cpu]);
        assert_eq!(allowed(Push::Last)[..], [Strategy::Cpu, Strategy::Push]);
        let none = options(&[Strategy::Push], Push::Never).allowed();
        assert_eq!(none, Err(Error::NoStrategies));
    }
}
