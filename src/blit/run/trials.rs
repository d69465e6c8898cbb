//! Trials of strategies: on private buffers, on Vulkan devices that may be lost, by a thread of their own
//! beside the copies.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::thread::Thread;
use super::trials_end::{TrialsEnd, Waiting};
use crate::blit::Failure;
use crate::blit::choose::Allowed;
use crate::blit::choose::cost::Cost;
use crate::blit::choose::records::{Kind, Records, Tried};
use crate::blit::copy::copier::{Copier, For, whole};
use crate::blit::copy::cpu::{Destination, Maps, Source};
use crate::blit::copy::frame::Frame;
use crate::blit::copy::host::HostPicture;
use crate::blit::copy::likeness::{self, Difference};
use crate::blit::copy::pattern;
use crate::blit::copy::place::Place;
use crate::blit::copy::private::{self, Model};
use crate::blit::damage::Rect;
use crate::blit::options::{BlitDevice, Gpu, SyncFiles};
use crate::blit::strategy::Strategy;
use crate::blit::{Scaling, YcbcrEncoding};
use crate::buffer::{DmaBuf, FormatInfo};
use crate::sync::{Access, BufferMapping};
use crate::vk;

/// The sizes of trials in pixels. Two sizes tell the fixed cost of a copy from the cost of its bytes.
const SMALL: (u32, u32) = (128, 128);
const MIDDLE: (u32, u32) = (512, 512);
/// Used instead of [`MIDDLE`] if the real pictures are larger than that.
const LARGE: (u32, u32) = (1024, 1024);
/// How many times copies are timed at each size: at most and at least.
const SAMPLES: (usize, usize) = (5, 2);
/// How many copies are timed together.
const AT_ONCE: usize = 2;
/// After this time no more copies of a size are timed, but for the least number.
const TIME: Duration = Duration::from_millis(50);
/// How long a trial may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same of Vulkan devices that are the CPU, which may have other things to do: a shader is compiled there.
const SOFTWARE_PATIENCE: Duration = Duration::from_secs(60);
/// The thread's niceness: trials must not slow down real copies.
const NICE: i32 = 10;

/// What is to be tried.
struct Request {
    kind: Kind,
    /// What private buffers for source and destination are to be like.
    models: [Model; 2],
    /// The real source. It is read if no private buffer like it can be made.
    source: DmaBuf,
    /// The scaling of the real frame.
    scaling: Option<Scaling>,
    encoding: YcbcrEncoding,
    allowed: Allowed,
}

#[derive(Default)]
struct State {
    wanted: VecDeque<Request>,
    /// Those who are told when trials end.
    waiting: Waiting,
    closing: bool,
}

/// The thread that makes trials for a pair of devices. It has Vulkan devices only while there is something
/// to try.
pub(super) struct Trials {
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
}

struct Shared {
    sides: [BlitDevice; 2],
    records: Arc<Records>,
    state: Mutex<State>,
    /// Notified when a request arrives and when a trial has ended.
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.lock().closing
    }

    fn next(&self) -> Option<Request> {
        self.lock().wanted.pop_front()
    }

    /// Waits for a request. `false` if the thread is to end.
    fn wait_for_more(&self) -> bool {
        let idle = |state: &mut State| state.wanted.is_empty() && !state.closing;
        let waited = self.changed.wait_while(self.lock(), idle);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        !state.closing
    }

    /// Notes that the trials of a kind have ended, and tells those who wait for that.
    fn trials_over(&self, kind: &Kind) {
        self.records.trials_over(kind);
        self.lock().waiting.tell(kind);
        self.changed.notify_all();
    }

    /// Wakes those who wait for news. The lock is taken so that none of them is between its look and its
    /// sleep.
    fn tell(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }
}

impl Trials {
    pub(super) fn new(sides: [BlitDevice; 2], records: Arc<Records>) -> Self {
        Self {
            shared: Arc::new(Shared {
                sides,
                records,
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            thread: Mutex::new(None),
        }
    }

    /// Asks for the trials that frames like this one still need. Does not wait.
    pub(super) fn want(&self, frame: &Frame, allowed: &Allowed) {
        let kind = Kind::of(frame);
        let request = Request {
            kind,
            models: [&frame.source, &frame.destination].map(Model::of),
            source: frame.source.clone(),
            scaling: frame.scaling,
            encoding: frame.encoding,
            allowed: allowed.clone(),
        };
        self.shared.lock().wanted.push_back(request);
        self.shared.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return;
        }
        let shared = self.shared.clone();
        let started = Thread::spawn("primeshare trial", move || {
            crate::sys::thread::be_nice(NICE);
            work(&shared);
        });
        match started {
            Ok(started) => *thread = Some(started),
            Err(errno) => {
                log::error!("no thread to try strategies: {errno}");
                let wanted = std::mem::take(&mut self.shared.lock().wanted);
                for request in wanted {
                    self.shared.trials_over(&request.kind);
                }
                self.shared.trials_over(&kind);
            }
        }
    }

    /// Tells `end` when the trials for frames like this one end. Tells it now and answers `false` if none are
    /// being made.
    pub(super) fn tell_at_end(&self, frame: &Frame, end: &TrialsEnd) -> bool {
        let kind = Kind::of(frame);
        // While the state is locked, `trials_over` tells nobody: it is told here or there.
        let mut state = self.shared.lock();
        let is_in_trial = self.shared.records.is_in_trial(&kind);
        match is_in_trial {
            true => state.waiting.add(kind, end),
            false => end.tell(),
        }
        is_in_trial
    }

    /// Waits until a trial has ended, or for the timeout.
    pub(super) fn wait_for_news(&self, timeout: Duration) {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout(state, timeout);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the thread after the copy that it is making. `false` if it still runs at the deadline.
    pub(super) fn close_wait(&self, deadline: Instant) -> bool {
        {
            let mut state = self.shared.lock();
            state.closing = true;
            state.wanted.clear();
            state.waiting.tell_all();
        }
        self.shared.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match thread.take() {
            None => true,
            Some(thread) => thread.join_until(deadline),
        }
    }

    /// Forgets the thread, for a forked child: it belongs to the parent.
    pub(super) fn forget(&mut self) {
        let thread = self.thread.get_mut();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() {
            thread.forget();
        }
    }
}

/// The thread: serves the requests one after the other.
fn work(shared: &Shared) {
    loop {
        // The bench makes Vulkan devices for the first request. They are dropped when there is none left.
        let mut bench = Bench::new(&shared.sides);
        while let Some(request) = shared.next() {
            bench.all(shared, &request);
            shared.trials_over(&request.kind);
        }
        drop(bench);
        if !shared.wait_for_more() {
            return;
        }
    }
}

/// Where strategies are tried.
struct Bench {
    copier: Copier,
    scratch: Vec<u8>,
}

/// Buffers to try with.
struct Pair {
    frame: Frame,
    /// Whether the source is a private buffer, which shows the pattern.
    is_private: bool,
}

impl Bench {
    fn new(sides: &[BlitDevice; 2]) -> Self {
        let sides = sides.clone();
        let patience = match sides.iter().any(BlitDevice::is_software) {
            true => SOFTWARE_PATIENCE,
            false => PATIENCE,
        };
        Self {
            copier: Copier::new(sides, For::Trials, AT_ONCE, patience, SyncFiles::Never),
            scratch: Vec::new(),
        }
    }

    /// Tries every strategy that the request still needs tried, in order of trust.
    fn all(&mut self, shared: &Shared, request: &Request) {
        let mut pairs: [Option<Result<Pair, Failure>>; 2] = [None, None];
        let to_try = shared
            .records
            .to_try(&request.kind, &request.allowed, Instant::now());
        for strategy in to_try {
            if shared.is_closing() {
                return;
            }
            let tried = self.one(shared, request, strategy, &mut pairs);
            if shared.is_closing() {
                return;
            }
            shared
                .records
                .tried(&request.kind, strategy, tried, Instant::now());
            shared.tell();
        }
        // The imports are dropped with the buffers.
        drop(pairs);
        self.copier.keep_only(&Allowed::new());
    }

    /// Tries one strategy at two sizes. `pairs` keeps the buffers for the next strategy.
    fn one(
        &mut self,
        shared: &Shared,
        request: &Request,
        strategy: Strategy,
        pairs: &mut [Option<Result<Pair, Failure>>; 2],
    ) -> Tried {
        let mut cost = Cost::default();
        let mut verified = true;
        let layout = &request.models[1].layout;
        let pixels = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        let large = match pixels((layout.width, layout.height)) > pixels(MIDDLE) {
            true => LARGE,
            false => MIDDLE,
        };
        for (size, pair) in [SMALL, large].into_iter().zip(pairs) {
            let pair = pair.get_or_insert_with(|| self.pair(request, size));
            let pair = match pair {
                Ok(pair) => pair,
                Err(failure) => return Tried::Untestable(failure.clone()),
            };
            if shared.is_closing() {
                return Tried::Failed(Failure::Cancelled);
            }
            match self.copy(pair, strategy, &mut cost) {
                Ok(is_verified) => verified &= is_verified,
                Err(failure) => return Tried::Failed(failure),
            }
        }
        Tried::Works { verified, cost }
    }

    /// Private buffers of a size. If none like the source can be made, the real source is read instead.
    fn pair(&mut self, request: &Request, size: (u32, u32)) -> Result<Pair, Failure> {
        let [from, to] = &request.models;
        let (source, is_private) = match self.like(0, from, size) {
            Ok(source) => (source, true),
            Err(why) => {
                log::debug!("no buffer like the source ({why}): it is read instead");
                (request.source.clone(), false)
            }
        };
        let size = (source.width(), source.height());
        let destination = self
            .like(1, to, size)
            .map_err(|why| Failure::NoPrivateBuffer {
                end: "destination",
                why,
            })?;
        if is_private {
            self.write(0, &source, pattern::fill)?;
        }
        let all = [Rect::whole(size.0, size.1)].into_iter().collect();
        let mut frame = Frame::new(source, destination, all);
        frame.encoding = request.encoding;
        // Turned and filtered as the real frame, and scaled if the real one is.
        frame.scaling = request.scaling.map(|scaling| Scaling {
            source: match scaling.scales() {
                true => Rect::whole((3 * size.0).div_ceil(4), (3 * size.1).div_ceil(4)),
                false => Rect::whole(size.0, size.1),
            },
            destination: Rect::whole(size.0, size.1),
            ..scaling
        });
        Ok(Pair { frame, is_private })
    }

    /// A private buffer of this size for one end.
    fn like(&mut self, end: usize, model: &Model, size: (u32, u32)) -> Result<DmaBuf, String> {
        let side = self.copier.sides()[end].clone();
        let device = match side.gpu {
            Gpu::None => None,
            _ => self.copier.device(end).ok(),
        };
        private::like(model, size, &side, device)
    }

    /// Copies once and compares the picture that arrives, then copies several times and adds to `cost` how
    /// long that takes. Says whether the picture could be compared.
    fn copy(&mut self, pair: &Pair, strategy: Strategy, cost: &mut Cost) -> Result<bool, Failure> {
        let frame = &pair.frame;
        let is_poisoned =
            pair.is_private && self.write(1, &frame.destination, pattern::poison).is_ok();
        self.copier.run(frame, strategy)?;
        let verified = match (is_poisoned, frame.is_resampled()) {
            (false, _) => false,
            (true, false) => self.verify(frame)?,
            (true, true) => self.verify_resampled(frame)?,
        };
        let start = Instant::now();
        for sample in 0..SAMPLES.0 {
            if sample >= SAMPLES.1 && start.elapsed() > TIME {
                break;
            }
            // Several copies at once, so that the time is the GPU's and not that of waking a thread.
            let start = Instant::now();
            self.copier.run_many(frame, strategy, AT_ONCE)?;
            cost.add(frame.bytes(), start.elapsed() / AT_ONCE as u32);
        }
        Ok(verified)
    }

    /// The GPU of one end, by which its buffers are read and written. `None` if the end has no GPU: its
    /// buffers are mapped instead.
    fn gpu(&mut self, end: usize) -> Option<&vk::Device> {
        match self.copier.has_gpu(end) {
            true => self.copier.device(end).ok(),
            false => None,
        }
    }

    /// Fills a private buffer with rows, by the GPU of its own end if there is one.
    fn write(
        &mut self,
        end: usize,
        buffer: &DmaBuf,
        row: impl Fn(crate::buffer::Fourcc, usize, usize, &mut [u8]),
    ) -> Result<(), Failure> {
        let fourcc = buffer.fourcc();
        let Some(device) = self.gpu(end) else {
            return map_and_write(buffer, |plane, at, bytes| row(fourcc, plane, at, bytes));
        };
        let mut host = HostPicture::upload(device, buffer.desc()).map_err(Failure::Vulkan)?;
        for_each_row(&mut host, |plane, at, bytes| row(fourcc, plane, at, bytes));
        host.flush().map_err(Failure::Vulkan)?;
        let host = Arc::new(host);
        let rects = [Rect::whole(buffer.width(), buffer.height())];
        let rects = rects.into_iter().collect();
        let ends = [Place::Host(&host), whole(buffer)];
        self.copier.run_by(end, ends, &rects)
    }

    /// Compares the destination, as its GPU sees it, with the pattern. An error if they differ, `false` if
    /// the destination cannot be read.
    fn verify(&mut self, frame: &Frame) -> Result<bool, Failure> {
        let buffer = &frame.destination;
        let formats = (frame.source.fourcc(), buffer.fourcc());
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut unlike = None;
        let mut look = |plane: usize, row: usize, bytes: &mut [u8]| {
            if unlike.is_none() {
                let found = pattern::first_difference(formats, (plane, row), bytes, &mut scratch);
                unlike = found.map(|byte| Failure::Unlike {
                    plane,
                    row: row as u32,
                    byte,
                });
            }
        };
        let looked = match self.gpu(1) {
            None => map_and_read(buffer, &mut look),
            Some(_) => self.read(buffer).and_then(|mut host| {
                host.bytes().map_err(Failure::Vulkan)?;
                for_each_row(&mut host, &mut look);
                Ok(())
            }),
        };
        self.scratch = scratch;
        match (unlike, looked) {
            (Some(unlike), _) => Err(unlike),
            (None, Ok(())) => Ok(true),
            (None, Err(failure)) => {
                log::debug!("a trial is not compared: {failure}");
                Ok(false)
            }
        }
    }

    /// The destination's picture, as its GPU sees it.
    fn read(&mut self, buffer: &DmaBuf) -> Result<HostPicture, Failure> {
        let device = self.copier.device(1)?;
        let host = HostPicture::download(device, buffer.desc());
        let host = Arc::new(host.map_err(Failure::Vulkan)?);
        let rects = [Rect::whole(buffer.width(), buffer.height())];
        let rects = rects.into_iter().collect();
        let ends = [whole(buffer), Place::Host(&host)];
        self.copier.run_by(1, ends, &rects)?;
        Arc::try_unwrap(host).map_err(|_| Failure::NoStrategy)
    }

    /// Compares the destination with the picture that the CPU makes. An error if they differ by more than
    /// rounding, `false` if they cannot be compared.
    fn verify_resampled(&mut self, frame: &Frame) -> Result<bool, Failure> {
        if self.gpu(1).is_none() {
            return Ok(false);
        }
        let compared = self.made_by_cpu(frame).and_then(|wanted| {
            let made = self.read(&frame.destination)?;
            let bytes = [&made, &wanted].map(HostPicture::bytes);
            let [made_bytes, wanted] = bytes.map(|bytes| bytes.map_err(Failure::Vulkan));
            let bytes = [made_bytes?, wanted?];
            let found = likeness::first_difference(made.picture(), bytes, frame.encoding);
            Ok(found)
        });
        match compared {
            Ok(None) => Ok(true),
            Ok(Some(Difference { plane, row, byte })) => Err(Failure::Unlike { plane, row, byte }),
            Err(failure) => {
                log::debug!("a trial is not compared: {failure}");
                Ok(false)
            }
        }
    }

    /// The picture that the CPU makes of the pattern, in host memory.
    fn made_by_cpu(&mut self, frame: &Frame) -> Result<HostPicture, Failure> {
        let device = self.copier.device(1)?;
        // The CPU reads both pictures, and memory for downloads is the fastest to read.
        let host = |buffer: &DmaBuf| HostPicture::download(device, buffer.desc());
        let mut source = host(&frame.source).map_err(Failure::Vulkan)?;
        let mut made = host(&frame.destination).map_err(Failure::Vulkan)?;
        let fourcc = frame.source.fourcc();
        for_each_row(&mut source, |plane, at, bytes| {
            pattern::fill(fourcc, plane, at, bytes);
        });
        source.flush().map_err(Failure::Vulkan)?;
        let ends = (Source::Host(&source), Destination::Host(&mut made));
        let (scaling, encoding) = (frame.scaling.as_ref(), frame.encoding);
        Maps::new().copy(ends.0, ends.1, &frame.rects, scaling, encoding)?;
        Ok(made)
    }
}

/// Calls `row` with the plane, the number and the bytes of each row of a picture in host memory.
fn for_each_row(host: &mut HostPicture, mut row: impl FnMut(usize, usize, &mut [u8])) {
    let layout = *host.picture().layout;
    let planes = host.picture().planes.to_vec();
    let Some(info) = FormatInfo::of(layout.fourcc) else {
        return;
    };
    let (_, bytes) = host.parts_mut();
    for (plane, (place, info)) in planes.iter().zip(info.planes).enumerate() {
        let length = info.row_bytes(layout.width).unwrap_or(0) as usize;
        for at in 0..info.rows(layout.height) as usize {
            let start = place.offset as usize + at * place.stride as usize;
            if let Some(bytes) = bytes.get_mut(start..start + length) {
                row(plane, at, bytes);
            }
        }
    }
}

fn map_and_write(
    buffer: &DmaBuf,
    mut row: impl FnMut(usize, usize, &mut [u8]),
) -> Result<(), Failure> {
    let mut map = BufferMapping::new(buffer).map_err(Failure::Cpu)?;
    let access = map.begin_wait(Access::Write, PATIENCE);
    let mut access = access.map_err(Failure::Cpu)?;
    let mut bytes = Vec::new();
    for plane in 0..buffer.planes().len() {
        let rows = access.plane_mut(plane).map_err(Failure::Cpu)?.into_rows();
        for (at, mut pixels) in rows.enumerate() {
            bytes.resize(pixels.bytes(), 0);
            row(plane, at, &mut bytes);
            pixels.write(0, &bytes).map_err(Failure::Cpu)?;
        }
    }
    access.end().map_err(Failure::Cpu)
}

fn map_and_read(
    buffer: &DmaBuf,
    mut row: impl FnMut(usize, usize, &mut [u8]),
) -> Result<(), Failure> {
    let mut map = BufferMapping::new(buffer).map_err(Failure::Cpu)?;
    let access = map.begin_wait(Access::Read, PATIENCE);
    let access = access.map_err(Failure::Cpu)?;
    let mut bytes = Vec::new();
    for plane in 0..buffer.planes().len() {
        let rows = access.plane(plane).map_err(Failure::Cpu)?;
        for (at, pixels) in rows.rows().enumerate() {
            bytes.resize(pixels.bytes(), 0);
            pixels.read(0, &mut bytes).map_err(Failure::Cpu)?;
            row(plane, at, &mut bytes);
        }
    }
    Ok(())
}
