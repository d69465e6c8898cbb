//! Makes copies: by which strategy, and what becomes of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;

use super::cpu::{Destination, Maps, Source};
use super::damage::Rects;
use super::fence::Promise;
use super::gpu::{Ends, Lane, Place, Shape, Submitted};
use super::host::HostPicture;
use super::inputs::Fences;
use super::plan::{self, Facts};
use super::strategy::{Carrier, Strategy};
use super::verdict::{Attempt, Outcome, Pace, Verdict, imports};
use super::{Failure, Options, Side, SyncFiles};
use crate::alloc::{Allocator, DmaHeap, Dumb, Request, Udmabuf};
use crate::buffer::{DmaBuf, Fourcc, Layout, Modifier};
use crate::gbm::Gbm;
use crate::sync::{Access, SyncFile, implicit};
use crate::vk;

/// Runs of a strategy that are timed before it is compared with others.
const TIMED_RUNS: u32 = 3;
/// Runs of those that are close to the best by then, in turns, so that what disturbs one for a
/// while does not decide.
const FINAL_RUNS: u32 = 8;
/// Close is what takes up to so many times as long.
const CLOSE: f64 = 1.5;
/// What has failed so often, for whatever reason, without having worked once is tried again only
/// where nothing else works: while something is to be tried, nothing is settled.
const ENOUGH: u32 = 3;
/// One that takes so many times as long as the best is not timed further.
const HOPELESS: f64 = 4.0;
/// Kinds of pairs that are remembered; more are forgotten all together.
const MAX_KINDS: usize = 64;

/// What verdicts are about: formats and modifiers, and whether much or little is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    formats: [(Fourcc, Modifier); 2],
    /// Whether either lies in several dma-bufs.
    scattered: [bool; 2],
    /// Less than a quarter of the picture: what starts a copy counts for more than its bytes.
    small: bool,
}

#[derive(Clone, Debug)]
struct Rung {
    strategy: Strategy,
    state: State,
    /// Before it has worked: failures that said nothing of other frames, and the last of them.
    odd: Option<(u32, Failure)>,
}

impl Rung {
    fn has_failed_enough(&self) -> bool {
        self.odd.as_ref().is_some_and(|(times, _)| *times >= ENOUGH)
    }
}

#[derive(Clone, Debug)]
enum State {
    NotOffered(plan::WhyNot),
    Untried,
    Failed(Failure),
    Works { verified: bool, pace: Pace },
}

/// The strategies that may be used.
pub(super) type Allowed = ArrayVec<Strategy, { Strategy::ALL.len() }>;

type Records = FxHashMap<Kind, Vec<Rung>>;

/// What is known of pairs, shared with whoever asks for a [`Verdict`].
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<Records>>);

impl Memory {
    fn lock(&self) -> std::sync::MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// The strategies in use, where it is settled for all kinds of pairs.
    fn used(&self, allowed: &Allowed) -> Option<Allowed> {
        let records = self.lock();
        let mut used = Allowed::new();
        for rungs in records.values() {
            match choose(rungs, allowed) {
                Some(Choice::Use(strategy)) if used.contains(&strategy) => {}
                Some(Choice::Use(strategy)) => used.push(strategy),
                Some(_) => return None,
                None => {}
            }
        }
        Some(used)
    }
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    /// For the first time: to be compared afterwards.
    Try(Strategy),
    /// Again, to learn how long it takes.
    Time(Strategy),
    /// It is settled.
    Use(Strategy),
}

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) source: DmaBuf,
    pub(super) destination: DmaBuf,
    pub(super) rects: Rects,
}

impl Frame {
    /// From the one buffer to the other.
    fn ends(&self, [from, to]: [Shape; 2]) -> Ends<'_> {
        [
            Place::Buffer(&self.source, from),
            Place::Buffer(&self.destination, to),
        ]
    }

    fn kind(&self) -> Kind {
        let of = |buffer: &DmaBuf| (buffer.fourcc(), buffer.modifier());
        let changed: u64 = self.rects.iter().map(|rect| rect.area()).sum();
        let all = u64::from(self.destination.width()) * u64::from(self.destination.height());
        Kind {
            formats: [of(&self.source), of(&self.destination)],
            scattered: [&self.source, &self.destination].map(|b| b.objects().len() > 1),
            small: changed < all / 4,
        }
    }

    /// Bytes that are copied: of the first plane, which stands for all.
    fn bytes(&self) -> u64 {
        let pixel = crate::buffer::FormatInfo::of(self.destination.fourcc());
        let bytes = pixel.map_or(4, |info| u64::from(info.planes[0].block_bytes));
        self.rects.iter().map(|rect| rect.area() * bytes).sum()
    }
}

/// A copy that a GPU is making.
#[derive(Clone, Debug)]
pub(super) struct Running {
    lane: usize,
    submitted: Submitted,
    strategy: Strategy,
}

impl Running {
    pub(super) fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Whether copies by the strategy are executed after it.
    pub(super) fn goes_before(&self, strategy: Strategy) -> bool {
        by_one_gpu(strategy).is_some_and(|(lane, _)| lane == self.lane)
    }

    pub(super) fn warn(&self) {
        log::warn!("blit by {}: still waiting for the GPU", self.strategy);
    }
}

#[derive(Debug)]
pub(super) struct Engine {
    sides: [Side; 2],
    one_gpu: bool,
    allowed: Allowed,
    memory: Memory,
    /// The source's GPU and the destination's.
    lanes: [Option<Lane>; 2],
    maps: Maps,
    /// For looking at what arrives, while strategies are tried.
    looks: Maps,
    staging: FxHashMap<(Carrier, Layout), DmaBuf>,
    /// Of the same.
    host: [Option<Arc<HostPicture>>; 2],
    patience: Duration,
    /// Which of the GPUs give sync files, and they are wanted.
    sync_files: [bool; 2],
}

impl Engine {
    pub(super) fn new(
        sides: [Side; 2],
        allowed: Allowed,
        in_flight: usize,
        options: &Options,
        memory: Memory,
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
        Ok(Self {
            sync_files: [0, 1].map(|index: usize| lanes[index].as_ref().is_some_and(wanted)),
            lanes,
            one_gpu,
            sides,
            allowed,
            memory,
            maps: Maps::new(),
            looks: Maps::new(),
            staging: FxHashMap::default(),
            host: [None, None],
            patience: options.patience,
        })
    }

    /// The strategy by which the frame can be started while others are being executed: it is
    /// settled, and one GPU does it.
    pub(super) fn settled(&self, frame: &Frame) -> Option<Strategy> {
        match self.choose(frame, &self.allowed) {
            Some(Choice::Use(strategy)) => by_one_gpu(strategy).map(|_| strategy),
            _ => None,
        }
    }

    fn is_settled(&self, frame: &Frame) -> bool {
        matches!(self.choose(frame, &self.allowed), Some(Choice::Use(_)))
    }

    /// Lets go of the memory of strategies that were tried and are not used: at 4K some 200 MiB.
    /// Should one of them be needed after all, it is made anew.
    fn let_go(&mut self) {
        let Some(used) = self.memory.used(&self.allowed) else {
            return;
        };
        self.looks = Maps::new();
        self.staging
            .retain(|(carrier, _), _| used.contains(&Strategy::Staged(*carrier)));
        if !used.contains(&Strategy::HostMemory) {
            self.host = [None, None];
            if !used.contains(&Strategy::Cpu) {
                self.maps = Maps::new();
            }
        }
    }

    /// Whether frames can be ordered by sync files at all.
    pub(super) fn has_sync_files(&self) -> bool {
        self.sync_files.contains(&true)
    }

    /// Whether a frame by this strategy can be ordered by sync files.
    pub(super) fn gives_sync_files(&self, strategy: Strategy) -> bool {
        by_one_gpu(strategy).is_some_and(|(lane, _)| self.sync_files[lane])
    }

    /// Starts a settled frame, after fences of which there may be some only where the strategy
    /// [gives sync files](Self::gives_sync_files); the promise is told of its own. Where that
    /// fails, the frame is still to be made.
    pub(super) fn start(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        after: Fences,
        promise: &Promise,
    ) -> Result<Running, Failure> {
        let started = match by_one_gpu(strategy) {
            Some((lane, shapes)) if self.sync_files[lane] => {
                self.submit_after(lane, strategy, frame, shapes, after, promise)
            }
            Some((lane, shapes)) => self.submit(lane, strategy, frame.ends(shapes), &frame.rects),
            None => Err(Failure::NoStrategy),
        };
        started.inspect_err(|failure| self.failed(frame, strategy, failure))
    }

    /// Waits for a frame that was started. Where that fails, the frame is still to be made, and
    /// [`Self::failed`] to be told.
    ///
    /// Waits however long it takes: what is being executed cannot be called back, and would write
    /// to the destination when somebody else has it. A GPU that hangs is reset by its kernel
    /// driver, and lost then.
    pub(super) fn finish(&mut self, running: &Running) -> Result<(), Failure> {
        let gpu = self.lanes[running.lane]
            .as_mut()
            .ok_or(Failure::NoStrategy)?;
        gpu.wait(running.submitted, self.patience, |_| running.warn())
            .map_err(Failure::Vulkan)
    }

    /// Makes a frame, by one strategy after the other until one has done it.
    pub(super) fn make(&mut self, frame: &Frame) -> Result<(), Failure> {
        let mut left = self.allowed.clone();
        let mut last = Failure::NoStrategy;
        while let Some(choice) = self.choose(frame, &left) {
            let (Choice::Try(strategy) | Choice::Time(strategy) | Choice::Use(strategy)) = choice;
            let tried = matches!(choice, Choice::Try(_));
            let can_verify = tried && self.spoil(frame);
            let start = Instant::now();
            let mut made = self.run(frame, strategy);
            let took = start.elapsed();
            let mut verified = false;
            if made.is_ok() && can_verify {
                (made, verified) = self.verify(frame);
            }
            match made {
                Ok(()) => {
                    self.worked(frame, choice, took, verified);
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

    fn run(&mut self, frame: &Frame, strategy: Strategy) -> Result<(), Failure> {
        let running = match strategy {
            Strategy::Cpu => {
                let ends = (
                    Source::Buffer(&frame.source),
                    Destination::Buffer(&frame.destination),
                );
                return self.maps.copy(ends.0, ends.1, &frame.rects);
            }
            Strategy::HostMemory => return self.by_host_memory(frame),
            Strategy::Staged(carrier) => self.staged(frame, carrier)?,
            _ => {
                let (lane, shapes) = by_one_gpu(strategy).ok_or(Failure::NoStrategy)?;
                self.submit(lane, strategy, frame.ends(shapes), &frame.rects)?
            }
        };
        self.finish(&running)
    }

    fn submit(
        &mut self,
        lane: usize,
        strategy: Strategy,
        ends: Ends<'_>,
        rects: &Rects,
    ) -> Result<Running, Failure> {
        let gpu = self.lanes[lane].as_mut().ok_or(Failure::NoStrategy)?;
        let submitted = gpu.submit(ends, rects).map_err(Failure::Vulkan)?;
        Ok(Running {
            lane,
            submitted,
            strategy,
        })
    }

    /// As [`Self::submit`], ordered by sync files. The copy's own goes into the dma-bufs too, for
    /// those who synchronise implicitly.
    fn submit_after(
        &mut self,
        lane: usize,
        strategy: Strategy,
        frame: &Frame,
        shapes: [Shape; 2],
        after: Fences,
        promise: &Promise,
    ) -> Result<Running, Failure> {
        let gpu = self.lanes[lane].as_mut().ok_or(Failure::NoStrategy)?;
        let started = gpu.submit_after(frame.ends(shapes), &frame.rects, after);
        let (submitted, file) = started.map_err(Failure::Vulkan)?;
        if let Some(file) = file.and_then(|file| SyncFile::new(file).ok()) {
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
        Ok(Running {
            lane,
            submitted,
            strategy,
        })
    }

    /// By memory that both GPUs import: the source's writes it, then the destination's reads it.
    fn staged(&mut self, frame: &Frame, carrier: Carrier) -> Result<Running, Failure> {
        let staging = self.staging(frame, carrier)?;
        let strategy = Strategy::Staged(carrier);
        let between = Place::Buffer(&staging, Shape::Either);
        let rects = self.for_both(frame);
        let [from, to] = frame.ends([Shape::Either; 2]);
        let written = self.submit(0, strategy, [from, between], &rects)?;
        self.finish(&written)?;
        self.submit(1, strategy, [between, to], &rects)
    }

    /// The rectangles for a copy in two steps: the first brings all that the second takes.
    fn for_both(&self, frame: &Frame) -> Rects {
        match &self.lanes[1] {
            Some(second) => second.snapped(&frame.rects, frame.destination.layout()),
            None => frame.rects.clone(),
        }
    }

    /// By host memory of the GPUs. An end without a GPU is mapped.
    fn by_host_memory(&mut self, frame: &Frame) -> Result<(), Failure> {
        let strategy = Strategy::HostMemory;
        let [from, to] = frame.ends([Shape::Either; 2]);
        let rects = self.for_both(frame);
        let brought = self.host_memory(0, &frame.source)?;
        let mut taken = self.host_memory(1, &frame.destination)?;
        if let Some(host) = &brought {
            let written = self.submit(0, strategy, [from, Place::Host(host)], &rects)?;
            self.finish(&written)?;
        }
        let source = match &brought {
            Some(host) => Source::Host(host),
            None => Source::Buffer(&frame.source),
        };
        let destination = match &mut taken {
            // Nobody else has it between frames: they are finished.
            Some(host) => Destination::Host(Arc::get_mut(host).ok_or(Failure::NoStrategy)?),
            None => Destination::Buffer(&frame.destination),
        };
        self.maps.copy(source, destination, &rects)?;
        if let Some(host) = &taken {
            let written = self.submit(1, strategy, [Place::Host(host), to], &rects)?;
            self.finish(&written)?;
        }
        // Kept for the next frame. After a failure it is made anew.
        self.host = [brought, taken];
        Ok(())
    }

    /// Host memory for a GPU's pictures; `None` where there is no GPU.
    fn host_memory(
        &mut self,
        lane: usize,
        buffer: &DmaBuf,
    ) -> Result<Option<Arc<HostPicture>>, Failure> {
        let Some(gpu) = &self.lanes[lane] else {
            return Ok(None);
        };
        let known = self.host[lane].take();
        if let Some(known) = known.filter(|known| known.suits(buffer.layout())) {
            return Ok(Some(known));
        }
        let made = match lane {
            0 => HostPicture::download(gpu.device(), buffer.layout()),
            _ => HostPicture::upload(gpu.device(), buffer.layout()),
        };
        made.map(Arc::new).map(Some).map_err(Failure::Vulkan)
    }

    fn staging(&mut self, frame: &Frame, carrier: Carrier) -> Result<DmaBuf, Failure> {
        let layout = Layout {
            modifier: Modifier::LINEAR,
            ..*frame.source.layout()
        };
        if let Some(known) = self.staging.get(&(carrier, layout)) {
            return Ok(known.clone());
        }
        let request = Request::new(layout.width, layout.height, layout.fourcc);
        let of_drm = |side: &Side| {
            let device = side.drm.as_ref().ok_or(Failure::NoStrategy)?;
            let dumb = Dumb::new(device).allocate(&request);
            dumb.or_else(|error| match Gbm::new(device) {
                Ok(gbm) => gbm.allocate(&request),
                Err(_) => Err(error),
            })
            .map_err(Failure::Allocate)
        };
        let made = match carrier {
            Carrier::Destination => of_drm(&self.sides[1])?,
            Carrier::Source => of_drm(&self.sides[0])?,
            Carrier::Udmabuf => {
                let allocator = Udmabuf::open().map_err(Failure::Allocate)?;
                allocator.allocate(&request).map_err(Failure::Allocate)?
            }
            Carrier::DmaHeap => {
                let allocator = DmaHeap::system().map_err(Failure::Allocate)?;
                allocator.allocate(&request).map_err(Failure::Allocate)?
            }
        };
        // Pictures seldom change their size: what was there before is not wanted any more.
        self.staging.retain(|(of, _), _| *of != carrier);
        self.staging.insert((carrier, layout), made.clone());
        Ok(made)
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

    fn planned(&self, frame: &Frame) -> Vec<Rung> {
        let (source, destination) = (
            self.facts(0, &frame.source),
            self.facts(1, &frame.destination),
        );
        let rung = |(strategy, against): (Strategy, Result<(), plan::WhyNot>)| Rung {
            strategy,
            state: against.map_or_else(State::NotOffered, |()| State::Untried),
            odd: None,
        };
        let plan = plan::plan(&source, &destination, self.one_gpu);
        plan.into_iter().map(rung).collect()
    }

    fn choose(&self, frame: &Frame, allowed: &Allowed) -> Option<Choice> {
        let kind = frame.kind();
        let mut records = self.memory.lock();
        if records.len() >= MAX_KINDS && !records.contains_key(&kind) {
            records.clear();
        }
        let rungs = records.entry(kind).or_insert_with(|| self.planned(frame));
        choose(rungs, allowed)
    }

    pub(super) fn failed(&self, frame: &Frame, strategy: Strategy, failure: &Failure) {
        let of_the_frame = failure.is_of_the_frame();
        match of_the_frame {
            true => log::debug!("blit by {strategy}, this frame: {failure}"),
            false => log::warn!("blit by {strategy}: {failure}"),
        }
        self.with_rung(frame, strategy, |rung| match of_the_frame {
            true => {
                let times = rung.odd.as_ref().map_or(0, |(times, _)| *times);
                rung.odd = Some((times + 1, failure.clone()));
            }
            false => rung.state = State::Failed(failure.clone()),
        });
    }

    fn worked(&self, frame: &Frame, choice: Choice, took: Duration, verified: bool) {
        let (Choice::Try(strategy) | Choice::Time(strategy) | Choice::Use(strategy)) = choice;
        self.with_rung(frame, strategy, |rung| match (choice, &mut rung.state) {
            (Choice::Try(_), state) => {
                log::debug!("blit by {strategy} works");
                // The first time imports and touches fresh pages; it says nothing of the others.
                *state = State::Works {
                    verified,
                    pace: Pace::default(),
                };
            }
            (Choice::Time(_), State::Works { pace, .. }) => pace.add(frame.bytes(), took),
            _ => {}
        });
    }

    fn with_rung(&self, frame: &Frame, strategy: Strategy, change: impl FnOnce(&mut Rung)) {
        let mut records = self.memory.lock();
        let rungs = records.get_mut(&frame.kind());
        let mut rungs = rungs.into_iter().flatten();
        if let Some(rung) = rungs.find(|rung| rung.strategy == strategy) {
            change(rung);
        }
    }
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

/// The strategy for the next frame: one that is to be timed, one that is to be tried, or the
/// fastest.
fn choose(rungs: &[Rung], allowed: &Allowed) -> Option<Choice> {
    let wanted = |rung: &&Rung| allowed.contains(&rung.strategy);
    let rungs = rungs.iter().filter(wanted);
    let pace = |rung: &Rung| match rung.state {
        State::Works { pace, .. } => Some(pace),
        _ => None,
    };
    let best = rungs.clone().filter_map(pace).map(|pace| pace.best);
    let best = best.fold(0.0, f64::max);
    let mut timed: ArrayVec<(Strategy, Pace), { Strategy::ALL.len() }> = ArrayVec::new();
    let mut hopeless = None;
    for rung in rungs {
        match rung.state {
            State::Untried if rung.has_failed_enough() => {
                hopeless.get_or_insert(rung.strategy);
            }
            State::Untried => return Some(Choice::Try(rung.strategy)),
            State::Works { pace, .. } => {
                let slow = pace.runs > 0 && pace.best * HOPELESS < best;
                if pace.runs < TIMED_RUNS && !slow {
                    return Some(Choice::Time(rung.strategy));
                }
                timed.push((rung.strategy, pace));
            }
            State::NotOffered(_) | State::Failed(_) => {}
        }
    }
    let close = timed.iter().filter(|(_, pace)| pace.best * CLOSE >= best);
    if close.clone().count() > 1
        && let Some((strategy, pace)) = close.min_by_key(|(_, pace)| pace.runs)
        && pace.runs < FINAL_RUNS
    {
        return Some(Choice::Time(*strategy));
    }
    let fastest = timed
        .into_iter()
        .reduce(|best, other| match other.1.best > best.1.best {
            true => other,
            false => best,
        });
    let fastest = fastest.map(|(strategy, _)| Choice::Use(strategy));
    fastest.or(hopeless.map(Choice::Try))
}

impl Memory {
    /// What is known of pairs of buffers like these.
    pub(super) fn verdict(
        &self,
        sides: &[Side; 2],
        frame: &Frame,
        allowed: &Allowed,
    ) -> Option<Verdict> {
        let kind = frame.kind();
        // Before the lock, under which nobody waits for a driver.
        let imports = imports(sides, &frame.source, &frame.destination);
        let records = self.lock();
        let rungs = records.get(&kind)?;
        let attempt = |rung: &Rung| Attempt {
            strategy: rung.strategy,
            outcome: match &rung.state {
                State::NotOffered(why) => Outcome::NotOffered(*why),
                State::Untried => match &rung.odd {
                    Some((_, failure)) => Outcome::Failed(failure.clone()),
                    None => Outcome::Untried,
                },
                State::Failed(failure) => Outcome::Failed(failure.clone()),
                State::Works { verified, pace } => Outcome::Works {
                    verified: *verified,
                    bytes_per_second: (pace.runs > 0).then_some(pace.best),
                },
            },
        };
        let next = choose(rungs, allowed);
        let chosen = match next {
            Some(Choice::Use(strategy) | Choice::Time(strategy)) => Some(strategy),
            _ => None,
        };
        Some(Verdict {
            source: sides[0].name.clone(),
            destination: sides[1].name.clone(),
            formats: kind.formats,
            imports,
            attempts: rungs.iter().map(attempt).collect(),
            chosen,
            settled: matches!(next, Some(Choice::Use(_))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(strategy: Strategy, state: State) -> Rung {
        Rung {
            strategy,
            state,
            odd: None,
        }
    }

    fn works(runs: u32, best: f64) -> State {
        State::Works {
            verified: true,
            pace: Pace { runs, best },
        }
    }

    fn all() -> Allowed {
        Strategy::ALL.into_iter().collect()
    }

    #[test]
    fn everything_is_tried_then_timed_then_the_fastest_is_used() {
        let mut rungs = [
            rung(Strategy::Pull, works(0, 0.0)),
            rung(Strategy::Push, State::Untried),
            rung(Strategy::Cpu, works(TIMED_RUNS, 5.0)),
        ];
        assert_eq!(choose(&rungs, &all()), Some(Choice::Time(Strategy::Pull)));
        rungs[0].state = works(TIMED_RUNS, 7.0);
        assert_eq!(choose(&rungs, &all()), Some(Choice::Try(Strategy::Push)));
        rungs[1].state = State::Failed(Failure::NoStrategy);
        assert_eq!(choose(&rungs, &all()), Some(Choice::Time(Strategy::Pull)));
        rungs[0].state = works(FINAL_RUNS, 7.0);
        assert_eq!(choose(&rungs, &all()), Some(Choice::Time(Strategy::Cpu)));
        rungs[2].state = works(FINAL_RUNS, 6.0);
        assert_eq!(choose(&rungs, &all()), Some(Choice::Use(Strategy::Pull)));
    }

    #[test]
    fn those_that_are_close_are_timed_in_turns() {
        let mut rungs = [
            rung(Strategy::Pull, works(TIMED_RUNS, 4.0)),
            rung(Strategy::Push, works(TIMED_RUNS, 2.0)),
            rung(Strategy::Cpu, works(TIMED_RUNS, 5.0)),
        ];
        let mut runs = Vec::new();
        while let Some(Choice::Time(strategy)) = choose(&rungs, &all()) {
            runs.push(strategy);
            let rung = rungs.iter_mut().find(|rung| rung.strategy == strategy);
            if let State::Works { pace, .. } = &mut rung.unwrap().state {
                pace.runs += 1;
            }
        }
        let turns = [Strategy::Pull, Strategy::Cpu].repeat((FINAL_RUNS - TIMED_RUNS) as usize);
        assert_eq!(runs, turns);
        assert_eq!(choose(&rungs, &all()), Some(Choice::Use(Strategy::Cpu)));
    }

    #[test]
    fn the_slow_are_not_timed_to_the_end() {
        let rungs = [
            rung(Strategy::Pull, works(1, 1.0)),
            rung(Strategy::Cpu, works(TIMED_RUNS, 5.0)),
        ];
        assert_eq!(choose(&rungs, &all()), Some(Choice::Use(Strategy::Cpu)));
    }

    #[test]
    fn what_fails_again_and_again_keeps_nobody_from_settling() {
        let mut rungs = [
            rung(Strategy::Pull, State::Untried),
            rung(Strategy::Cpu, works(TIMED_RUNS, 5.0)),
        ];
        rungs[0].odd = Some((ENOUGH - 1, Failure::NoStrategy));
        assert_eq!(choose(&rungs, &all()), Some(Choice::Try(Strategy::Pull)));
        rungs[0].odd = Some((ENOUGH, Failure::NoStrategy));
        assert_eq!(choose(&rungs, &all()), Some(Choice::Use(Strategy::Cpu)));
        // It is better than nothing.
        assert_eq!(
            choose(&rungs[..1], &all()),
            Some(Choice::Try(Strategy::Pull))
        );
    }
}
