use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::damage::{Rect, prepare};
use super::engine::{Allowed, Engine, Frame, Memory, Running, Started, lane_of};
use super::fence::{Fence, MAX_WAITS, Promise, Waits, are_ready, fence, wait_for};
use super::pixels::{Relation, relation};
use super::strategy::Strategy;
use super::verdict::Verdict;
use super::{Error, Failure, check};
use crate::buffer::{DmaBuf, FormatInfo, MAX_PLANES};
use crate::{device, sys, vk};

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
    /// Copies under way at a time: from one to 64.
    pub in_flight: usize,
    /// How long a copy waits for its fences before it fails.
    pub patience: Duration,
    /// The strategies to choose from, in any order. For debugging, the environment variable
    /// `PRIMESHARE_BLIT` goes before it: [names](Strategy::name) with commas between them.
    pub strategies: Vec<Strategy>,
}

impl Default for Options {
    /// Three in flight, ten seconds of patience, all strategies.
    fn default() -> Self {
        Self {
            in_flight: 3,
            patience: Duration::from_secs(10),
            strategies: Strategy::ALL.to_vec(),
        }
    }
}

/// Copies pictures from the buffers of one device to those of another, by the best way that works.
///
/// A copy is handed to a thread of its own and a [`Fence`] comes back at once. Copies happen in
/// their order; each waits for the fences given with it and for those in the dma-bufs (implicit
/// synchronisation), and its fence is signalled when the whole picture is there. What works is
/// found out with the first frames, which take the longer way through every strategy: each is
/// tried with a real frame, over pixels made wrong before, and compared with what was sent; then
/// timed. When one fails later, the frame at hand is made by the next, so no frame is lost. Until
/// its fence is signalled, what the destination shows is undefined. Nothing is kept alive by it but
/// buffers under way and its own memory for staging.
///
/// `Send` and `Sync`. Drop cancels what has not begun and waits for what has.
pub struct Blitter {
    shared: Arc<Shared>,
    sides: [Side; 2],
    memory: Memory,
    allowed: Allowed,
    in_flight: usize,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something was put into the queue.
    filled: Condvar,
    /// Readable when it is time to end.
    closing: EventFd,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Taken out of the queue and not done.
    running: usize,
    closing: bool,
}

struct Job {
    frame: Frame,
    waits: Waits,
    promise: Promise,
}

impl Blitter {
    /// Copies from buffers of one side to buffers of the other. Tries nothing yet.
    pub fn new(source: Side, destination: Side, options: &Options) -> Result<Self, Error> {
        let allowed = allowed(options)?;
        let in_flight = options.in_flight.clamp(1, 64);
        let memory = Memory::default();
        let sides = [source, destination];
        let engine = Engine::new(
            sides.clone(),
            allowed.clone(),
            in_flight,
            options.patience,
            memory.clone(),
        )?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: VecDeque::with_capacity(in_flight),
                ..Queue::default()
            }),
            filled: Condvar::new(),
            closing: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(Error::System)?,
        });
        let worker = Worker {
            shared: shared.clone(),
            engine,
            started: VecDeque::with_capacity(in_flight),
            in_flight,
            patience: options.patience,
        };
        let worker = std::thread::Builder::new()
            .name("primeshare blit".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| Error::System(sys::errno(error)))?;
        Ok(Self {
            shared,
            sides,
            memory,
            allowed,
            in_flight,
            worker: Some(worker),
        })
    }

    /// Starts a copy of the damaged parts of `source`, or of all of it where `damage` is empty,
    /// and returns at once with a fence that is signalled when it is done.
    ///
    /// It begins when all of `after` are readable, as sync files are when they are signalled, and
    /// when the devices that have left a fence in the dma-bufs are done: the source's writers and
    /// the destination's users. The fds are borrowed: dups are kept until then. Pixels outside the
    /// damage stay as they are, unless there are more than sixteen rectangles (they are merged) or
    /// the format shares colours between pixels. [`Error::Busy`] while as many copies as asked for
    /// are under way: wait for an earlier fence.
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
        let dup = |fd: &BorrowedFd<'_>| -> Result<OwnedFd, Error> {
            let dup = fd.try_clone_to_owned();
            dup.map_err(|error| Error::System(sys::errno(error)))
        };
        let waits = after.iter().map(dup).collect::<Result<Waits, _>>()?;
        let mut queue = self.shared.lock();
        if queue.jobs.len() + queue.running >= self.in_flight {
            return Err(Error::Busy(self.in_flight));
        }
        let (fence, promise) = fence().map_err(Error::System)?;
        queue.jobs.push_back(Job {
            frame,
            waits,
            promise,
        });
        drop(queue);
        self.shared.filled.notify_one();
        Ok(fence)
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
        self.memory.verdict(&self.sides, &frame, &self.allowed)
    }

    /// Forgets what works and how fast, so that everything is tried again.
    pub fn probe_again(&self) {
        self.memory.forget();
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
        self.shared.lock().closing = true;
        if let Err(errno) = self.shared.closing.write(1) {
            log::error!("cannot tell the blit thread to end: {errno}");
        }
        self.shared.filled.notify_one();
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that makes the copies.
struct Worker {
    shared: Arc<Shared>,
    engine: Engine,
    /// Being executed by a GPU, the oldest first.
    started: VecDeque<(Job, Option<Running>)>,
    in_flight: usize,
    patience: Duration,
}

impl Worker {
    fn run(mut self) {
        while let Some(job) = self.next() {
            match self.wait_for_inputs(&job) {
                Ok(()) => self.start(job),
                Err(failure) => {
                    // In order: those before it are done first.
                    self.finish_all();
                    self.keep(job, Err(failure));
                }
            }
        }
        self.finish_all();
    }

    /// The next frame. Meanwhile, what was started is finished. `None` when it is time to end.
    fn next(&mut self) -> Option<Job> {
        loop {
            if self.started.len() >= self.in_flight {
                self.finish_oldest();
            }
            let shared = self.shared.clone();
            let mut queue = shared.lock();
            loop {
                if queue.closing {
                    // What has not begun is cancelled by the promises' end.
                    let cancelled = std::mem::take(&mut queue.jobs);
                    drop(queue);
                    drop(cancelled);
                    return None;
                }
                if let Some(job) = queue.jobs.pop_front() {
                    queue.running += 1;
                    return Some(job);
                }
                if !self.started.is_empty() {
                    break;
                }
                queue = shared
                    .filled
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            drop(queue);
            self.finish_oldest();
        }
    }

    /// Waits for the job's fds and for the fences in its dma-bufs.
    fn wait_for_inputs(&mut self, job: &Job) -> Result<(), Failure> {
        const MOST: usize = MAX_WAITS + 2 * MAX_PLANES;
        let given = job.waits.iter().map(|fd| (fd.as_fd(), PollFlags::POLLIN));
        let readers = job.frame.source.objects().iter();
        let readers = readers.map(|object| (object.as_fd(), PollFlags::POLLIN));
        let writers = job.frame.destination.objects().iter();
        let writers = writers.map(|object| (object.as_fd(), PollFlags::POLLOUT));
        let fds: ArrayVec<_, MOST> = given.chain(readers).chain(writers).collect();
        let end = Instant::now().checked_add(self.patience);
        let outcome = loop {
            match are_ready(&fds) {
                Ok(true) => return Ok(()),
                // Nobody waits longer for the frames before because of this one.
                Ok(false) if !self.started.is_empty() => self.finish_oldest(),
                Ok(false) => {
                    let closing = self.shared.closing.as_fd();
                    break wait_for(&fds, end, Some(closing));
                }
                Err(errno) => break Err(errno),
            }
        };
        outcome.map_err(|errno| match errno {
            Errno::ETIMEDOUT => Failure::Deadline(self.patience),
            Errno::ECANCELED => Failure::Cancelled,
            errno => Failure::Poll(errno),
        })
    }

    fn start(&mut self, job: Job) {
        if job.frame.rects.is_empty() {
            self.finish_all();
            return self.keep(job, Ok(()));
        }
        let Some(strategy) = self.engine.settled(&job.frame) else {
            self.finish_all();
            let made = self.engine.make(&job.frame);
            return self.keep(job, made);
        };
        // Two GPUs know nothing of each other's order.
        let last = self
            .started
            .back()
            .and_then(|(_, running)| running.as_ref());
        if last.is_some_and(|last| Some(last.lane) != lane_of(strategy)) {
            self.finish_all();
        }
        match self.engine.start(&job.frame, strategy) {
            Ok(Started::Running(running)) => self.started.push_back((job, Some(running))),
            Ok(Started::Done) => self.started.push_back((job, None)),
            Err(_) => {
                self.finish_all();
                let made = self.engine.make(&job.frame);
                self.keep(job, made);
            }
        }
    }

    fn finish_oldest(&mut self) {
        let Some((job, running)) = self.started.pop_front() else {
            return;
        };
        let done = match running {
            Some(running) => self.engine.finish(&job.frame, running),
            None => Ok(()),
        };
        if done.is_ok() {
            return self.keep(job, Ok(()));
        }
        // The ones behind it are ended first, so that nothing of them comes after what is now
        // made again; then all of them are, in their order.
        let mut again = vec![job];
        while let Some((job, running)) = self.started.pop_front() {
            if let Some(running) = running {
                // Whether it worked does not matter: its frame is made again.
                let _ = self.engine.finish(&job.frame, running);
            }
            again.push(job);
        }
        for job in again {
            let made = self.engine.make(&job.frame);
            self.keep(job, made);
        }
    }

    fn finish_all(&mut self) {
        while !self.started.is_empty() {
            self.finish_oldest();
        }
    }

    fn keep(&mut self, job: Job, result: Result<(), Failure>) {
        // Room first: whoever sees the fence may want to start the next copy.
        self.shared.lock().running -= 1;
        let Job { frame, promise, .. } = job;
        drop(frame);
        promise.keep(result);
    }
}
