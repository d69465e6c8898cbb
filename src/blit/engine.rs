//! Makes copies: by which strategy, and what becomes of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;

use super::cpu::Maps;
use super::damage::Rects;
use super::gpu::{Lane, Shape, Submitted, Work};
use super::plan::{self, Facts};
use super::strategy::{Carrier, Strategy};
use super::verdict::{Attempt, Outcome, Pace, Verdict, imports};
use super::{Failure, Side};
use crate::alloc::{Allocator, DmaHeap, Dumb, Request, Udmabuf};
use crate::buffer::{DmaBuf, Fourcc, Layout, Modifier};
use crate::gbm::Gbm;
use crate::vk;

/// Runs of a strategy that are timed before it is compared with others.
const TIMED_RUNS: u32 = 3;
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
    fn work(&self) -> Work<'_> {
        Work {
            source: &self.source,
            destination: &self.destination,
            rects: &self.rects,
        }
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
#[derive(Debug)]
pub(super) struct Running {
    pub(super) lane: usize,
    submitted: Submitted,
    strategy: Strategy,
}

/// How a frame was started.
#[derive(Debug)]
pub(super) enum Started {
    Done,
    Running(Running),
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
    staging: FxHashMap<(Carrier, Layout), DmaBuf>,
    patience: Duration,
}

impl Engine {
    pub(super) fn new(
        sides: [Side; 2],
        allowed: Allowed,
        in_flight: usize,
        patience: Duration,
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
        Ok(Self {
            lanes: [lane(&sides[0])?, lane(&sides[1])?],
            one_gpu,
            sides,
            allowed,
            memory,
            maps: Maps::new(),
            staging: FxHashMap::default(),
            patience,
        })
    }

    /// The strategy by which the frame can be started while others are being executed: it is
    /// settled, and one GPU does it.
    pub(super) fn settled(&self, frame: &Frame) -> Option<Strategy> {
        match self.choose(frame, &self.allowed) {
            Some(Choice::Use(strategy)) => lane_of(strategy).map(|_| strategy),
            _ => None,
        }
    }

    /// Starts a settled frame. Where that fails, the frame is still to be made.
    pub(super) fn start(&mut self, frame: &Frame, strategy: Strategy) -> Result<Started, Failure> {
        let started = self.begin(frame, strategy);
        started.inspect_err(|failure| self.failed(frame, strategy, failure))
    }

    /// Waits for a frame that was started. Where that fails, the frame is still to be made.
    pub(super) fn finish(&mut self, frame: &Frame, running: Running) -> Result<(), Failure> {
        let strategy = running.strategy;
        let done = self.wait(running);
        done.inspect_err(|failure| self.failed(frame, strategy, failure))
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
        match self.begin(frame, strategy)? {
            Started::Done => Ok(()),
            Started::Running(running) => self.wait(running),
        }
    }

    fn begin(&mut self, frame: &Frame, strategy: Strategy) -> Result<Started, Failure> {
        use Shape::{Bytes, Either, Image};
        let (lane, shapes) = match strategy {
            Strategy::Pull => (1, [Image, Image]),
            Strategy::Push => (0, [Image, Image]),
            Strategy::PullBytes => (1, [Bytes, Either]),
            Strategy::PushBytes => (0, [Either, Bytes]),
            Strategy::Staged(carrier) => return self.staged(frame, carrier),
            Strategy::Cpu => return self.maps.copy(frame.work()).map(|()| Started::Done),
        };
        self.submit(lane, strategy, frame.work(), shapes)
            .map(Started::Running)
    }

    fn submit(
        &mut self,
        lane: usize,
        strategy: Strategy,
        work: Work<'_>,
        shapes: [Shape; 2],
    ) -> Result<Running, Failure> {
        let gpu = self.lanes[lane].as_mut().ok_or(Failure::NoStrategy)?;
        let submitted = gpu.submit(work, shapes).map_err(Failure::Vulkan)?;
        Ok(Running {
            lane,
            submitted,
            strategy,
        })
    }

    /// Waits for a GPU, however long it takes: what is being executed cannot be called back, and
    /// would write to the destination when somebody else has it. A GPU that hangs is reset by its
    /// kernel driver, and lost then.
    fn wait(&mut self, running: Running) -> Result<(), Failure> {
        let gpu = self.lanes[running.lane]
            .as_mut()
            .ok_or(Failure::NoStrategy)?;
        loop {
            match gpu.wait(running.submitted, self.patience) {
                Err(vk::Error::Timeout { .. }) => {
                    log::warn!("blit by {}: still waiting for the GPU", running.strategy);
                }
                done => return done.map_err(Failure::Vulkan),
            }
        }
    }

    /// By memory that both GPUs import: the source's writes it, then the destination's reads it.
    fn staged(&mut self, frame: &Frame, carrier: Carrier) -> Result<Started, Failure> {
        let staging = self.staging(frame, carrier)?;
        let strategy = Strategy::Staged(carrier);
        let (first, second) = (
            Work {
                destination: &staging,
                ..frame.work()
            },
            Work {
                source: &staging,
                ..frame.work()
            },
        );
        let written = self.submit(0, strategy, first, [Shape::Either; 2])?;
        self.wait(written)?;
        self.submit(1, strategy, second, [Shape::Either; 2])
            .map(Started::Running)
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
        let spoilt = self.maps.spoil(frame.work());
        spoilt
            .inspect_err(|error| log::debug!("a copy is not compared: {error}"))
            .is_ok()
    }

    /// Whether the picture has arrived, and that is known.
    fn verify(&mut self, frame: &Frame) -> (Result<(), Failure>, bool) {
        match self.maps.compare(frame.work()) {
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

    fn failed(&self, frame: &Frame, strategy: Strategy, failure: &Failure) {
        if failure.is_of_the_frame() {
            log::debug!("blit by {strategy}, this frame: {failure}");
            return;
        }
        log::warn!("blit by {strategy}: {failure}");
        self.with_rung(frame, strategy, |rung| {
            rung.state = State::Failed(failure.clone());
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

/// Which GPU makes the copy, where one does by itself.
pub(super) fn lane_of(strategy: Strategy) -> Option<usize> {
    match strategy {
        Strategy::Push | Strategy::PushBytes => Some(0),
        Strategy::Pull | Strategy::PullBytes => Some(1),
        Strategy::Staged(_) | Strategy::Cpu => None,
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
    let mut fastest: Option<(Strategy, f64)> = None;
    for rung in rungs {
        match rung.state {
            State::Untried => return Some(Choice::Try(rung.strategy)),
            State::Works { pace, .. } => {
                let hopeless = pace.runs > 0 && pace.best * HOPELESS < best;
                if pace.runs < TIMED_RUNS && !hopeless {
                    return Some(Choice::Time(rung.strategy));
                }
                if fastest.is_none_or(|(_, rate)| pace.best > rate) {
                    fastest = Some((rung.strategy, pace.best));
                }
            }
            State::NotOffered(_) | State::Failed(_) => {}
        }
    }
    fastest.map(|(strategy, _)| Choice::Use(strategy))
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
                State::Untried => Outcome::Untried,
                State::Failed(failure) => Outcome::Failed(failure.clone()),
                State::Works { verified, pace } => Outcome::Works {
                    verified: *verified,
                    bytes_per_second: (pace.runs > 0).then_some(pace.best),
                },
            },
        };
        let chosen = match choose(rungs, allowed) {
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
        })
    }
}
