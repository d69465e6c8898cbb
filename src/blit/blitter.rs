//! The [`Blitter`]: checks what a caller passes in and hands the copy to `run`.
//!
//! Everything public here returns without waiting for a GPU, unless its name says `wait`.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::choose::Allowed;
use super::choose::SavedError;
use super::copy::frame::Frame;
use super::copy::method;
use super::copy::pixels::{Relation, relation};
use super::damage::{Damage, prepare, snap};
use super::run::completion::Completion;
use super::run::engine::{Engine, asker, before_trials};
use super::run::pair::Pair;
use super::run::queue::{MOST_SIGNALS, Stream};
use super::run::thread::Thread;
use super::run::trials_end::TrialsEnd;
use super::run::waits::MAX_WAITS;
use super::run::worker::{self, Request, Shared};
use super::upright::Asked;
use super::verdict::{Verdict, imports};
use super::{BlitDevice, Error, Options, Scaling, Statistics, YcbcrEncoding, check, check_sizes};
use crate::buffer::{DmaBuf, FormatInfo};
use crate::gem;
use crate::sync::{Deadline, Syncobj};
use crate::sys::process::Owner;

/// How long drop waits for copies that are being executed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What describes one copy besides its buffers. The default copies the whole picture after the fences in the
/// dma-bufs.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlitInfo<'a> {
    /// Which parts of the source have changed, counted from the picture's top left corner. Outside of them, the
    /// destination stays as it is, unless
    /// there are more than sixteen boxes (they are merged) or the format shares colours between pixels.
    pub damage: Damage<'a>,
    /// What the copy begins after, besides the fences in the dma-bufs: fds that become readable, as sync
    /// files do when they are signalled (with an error or without: a writer that has failed will not
    /// write any more). They are borrowed; dups are kept until then. At most four.
    pub after: &'a [BorrowedFd<'a>],
    /// Syncobj points that are signalled when the copy is done, even if it failed. If the copy has a fence,
    /// the points get it at once, so that others can wait for it. At most four.
    pub signal: &'a [(&'a Syncobj, u64)],
    /// Which part of the source is shown in which part of the destination, and how it is turned and scaled.
    /// `None` shows all of the source in all of the destination, which must be of one size
    /// ([`Error::Size`]).
    pub scaling: Option<Scaling>,
    /// What the numbers of a YCbCr format mean, if it is converted to or from RGB.
    pub encoding: YcbcrEncoding,
    /// Copies of one stream happen in their order. Without one, copies into one buffer do. What one copy
    /// writes and another reads is kept in order always.
    pub stream: Option<Stream>,
}

impl<'a> BlitInfo<'a> {
    /// Of a source in which this has changed.
    #[must_use]
    pub fn damage(mut self, damage: Damage<'a>) -> Self {
        self.damage = damage;
        self
    }

    /// After these fds have become readable.
    #[must_use]
    pub fn after(mut self, after: &'a [BorrowedFd<'a>]) -> Self {
        self.after = after;
        self
    }

    /// With these syncobj points signalled at its end.
    #[must_use]
    pub fn signal(mut self, signal: &'a [(&'a Syncobj, u64)]) -> Self {
        self.signal = signal;
        self
    }

    /// With this part shown in that, turned and scaled.
    #[must_use]
    pub fn scaling(mut self, scaling: impl Into<Option<Scaling>>) -> Self {
        self.scaling = scaling.into();
        self
    }

    /// With this meaning of YCbCr numbers.
    #[must_use]
    pub fn encoding(mut self, encoding: YcbcrEncoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// In this stream.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<Option<Stream>>) -> Self {
        self.stream = stream.into();
        self
    }
}

/// Copies pictures from the buffers of one device to those of another, by the best way that works.
///
/// A copy is handed to a GPU, with the fences it is to wait for ([`SyncFiles`](super::SyncFiles)), or to
/// a thread of the blitter's, and a [`Completion`] comes back at once. Each waits for the fences given
/// with it and for those in the dma-bufs (implicit synchronisation). A fence that is never signalled
/// holds back its own stream only. Until a completion is done, what the destination shows is undefined.
///
/// Trials beside the copies find out what works, on private buffers like the real ones and on Vulkan devices
/// that may be lost. They neither import nor overwrite the program's buffers, with one exception: if no
/// private buffer like the source can be made (a camera's, for example), the source itself is read. Until
/// the trials are over, frames are made through host memory or by the CPU. If a strategy fails later, the
/// frame is made again by the next one, so no frame is lost. All blitters between the same two devices share
/// what they know. A blitter keeps only the buffers of copies under way, and a bounded amount of its own
/// staging memory.
///
/// `Send` and `Sync`. Drop cancels what has not begun and waits for what has, for ten seconds at most:
/// [`Self::close_wait`] has a deadline of the caller's.
pub struct Blitter {
    shared: Arc<Shared>,
    sides: [BlitDevice; 2],
    options: Options,
    allowed: Allowed,
    before_trials: Allowed,
    pair: Arc<Pair>,
    worker: Option<Thread>,
    process: Owner,
}

/// The most copies under way at a time.
const MOST_IN_FLIGHT: usize = 64;

impl Blitter {
    /// A blitter from buffers of one device to buffers of the other. Tries nothing yet, and makes no Vulkan
    /// device before one is needed. [`Error::NoStrategies`] if the options leave no strategy,
    /// [`Error::InFlight`] if they ask for no copies at a time or for more than 64.
    pub fn new(
        source: BlitDevice,
        destination: BlitDevice,
        options: &Options,
    ) -> Result<Self, Error> {
        if !(1..=MOST_IN_FLIGHT).contains(&options.in_flight) {
            return Err(Error::InFlight {
                given: options.in_flight,
                most: MOST_IN_FLIGHT,
            });
        }
        let options = options.clone();
        let allowed = options.allowed()?;
        let sides = [source, destination];
        let pair = Pair::of(&sides);
        let engine = Engine::new(sides.clone(), allowed.clone(), &options, pair.clone());
        let (shared, worker) = worker::spawn(engine, options.in_flight, options.input_timeout)?;
        Ok(Self {
            shared,
            before_trials: before_trials(&sides),
            sides,
            options,
            allowed,
            pair,
            worker: Some(worker),
            process: Owner::current(),
        })
    }

    /// Starts a copy and returns without waiting for a fence or a GPU. A tiny copy by the CPU (up to 64 KiB,
    /// or a quarter of a millisecond) is made here. lavapipe with
    /// [`SyncFiles::Always`](super::SyncFiles::Always) is the exception.
    ///
    /// Both buffers are kept until the copy is done; what is in `info` is borrowed for the call.
    ///
    /// [`Error::Busy`] while as many copies as asked for are under way: wait for an earlier one.
    /// [`Error::Size`], [`Error::Scaling`] and [`Error::Format`] if the pictures do not go together,
    /// [`Error::SameBuffer`] if they share memory, [`Error::Waits`] and [`Error::Signals`] for too many of
    /// either, [`Error::System`] for lack of fds, [`Error::OtherProcess`] in a forked child. After an error
    /// nothing was started and no point will be signalled.
    pub fn blit(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
        info: &BlitInfo<'_>,
    ) -> Result<Completion, Error> {
        if !self.process.is_here() {
            return Err(Error::OtherProcess);
        }
        let frame = frame(source, destination, info)?;
        if info.after.len() > MAX_WAITS {
            return Err(Error::Waits {
                given: info.after.len(),
                most: MAX_WAITS,
            });
        }
        if info.signal.len() > MOST_SIGNALS {
            return Err(Error::Signals {
                given: info.signal.len(),
                most: MOST_SIGNALS,
            });
        }
        let signals = info.signal.iter();
        let signals = signals.map(|(of, point)| ((*of).clone(), *point));
        self.shared.add(Request {
            frame,
            after: info.after,
            signals: signals.collect(),
            stream: info.stream,
        })
    }

    /// A stream for copies whose order matters. Streams of several blitters have nothing to do with each
    /// other.
    pub fn stream(&self) -> Stream {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Stream(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What is known by now of copies like this one. `None` before the first. Imports nothing, and asks no
    /// driver.
    pub fn verdict(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
        info: &BlitInfo<'_>,
    ) -> Option<Verdict> {
        let frame = frame(source, destination, info).ok()?;
        let names = [self.sides[0].name.as_str(), self.sides[1].name.as_str()];
        let asker = asker(
            &self.sides,
            &self.options,
            &self.allowed,
            &self.before_trials,
        );
        self.pair
            .records
            .verdict(names, &frame, &asker, Instant::now())
    }

    /// Has what may work for copies like this one tried, without making one, and returns at once: an fd that becomes
    /// readable when the trials have ended, for event loops. It is readable from the start if nothing has to be
    /// tried. Then ask [`Self::verdict`]; call again if that is not [settled](Verdict::settled), for example since
    /// [`Self::measure_again`] was called meanwhile.
    ///
    /// A trial that hangs counts as failed after ten seconds, or sixty with software Vulkan. If the last blitter
    /// between the two devices is dropped, or no thread can be started, the fd becomes readable, too: call it a limited
    /// number of times. [`Error::DevicesInUse`] if a copy has the devices at the moment, and something is to be tried.
    pub fn settle(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
        info: &BlitInfo<'_>,
    ) -> Result<TrialsEnd, Error> {
        if !self.process.is_here() {
            return Err(Error::OtherProcess);
        }
        let frame = frame(source, destination, info)?;
        let end = TrialsEnd::new().map_err(Error::System)?;
        let were_asked_for = self.shared.want_trials(&frame);
        let are_being_made = self.pair.tell_at_end(&frame, &end);
        let are_over = || {
            let verdict = self.verdict(source, destination, info);
            verdict.is_some_and(|verdict| verdict.settled)
        };
        match were_asked_for || are_being_made || are_over() {
            true => Ok(end),
            false => Err(Error::DevicesInUse),
        }
    }

    /// As [`Self::settle`], and waits until all has been tried or the deadline has come; [`Verdict::settled`] is
    /// `false` in that case. For a program that wants to know before its first frame.
    pub fn settle_wait(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
        info: &BlitInfo<'_>,
        deadline: impl Into<Deadline>,
    ) -> Result<Verdict, Error> {
        if !self.process.is_here() {
            return Err(Error::OtherProcess);
        }
        let deadline = deadline.into();
        let frame = frame(source, destination, info)?;
        loop {
            self.shared.want_trials(&frame);
            let known = self.verdict(source, destination, info);
            let left = deadline.left();
            let is_over = left.is_some_and(|left| left.is_zero());
            if let Some(verdict) = known
                && (verdict.settled || is_over)
            {
                return Ok(verdict);
            }
            let moment = Duration::from_millis(100);
            self.pair.wait_for_news(left.unwrap_or(moment).min(moment));
        }
    }

    /// Imports each buffer by PRIME on the other side's DRM device, and gives the answers, as in
    /// [`Verdict::imports`]: first the destination's device for the source's buffer, then the other way
    /// round. `None` for a side without a DRM device. Both imports end with the call, but a driver may have
    /// moved a buffer meanwhile, and waits for the GPU if it does.
    pub fn ask_drivers(
        &self,
        source: &DmaBuf,
        destination: &DmaBuf,
    ) -> [Option<Result<(), gem::Error>>; 2] {
        imports(&self.sides, source, destination)
    }

    /// Has everything tried and measured again beside the copies, which go on as before. For changed
    /// conditions: after a resume from suspend, or when another device was plugged in.
    pub fn measure_again(&self) {
        self.pair.records.expire();
        let gpus = self.sides.iter().filter_map(|side| match &side.gpu {
            super::Gpu::Host(device) => Some(device),
            _ => None,
        });
        gpus.for_each(crate::vk::Device::forget_refusals);
    }

    /// What is known of all copies between these devices, as text for [`Self::load_records`] at the
    /// program's next start.
    pub fn save_records(&self) -> String {
        self.pair.records.save(&self.devices())
    }

    /// Takes over what [`Self::save_records`] gave, for buffers of which nothing is known yet.
    /// [`SavedError::OtherDevices`] if it was saved for other devices or driver versions.
    pub fn load_records(&self, saved: &str) -> Result<(), SavedError> {
        let software = [0, 1].map(|end: usize| self.sides[end].is_software());
        self.pair.records.load(saved, &self.devices(), software)
    }

    /// The devices and their drivers, in one line.
    fn devices(&self) -> String {
        let line = self.sides.iter().map(|side| {
            let drm = side.drm.as_ref().map_or("-", |drm| drm.driver());
            let gpu = side.physical().map(|physical| {
                let driver = physical.driver_version();
                format!("{} {driver:x}", physical.name())
            });
            format!("{drm} {}", gpu.as_deref().unwrap_or("-"))
        });
        line.collect::<Vec<_>>().join(" to ").replace('\n', " ")
    }

    /// The DRM device that it copies to, if it has one.
    #[cfg(feature = "kms")]
    pub(crate) fn destination(&self) -> Option<&crate::Device> {
        self.sides[1].drm.as_ref()
    }

    /// What this blitter has done so far. Does not wait.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// Cancels copies that have not begun and waits for those that have. [`Error::StillRunning`] if some
    /// have not ended at the deadline: they are left to the blitter's thread, with what they use.
    pub fn close_wait(mut self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        match deadline.into() {
            Deadline::At(instant) => self.close(instant),
            Deadline::Never => self.close(Instant::now() + Duration::from_secs(1 << 30)),
        }
    }

    fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        let Some(worker) = self.worker.take() else {
            return Ok(());
        };
        if !self.process.is_here() {
            // The thread is the parent's.
            worker.forget();
            return Ok(());
        }
        self.pair.end_by(deadline);
        self.shared.close();
        match worker.join_until(deadline) {
            true => Ok(()),
            false => Err(Error::StillRunning),
        }
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
        if let Err(error) = self.close(Instant::now() + PATIENCE) {
            log::error!("a blitter is dropped: {error}");
        }
    }
}

/// Checks what was given.
fn frame(source: &DmaBuf, destination: &DmaBuf, info: &BlitInfo<'_>) -> Result<Frame, Error> {
    check(source, destination)?;
    let asked = Asked::in_memory(source, destination, info.damage, info.scaling)?;
    let damage = asked.damage();
    let (from, to) = (source.fourcc(), destination.fourcc());
    if relation(from, to) == Relation::Different {
        return Err(Error::Format { from, to });
    }
    let size = |buffer: &DmaBuf| (buffer.width(), buffer.height());
    let (source_size, size) = (size(source), size(destination));
    let rects = match &asked.scaling {
        None => {
            check_sizes(source, destination)?;
            let (from, to) = (grid(source), grid(destination));
            prepare(damage, size, (from.0.max(to.0), from.1.max(to.1)))
        }
        Some(scaling) => {
            scaling.check(source_size, size, method::grid(to))?;
            let changed = match damage {
                Damage::Full => [scaling.destination].into_iter().collect(),
                Damage::Boxes(_) => prepare(damage, source_size, (1, 1)),
            };
            let shown = changed.iter().map(|part| match damage {
                Damage::Full => *part,
                Damage::Boxes(_) => scaling.damaged(*part),
            });
            snap(shown, size, grid(destination))
        }
    };
    let mut frame = Frame::new(source.clone(), destination.clone(), rects);
    frame.scaling = asked.scaling;
    frame.encoding = info.encoding;
    let fields = [source, destination].map(|buffer| buffer.flags().fields());
    if fields[0] != fields[1] || (!fields[0].is_empty() && frame.is_resampled()) {
        let (from, to) = (source.flags(), destination.flags());
        return Err(Error::Flags { from, to });
    }
    Ok(frame)
}

/// The grid, in pixels, on which parts of a picture have to begin and end to be copied.
fn grid(buffer: &DmaBuf) -> (u32, u32) {
    let Some(info) = FormatInfo::of(buffer.fourcc()) else {
        // Nothing is known of the pixels, so only all of them are copied.
        return (u32::MAX, u32::MAX);
    };
    let (across, down) = info.chroma;
    let blocks = info
        .planes
        .iter()
        .map(|plane| plane.block_width * plane.horizontal);
    (blocks.fold(across, |a, b| a.max(b)), down)
}
