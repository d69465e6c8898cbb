//! The threads that make copies: the caller that asks for a copy, the caller that waits for one, and the
//! blitter's own thread.
//!
//! The caller that asks for a copy hands it to the GPU at once if nothing has to be waited for. The caller
//! that waits for a completion waits for the GPU itself. The blitter's thread does the rest: it waits for
//! fences that a GPU cannot wait for, copies by the CPU, takes the second of two steps, signals
//! completions that are in an event loop, and makes again the copies that have failed.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;

use super::completion::{Completion, Completions, Driver, Signal};
use super::engine::{Engine, leave};
use super::queue::{Begun, Job, Points, Queue, Signals, Sleep, Stream};
use super::schedule::{self, Route};
use super::thread::Thread;
use super::waits::{self, Inputs, Waits};
use crate::Errno;
use crate::blit::copy::copier::Running;
use crate::blit::copy::frame::Frame;
use crate::blit::statistics::{Counts, Statistics};
use crate::blit::strategy::Strategy;
use crate::blit::{Error, Failure};
use crate::sync::SyncFile;
use crate::sys::poll::{self, any_ready, are_ready, unready, wait_for};
use crate::vk::DEADLINE;

/// How long one wait lasts at most. After it the thread looks what else there is to do.
const MOMENT: Duration = Duration::from_millis(100);
/// How long the thread sleeps at a time while copies are under way that nobody waits for.
const WATCH: Duration = Duration::from_millis(50);
/// The thread waits for a copy itself if nobody has for this long.
const UNATTENDED: Duration = Duration::from_millis(200);
/// How long after the last copy the thread still sleeps in short naps. Waking it from a long sleep would
/// cost the next caller time.
const LINGER: Duration = Duration::from_secs(1);
/// A copy by the CPU that takes no longer than this is made by the caller: handing it to the thread would
/// take longer.
const AT_ONCE: Duration = Duration::from_micros(250);
/// A copy by the CPU of no more bytes than this is made by the caller, however slow the machine is.
const AT_ONCE_BYTES: u64 = 1 << 16;
/// The most fds that are polled together.
const MOST_POLLED: usize = 64;

/// What the callers and the thread share.
///
/// Whoever holds the queue's lock may only try to lock the engine, not wait for it: the engine stays locked
/// while a GPU is waited for.
pub(in crate::blit) struct Shared {
    /// Declared before the queue, and so dropped first: GPUs end before the completions are signalled.
    engine: Mutex<Engine>,
    queue: Mutex<Queue>,
    /// Readable if the thread is to look at the queue.
    wake: EventFd,
    in_flight: usize,
    input_timeout: Duration,
}

/// What a caller asks for.
pub(in crate::blit) struct Request<'a> {
    pub(in crate::blit) frame: Frame,
    pub(in crate::blit) after: &'a [BorrowedFd<'a>],
    pub(in crate::blit) signals: Points,
    pub(in crate::blit) stream: Option<Stream>,
}

/// What the caller could do with a copy without waiting.
enum AtOnce {
    /// Nothing: the thread has to make the copy.
    No(Job),
    Begun(Begun),
    /// The strategy failed: the thread has to make the copy by another one.
    Failed(Job, Strategy),
    /// The CPU has made the copy.
    Done(Job),
}

/// What the thread does next.
enum Next {
    Start(Job),
    /// The copy's fences were not signalled in time.
    Expired(Job),
    /// The copy failed in this lane, and is to be made by another strategy.
    Again(Job, usize, Strategy, Failure),
    Finish,
    Wait,
    Nothing,
}

/// Starts the thread. It ends after [`Shared::close`].
pub(in crate::blit) fn spawn(
    engine: Engine,
    in_flight: usize,
    input_timeout: Duration,
) -> Result<(Arc<Shared>, Thread), Error> {
    let wake = poll::event().map_err(Error::System)?;
    let shared = Arc::new_cyclic(|driver: &Weak<Shared>| Shared {
        queue: Mutex::new(Queue {
            waiting: VecDeque::with_capacity(in_flight),
            started: VecDeque::with_capacity(in_flight),
            failed: None,
            in_hand: 0,
            is_driven: false,
            sleepers: 0,
            sleep: Sleep::Awake,
            last_use: Instant::now(),
            last_end: Instant::now(),
            closing: false,
            staging_bytes: 0,
            completions: Completions::new(driver.clone()),
            counts: Counts::new(),
        }),
        engine: Mutex::new(engine),
        wake,
        in_flight,
        input_timeout,
    });
    // A caller may still hold the last completions when all of `in_flight` are taken again.
    let reserved = shared.queue().completions.reserve(in_flight + 2);
    reserved.map_err(Error::System)?;
    let worker = Worker(shared.clone());
    let thread = Thread::spawn("primeshare blit", move || worker.run());
    Ok((shared, thread.map_err(Error::System)?))
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has strategies tried for frames like this one, if there is something to try. Does nothing while the
    /// engine waits for a GPU, and answers `false`.
    pub(in crate::blit) fn want_trials(&self, frame: &Frame) -> bool {
        let engine = self.try_engine();
        engine.map(|mut engine| engine.choose(frame)).is_some()
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_engine(&self) -> Option<MutexGuard<'_, Engine>> {
        match self.engine.try_lock() {
            Ok(engine) => Some(engine),
            Err(TryLockError::Poisoned(engine)) => Some(engine.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Does not wait: while the engine waits for a GPU, the staging memory is given as it was last known.
    pub(in crate::blit) fn statistics(&self) -> Statistics {
        let now = self.try_engine().map(|engine| engine.spare_bytes());
        let mut queue = self.queue();
        queue.staging_bytes = now.unwrap_or(queue.staging_bytes);
        queue.counts.statistics(queue.staging_bytes)
    }

    /// Starts a frame: at once if nothing has to be waited for, else by the thread.
    pub(in crate::blit) fn add(&self, request: Request<'_>) -> Result<Completion, Error> {
        let mut queue = self.queue();
        if queue.under_way() >= self.in_flight && !queue.closing {
            drop(queue);
            self.look();
            queue = self.queue();
            if queue.under_way() >= self.in_flight && !queue.closing {
                return Err(Error::Busy(self.in_flight));
            }
        }
        let dup = |fd: &BorrowedFd<'_>| {
            let dup = fd.try_clone_to_owned();
            dup.map_err(|error| Error::System(crate::sys::errno(error)))
        };
        let waits = request
            .after
            .iter()
            .map(dup)
            .collect::<Result<Waits, _>>()?;
        let (completion, signaller) = queue.make_completion().map_err(Error::System)?;
        let now = Instant::now();
        queue.last_use = now;
        let job = Job {
            frame: request.frame,
            waits,
            signals: Signals(request.signals),
            signaller,
            stream: request.stream,
            since: now,
            not_left: None,
        };
        if queue.closing {
            // Only a panic of the thread can have closed the queue by now. The drop cancels the copy.
            drop(queue);
            drop(job);
            return Ok(completion);
        }
        let needs_thread = match self.start_at_once(&queue, job) {
            AtOnce::Begun(begun) => {
                // A thread that already waits for other copies has to learn of this one.
                let now = queue.is_driven || !begun.job.signals.0.is_empty();
                queue.started.push_back(begun);
                now || queue.sleep == Sleep::Parked
            }
            AtOnce::No(job) => {
                queue.waiting.push_back(job);
                true
            }
            AtOnce::Failed(job, strategy) => {
                queue.counts.failed(strategy);
                queue.waiting.push_back(job);
                true
            }
            AtOnce::Done(job) => {
                queue.count(&job, Some(Strategy::Cpu), Instant::now());
                drop(queue);
                job.end(Ok(()));
                return Ok(completion);
            }
        };
        self.wake_up(queue, needs_thread);
        Ok(completion)
    }

    /// Wakes the thread if it sleeps.
    fn wake_up(&self, queue: MutexGuard<'_, Queue>, needs_thread: bool) {
        let sleeps = queue.sleep != Sleep::Awake || queue.is_driven;
        drop(queue);
        if needs_thread && sleeps {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Err(errno) = self.wake.write(1) {
            log::error!("cannot wake the blit thread: {errno}");
        }
    }

    /// Starts a copy if that needs no waiting. The thread has to start it if other copies come first, if no
    /// strategy is known to work, if a device or memory has to be made, or if something has to be waited
    /// for that a GPU cannot wait for.
    fn start_at_once(&self, queue: &Queue, mut job: Job) -> AtOnce {
        if queue.in_hand > 0 || job.frame.rects.is_empty() || queue.has_to_wait(&job, usize::MAX) {
            return AtOnce::No(job);
        }
        let Some(mut engine) = self.try_engine() else {
            return AtOnce::No(job);
        };
        let choice = engine.choose(&job.frame);
        let Some(strategy) = choice.strategy else {
            return AtOnce::No(job);
        };
        if strategy == Strategy::Cpu {
            let is_known_short = |takes: f64| takes <= AT_ONCE.as_secs_f64();
            let is_short =
                job.frame.bytes() <= AT_ONCE_BYTES || choice.seconds.is_some_and(is_known_short);
            if !is_short || !queue.started.is_empty() || are_ready(&job.inputs()) != Ok(true) {
                return AtOnce::No(job);
            }
            return match engine.make_by_cpu(&job.frame) {
                Ok(()) => AtOnce::Done(job),
                Err(_) => AtOnce::Failed(job, strategy),
            };
        }
        let orders = engine.orders(strategy) && engine.leaves_fences(&job.frame);
        let route = engine.route(strategy);
        if route == Route::ByHand {
            return AtOnce::No(job);
        }
        let inputs = match orders {
            true => waits::as_sync_files(&job.frame, &job.waits, route == Route::TwoQueues),
            false => match are_ready(&job.inputs()) {
                Ok(true) => Some(Inputs::default()),
                _ => None,
            },
        };
        let Some(inputs) = inputs else {
            return AtOnce::No(job);
        };
        let is_blocked = !inputs.first.is_empty() || !inputs.second.is_empty();
        if is_blocked && !engine.may_wait_on_gpus(strategy) {
            return AtOnce::No(job);
        }
        let lane = schedule::lane(is_blocked, queue.seen_from(&job)).filter(|lane| {
            engine.is_prepared(*lane, &job.frame, strategy)
                && schedule::may_start(*lane, route, usize::MAX, queue.seen_from(&job))
        });
        let Some(lane) = lane else {
            return AtOnce::No(job);
        };
        let at = Instant::now();
        match engine.start(lane, &job.frame, strategy, inputs) {
            Ok((running, file)) => {
                let file = pass_on(&mut job, file);
                AtOnce::Begun(Begun {
                    job,
                    lane,
                    route: as_it_runs(route, &running),
                    running,
                    file,
                    is_blocked,
                    at,
                })
            }
            Err(failure) => {
                engine.failed(&job.frame, strategy, &failure);
                AtOnce::Failed(job, strategy)
            }
        }
    }

    /// Cancels copies that have not begun. The thread ends once those that have begun are done.
    pub(in crate::blit) fn close(&self) {
        self.queue().closing = true;
        self.ring();
    }

    /// Ends a copy that was taken out of the queue.
    fn end(&self, job: Job, result: Result<Strategy, Failure>) {
        let mut queue = self.queue();
        queue.in_hand -= 1;
        queue.count(&job, result.as_ref().ok().copied(), Instant::now());
        drop(queue);
        job.end(result.map(drop));
    }

    /// Ends a copy by GPUs whose end was seen, the oldest of its lane. Gives it back if it failed. It
    /// leaves the queue before its completion is signalled: a caller that sees the end may start the next
    /// copy at once.
    fn finished(
        &self,
        at: usize,
        done: Result<(), Failure>,
        was_waited_for: bool,
    ) -> Option<(Job, usize, Strategy, Failure)> {
        let mut queue = self.queue();
        let begun = queue.started.remove(at)?;
        let strategy = begun.running.strategy()?;
        let Begun {
            job,
            running,
            lane,
            file,
            ..
        } = begun;
        // Closed before the completion is signalled: an epoll reports a file until its last fd is closed.
        drop(file);
        match done {
            Ok(()) => {
                let now = Instant::now();
                queue.count(&job, Some(strategy), now);
                let took = queue.took(begun.at, begun.is_blocked, was_waited_for, now);
                drop(queue);
                let mut engine = self.engine();
                if let Running::Submitted {
                    staging: Some(staging),
                    ..
                } = running
                {
                    engine.put_back(lane, staging);
                }
                engine.made(&job.frame, strategy, took, now);
                drop(engine);
                job.end(Ok(()));
                None
            }
            Err(failure) => {
                queue.in_hand += 1;
                queue.counts.failed(strategy);
                Some((job, lane, strategy, failure))
            }
        }
    }

    /// Waits for a copy, the first of its lane, and ends it. `None` if the copy has not ended at `until`,
    /// or if the thread was woken meanwhile.
    fn finish_until(&self, at: usize, until: Instant) -> Option<()> {
        let (lane, steps, file) = {
            let queue = self.queue();
            let begun = queue.started.get(at)?;
            let Running::Submitted { steps, .. } = &begun.running else {
                return None;
            };
            (begun.lane, steps.clone(), begun.file.clone())
        };
        if let Some(file) = file {
            // The engine is not locked meanwhile: other threads need it.
            let fd = [(file.as_fd(), PollFlags::POLLIN)];
            if wait_for(&fd, Some(until), Some(self.wake.as_fd())).is_err()
                && !self.engine().is_over(lane, &steps)
            {
                return None;
            }
        }
        let mut engine = self.engine();
        let was_over = engine.is_over(lane, &steps);
        let done = engine.finish_until(lane, &steps, until)?;
        drop(engine);
        if let Some(failed) = self.finished(at, done, !was_over) {
            self.queue().failed = Some(failed);
            self.ring();
        }
        Some(())
    }

    /// A copy that is the first of its lane and has ended, as far as can be seen without waiting.
    fn ended(&self, queue: &Queue) -> Option<usize> {
        let mut engine = self.try_engine()?;
        let mut started = queue.started.iter().enumerate();
        started.find_map(|(at, begun)| {
            let Running::Submitted { steps, .. } = &begun.running else {
                return None;
            };
            (queue.is_first_of_lane(at) && engine.is_over(begun.lane, steps)).then_some(at)
        })
    }
}

impl Driver for Shared {
    fn help(&self, copy: &Arc<Signal>, until: Instant) -> bool {
        let mut queue = self.queue();
        let is_of = |begun: &Begun| begun.job.signaller.is_of(copy);
        let is_gpus = |begun: &Begun| matches!(begun.running, Running::Submitted { .. });
        let lane = queue.started.front().map(|begun| begun.lane);
        // The caller only waits for one GPU queue. If more is to be done, the thread does it.
        let is_simple = |begun: &Begun| is_gpus(begun) && !begun.is_blocked;
        let can_help = !queue.is_driven
            && queue.failed.is_none()
            && queue.waiting.is_empty()
            && queue.started.iter().all(is_simple)
            && queue
                .started
                .iter()
                .any(|begun| is_of(begun) && Some(begun.lane) == lane);
        if !can_help {
            queue.sleepers += 1;
            self.wake_up(queue, true);
            return false;
        }
        queue.is_driven = true;
        drop(queue);
        // Copies of a lane end in the order in which they were started, so the first one is waited for. The
        // wait is short, since other callers may need the thread.
        let _ = self.finish_until(0, until.min(Instant::now() + MOMENT));
        let mut queue = self.queue();
        queue.is_driven = false;
        let others_wait = queue.sleepers > 0;
        self.wake_up(queue, others_wait);
        true
    }

    fn slept(&self) {
        self.queue().sleepers -= 1;
    }

    fn look(&self) {
        loop {
            let mut queue = self.queue();
            if queue.is_driven || queue.failed.is_some() {
                return;
            }
            let Some(at) = self.ended(&queue) else {
                return;
            };
            queue.is_driven = true;
            drop(queue);
            let ended = self.finish_until(at, Instant::now());
            let mut queue = self.queue();
            queue.is_driven = false;
            let others_wait = queue.sleepers > 0;
            self.wake_up(queue, others_wait);
            if ended.is_none() {
                return;
            }
        }
    }

    fn watch(&self) {
        let queue = self.queue();
        self.wake_up(queue, true);
    }
}

/// Passes on the sync file of a copy: to the caller, to the syncobjs, and into the dma-bufs for users that
/// synchronise implicitly.
fn pass_on(job: &mut Job, file: Option<SyncFile>) -> Option<Arc<SyncFile>> {
    let file = Arc::new(file?);
    let mut left = leave(&job.frame, &file);
    // A point that could not be given the fence is kept, and signalled when the copy ends.
    job.signals.0.retain(|(syncobj, point)| {
        let put = syncobj.import_sync_file(*point, &file);
        let has_failed = put.is_err();
        if let Err(error) = put {
            left = Err(error);
        }
        has_failed
    });
    if let Err(error) = left {
        log::error!("the fence of a copy: {error}");
        job.not_left = Some(Failure::NotLeft(error));
    }
    job.signaller.executed_at(file.clone());
    Some(file)
}

/// The route that a copy really takes: if the second of two steps could not be handed to the GPU, the
/// thread takes it.
fn as_it_runs(route: Route, running: &Running) -> Route {
    match running {
        Running::FirstStep(_) => Route::ByHand,
        Running::Submitted { .. } => route,
    }
}

/// The blitter's thread.
struct Worker(Arc<Shared>);

impl Worker {
    fn run(self) {
        loop {
            let mut queue = self.0.queue();
            let now = Instant::now();
            let old = now.checked_sub(UNATTENDED).unwrap_or(now);
            if queue.closing
                && queue.started.is_empty()
                && queue.failed.is_none()
                && !queue.is_driven
            {
                // Dropping the signallers cancels these copies.
                let cancelled = std::mem::take(&mut queue.waiting);
                drop(queue);
                drop(cancelled);
                return;
            }
            if !queue.is_driven && queue.needs_driver(old) {
                queue.is_driven = true;
                drop(queue);
                self.drive();
                self.0.queue().is_driven = false;
                continue;
            }
            let lingers = now.saturating_duration_since(queue.last_use) < LINGER;
            let watches = !queue.started.is_empty() || lingers || queue.is_driven;
            queue.sleep = match watches {
                true => Sleep::Watching,
                false => Sleep::Parked,
            };
            drop(queue);
            let end = watches.then(|| now + WATCH);
            let wake = [(self.0.wake.as_fd(), PollFlags::POLLIN)];
            if let Ok(()) = wait_for(&wake, end, None) {
                let _ = self.0.wake.read();
            }
            self.0.queue().sleep = Sleep::Awake;
        }
    }

    /// Starts and ends copies until nothing is left to do.
    fn drive(&self) {
        loop {
            match self.next() {
                Next::Start(job) => self.start(job),
                Next::Expired(job) => {
                    let failure = Failure::Deadline(self.0.input_timeout);
                    self.0.end(job, Err(failure));
                }
                Next::Again(job, lane, strategy, failure) => {
                    self.fail(job, lane, strategy, &failure);
                }
                Next::Finish => self.finish_some(),
                Next::Wait => self.wait(),
                Next::Nothing => return,
            }
        }
    }

    /// What to do next. A copy that is to be started leaves the queue, and counts as in hand.
    fn next(&self) -> Next {
        let mut queue = self.0.queue();
        if let Some((job, lane, strategy, failure)) = queue.failed.take() {
            return Next::Again(job, lane, strategy, failure);
        }
        if queue.closing {
            let cancelled = std::mem::take(&mut queue.waiting);
            let next = match queue.started.is_empty() {
                true => Next::Nothing,
                false => Next::Finish,
            };
            drop(queue);
            drop(cancelled);
            return next;
        }
        let now = Instant::now();
        for at in 0..queue.waiting.len() {
            let job = &queue.waiting[at];
            if queue.has_to_wait(job, at) || queue.is_behind_a_blocked(job) {
                continue;
            }
            let is_ready = are_ready(&job.inputs());
            let is_late = now.saturating_duration_since(job.since) >= self.0.input_timeout;
            let (is_ready, is_late) = (is_ready != Ok(false), is_late);
            if (is_ready || is_late)
                && let Some(job) = queue.waiting.remove(at)
            {
                queue.in_hand += 1;
                return match is_ready {
                    true => Next::Start(job),
                    false => Next::Expired(job),
                };
            }
        }
        match (queue.started.is_empty(), queue.waiting.is_empty()) {
            (false, _) => Next::Finish,
            (true, false) => Next::Wait,
            (true, true) => Next::Nothing,
        }
    }

    /// Waits until a copy may have become ready or its fences too late, or until the thread is woken.
    fn wait(&self) {
        self.wait_for_any(&[]);
    }

    /// As [`Self::wait`], or until one of these files is signalled.
    fn wait_for_any(&self, files: &[SyncFile]) {
        let queue = self.0.queue();
        let mut end = Instant::now() + MOMENT;
        // Dups: the jobs may go on while this thread sleeps.
        let mut inputs = Vec::new();
        for (at, job) in queue.waiting.iter().enumerate() {
            if queue.has_to_wait(job, at) || queue.is_behind_a_blocked(job) {
                continue;
            }
            let pending = unready(&job.inputs());
            if pending.is_empty() {
                // The copy has become ready meanwhile.
                return;
            }
            let deadline = job.since.checked_add(self.0.input_timeout);
            end = deadline.map_or(end, |deadline| deadline.min(end));
            for (fd, flags) in pending {
                if let Ok(dup) = fd.try_clone_to_owned() {
                    inputs.push((dup, flags));
                }
            }
        }
        drop(queue);
        let mut fds: ArrayVec<(BorrowedFd<'_>, PollFlags), MOST_POLLED> = ArrayVec::new();
        fds.push((self.0.wake.as_fd(), PollFlags::POLLIN));
        let files = files.iter().map(|file| (file.as_fd(), PollFlags::POLLIN));
        fds.extend(files.take(MOST_POLLED / 2));
        let room = fds.remaining_capacity();
        fds.extend(
            inputs
                .iter()
                .take(room)
                .map(|(fd, flags)| (fd.as_fd(), *flags)),
        );
        match any_ready(&fds, end) {
            Ok(()) => {
                let _ = self.0.wake.read();
            }
            Err(errno) => log::error!("poll: {errno}"),
        }
    }

    /// Ends a copy that is over. If there is none, waits for the end of one, or until another copy can be
    /// started.
    fn finish_some(&self) {
        let queue = self.0.queue();
        let mut files = Vec::new();
        // A copy without a sync file, which can only be waited for alone, and whether fences are in its way.
        let mut alone = None;
        let mut over = None;
        for (at, begun) in queue.started.iter().enumerate() {
            if !queue.is_first_of_lane(at) {
                continue;
            }
            match (&begun.running, &begun.file) {
                (Running::Submitted { .. }, Some(file)) => {
                    if file.is_signalled().unwrap_or(true) {
                        over.get_or_insert(at);
                    }
                    // The merge makes a file that only this thread has. If it held the program's file,
                    // an epoll of the program would report that file after the completion has gone.
                    files.extend(file.merge(file));
                }
                (Running::FirstStep(first), _)
                    if first.has_to_wait() && are_ready(&begun.job.inputs()) == Ok(false) => {}
                (Running::FirstStep(_), _) => {
                    alone.get_or_insert((at, false));
                }
                (Running::Submitted { .. }, None) => {
                    alone.get_or_insert((at, begun.is_blocked));
                }
            }
        }
        let hung = self.hung(&queue);
        drop(queue);
        if over.is_some() {
            // Closed before a completion is signalled, as in `finished`.
            files.clear();
        }
        match (over, hung, alone) {
            (Some(at), _, _) => self.finish(at),
            (None, Some(at), _) => self.abandon(at),
            // Its fences may be signalled after the ends of other copies, so it is not waited for long.
            (None, None, Some((at, true))) => {
                let _ = self
                    .0
                    .finish_until(at, Instant::now() + Duration::from_millis(5));
            }
            (None, None, Some((at, false))) => self.finish(at),
            (None, None, None) => self.wait_for_any(&files),
        }
    }

    /// The first copy that has taken longer than any copy should.
    fn hung(&self, queue: &Queue) -> Option<usize> {
        let most = self.0.input_timeout.saturating_add(DEADLINE);
        let is_hung = |begun: &Begun| begun.at.elapsed() > most;
        queue.started.iter().position(is_hung)
    }

    /// Gives up a copy that a GPU should have made long ago, and makes it by another strategy.
    fn abandon(&self, at: usize) {
        let mut queue = self.0.queue();
        let Some(Begun {
            job,
            running,
            lane,
            is_blocked,
            ..
        }) = queue.started.remove(at)
        else {
            return;
        };
        queue.in_hand += 1;
        let strategy = running.strategy().unwrap_or(Strategy::Cpu);
        queue.counts.failed(strategy);
        drop(queue);
        let failure = match &running {
            Running::Submitted { steps, .. } => self.0.engine().abandon(lane, steps),
            Running::FirstStep(_) => Failure::Deadline(self.0.input_timeout),
        };
        // If the copy waited for fences, they are probably late, and not the strategy at fault.
        if !is_blocked {
            self.0.engine().failed(&job.frame, strategy, &failure);
        }
        self.make_again(job, lane);
    }

    /// Waits for a copy that was started, and ends it. Only this thread takes copies that were started
    /// while `is_driven` is set.
    fn finish(&self, at: usize) {
        let mut queue = self.0.queue();
        let submitted = match queue.started.get(at) {
            None => return,
            Some(Begun {
                running: Running::Submitted { steps, .. },
                lane,
                ..
            }) => Some((*lane, steps.clone())),
            Some(_) => None,
        };
        if let Some((lane, steps)) = submitted {
            drop(queue);
            let mut engine = self.0.engine();
            let was_over = engine.is_over(lane, &steps);
            let done = engine.finish(lane, &steps);
            drop(engine);
            let again = self.0.finished(at, done, !was_over);
            if let Some((job, lane, strategy, failure)) = again {
                self.fail(job, lane, strategy, &failure);
            }
            return;
        }
        let Some(Begun {
            job,
            running: Running::FirstStep(first),
            lane,
            at: begun_at,
            ..
        }) = queue.started.remove(at)
        else {
            return;
        };
        queue.in_hand += 1;
        drop(queue);
        let strategy = first.strategy();
        if first.has_to_wait()
            && let Err(failure) = self.wait_only(&job)
        {
            self.0.engine().give_up(lane, Running::FirstStep(first));
            return self.0.end(job, Err(failure));
        }
        let mut engine = self.0.engine();
        let done = engine.lane(lane).take_second_step(&job.frame, first);
        match done {
            Ok(()) => {
                drop(engine);
                let now = Instant::now();
                let took = self.0.queue().took(begun_at, false, true, now);
                self.0.engine().made(&job.frame, strategy, took, now);
                self.0.end(job, Ok(strategy));
            }
            Err(failure) => {
                drop(engine);
                self.0.queue().counts.failed(strategy);
                self.fail(job, lane, strategy, &failure);
            }
        }
    }

    /// Starts a copy that is in hand, whose fences are signalled.
    fn start(&self, mut job: Job) {
        if job.frame.rects.is_empty() {
            self.finish_before(&job);
            self.0.queue().in_hand -= 1;
            return job.end(Ok(()));
        }
        loop {
            // Chosen anew in each round: a strategy that has failed meanwhile is not used any more.
            let mut engine = self.0.engine();
            let strategy = match engine.choose(&job.frame).strategy {
                Some(strategy) if strategy != Strategy::Cpu => strategy,
                _ => {
                    drop(engine);
                    return self.make(job);
                }
            };
            if engine.orders(strategy) {
                engine.leaves_fences(&job.frame);
            }
            let (route, copies_first) = (engine.route(strategy), engine.copies_first());
            drop(engine);
            let queue = self.0.queue();
            let room = schedule::room(route, strategy, copies_first);
            let lane = schedule::lane(false, queue.seen_from(&job));
            let lane =
                lane.filter(|lane| schedule::may_start(*lane, route, room, queue.seen_from(&job)));
            // Whether there are copies that will end soon.
            let some_started = queue.started.iter().any(|begun| !begun.is_blocked);
            drop(queue);
            let Some(lane) = lane else {
                self.finish_some();
                continue;
            };
            let (nothing, at) = (Inputs::default(), Instant::now());
            let started = self.0.engine().start(lane, &job.frame, strategy, nothing);
            match started {
                Ok((running, file)) => {
                    let file = pass_on(&mut job, file);
                    let mut queue = self.0.queue();
                    queue.in_hand -= 1;
                    return queue.started.push_back(Begun {
                        job,
                        lane,
                        route: as_it_runs(route, &running),
                        running,
                        file,
                        is_blocked: false,
                        at,
                    });
                }
                // Memory that suffices for one copy at a time may not suffice for two.
                Err(Failure::Allocate(_)) if some_started => self.finish_some(),
                Err(failure) => {
                    self.0.engine().failed(&job.frame, strategy, &failure);
                    self.0.queue().counts.failed(strategy);
                    return self.make(job);
                }
            }
        }
    }

    /// Waits for all copies that were started and that this one has to come after, and ends them.
    fn finish_before(&self, job: &Job) {
        loop {
            let queue = self.0.queue();
            let mut started = queue.started.iter();
            let Some(last) = started.rposition(|begun| job.comes_after(&begun.job)) else {
                return;
            };
            let lane = queue.started[last].lane;
            let first = queue.started.iter().position(|begun| begun.lane == lane);
            drop(queue);
            self.finish(first.unwrap_or(last));
        }
    }

    /// Makes a copy by any strategy that works, once all that come before it are done.
    fn make(&self, job: Job) {
        self.finish_before(&job);
        let made = self.make_now(&job);
        self.0.end(job, made);
    }

    /// As [`Self::make`], without waiting for the copies before it. If nothing works, goes on while
    /// strategies are being tried, since one of them may turn out to work.
    fn make_now(&self, job: &Job) -> Result<Strategy, Failure> {
        let end = Instant::now() + self.0.input_timeout;
        loop {
            let lane = schedule::free_lane(self.0.queue().seen_from(job));
            let mut engine = self.0.engine();
            let mut failures = ArrayVec::<Strategy, { Strategy::LIST.len() }>::new();
            let made = engine.make(lane, &job.frame, |strategy| failures.push(strategy));
            let pair = engine.pair();
            let in_trial = made.is_err() && engine.is_in_trial(&job.frame);
            drop(engine);
            let mut queue = self.0.queue();
            failures
                .iter()
                .for_each(|strategy| queue.counts.failed(*strategy));
            let closing = queue.closing;
            drop(queue);
            if !in_trial || closing || Instant::now() >= end {
                return made;
            }
            pair.wait_for_news(MOMENT);
        }
    }

    /// Makes a copy that has failed, and is in hand, by another strategy.
    fn fail(&self, job: Job, lane: usize, strategy: Strategy, failure: &Failure) {
        self.0.engine().failed(&job.frame, strategy, failure);
        self.make_again(job, lane);
    }

    /// Makes again a copy that has failed, and is in hand, and the copies behind it: those that were
    /// started after it and have to come after it, or are in its lane. GPUs first end the copies behind
    /// it, so that they write nothing after a copy that is made again. Then all are made in their order. A
    /// copy whose fences are pending goes back to those that have not begun, so that the others do not
    /// wait for these fences.
    fn make_again(&self, failed: Job, lane: usize) {
        let mut queue = self.0.queue();
        let mut behind = Vec::new();
        let mut others = VecDeque::with_capacity(self.0.in_flight);
        for begun in queue.started.drain(..) {
            match begun.lane == lane || begun.job.comes_after(&failed) {
                true => behind.push(begun),
                false => others.push_back(begun),
            }
        }
        queue.started = others;
        queue.in_hand += behind.len();
        drop(queue);
        let mut again = vec![failed];
        let mut engine = self.0.engine();
        let is_stuck = |engine: &mut Engine, begun: &Begun| match &begun.running {
            Running::Submitted { steps, .. } => {
                begun.is_blocked && !engine.is_over(begun.lane, steps)
            }
            Running::FirstStep(first) => first.has_to_wait(),
        };
        for begun in behind {
            if is_stuck(&mut engine, &begun) {
                // Its GPU still waits for fences, and cannot be called back. If the copy fails too, that
                // is seen when it ends.
                let mut queue = self.0.queue();
                queue.in_hand -= 1;
                queue.started.push_back(begun);
            } else {
                engine.give_up(begun.lane, begun.running);
                again.push(begun.job);
            }
        }
        drop(engine);
        let is_pending = |job: &Job| are_ready(&job.inputs()) == Ok(false);
        let (mut now, mut later) = (Vec::new(), Vec::<Job>::new());
        for job in again {
            match is_pending(&job) || later.iter().any(|before| job.comes_after(before)) {
                true => later.push(job),
                false => now.push(job),
            }
        }
        self.0.queue().take_back(later);
        for job in now {
            let made = self.make_now(&job);
            self.0.end(job, made);
        }
    }

    /// Waits for the job's fds and for the fences in its dma-bufs.
    fn wait_only(&self, job: &Job) -> Result<(), Failure> {
        let timeout = self.0.input_timeout;
        let end = Instant::now().checked_add(timeout);
        wait_for(&job.inputs(), end, None).map_err(|errno| match errno {
            Errno::ETIMEDOUT => Failure::Deadline(timeout),
            errno => Failure::Poll(errno),
        })
    }
}

impl Drop for Worker {
    /// Runs on a panic too: cancels every copy after waiting for what the GPUs still execute.
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closing = true;
        let waiting = std::mem::take(&mut queue.waiting);
        let started = std::mem::take(&mut queue.started);
        let failed = queue.failed.take();
        drop(queue);
        for begun in started {
            self.0.engine().give_up(begun.lane, begun.running);
        }
        drop((waiting, failed));
    }
}
