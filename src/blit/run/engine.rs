//! Makes copies: by which strategy, and what becomes of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use crate::blit::choose::Choice;
use crate::blit::choose::plan::{self, Facts};
use crate::blit::choose::trials::{Allowed, PART, Records};
use crate::blit::copy::cpu::{Destination, Maps, Source};
use crate::blit::copy::frame::Frame;
use crate::blit::copy::gpu::{Ends, Lane, Shape, Submitted};
use crate::blit::copy::host::HostPicture;
use crate::blit::copy::staging::{self, Between, Spare};
use crate::blit::damage::Rects;
use crate::blit::run::fence::Promise;
use crate::blit::run::waits::Inputs;

use crate::blit::strategy::Strategy;
use crate::blit::{Failure, Options, Side, SyncFiles};
use crate::buffer::{DmaBuf, Modifier};
use crate::sync::{self, Access, SyncFile, implicit};
use crate::vk;

/// A copy under way.
#[derive(Debug)]
pub(in crate::blit) enum Running {
    /// All of it is with the GPUs.
    Submitted {
        steps: Steps,
        /// What the first of two steps leaves the picture in.
        between: Option<Between>,
    },
    Relay(Relay),
}

/// The steps of a copy, in their order.
pub(in crate::blit) type Steps = ArrayVec<Step, 2>;

/// What one GPU is doing for a copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Step {
    lane: usize,
    submitted: Submitted,
    strategy: Strategy,
}

/// A copy in two steps, of which the source's GPU is making the first.
#[derive(Debug)]
pub(in crate::blit) struct Relay {
    /// `None` where the processor will take the picture from the source itself.
    first: Option<Step>,
    between: Between,
    strategy: Strategy,
    /// What the frame waits for was left to the GPUs, of which the second has not been told.
    left_to_gpus: bool,
}

impl Step {
    pub(in crate::blit) fn strategy(self) -> Strategy {
        self.strategy
    }

    pub(in crate::blit) fn warn(self) {
        log::warn!("blit by {}: still waiting for the GPU", self.strategy);
    }
}

impl Relay {
    /// Whether the second step is yet to wait for what the frame waits for.
    pub(in crate::blit) fn has_to_wait(&self) -> bool {
        self.left_to_gpus
    }

    pub(in crate::blit) fn strategy(&self) -> Strategy {
        self.strategy
    }
}

#[derive(Debug)]
pub(in crate::blit) struct Engine {
    sides: [Side; 2],
    one_gpu: bool,
    allowed: Allowed,
    records: Records,
    /// The source's GPU and the destination's.
    lanes: [Option<Lane>; 2],
    maps: Maps,
    /// For looking at what arrives, while strategies are tried.
    looks: Maps,
    spare: Spare,
    patience: Duration,
    /// Which of the GPUs are the CPU.
    software: [bool; 2],
    /// Which of the GPUs give sync files, and they are wanted.
    sync_files: [bool; 2],
    /// Whether the destination's GPU takes those of the source's.
    sync_files_across: bool,
}

impl Engine {
    pub(in crate::blit) fn new(
        sides: [Side; 2],
        allowed: Allowed,
        in_flight: usize,
        options: &Options,
        records: Records,
    ) -> Result<Self, vk::Error> {
        let lane = |side: &Side| {
            let device = side.vulkan.as_ref();
            device
                .map(|device| Lane::new(device, in_flight))
                .transpose()
        };
        let one_gpu = match (&sides[0].vulkan, &sides[1].vulkan) {
            (Some(a), Some(b)) => a.is(b),
            _ => false,
        };
        let lanes = [lane(&sides[0])?, lane(&sides[1])?];
        let wanted = |lane: &Lane| match options.sync_files {
            SyncFiles::Never => false,
            SyncFiles::Hardware => lane.has_sync_files() && !lane.is_software(),
            SyncFiles::Always => lane.has_sync_files(),
        };
        let sync_files = [0, 1].map(|index: usize| lanes[index].as_ref().is_some_and(wanted));
        let software =
            [0, 1].map(|index: usize| lanes[index].as_ref().is_some_and(Lane::is_software));
        Ok(Self {
            software,
            sync_files,
            sync_files_across: sync_files == [true, true],
            lanes,
            one_gpu,
            sides,
            allowed,
            records,
            maps: Maps::new(),
            looks: Maps::new(),
            spare: Spare::default(),
            patience: options.patience,
        })
    }

    /// The strategy by which the frame can be started while others are under way: it is settled,
    /// and GPUs do it.
    pub(in crate::blit) fn settled(&self, frame: &Frame) -> Option<Strategy> {
        match self.choose(frame, &self.allowed) {
            Some(Choice::Use(strategy)) if strategy != Strategy::Cpu => Some(strategy),
            _ => None,
        }
    }

    /// How many frames by this strategy may be under way.
    pub(in crate::blit) fn room(&self, strategy: Strategy) -> usize {
        match is_relay(strategy) {
            false => usize::MAX,
            // All of them have their sync files at once.
            true if self.gives_sync_files(strategy) => usize::MAX,
            // Without a GPU at the source there is no first step that others could be beside.
            true if self.lanes[0].is_none() => 1,
            true => staging::MOST,
        }
    }

    fn is_settled(&self, frame: &Frame) -> bool {
        matches!(self.choose(frame, &self.allowed), Some(Choice::Use(_)))
    }

    /// Lets go of the memory of strategies that were tried and are not used: at 4K some 200 MiB.
    /// Should one of them be needed after all, it is made anew.
    fn let_go(&mut self) {
        let Some(used) = self.records.used(&self.allowed) else {
            return;
        };
        self.looks = Maps::new();
        self.spare.retain(|strategy| used.contains(&strategy));
        let by_processor = [Strategy::Cpu, Strategy::HostMemory];
        if !by_processor.iter().any(|strategy| used.contains(strategy)) {
            self.maps = Maps::new();
        }
    }

    /// Whether frames can be ordered by sync files at all.
    pub(in crate::blit) fn has_sync_files(&self) -> bool {
        self.sync_files.contains(&true)
    }

    /// Whether a frame by this strategy can be ordered by sync files.
    pub(in crate::blit) fn gives_sync_files(&self, strategy: Strategy) -> bool {
        match (by_one_gpu(strategy), strategy) {
            (Some((lane, _)), _) => self.sync_files[lane],
            (None, Strategy::Staged(_)) => self.sync_files_across,
            _ => false,
        }
    }

    /// Whether a frame by this strategy can be started without making memory for it first.
    pub(in crate::blit) fn is_prepared(&self, frame: &Frame, strategy: Strategy) -> bool {
        !is_relay(strategy) || self.spare.has(strategy, frame)
    }

    /// Whether a frame by this strategy may be started after the one that is under way: it comes to
    /// its end after it, if they are finished in their order.
    pub(in crate::blit) fn may_follow(&self, running: &Running, strategy: Strategy) -> bool {
        match (running, by_one_gpu(strategy)) {
            // In the order of the queue, the only one that either uses.
            (Running::Submitted { steps, .. }, Some((lane, _))) => {
                steps.iter().all(|step| step.lane == lane)
            }
            // Both end with the destination's GPU, or the second step is taken when it is finished.
            (Running::Submitted { steps, .. }, None) => steps.len() > 1 && is_relay(strategy),
            // Its second step is yet to be taken.
            (Running::Relay(_), _) => is_relay(strategy) && !self.gives_sync_files(strategy),
        }
    }

    /// Starts a settled frame, after fences of which there may be some only where the strategy
    /// [gives sync files](Self::gives_sync_files); the promise is told of its own. Where that
    /// fails, the frame is still to be made, and [`Self::failed`] to be told, unless it is tried
    /// again.
    pub(in crate::blit) fn start(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        after: Inputs,
        promise: &Promise,
    ) -> Result<Running, Failure> {
        if !self.gives_sync_files(strategy) {
            return self.begin(frame, strategy);
        }
        match by_one_gpu(strategy) {
            Some((lane, shapes)) => {
                let ends = frame.ends(shapes);
                let rects = &frame.rects;
                let (step, file) = self.submit_after(lane, strategy, ends, rects, after.first)?;
                tell(frame, strategy, kept(strategy, file), promise);
                Ok(Running::submitted(step))
            }
            None => self.take_both_steps(frame, strategy, after, promise),
        }
    }

    fn begin(&mut self, frame: &Frame, strategy: Strategy) -> Result<Running, Failure> {
        match by_one_gpu(strategy) {
            Some((lane, shapes)) => self
                .submit(lane, strategy, frame.ends(shapes), &frame.rects)
                .map(Running::submitted),
            None => self.take_first_step(frame, strategy).map(Running::Relay),
        }
    }

    /// Hands both steps to the GPUs, of which the second waits for the first. What goes wrong after
    /// the first leaves the second to be taken later.
    fn take_both_steps(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        after: Inputs,
        promise: &Promise,
    ) -> Result<Running, Failure> {
        let between = self.between(frame, strategy)?;
        let rects = self.for_both(frame);
        let [from, to] = frame.ends([Shape::Either; 2]);
        let (Some(written), Some(read)) = (between.first(), between.second()) else {
            return Err(Failure::NoStrategy);
        };
        let (first, file) = self.submit_after(0, strategy, [from, written], &rects, after.first)?;
        let second = dup(file).and_then(|(file, dup)| {
            let after = after.second.into_iter().chain(file);
            let second = self.submit_after(1, strategy, [read, to], &rects, after)?;
            Ok((second, dup))
        });
        match second {
            Ok(((second, file), of_first)) => {
                let of_second = kept(strategy, file);
                tell(frame, strategy, of_both(of_first, of_second), promise);
                Ok(Running::Submitted {
                    steps: Steps::from([first, second]),
                    between: Some(between),
                })
            }
            Err(failure) => {
                log::warn!("blit by {strategy}, its second step: {failure}");
                if !failure.is_of_the_frame() {
                    self.sync_files_across = false;
                }
                Ok(Running::Relay(Relay {
                    first: Some(first),
                    between,
                    strategy,
                    left_to_gpus: true,
                }))
            }
        }
    }

    /// Waits for a frame that GPUs are making. Where that fails, the frame is still to be made.
    ///
    /// Waits as [`Lane::wait`] does: what is being executed cannot be called back, and would write
    /// to the destination when somebody else has it. A GPU that hangs is reset by its kernel
    /// driver long before the deadline, and lost then.
    pub(in crate::blit) fn finish(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let mut done = Ok(());
        for step in steps {
            let gpu = self.lanes[step.lane].as_mut().ok_or(Failure::NoStrategy)?;
            let went = gpu.wait(step.submitted, self.patience, |_| step.warn());
            // All of them, whatever becomes of one.
            done = done.and(went.map_err(Failure::Vulkan));
        }
        done
    }

    /// Keeps the memory of a frame that was finished for others.
    pub(in crate::blit) fn put_back(&mut self, between: Between) {
        self.spare.put(between);
    }

    /// Waits for the first step of a frame and takes the second; waits as [`Self::finish`] does.
    /// Where that fails, the frame is still to be made.
    pub(in crate::blit) fn take_second_step(
        &mut self,
        frame: &Frame,
        relay: Relay,
    ) -> Result<(), Failure> {
        let Relay {
            first,
            mut between,
            strategy,
            ..
        } = relay;
        self.finish(first.as_slice())?;
        let rects = self.for_both(frame);
        if let staging::Memory::Host(host) = &mut between.memory {
            self.hand_on(frame, host, &rects)?;
        }
        if let Some(place) = between.second() {
            let [_, to] = frame.ends([Shape::Either; 2]);
            let second = self.submit(1, strategy, [place, to], &rects)?;
            self.finish(&[second])?;
        }
        // After a failure it is made anew.
        self.put_back(between);
        Ok(())
    }

    /// Waits for what is being executed of a frame that is going to be made in another way.
    pub(in crate::blit) fn give_up(&mut self, running: Running) {
        let steps = match running {
            Running::Submitted { steps, .. } => steps,
            Running::Relay(relay) => relay.first.into_iter().collect(),
        };
        // Whether it worked does not matter.
        let _ = self.finish(&steps);
    }

    /// A strategy has not made the frame.
    pub(in crate::blit) fn failed(&mut self, frame: &Frame, strategy: Strategy, failure: &Failure) {
        self.records.failed(frame, strategy, failure);
        if !failure.is_of_the_frame() {
            self.spare.retain(|spare| spare != strategy);
        }
    }

    /// Makes a frame, by one strategy after the other until one has done it.
    pub(in crate::blit) fn make(&mut self, frame: &Frame) -> Result<(), Failure> {
        let mut left = self.allowed.clone();
        let mut last = Failure::NoStrategy;
        while let Some(choice) = self.choose(frame, &left) {
            let strategy = choice.strategy();
            let tried = matches!(choice, Choice::Try(_));
            let can_verify = tried && self.spoil(frame);
            let start = Instant::now();
            let mut made = self.run(frame, strategy);
            let took = start.elapsed();
            let mut verified = false;
            if made.is_ok() && can_verify {
                (made, verified) = self.verify(frame);
            }
            if made.is_ok() && matches!(choice, Choice::Time(_)) {
                made = self.time_part(frame, choice);
            }
            match made {
                Ok(()) => {
                    self.records.worked(frame, choice, took, verified);
                    let was_settled = matches!(choice, Choice::Use(_));
                    if !was_settled && self.is_settled(frame) {
                        self.let_go();
                    }
                    return Ok(());
                }
                Err(failure) => {
                    self.failed(frame, strategy, &failure);
                    left.retain(|left| *left != strategy);
                    last = failure;
                }
            }
        }
        match last.is_of_the_frame() {
            true => Err(last),
            false => Err(Failure::NoStrategy),
        }
    }

    /// Copies a part of a frame that was just made once more: how long that takes tells what each copy
    /// takes from what its bytes take.
    fn time_part(&mut self, frame: &Frame, choice: Choice) -> Result<(), Failure> {
        let Some(part) = frame.part(PART) else {
            return Ok(());
        };
        let start = Instant::now();
        self.run(&part, choice.strategy())?;
        self.records.worked(&part, choice, start.elapsed(), false);
        Ok(())
    }

    fn run(&mut self, frame: &Frame, strategy: Strategy) -> Result<(), Failure> {
        if strategy == Strategy::Cpu {
            let source = Source::Buffer(&frame.source);
            let destination = Destination::Buffer(&frame.destination);
            return self.maps.copy(source, destination, &frame.rects);
        }
        match self.begin(frame, strategy)? {
            Running::Submitted { steps, .. } => self.finish(&steps),
            Running::Relay(relay) => self.take_second_step(frame, relay),
        }
    }

    fn submit(
        &mut self,
        lane: usize,
        strategy: Strategy,
        ends: Ends<'_>,
        rects: &Rects,
    ) -> Result<Step, Failure> {
        let gpu = self.lanes[lane].as_mut().ok_or(Failure::NoStrategy)?;
        let submitted = gpu.submit(ends, rects).map_err(Failure::Vulkan)?;
        Ok(Step {
            lane,
            submitted,
            strategy,
        })
    }

    /// As [`Self::submit`], ordered by sync files.
    fn submit_after(
        &mut self,
        lane: usize,
        strategy: Strategy,
        ends: Ends<'_>,
        rects: &Rects,
        after: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(Step, Export), Failure> {
        let gpu = self.lanes[lane].as_mut().ok_or(Failure::NoStrategy)?;
        let started = gpu.submit_after(ends, rects, after);
        let (submitted, file) = started.map_err(Failure::Vulkan)?;
        let step = Step {
            lane,
            submitted,
            strategy,
        };
        Ok((step, file))
    }

    fn between(&mut self, frame: &Frame, strategy: Strategy) -> Result<Between, Failure> {
        match self.spare.take(strategy, frame) {
            Some(spare) => Ok(spare),
            None => Between::new(strategy, frame, &self.sides, &self.lanes),
        }
    }

    /// The source's GPU brings the picture to memory in between.
    fn take_first_step(&mut self, frame: &Frame, strategy: Strategy) -> Result<Relay, Failure> {
        let between = self.between(frame, strategy)?;
        let rects = self.for_both(frame);
        let [from, _] = frame.ends([Shape::Either; 2]);
        let first = between.first();
        let first = first.map(|place| self.submit(0, strategy, [from, place], &rects));
        Ok(Relay {
            first: first.transpose()?,
            between,
            strategy,
            left_to_gpus: false,
        })
    }

    /// The rectangles for a copy in two steps: the first brings all that the second takes.
    fn for_both(&self, frame: &Frame) -> Rects {
        match &self.lanes[1] {
            Some(second) => second.snapped(&frame.rects, frame.destination.layout()),
            None => frame.rects.clone(),
        }
    }

    /// From one GPU's host memory to the other's. An end without a GPU is mapped.
    fn hand_on(
        &mut self,
        frame: &Frame,
        [brought, taken]: &mut [Option<Arc<HostPicture>>; 2],
        rects: &Rects,
    ) -> Result<(), Failure> {
        let source = match brought {
            Some(host) => Source::Host(host),
            None => Source::Buffer(&frame.source),
        };
        let destination = match taken {
            // Nobody else has it between frames: they are finished.
            Some(host) => Destination::Host(Arc::get_mut(host).ok_or(Failure::NoStrategy)?),
            None => Destination::Buffer(&frame.destination),
        };
        self.maps.copy(source, destination, rects)
    }

    /// Prepares a look at whether the picture arrives; `false` where the memory cannot be looked
    /// at.
    fn spoil(&mut self, frame: &Frame) -> bool {
        let linear = |buffer: &DmaBuf| buffer.modifier() == Modifier::LINEAR;
        if !linear(&frame.source) || !linear(&frame.destination) {
            return false;
        }
        let spoilt = self
            .looks
            .spoil(&frame.source, &frame.destination, &frame.rects);
        spoilt
            .inspect_err(|error| log::debug!("a copy is not compared: {error}"))
            .is_ok()
    }

    /// Whether the picture has arrived, and that is known.
    fn verify(&mut self, frame: &Frame) -> (Result<(), Failure>, bool) {
        match self
            .looks
            .compare(&frame.source, &frame.destination, &frame.rects)
        {
            Err(unlike @ Failure::Unlike { .. }) => (Err(unlike), true),
            // What the processor cannot read says nothing of what the GPU wrote.
            Err(unreadable) => {
                log::debug!("a copy is not compared: {unreadable}");
                (Ok(()), false)
            }
            Ok(()) => (Ok(()), true),
        }
    }

    fn facts<'a>(&self, index: usize, buffer: &'a DmaBuf) -> Facts<'a> {
        Facts {
            layout: buffer.layout(),
            vulkan: self.sides[index].vulkan.is_some(),
            drm: self.sides[index].drm.is_some(),
            dma_bufs: buffer.objects().len(),
        }
    }

    fn choose(&self, frame: &Frame, allowed: &Allowed) -> Option<Choice> {
        self.records.choose(frame, allowed, self.software, || {
            let source = self.facts(0, &frame.source);
            let destination = self.facts(1, &frame.destination);
            plan::plan(&source, &destination, self.one_gpu)
        })
    }
}

impl Running {
    fn submitted(step: Step) -> Self {
        Self::Submitted {
            steps: Steps::from_iter([step]),
            between: None,
        }
    }
}

/// A sync file, `None` for what is done already.
type Export = Result<Option<OwnedFd>, vk::Error>;

/// The sync file of a copy, and what it is when it cannot be had: it is being executed all the same.
fn kept(strategy: Strategy, file: Export) -> Option<SyncFile> {
    let file = file.unwrap_or_else(|error| {
        log::warn!("blit by {strategy}, without its sync file: {error}");
        None
    });
    file.and_then(|file| SyncFile::new(file).ok())
}

/// One to give away and one to keep.
fn dup(file: Export) -> Result<(Option<OwnedFd>, Option<SyncFile>), Failure> {
    let Some(file) = file.map_err(Failure::Vulkan)? else {
        return Ok((None, None));
    };
    let dup = file.try_clone();
    let dup = dup.map_err(|error| {
        Failure::Cpu(sync::Error::Duplicate {
            errno: crate::sys::errno(error),
        })
    })?;
    Ok((Some(file), SyncFile::new(dup).ok()))
}

/// Signalled when both steps are, with the error of either. Without the second one's there is none
/// for the whole.
fn of_both(first: Option<SyncFile>, second: Option<SyncFile>) -> Option<SyncFile> {
    let second = second?;
    match first {
        None => Some(second),
        Some(first) => first.merge(&second).ok(),
    }
}

/// Passes the sync file of a copy on: to who asked for the copy, and into the dma-bufs for those
/// who synchronise implicitly.
fn tell(frame: &Frame, strategy: Strategy, file: Option<SyncFile>, promise: &Promise) {
    let Some(file) = file else {
        return;
    };
    let ends = [
        (&frame.source, Access::Read),
        (&frame.destination, Access::Write),
    ];
    for (buffer, access) in ends {
        if let Err(error) = implicit::import(buffer, &file, access) {
            log::debug!("blit by {strategy}: no fence left in the dma-buf: {error}");
        }
    }
    promise.executed_at(file);
}

/// Which GPU makes the copy, where one does by itself, and what it imports.
fn by_one_gpu(strategy: Strategy) -> Option<(usize, [Shape; 2])> {
    use Shape::{Bytes, Either, Image};
    match strategy {
        Strategy::Pull => Some((1, [Image, Image])),
        Strategy::Push => Some((0, [Image, Image])),
        Strategy::PullBytes => Some((1, [Bytes, Either])),
        Strategy::PushBytes => Some((0, [Either, Bytes])),
        Strategy::Staged(_) | Strategy::Cpu | Strategy::HostMemory => None,
    }
}

/// Whether it takes two steps.
pub(in crate::blit) fn is_relay(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::Staged(_) | Strategy::HostMemory)
}
