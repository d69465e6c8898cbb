use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::choose::trials::{Allowed, Records};
use super::copy::frame::Frame;
use super::copy::pixels::{Relation, relation};
use super::damage::{Rect, prepare};
use super::run::engine::Engine;
use super::run::fence::Fence;
use super::run::waits::MAX_WAITS;
use super::run::worker::{self, Shared};
use super::strategy::Strategy;
use super::verdict::{Verdict, imports};
use super::{Error, check};
use crate::buffer::{DmaBuf, FormatInfo};
use crate::sys::process::Owner;
use crate::{device, vk};

/// The environment variable that forces a strategy.
const VARIABLE: &str = "PRIMESHARE_BLIT";

/// A device that takes part in copies: as much of it as there is.
#[derive(Clone, Debug)]
pub struct Side {
    /// For people.
    pub name: String,
    /// The DRM device whose buffers they are. With it memory for staging can be made there.
    pub drm: Option<device::Device>,
    /// The Vulkan device that imports for it, usually the same GPU's. Without one the processor
    /// copies.
    pub vulkan: Option<vk::Device>,
}

impl Side {
    /// A DRM device, named after it.
    pub fn new(drm: &device::Device, vulkan: Option<&vk::Device>) -> Self {
        Self {
            name: drm.to_string(),
            drm: Some(drm.clone()),
            vulkan: vulkan.cloned(),
        }
    }
}

/// How a [`Blitter`] works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Copies under way at a time: from one to 64. An fd is kept for each.
    pub in_flight: usize,
    /// How long a copy waits for its fences before it fails.
    pub patience: Duration,
    /// The strategies to choose from, in any order. For debugging, the environment variable
    /// `PRIMESHARE_BLIT` goes before it: [names](Strategy::name) with commas between them.
    pub strategies: Vec<Strategy>,
    /// From which GPUs sync files are wanted.
    pub sync_files: SyncFiles,
}

/// From which GPUs a [`Blitter`] wants a sync file for each copy.
///
/// With sync files the caller hands a copy to the GPU right away, where it is settled which one
/// makes it (or both, the second waiting for the first one's sync file), with the fences it is to
/// wait for; the copy's own fence is there before it is made ([`Fence::sync_file`]), for KMS
/// (`IN_FENCE_FD`), a Wayland client or another driver, and in the dma-bufs for those who
/// synchronise implicitly.
///
/// What is handed over cannot be taken back. The GPU waits for its fences without a deadline, and
/// so does the end of the [`Blitter`]. Where the GPU fails after all, the picture is made again by
/// another strategy, but only after the sync file was signalled: source and destination must stay
/// as they are until the [`Fence`] is, which comes a moment later and is the end of the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncFiles {
    /// From none. Nobody sees the end of a copy before the whole picture is there.
    #[default]
    Never,
    /// From GPUs, not from Vulkan devices that are the processor.
    Hardware,
    /// From all that have them. lavapipe (up to 26.1 at least) has one of a copy only when it is
    /// done, so that [`Blitter::blit`] waits for the copy, and for what that waits for; meanwhile
    /// no other copy's fence is signalled. For tests.
    Always,
}

impl Default for Options {
    /// Three in flight, ten seconds of patience, all strategies, no sync files.
    fn default() -> Self {
        Self {
            in_flight: 3,
            patience: Duration::from_secs(10),
            strategies: Strategy::ALL.to_vec(),
            sync_files: SyncFiles::Never,
        }
    }
}

/// Copies pictures from the buffers of one device to those of another, by the best way that works.
///
/// A copy is handed to a thread of its own, or to a GPU ([`SyncFiles`]), and a [`Fence`] comes back
/// at once. Copies happen in their order; each waits for the fences given with it and for those in
/// the dma-bufs (implicit synchronisation), and its fence is signalled when the whole picture is
/// there. What works is found out with the first frames, which take the longer way through every
/// strategy: each is tried with a real frame, over pixels made wrong before, and compared with what
/// was sent; then timed. When one fails later, the frame at hand is made by the next, so no frame
/// is lost. Until its fence is signalled, what the destination shows is undefined. Nothing is kept
/// alive by it but buffers under way and its own memory for staging.
///
/// `Send` and `Sync`. Drop cancels what has not begun and waits for what has.
pub struct Blitter {
    shared: Arc<Shared>,
    sides: [Side; 2],
    records: Records,
    allowed: Allowed,
    worker: Option<JoinHandle<()>>,
    process: Owner,
}

impl Blitter {
    /// Copies from buffers of one side to buffers of the other. Tries nothing yet.
    pub fn new(source: Side, destination: Side, options: &Options) -> Result<Self, Error> {
        let allowed = allowed(options)?;
        let in_flight = options.in_flight.clamp(1, 64);
        let records = Records::default();
        let sides = [source, destination];
        let engine = Engine::new(
            sides.clone(),
            allowed.clone(),
            in_flight,
            options,
            records.clone(),
        )?;
        let (shared, worker) = worker::spawn(engine, in_flight, options.patience)?;
        Ok(Self {
            shared,
            sides,
            records,
            allowed,
            worker: Some(worker),
            process: Owner::current(),
        })
    }

    /// Starts a copy of the damaged parts of `source`, or of all of it where `damage` is empty,
    /// and returns at once with a fence that is signalled when it is done.
    ///
    /// It begins when all of `after` are readable, as sync files are when they are signalled (with
    /// an error or without: a writer that has failed will not write any more), and when the devices
    /// that have left a fence in the dma-bufs are done: the source's writers and the destination's
    /// users. The fds are borrowed: dups are kept until then. Pixels outside the damage stay as
    /// they are, unless there are more than sixteen rectangles (they are merged) or the format
    /// shares colours between pixels. [`Error::Busy`] while as many copies as asked for are under
    /// way: wait for an earlier fence.
    pub fn blit(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
        damage: &[Rect],
        after: &[BorrowedFd<'_>],
    ) -> Result<Fence, Error> {
        let frame = frame(source, destination, damage)?;
        if after.len() > MAX_WAITS {
            return Err(Error::Waits {
                given: after.len(),
                most: MAX_WAITS,
            });
        }
        self.shared.add(frame, after)
    }

    /// What is known by now of copies like this one; `None` before the first.
    ///
    /// Asks the DRM devices what they say to each other's buffers: an import each, which ends with
    /// the call.
    pub fn verdict(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
        damage: &[Rect],
    ) -> Option<Verdict> {
        let frame = frame(source, destination, damage).ok()?;
        let known = self.records.verdict(&self.sides, &frame, &self.allowed)?;
        let imports = imports(&self.sides, source, destination);
        Some(Verdict { imports, ..known })
    }

    /// Forgets what works and how fast, so that everything is tried again.
    pub fn probe_again(&self) {
        self.records.forget();
        let devices = self.sides.iter().filter_map(|side| side.vulkan.as_ref());
        devices.for_each(vk::Device::forget_refusals);
    }
}

impl fmt::Debug for Blitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blitter")
            .field("source", &self.sides[0].name)
            .field("destination", &self.sides[1].name)
            .finish_non_exhaustive()
    }
}

impl Drop for Blitter {
    fn drop(&mut self) {
        if !self.process.is_here() {
            // The thread is the parent's.
            std::mem::forget(self.worker.take());
            return;
        }
        self.shared.close();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            log::error!("the blit thread has panicked");
        }
    }
}

fn allowed(options: &Options) -> Result<Allowed, Error> {
    let named: Vec<Strategy> = match std::env::var(VARIABLE) {
        Ok(names) if !names.is_empty() => {
            let names = names.split(',').map(|name| name.trim().parse());
            names.collect::<Result<_, _>>()?
        }
        _ => options.strategies.clone(),
    };
    let all = Strategy::ALL.into_iter();
    Ok(all.filter(|strategy| named.contains(strategy)).collect())
}

/// Checks what was given.
fn frame(source: &DmaBuf, destination: &DmaBuf, damage: &[Rect]) -> Result<Frame, Error> {
    check(source, destination)?;
    let (from, to) = (source.fourcc(), destination.fourcc());
    if relation(from, to) == Relation::Different {
        return Err(Error::Format { from, to });
    }
    let size = (source.width(), source.height());
    Ok(Frame {
        rects: prepare(damage, size, grid(source)),
        source: source.clone(),
        destination: destination.clone(),
    })
}

/// The steps in which parts of a picture can be copied at all.
fn grid(buffer: &DmaBuf) -> (u32, u32) {
    let Some(info) = FormatInfo::of(buffer.fourcc()) else {
        // Nothing is known of the pixels, so only all of them are copied.
        return (u32::MAX, u32::MAX);
    };
    let (across, down) = info.chroma;
    let blocks = info.planes.iter().map(|plane| plane.block_width);
    (blocks.fold(across, |a, b| a.max(b)), down)
}
