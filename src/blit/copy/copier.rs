//! Makes copies by a given strategy, on Vulkan devices of the two ends.
//!
//! A copier does not choose strategies and remembers nothing about them: it only reports how a copy went.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::cpu::{Destination, Maps, Source};
use super::frame::Frame;
use super::gpu::{CopyQueue, Submitted, Work};
use super::host::HostPicture;
use super::place::{Ends, Place, Shape};
use super::staging::{Memory, StagingBuffer, StagingPool};
use crate::blit::Failure;
use crate::blit::choose::Allowed;
use crate::blit::choose::plan::Facts;
use crate::blit::damage::Rects;
use crate::blit::options::{BlitDevice, Gpu, SyncFiles};
use crate::blit::strategy::Strategy;
use crate::buffer::DmaBuf;
use crate::sync::{self, SyncFile};
use crate::vk;

/// A copy under way.
#[derive(Debug)]
pub(in crate::blit) enum Running {
    /// All steps have been submitted to GPUs.
    Submitted {
        steps: Steps,
        /// The memory between the two steps.
        staging: Option<StagingBuffer>,
    },
    /// Only the first of two steps has been submitted.
    FirstStep(FirstStep),
}

/// The steps of a copy, in their order.
pub(in crate::blit) type Steps = ArrayVec<Step, 2>;

/// What one GPU is doing for a copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Step {
    end: usize,
    /// The generation of the queue. If the queue was made anew since, the submission was lost with its
    /// device.
    generation: u32,
    submitted: Submitted,
    strategy: Strategy,
}

/// A copy in two steps, of which the source's GPU makes the first.
#[derive(Debug)]
pub(in crate::blit) struct FirstStep {
    /// `None` if the CPU will take the picture from the source itself.
    step: Option<Step>,
    staging: StagingBuffer,
    strategy: Strategy,
    /// The generations of both queues: host memory belongs to their devices.
    generations: [u32; 2],
    /// Whether the first step was submitted with the frame's fences, so that the second step has to wait
    /// for them, too.
    left_to_gpus: bool,
}

/// What the steps of a copy wait for, as sync files.
#[derive(Default)]
pub(in crate::blit) struct Waits<T> {
    /// What the only step, or the first of two, waits for.
    pub(in crate::blit) first: T,
    /// What the second step waits for besides the first step. It is given all its fences itself: if the
    /// first step's GPU is lost, the fence of that step is signalled early.
    pub(in crate::blit) second: T,
}

/// A copy that was started, and its sync file. `None` if it cannot have one, or if the copy is over.
pub(in crate::blit) type Started = (Running, Option<SyncFile>);

impl Step {
    pub(in crate::blit) fn warn(self) {
        log::warn!("blit by {}: still waiting for the GPU", self.strategy);
    }
}

impl FirstStep {
    /// Whether the second step still has to wait for the frame's fences.
    pub(in crate::blit) fn has_to_wait(&self) -> bool {
        self.left_to_gpus
    }

    pub(in crate::blit) fn strategy(&self) -> Strategy {
        self.strategy
    }
}

impl Running {
    fn submitted(step: Step) -> Self {
        Self::Submitted {
            steps: Steps::from_iter([step]),
            staging: None,
        }
    }

    pub(in crate::blit) fn strategy(&self) -> Option<Strategy> {
        match self {
            Self::Submitted { steps, .. } => steps.last().map(|step| step.strategy),
            Self::FirstStep(first) => Some(first.strategy),
        }
    }
}

/// The GPU of one end. Its Vulkan device is made when it is needed, and made anew after a loss.
#[derive(Debug, Default)]
struct End {
    queue: Option<CopyQueue>,
    generation: u32,
    /// Why the program's own device is not used any more.
    lost: Option<vk::Error>,
}

/// Which devices a [`Copier`] uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) enum For {
    Frames,
    /// Never the program's own: a trial may lose a device.
    Trials,
}

#[derive(Debug)]
pub(in crate::blit) struct Copier {
    sides: [BlitDevice; 2],
    purpose: For,
    /// Source and destination.
    ends: [End; 2],
    one_gpu: bool,
    maps: Maps,
    pool: StagingPool,
    in_flight: usize,
    /// How long a copy may wait for its fences.
    input_timeout: Duration,
    /// Which of the GPUs have a queue that runs compute shaders.
    computes: [bool; 2],
    /// Which of the GPUs order copies by sync files: those that can, if the options ask for it.
    sync_files: [bool; 2],
    /// Whether the destination's GPU takes sync files of the source's GPU.
    sync_files_across: bool,
    /// Devices that still execute work that nobody waits for any more.
    abandoned: Vec<vk::Device>,
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.let_go_of_abandoned();
    }
}

impl Copier {
    pub(in crate::blit) fn new(
        sides: [BlitDevice; 2],
        purpose: For,
        in_flight: usize,
        input_timeout: Duration,
        wanted: SyncFiles,
    ) -> Self {
        let sync_files = [0, 1].map(|end: usize| gives_sync_files(&sides[end], wanted));
        Self {
            one_gpu: is_one_gpu(&sides),
            purpose,
            ends: Default::default(),
            maps: Maps::new(),
            pool: StagingPool::default(),
            in_flight,
            input_timeout,
            computes: [0, 1].map(|end: usize| computes(&sides[end])),
            sync_files,
            sync_files_across: sync_files == [true, true],
            abandoned: Vec::new(),
            sides,
        }
    }

    pub(in crate::blit) fn sides(&self) -> &[BlitDevice; 2] {
        &self.sides
    }

    pub(in crate::blit) fn is_one_gpu(&self) -> bool {
        self.one_gpu
    }

    pub(in crate::blit) fn has_gpu(&self, end: usize) -> bool {
        !matches!(self.sides[end].gpu, Gpu::None)
    }

    /// Whether a frame by this strategy can be ordered by sync files.
    pub(in crate::blit) fn gives_sync_files(&self, strategy: Strategy) -> bool {
        match (by_one_gpu(strategy), strategy) {
            (Some((end, _)), _) => self.sync_files[end],
            (None, Strategy::Staged(_)) => self.sync_files_across,
            _ => false,
        }
    }

    /// Whether a frame by this strategy can be submitted while its fences are pending. Not on a queue of the
    /// program's, where the program's own submissions would wait behind it.
    pub(in crate::blit) fn may_wait_on_gpus(&self, strategy: Strategy) -> bool {
        let is_own = |end: usize| matches!(self.sides[end].gpu, Gpu::Own(_));
        match by_one_gpu(strategy) {
            Some((end, _)) => is_own(end),
            None => is_own(0) && is_own(1),
        }
    }

    /// Whether a frame by this strategy can be started without making a device or memory for it first.
    pub(in crate::blit) fn is_prepared(&self, frame: &Frame, strategy: Strategy) -> bool {
        match by_one_gpu(strategy) {
            Some((end, _)) => self.ends[end].queue.is_some(),
            None => {
                let made = |end: usize| !self.has_gpu(end) || self.ends[end].queue.is_some();
                made(0) && made(1) && self.pool.has(strategy, frame)
            }
        }
    }

    /// Bytes of staging memory that no copy uses at the moment, and of the GPUs' scratch memory.
    pub(in crate::blit) fn spare_bytes(&self) -> u64 {
        let queues = self.ends.iter().filter_map(|end| end.queue.as_ref());
        let scratch: u64 = queues.map(CopyQueue::scratch_bytes).sum();
        self.pool.bytes() + scratch
    }

    /// What the planner is to know of one end.
    pub(in crate::blit) fn facts<'a>(&self, end: usize, buffer: &'a DmaBuf) -> Facts<'a> {
        Facts {
            layout: buffer.desc(),
            vulkan: self.has_gpu(end),
            drm: self.sides[end].drm.is_some(),
            computes: self.computes[end],
            dma_bufs: buffer.objects().len(),
        }
    }

    /// The device of one end. It is made if there is none.
    pub(in crate::blit) fn device(&mut self, end: usize) -> Result<&vk::Device, Failure> {
        self.queue(end).map(|queue| queue.device())
    }

    fn queue(&mut self, end: usize) -> Result<&mut CopyQueue, Failure> {
        self.let_go_of_abandoned();
        if self.ends[end].queue.is_none() {
            let device = self.new_device(end)?;
            let queue = CopyQueue::new(&device, self.in_flight).map_err(Failure::Vulkan)?;
            self.ends[end].generation = self.ends[end].generation.wrapping_add(1);
            self.ends[end].queue = Some(queue);
        }
        self.ends[end].queue.as_mut().ok_or(Failure::NoStrategy)
    }

    /// Drops abandoned devices whose work has ended after all.
    fn let_go_of_abandoned(&mut self) {
        self.abandoned
            .retain(|device| !device.let_go_of_unfinished());
    }

    fn new_device(&self, end: usize) -> Result<vk::Device, Failure> {
        if self.one_gpu
            && let Some(other) = &self.ends[1 - end].queue
        {
            return Ok(other.device().clone());
        }
        if let Some(lost) = &self.ends[end].lost {
            return Err(Failure::Vulkan(lost.clone()));
        }
        match (&self.sides[end].gpu, self.purpose) {
            (Gpu::None, _) => Err(Failure::NoStrategy),
            (Gpu::Host(device), For::Frames) => Ok(device.clone()),
            (Gpu::Host(device), For::Trials) => {
                own_device(device.physical(), self.sides[end].queue)
            }
            (Gpu::Own(physical), _) => own_device(physical, self.sides[end].queue),
        }
    }

    /// Handles the failure of a GPU: drops a lost device with all that was imported on it.
    fn failed(&mut self, end: usize, error: vk::Error) -> Failure {
        if error.is_device_lost() {
            log::warn!("blit: {error}");
            let is_hosts = matches!(self.sides[end].gpu, Gpu::Host(_));
            // Host memory belongs to the device.
            self.pool
                .retain(|strategy| strategy != Strategy::HostMemory);
            for other in [0, 1] {
                if other == end || self.one_gpu {
                    self.ends[other].queue = None;
                    if is_hosts && self.purpose == For::Frames {
                        self.ends[other].lost = Some(error.clone());
                    }
                }
            }
        }
        Failure::Vulkan(error)
    }

    /// Frees the memory and the imports of all strategies but those in `used`.
    pub(in crate::blit) fn keep_only(&mut self, used: &Allowed) {
        self.pool.retain(|strategy| used.contains(&strategy));
        let by_cpu = [Strategy::Cpu, Strategy::HostMemory];
        if !by_cpu.iter().any(|strategy| used.contains(strategy)) {
            self.maps = Maps::new();
        }
        for end in &mut self.ends {
            if let Some(queue) = &mut end.queue {
                queue.forget_imports();
            }
        }
    }

    /// Starts a copy after the fences in `after`. There may be fences only if the strategy
    /// [gives sync files](Self::gives_sync_files).
    pub(in crate::blit) fn start(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        after: Waits<impl IntoIterator<Item = OwnedFd>>,
    ) -> Result<Started, Failure> {
        if !self.gives_sync_files(strategy) {
            return Ok((self.begin(frame, strategy)?, None));
        }
        match by_one_gpu(strategy) {
            Some((end, shapes)) => {
                let ends = frame.ends(shapes);
                let work = Work::of(frame);
                let (step, file) = self.submit_after(end, strategy, ends, work, after.first)?;
                Ok((Running::submitted(step), kept(strategy, file)))
            }
            None => self.start_both_steps(frame, strategy, after),
        }
    }

    fn begin(&mut self, frame: &Frame, strategy: Strategy) -> Result<Running, Failure> {
        match by_one_gpu(strategy) {
            Some((end, shapes)) => self
                .submit(end, strategy, frame.ends(shapes), Work::of(frame))
                .map(Running::submitted),
            None => self
                .start_first_step(frame, strategy)
                .map(Running::FirstStep),
        }
    }

    /// Submits both steps, of which the second waits for the first on the GPU. If the second cannot be
    /// submitted, it is left to be taken later.
    fn start_both_steps(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        after: Waits<impl IntoIterator<Item = OwnedFd>>,
    ) -> Result<Started, Failure> {
        let staging = self.staging(frame, strategy)?;
        let rects = self.for_first(frame)?;
        let [from, to] = frame.ends([Shape::Either; 2]);
        let (Some(written), Some(read)) = (staging.first(), staging.second()) else {
            return Err(Failure::NoStrategy);
        };
        let (first, file) = self.submit_after(
            0,
            strategy,
            [from, written],
            Work::plain(&rects),
            after.first,
        )?;
        let second = dup(file).and_then(|(file, dup)| {
            let after = after.second.into_iter().chain(file);
            let work = Work::of(frame);
            let second = self.submit_after(1, strategy, [read, to], work, after)?;
            Ok((second, dup))
        });
        match second {
            Ok(((second, file), of_first)) => {
                let file = of_both(of_first, kept(strategy, file));
                let running = Running::Submitted {
                    steps: Steps::from([first, second]),
                    staging: Some(staging),
                };
                Ok((running, file))
            }
            Err(failure) => {
                log::warn!("blit by {strategy}, its second step: {failure}");
                if !failure.is_of_the_frame() {
                    self.sync_files_across = false;
                }
                let first = FirstStep {
                    step: Some(first),
                    staging,
                    strategy,
                    generations: self.generations(),
                    left_to_gpus: true,
                };
                Ok((Running::FirstStep(first), None))
            }
        }
    }

    /// Waits for a frame that GPUs are making. After an error the frame is still to be made.
    ///
    /// Waits as long as [`CopyQueue::wait`] does. A submission cannot be called back, and must not write to
    /// the destination after others use it. If a GPU hangs, its kernel driver resets it long before the
    /// deadline, and the device is lost.
    pub(in crate::blit) fn finish(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let mut done = Ok(());
        for step in steps {
            // All steps are waited for, also if one fails.
            done = done.and(self.finish_step(step));
        }
        done
    }

    fn finish_step(&mut self, step: &Step) -> Result<(), Failure> {
        let end = &mut self.ends[step.end];
        let lost = || Failure::Lost(step.strategy);
        let queue = end.queue.as_mut().ok_or_else(lost)?;
        if end.generation != step.generation {
            return Err(lost());
        }
        let went = queue.wait(step.submitted, self.input_timeout, |_| step.warn());
        went.map_err(|error| self.failed(step.end, error))
    }

    /// As [`Self::finish`], until the deadline at most. `None` if the frame is not done by then; it has to be
    /// waited for again.
    pub(in crate::blit) fn finish_until(
        &mut self,
        steps: &[Step],
        until: Instant,
    ) -> Option<Result<(), Failure>> {
        let mut done = Ok(());
        for step in steps {
            let end = &mut self.ends[step.end];
            let is_same = end.generation == step.generation;
            let went = match end.queue.as_mut().filter(|_| is_same) {
                None => Err(Failure::Lost(step.strategy)),
                Some(queue) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let went = queue.wait_in(step.submitted, left)?;
                    went.map_err(|error| self.failed(step.end, error))
                }
            };
            done = done.and(went);
        }
        Some(done)
    }

    fn generations(&self) -> [u32; 2] {
        [0, 1].map(|end: usize| match self.ends[end].queue {
            Some(_) => self.ends[end].generation,
            None => 0,
        })
    }

    /// Gives up a frame that GPUs should have made long ago, and with it their queues, on which nothing else
    /// would be executed.
    pub(in crate::blit) fn abandon(&mut self, steps: &[Step]) -> Failure {
        let mut failure = Failure::NoStrategy;
        for step in steps {
            let end = &mut self.ends[step.end];
            let is_same = end.generation == step.generation;
            if let Some(queue) = end.queue.take_if(|_| is_same) {
                self.pool
                    .retain(|strategy| strategy != Strategy::HostMemory);
                self.abandoned.push(queue.device().clone());
                failure = Failure::Vulkan(queue.abandon(self.input_timeout));
            } else {
                failure = Failure::Lost(step.strategy);
            }
        }
        failure
    }

    /// Stops ordering copies by sync files.
    pub(in crate::blit) fn without_sync_files(&mut self) {
        (self.sync_files, self.sync_files_across) = ([false; 2], false);
    }

    /// Whether a frame that GPUs are making is done, or will never be. Does not wait.
    pub(in crate::blit) fn is_over(&mut self, steps: &[Step]) -> bool {
        steps.iter().all(|step| {
            let end = &mut self.ends[step.end];
            let is_same = end.generation == step.generation;
            let queue = end.queue.as_mut().filter(|_| is_same);
            queue.is_none_or(|queue| queue.is_over(step.submitted))
        })
    }

    /// Keeps the staging memory of a finished frame for later ones.
    pub(in crate::blit) fn put_back(&mut self, staging: StagingBuffer) {
        self.pool.put(staging);
    }

    /// Waits for the first step of a frame and takes the second. Waits as [`Self::finish`] does. After an
    /// error the frame is still to be made.
    pub(in crate::blit) fn take_second_step(
        &mut self,
        frame: &Frame,
        first: FirstStep,
    ) -> Result<(), Failure> {
        let FirstStep {
            step,
            mut staging,
            strategy,
            generations,
            ..
        } = first;
        self.finish(step.as_slice())?;
        if strategy == Strategy::HostMemory && generations != self.generations() {
            return Err(Failure::Lost(strategy));
        }
        let rects = self.for_both(frame)?;
        if let Memory::Host(host) = &mut staging.memory {
            self.copy_between(frame, host, &rects)?;
        }
        if let Some(place) = staging.second() {
            let [_, to] = frame.ends([Shape::Either; 2]);
            let work = match &staging.memory {
                // The CPU has converted the pixels already.
                Memory::Host(_) => Work::plain(&rects),
                Memory::Shared(_) => Work::of(frame),
            };
            let second = self.submit(1, strategy, [place, to], work)?;
            self.finish(&[second])?;
        }
        // Not put back after a failure: it is made anew then.
        self.put_back(staging);
        Ok(())
    }

    /// Waits for the steps that GPUs still execute of a frame that is going to be made in another way.
    pub(in crate::blit) fn give_up(&mut self, running: Running) {
        let steps = match running {
            Running::Submitted { steps, .. } => steps,
            Running::FirstStep(first) => first.step.into_iter().collect(),
        };
        // It does not matter whether they succeed.
        let _ = self.finish(&steps);
    }

    /// Makes a copy from beginning to end.
    pub(in crate::blit) fn run(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
    ) -> Result<(), Failure> {
        if strategy == Strategy::Cpu {
            let source = Source::Buffer(&frame.source);
            let destination = Destination::Buffer(&frame.destination);
            return self.maps.copy(
                source,
                destination,
                &frame.rects,
                frame.scaling.as_ref(),
                frame.encoding,
            );
        }
        match self.begin(frame, strategy)? {
            Running::Submitted { steps, .. } => self.finish(&steps),
            Running::FirstStep(first) => self.take_second_step(frame, first),
        }
    }

    /// Makes a copy several times, with as many under way at once as the GPUs take.
    pub(in crate::blit) fn run_many(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        times: usize,
    ) -> Result<(), Failure> {
        if by_one_gpu(strategy).is_none() {
            return (0..times).try_for_each(|_| self.run(frame, strategy));
        }
        let mut under_way = Steps::new_const();
        let mut done = Ok(());
        for _ in 0..times {
            if under_way.is_full() {
                done = done.and(self.finish(&under_way));
                under_way.clear();
            }
            match self.begin(frame, strategy) {
                Ok(Running::Submitted { steps, .. }) => under_way.extend(steps),
                Ok(running) => self.give_up(running),
                Err(failure) => done = done.and(Err(failure)),
            }
            if done.is_err() {
                break;
            }
        }
        // All are waited for, also if one has failed.
        self.finish(&under_way).and(done)
    }

    /// Has the GPU of one end copy from one place to another, and waits for it.
    pub(in crate::blit) fn run_by(
        &mut self,
        end: usize,
        ends: Ends<'_>,
        rects: &Rects,
    ) -> Result<(), Failure> {
        let step = self.submit(end, Strategy::HostMemory, ends, Work::plain(rects))?;
        self.finish(&[step])
    }

    fn submit(
        &mut self,
        end: usize,
        strategy: Strategy,
        ends: Ends<'_>,
        work: Work<'_>,
    ) -> Result<Step, Failure> {
        let submitted = self.queue(end)?.submit(ends, work);
        let submitted = submitted.map_err(|error| self.failed(end, error))?;
        Ok(self.step(end, strategy, submitted))
    }

    fn step(&self, end: usize, strategy: Strategy, submitted: Submitted) -> Step {
        Step {
            end,
            generation: self.ends[end].generation,
            submitted,
            strategy,
        }
    }

    /// As [`Self::submit`], ordered by sync files.
    fn submit_after(
        &mut self,
        end: usize,
        strategy: Strategy,
        ends: Ends<'_>,
        work: Work<'_>,
        after: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(Step, Export), Failure> {
        let started = self.queue(end)?.submit_after(ends, work, after);
        let (submitted, file) = started.map_err(|error| self.failed(end, error))?;
        Ok((self.step(end, strategy, submitted), file))
    }

    fn staging(&mut self, frame: &Frame, strategy: Strategy) -> Result<StagingBuffer, Failure> {
        if let Some(spare) = self.pool.take(strategy, frame) {
            return Ok(spare);
        }
        for end in [0, 1] {
            if self.has_gpu(end) {
                self.queue(end)?;
            }
        }
        let devices = [0, 1].map(|end: usize| self.ends[end].queue.as_ref().map(CopyQueue::device));
        StagingBuffer::new(strategy, frame, &self.sides, devices)
    }

    /// Starts the first step, in which the source's GPU copies the picture to staging memory.
    fn start_first_step(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
    ) -> Result<FirstStep, Failure> {
        let staging = self.staging(frame, strategy)?;
        let rects = self.for_first(frame)?;
        let [from, _] = frame.ends([Shape::Either; 2]);
        let work = Work::plain(&rects);
        let place = staging.first();
        let step = place.map(|place| self.submit(0, strategy, [from, place], work));
        Ok(FirstStep {
            step: step.transpose()?,
            staging,
            strategy,
            generations: self.generations(),
            left_to_gpus: false,
        })
    }

    /// The rectangles of the source that the first of two steps copies.
    fn for_first(&mut self, frame: &Frame) -> Result<Rects, Failure> {
        match frame.is_resampled() {
            true => Ok(frame.source_rects()),
            false => self.for_both(frame),
        }
    }

    /// The rectangles for both steps of a copy, so that the first copies all that the second reads.
    fn for_both(&mut self, frame: &Frame) -> Result<Rects, Failure> {
        if !self.has_gpu(1) {
            return Ok(frame.rects.clone());
        }
        let second = self.queue(1)?;
        Ok(second.snapped(&frame.rects, frame.destination.desc()))
    }

    /// Copies by the CPU from one GPU's host memory to the other's. The buffer of an end without a GPU is
    /// mapped.
    fn copy_between(
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
            // Nobody else refers to it: the frames that used it are finished.
            Some(host) => Destination::Host(Arc::get_mut(host).ok_or(Failure::NoStrategy)?),
            None => Destination::Buffer(&frame.destination),
        };
        let (scaling, encoding) = (frame.scaling.as_ref(), frame.encoding);
        self.maps
            .copy(source, destination, rects, scaling, encoding)
    }
}

fn own_device(physical: &vk::PhysicalDevice, queue: vk::QueueWish) -> Result<vk::Device, Failure> {
    vk::Device::with_queue_wish(physical, queue).map_err(Failure::Vulkan)
}

/// Whether both ends have the same physical device or the same Vulkan device. A software device at both ends
/// counts as two, since it stands for the GPUs of two DRM devices.
fn is_one_gpu([a, b]: &[BlitDevice; 2]) -> bool {
    match (&a.gpu, &b.gpu) {
        (Gpu::Host(a), Gpu::Host(b)) => a.is(b),
        (Gpu::Own(one), Gpu::Own(other)) => {
            let drm = |side: &BlitDevice| side.drm.as_ref().map(|drm| drm.node().id);
            one.raw() == other.raw() && (!one.is_software() || drm(a) == drm(b))
        }
        _ => false,
    }
}

fn computes(side: &BlitDevice) -> bool {
    let queue = match &side.gpu {
        Gpu::None => return false,
        Gpu::Own(physical) => vk::Device::wished_queue_flags(physical, side.queue),
        Gpu::Host(device) => device.queue_flags(),
    };
    queue.contains(vk::ash::vk::QueueFlags::COMPUTE)
}

fn gives_sync_files(side: &BlitDevice, wanted: SyncFiles) -> bool {
    let has = match &side.gpu {
        Gpu::None => false,
        Gpu::Own(physical) => physical.takes_pending_sync_files(),
        Gpu::Host(device) => device.takes_pending_sync_files(),
    };
    match wanted {
        SyncFiles::Never => false,
        SyncFiles::Hardware => has && !side.is_software(),
        SyncFiles::Always => has,
    }
}

/// An exported sync file. `None` if the work is done already.
type Export = Result<Option<OwnedFd>, vk::Error>;

/// The sync file of a copy. `None` if it cannot be had: the copy is executed all the same.
fn kept(strategy: Strategy, file: Export) -> Option<SyncFile> {
    let file = file.unwrap_or_else(|error| {
        log::warn!("blit by {strategy}, without its sync file: {error}");
        None
    });
    file.and_then(|file| SyncFile::new(file).ok())
}

/// Two of one sync file: one to give away and one to keep.
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

/// A sync file that is signalled when both steps are done, with the error of either. `None` if the second
/// step has none.
fn of_both(first: Option<SyncFile>, second: Option<SyncFile>) -> Option<SyncFile> {
    let second = second?;
    match first {
        None => Some(second),
        Some(first) => first.merge(&second).ok(),
    }
}

/// For a strategy by which one GPU makes the copy alone: the end of this GPU, and what it imports the
/// buffers as.
pub(in crate::blit) fn by_one_gpu(strategy: Strategy) -> Option<(usize, [Shape; 2])> {
    use Shape::{Bytes, Either, Image};
    match strategy {
        Strategy::Pull => Some((1, [Image, Image])),
        Strategy::Push => Some((0, [Image, Image])),
        Strategy::PullBytes => Some((1, [Bytes, Either])),
        Strategy::PushBytes => Some((0, [Either, Bytes])),
        Strategy::Staged(_) | Strategy::Cpu | Strategy::HostMemory => None,
    }
}

/// All of a buffer, as one end's GPU sees it.
pub(in crate::blit) fn whole(buffer: &DmaBuf) -> Place<'_> {
    Place::Buffer(buffer, Shape::Either)
}
