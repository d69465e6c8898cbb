//! The thread that makes copies, and what it shares with those who ask for them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::blit::copy::frame::Frame;
use crate::blit::run::engine::{Engine, Relay, Running, Step, Steps, is_relay};
use crate::blit::run::fence::{Fence, Fences, Promise};
use crate::blit::run::poll::{are_ready, wait_for};
use crate::blit::run::waits::{self, Waits};
use crate::blit::strategy::Strategy;
use crate::blit::{Error, Failure};
use crate::sync::SyncFile;
use crate::sys;
use crate::vk::DEADLINE;

/// The shortest wait for a GPU at a time.
const MOMENT: Duration = Duration::from_millis(100);

/// The engine is locked after the queue, and nobody waits long with the queue locked.
pub(in crate::blit) struct Shared {
    /// Before the queue: what is being executed ends before its promises do.
    engine: Mutex<Engine>,
    queue: Mutex<Queue>,
    /// Something was put into the queue.
    filled: Condvar,
    /// Readable when it is time to end.
    closing: EventFd,
    in_flight: usize,
    patience: Duration,
    /// Whether some copies can be started without the worker.
    sync_files: bool,
}

struct Queue {
    /// For the worker.
    waiting: VecDeque<Job>,
    /// Under way, the oldest first.
    started: VecDeque<(Job, Running)>,
    /// With the worker, who wants nobody to be faster.
    in_hand: usize,
    /// The worker waits for a GPU with the engine locked.
    engine_waits: bool,
    closing: bool,
    fences: Fences,
}

struct Job {
    frame: Frame,
    waits: Waits,
    promise: Promise,
}

impl Job {
    /// Lets go of the buffers, then says how it went.
    fn end(self, result: Result<(), Failure>) {
        let Self { frame, promise, .. } = self;
        drop(frame);
        promise.keep(result);
    }
}

impl Queue {
    fn under_way(&self) -> usize {
        self.waiting.len() + self.started.len() + self.in_hand
    }

    /// Whether a frame can be started beside the others that are under way. Two GPUs know nothing
    /// of each other's order.
    fn may_begin(&self, engine: &Engine, frame: &Frame, strategy: Strategy) -> bool {
        let comes_after = |(earlier, running): &(Job, Running)| {
            let by_one_gpu = matches!(running, Running::Submitted { between: None, .. });
            engine.may_follow(running, strategy) && (by_one_gpu || !earlier.frame.feeds(frame))
        };
        self.started.len() < engine.room(strategy) && self.started.iter().all(comes_after)
    }
}

/// Starts the thread. It ends after [`Shared::close`].
pub(in crate::blit) fn spawn(
    engine: Engine,
    in_flight: usize,
    patience: Duration,
) -> Result<(Arc<Shared>, JoinHandle<()>), Error> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let shared = Arc::new(Shared {
        sync_files: engine.has_sync_files(),
        queue: Mutex::new(Queue {
            waiting: VecDeque::with_capacity(in_flight),
            started: VecDeque::with_capacity(in_flight),
            in_hand: 0,
            engine_waits: false,
            closing: false,
            // More than are in flight: the last ones are still being looked at.
            fences: Fences::new(in_flight + 2).map_err(Error::System)?,
        }),
        filled: Condvar::new(),
        engine: Mutex::new(engine),
        closing: EventFd::from_flags(flags).map_err(Error::System)?,
        in_flight,
        patience,
    });
    let worker = Worker(shared.clone());
    let thread = sys::thread::spawn("primeshare blit", move || worker.run())
        .map_err(|error| Error::System(sys::errno(error)))?;
    Ok((shared, thread))
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a frame: at once where a GPU takes the fences to wait for, else by the worker.
    pub(in crate::blit) fn add(
        &self,
        frame: Frame,
        after: &[BorrowedFd<'_>],
    ) -> Result<Fence, Error> {
        let dup = |fd: &BorrowedFd<'_>| {
            let dup = fd.try_clone_to_owned();
            dup.map_err(|error| Error::System(sys::errno(error)))
        };
        let mut queue = self.queue();
        if queue.under_way() >= self.in_flight && !queue.closing {
            return Err(Error::Busy(self.in_flight));
        }
        let waits = after.iter().map(dup).collect::<Result<Waits, _>>()?;
        let (fence, promise) = queue.fences.make().map_err(Error::System)?;
        let job = Job {
            frame,
            waits,
            promise,
        };
        if queue.closing {
            // The thread has gone, which only a panic in it can have done: cancelled.
            return Ok(fence);
        }
        match self.start_at_once(&queue, &job) {
            Some(running) => queue.started.push_back((job, running)),
            None => queue.waiting.push_back(job),
        }
        drop(queue);
        self.filled.notify_one();
        Ok(fence)
    }

    /// `None` where the worker has to do it: frames before it are with the worker, it is not
    /// settled how, memory has to be made, or there are no sync files to wait for or to be had.
    fn start_at_once(&self, queue: &Queue, job: &Job) -> Option<Running> {
        let others_first = !queue.waiting.is_empty() || queue.in_hand > 0 || queue.engine_waits;
        if !self.sync_files || others_first || job.frame.rects.is_empty() {
            return None;
        }
        // The worker has it for a moment at most.
        let mut engine = self.engine();
        let strategy = engine.settled(&job.frame)?;
        if !engine.gives_sync_files(strategy) || !queue.may_begin(&engine, &job.frame, strategy) {
            return None;
        }
        if !engine.is_prepared(&job.frame, strategy) {
            return None;
        }
        let two_steps = is_relay(strategy);
        let inputs = waits::as_sync_files(&job.frame, &job.waits, two_steps)?;
        let started = engine.start(&job.frame, strategy, inputs, &job.promise);
        started
            .inspect_err(|failure| engine.failed(&job.frame, strategy, failure))
            .ok()
    }

    /// Cancels what has not begun; the thread ends after what has.
    pub(in crate::blit) fn close(&self) {
        self.queue().closing = true;
        if let Err(errno) = self.closing.write(1) {
            log::error!("cannot tell the blit thread to end: {errno}");
        }
        self.filled.notify_one();
    }
}

struct Worker(Arc<Shared>);

impl Worker {
    fn run(self) {
        while let Some(mut job) = self.next() {
            match self.wait_for_inputs(&job) {
                Ok(()) => {
                    job.waits.clear();
                    self.start(job);
                }
                Err(failure) => {
                    // In order: those before it are done first.
                    self.finish_all();
                    self.keep(job, Err(failure));
                }
            }
        }
        self.finish_all();
    }

    /// The next frame, which is in hand then. Meanwhile, what was started is finished. `None` when
    /// it is time to end.
    fn next(&self) -> Option<Job> {
        let mut queue = self.0.queue();
        loop {
            if queue.closing {
                // What has not begun is cancelled by the promises' end.
                let cancelled = std::mem::take(&mut queue.waiting);
                drop(queue);
                drop(cancelled);
                return None;
            }
            if let Some(job) = queue.waiting.pop_front() {
                queue.in_hand += 1;
                return Some(job);
            }
            if queue.started.is_empty() {
                let filled = self.0.filled.wait(queue);
                queue = filled.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(queue);
            self.finish_oldest();
            queue = self.0.queue();
        }
    }

    /// Waits for the job's fds and for the fences in its dma-bufs, and finishes others meanwhile.
    fn wait_for_inputs(&self, job: &Job) -> Result<(), Failure> {
        let fds = waits::polled(&job.frame, &job.waits);
        let start = Instant::now();
        loop {
            match are_ready(&fds) {
                Ok(true) => return Ok(()),
                // Nobody waits longer for the frames before because of this one.
                Ok(false) if self.finish_oldest() => {}
                Ok(false) => break,
                Err(errno) => return Err(Failure::Poll(errno)),
            }
        }
        self.wait_only(job, start)
    }

    /// The waiting alone, until patience ends that began then.
    fn wait_only(&self, job: &Job, start: Instant) -> Result<(), Failure> {
        let fds = waits::polled(&job.frame, &job.waits);
        let patience = self.0.patience;
        let closing = self.0.closing.as_fd();
        let waited = wait_for(&fds, start.checked_add(patience), Some(closing));
        waited.map_err(|errno| match errno {
            Errno::ETIMEDOUT => Failure::Deadline(patience),
            Errno::ECANCELED => Failure::Cancelled,
            errno => Failure::Poll(errno),
        })
    }

    fn start(&self, job: Job) {
        if job.frame.rects.is_empty() {
            self.finish_all();
            return self.keep(job, Ok(()));
        }
        loop {
            // Again each time: what fails meanwhile is not used any more.
            let settled = self.0.engine().settled(&job.frame);
            let Some(strategy) = settled else {
                return self.make(job);
            };
            let may_begin = {
                let queue = self.0.queue();
                queue.may_begin(&self.0.engine(), &job.frame, strategy)
            };
            if !may_begin {
                self.finish_oldest();
                continue;
            }
            let nothing = waits::Inputs::default();
            let started = self
                .0
                .engine()
                .start(&job.frame, strategy, nothing, &job.promise);
            match started {
                Ok(running) => {
                    let mut queue = self.0.queue();
                    queue.in_hand -= 1;
                    return queue.started.push_back((job, running));
                }
                // There may be no memory for two at a time, but for one.
                Err(Failure::Allocate(_)) if self.finish_oldest() => {}
                Err(failure) => {
                    self.0.engine().failed(&job.frame, strategy, &failure);
                    return self.make(job);
                }
            }
        }
    }

    /// By whatever works, after all that was started.
    fn make(&self, job: Job) {
        self.finish_all();
        let made = self.0.engine().make(&job.frame);
        self.keep(job, made);
    }

    /// `false` where there is none.
    fn finish_oldest(&self) -> bool {
        let mut queue = self.0.queue();
        let oldest = match queue.started.front() {
            None => return false,
            Some((job, Running::Submitted { steps, .. })) => {
                Some((job.promise.sync_file(), steps.clone()))
            }
            Some((_, Running::Relay(_))) => None,
        };
        match oldest {
            Some((executed, steps)) => {
                drop(queue);
                self.finish_submitted(executed, &steps);
            }
            None => {
                if let Some((job, Running::Relay(relay))) = queue.started.pop_front() {
                    queue.in_hand += 1;
                    drop(queue);
                    self.finish_relay(job, relay);
                }
            }
        }
        true
    }

    /// The oldest one. Nobody else takes what was started, so it is the same one all the time.
    fn finish_submitted(&self, executed: Option<Arc<SyncFile>>, steps: &Steps) {
        let Some(&last) = steps.last() else {
            return;
        };
        match executed {
            Some(file) => self.wait_for_execution(file.as_fd(), last),
            None => self.0.queue().engine_waits = true,
        }
        let done = self.0.engine().finish(steps);
        let mut queue = self.0.queue();
        queue.engine_waits = false;
        // Room first: whoever sees the fence may want to start the next copy.
        let Some((job, running)) = queue.started.pop_front() else {
            return;
        };
        let Err(failure) = done else {
            drop(queue);
            if let Running::Submitted {
                between: Some(between),
                ..
            } = running
            {
                self.0.engine().put_back(between);
            }
            return job.end(Ok(()));
        };
        queue.in_hand += 1;
        drop(queue);
        self.make_again(job, last.strategy(), &failure);
    }

    /// The oldest one, in hand.
    fn finish_relay(&self, job: Job, relay: Relay) {
        let strategy = relay.strategy();
        if relay.has_to_wait()
            && let Err(failure) = self.wait_only(&job, Instant::now())
        {
            self.0.engine().give_up(Running::Relay(relay));
            return self.keep(job, Err(failure));
        }
        let done = self.0.engine().take_second_step(&job.frame, relay);
        match done {
            Ok(()) => self.keep(job, Ok(())),
            Err(failure) => self.make_again(job, strategy, &failure),
        }
    }

    /// What has failed, which is in hand, and all that was started after it. The ones behind it are
    /// ended first, so that nothing of them comes after what is now made again; then all of them
    /// are, in their order.
    fn make_again(&self, failed: Job, strategy: Strategy, failure: &Failure) {
        let mut queue = self.0.queue();
        let behind = std::mem::take(&mut queue.started);
        queue.started.reserve(self.0.in_flight);
        queue.in_hand += behind.len();
        drop(queue);
        let mut again = vec![failed];
        let mut engine = self.0.engine();
        engine.failed(&again[0].frame, strategy, failure);
        for (job, running) in behind {
            engine.give_up(running);
            again.push(job);
        }
        drop(engine);
        for job in again {
            // A GPU that is lost has waited for nothing.
            let ready = self.wait_only(&job, Instant::now());
            let made = ready.and_then(|()| self.0.engine().make(&job.frame));
            self.keep(job, made);
        }
    }

    /// Waits for a GPU without keeping the engine from others, as long as [`Engine::finish`] does.
    fn wait_for_execution(&self, file: BorrowedFd<'_>, step: Step) {
        let fd = [(file, PollFlags::POLLIN)];
        let start = Instant::now();
        let most = self.0.patience.saturating_add(DEADLINE);
        loop {
            let left = most.saturating_sub(start.elapsed());
            let end = Instant::now().checked_add(self.0.patience.max(MOMENT).min(left));
            match wait_for(&fd, end, None) {
                Err(Errno::ETIMEDOUT) if !left.is_zero() => step.warn(),
                // What there is to know the engine will find out.
                _ => return,
            }
        }
    }

    fn finish_all(&self) {
        while self.finish_oldest() {}
    }

    /// Ends a frame that is in hand.
    fn keep(&self, job: Job, result: Result<(), Failure>) {
        self.0.queue().in_hand -= 1;
        job.end(result);
    }
}

impl Drop for Worker {
    /// Whatever ended it: nobody waits for ever, and nobody is told of an end that is none.
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closing = true;
        let waiting = std::mem::take(&mut queue.waiting);
        let started = std::mem::take(&mut queue.started);
        drop(queue);
        for (_job, running) in started {
            self.0.engine().give_up(running);
        }
        drop(waiting);
    }
}
