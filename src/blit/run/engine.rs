//! Decides by which strategy a frame is made, and starts it.

use std::time::{Duration, Instant};

use super::pair::Pair;
use super::schedule::{MOST_LANES, Route};
use super::waits::Inputs;
use std::sync::Arc;

use crate::blit::choose::Allowed;
use crate::blit::choose::plan;
use crate::blit::choose::records::{Asker, Choice};
use crate::blit::copy::copier::{Copier, For, Running, Started, Step, by_one_gpu};
use crate::blit::copy::frame::Frame;
use crate::blit::copy::staging::StagingBuffer;
use crate::blit::options::{BlitDevice, Gpu, Push};
use crate::blit::strategy::Strategy;
use crate::blit::{Failure, Options};
use crate::sync::{self, Access, SyncFile, implicit};
use crate::sys;

/// After this many frames, the memory and the imports of strategies that made none of them are freed.
const KEPT: u32 = 256;

pub(in crate::blit) struct Engine {
    sides: [BlitDevice; 2],
    /// One for each lane. The first is always there.
    copiers: Vec<Copier>,
    options: Options,
    allowed: Allowed,
    before_trials: Allowed,
    pair: Arc<Pair>,
    /// The strategies that have made frames since [`Self::let_go`] was last called, and those of the period
    /// before.
    in_use: [Allowed; 2],
    /// How many frames were made since then.
    frames: u32,
    /// How long the machine had been suspended in all, as last seen.
    suspended: Duration,
    /// When that was last asked.
    looked_at: Instant,
    /// Whether the kernel takes fences into dma-bufs. `None` before it was asked.
    leaves_fences: Option<bool>,
}

impl Engine {
    pub(in crate::blit) fn new(
        sides: [BlitDevice; 2],
        allowed: Allowed,
        options: &Options,
        pair: Arc<Pair>,
    ) -> Self {
        let mut engine = Self {
            before_trials: before_trials(&sides),
            sides,
            copiers: Vec::new(),
            options: options.clone(),
            allowed,
            pair,
            in_use: Default::default(),
            frames: 0,
            suspended: sys::clock::suspended(),
            looked_at: Instant::now(),
            leaves_fences: None,
        };
        engine.add_lane();
        engine
    }

    fn add_lane(&mut self) {
        let Options {
            in_flight,
            input_timeout,
            sync_files,
            ..
        } = self.options;
        let sides = self.sides.clone();
        let mut copier = Copier::new(sides, For::Frames, in_flight, input_timeout, sync_files);
        if self.leaves_fences == Some(false) {
            copier.without_sync_files();
        }
        self.copiers.push(copier);
    }

    /// The copier of a lane, made where there is none.
    pub(super) fn lane(&mut self, lane: usize) -> &mut Copier {
        let lane = lane.min(MOST_LANES - 1);
        while self.copiers.len() <= lane {
            self.add_lane();
        }
        &mut self.copiers[lane]
    }

    /// What [`Records`](crate::blit::choose::records::Records) has to know of this blitter to choose.
    pub(super) fn asker(&self) -> Asker<'_> {
        asker(
            &self.sides,
            &self.options,
            &self.allowed,
            &self.before_trials,
        )
    }

    fn choose_of(&self, frame: &Frame, left: &Allowed, now: Instant) -> Choice {
        let choice = self
            .pair
            .records
            .choose(frame, &self.asker(), left, now, || {
                let copier = &self.copiers[0];
                let source = copier.facts(0, &frame.source);
                let destination = copier.facts(1, &frame.destination);
                plan::plan(
                    &source,
                    &destination,
                    copier.is_one_gpu(),
                    frame.scaling.as_ref(),
                )
            });
        if choice.wants_trials {
            self.pair.want_trials(frame, &self.allowed);
        }
        choice
    }

    /// The strategy for a frame. Starts trials if something is untried; after a suspend, everything is.
    pub(in crate::blit) fn choose(&mut self, frame: &Frame) -> Choice {
        let now = Instant::now();
        if now.saturating_duration_since(self.looked_at) > Duration::from_secs(1) {
            self.look_for_suspend(now);
        }
        self.choose_of(frame, &self.allowed, now)
    }

    fn look_for_suspend(&mut self, now: Instant) {
        self.looked_at = now;
        let suspended = sys::clock::suspended();
        // The two clocks are read one after the other, so small differences mean nothing.
        if suspended > self.suspended + Duration::from_secs(1) {
            log::debug!("the machine was suspended: copies are measured again");
            self.suspended = suspended;
            self.pair.records.expire();
        }
    }

    /// Whether strategies for frames like this one are being tried.
    pub(super) fn is_in_trial(&self, frame: &Frame) -> bool {
        self.choose_of(frame, &self.allowed, Instant::now())
            .in_trial
    }

    pub(super) fn route(&self, strategy: Strategy) -> Route {
        match (by_one_gpu(strategy), strategy.is_two_step()) {
            (Some((end, _)), _) => Route::OneQueue(end),
            (None, true) if self.orders(strategy) => Route::TwoQueues,
            (None, _) => Route::ByHand,
        }
    }

    /// Whether a frame by this strategy can be ordered by sync files.
    pub(super) fn orders(&self, strategy: Strategy) -> bool {
        self.leaves_fences != Some(false) && self.copiers[0].gives_sync_files(strategy)
    }

    /// Whether a frame by this strategy can be submitted while its fences are pending.
    pub(super) fn may_wait_on_gpus(&self, strategy: Strategy) -> bool {
        self.copiers[0].may_wait_on_gpus(strategy)
    }

    /// Whether a GPU makes the first of two steps.
    pub(super) fn copies_first(&self) -> bool {
        self.copiers[0].has_gpu(0)
    }

    /// Whether a frame by this strategy can be started in a lane without making a device or memory.
    pub(super) fn is_prepared(&self, lane: usize, frame: &Frame, strategy: Strategy) -> bool {
        let copier = self.copiers.get(lane);
        copier.is_some_and(|copier| copier.is_prepared(frame, strategy))
    }

    /// Whether fences can be left in dma-bufs, as Linux allows since 6.0 unless a sandbox forbids it. The
    /// first call finds out by leaving a fence that is signalled.
    pub(super) fn leaves_fences(&mut self, frame: &Frame) -> bool {
        if let Some(known) = self.leaves_fences {
            return known;
        }
        let tried = SyncFile::signalled();
        let tried =
            tried.and_then(|file| implicit::import_sync_file(&frame.source, &file, Access::Read));
        match tried {
            Ok(()) => self.leaves_fences = Some(true),
            // There is no signalled fence to try it with.
            Err(sync::Error::NoSignalled { .. }) => {}
            Err(error) => {
                log::info!("copies are not ordered by sync files: {error}");
                self.leaves_fences = Some(false);
                self.copiers.iter_mut().for_each(Copier::without_sync_files);
            }
        }
        self.leaves_fences != Some(false)
    }

    /// Starts a frame after the fences in `after`, of which there may be some only if the strategy is
    /// [ordered](Self::orders) by them. After an error the frame is still to be made; the caller tells
    /// [`Self::failed`], unless it tries the same again.
    pub(super) fn start(
        &mut self,
        lane: usize,
        frame: &Frame,
        strategy: Strategy,
        after: Inputs,
    ) -> Result<Started, Failure> {
        self.lane(lane).start(frame, strategy, after)
    }

    pub(super) fn finish(&mut self, lane: usize, steps: &[Step]) -> Result<(), Failure> {
        self.lane(lane).finish(steps)
    }

    /// As [`Self::finish`], until the deadline at most. `None` if the frame is not done by then.
    pub(super) fn finish_until(
        &mut self,
        lane: usize,
        steps: &[Step],
        until: Instant,
    ) -> Option<Result<(), Failure>> {
        self.lane(lane).finish_until(steps, until)
    }

    /// Gives up a frame that GPUs should have made long ago, with what it uses.
    pub(super) fn abandon(&mut self, lane: usize, steps: &[Step]) -> Failure {
        self.lane(lane).abandon(steps)
    }

    pub(super) fn is_over(&mut self, lane: usize, steps: &[Step]) -> bool {
        self.lane(lane).is_over(steps)
    }

    pub(super) fn put_back(&mut self, lane: usize, staging: StagingBuffer) {
        self.lane(lane).put_back(staging);
    }

    pub(super) fn give_up(&mut self, lane: usize, running: Running) {
        self.lane(lane).give_up(running);
    }

    /// Notes that a strategy has made a frame, and how long it took, if that could be measured.
    pub(super) fn made(
        &mut self,
        frame: &Frame,
        strategy: Strategy,
        took: Option<Duration>,
        now: Instant,
    ) {
        self.pair.records.made(frame, strategy, took, now);
        let [now, _] = &mut self.in_use;
        if !now.contains(&strategy) {
            now.push(strategy);
        }
        self.frames += 1;
        if self.frames == KEPT {
            self.let_go();
        }
    }

    /// Frees the memory and the imports of strategies that made frames in the period before and none in
    /// this one. They are made anew if they are needed again.
    fn let_go(&mut self) {
        let [now, before] = std::mem::take(&mut self.in_use);
        if before.iter().any(|used| !now.contains(used)) {
            for copier in &mut self.copiers {
                copier.keep_only(&now);
            }
        }
        self.in_use = [Allowed::new(), now];
        self.frames = 0;
    }

    /// Notes that a strategy has failed to make a frame.
    pub(super) fn failed(&mut self, frame: &Frame, strategy: Strategy, failure: &Failure) {
        self.pair
            .records
            .failed(frame, strategy, failure, Instant::now());
    }

    /// Makes a frame in a lane by one strategy after the other, until one succeeds. Calls `tell` with each
    /// that fails.
    pub(super) fn make(
        &mut self,
        lane: usize,
        frame: &Frame,
        mut tell: impl FnMut(Strategy),
    ) -> Result<Strategy, Failure> {
        let mut left = self.allowed.clone();
        let mut last = Failure::NoStrategy;
        loop {
            let start = Instant::now();
            let Some(strategy) = self.choose_of(frame, &left, start).strategy else {
                break;
            };
            match self.lane(lane).run(frame, strategy) {
                Ok(()) => {
                    let now = Instant::now();
                    self.made(frame, strategy, Some(now - start), now);
                    return Ok(strategy);
                }
                Err(failure) => {
                    self.failed(frame, strategy, &failure);
                    tell(strategy);
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

    /// Makes a frame by the CPU.
    pub(super) fn make_by_cpu(&mut self, frame: &Frame) -> Result<(), Failure> {
        let start = Instant::now();
        let made = self.lane(0).run(frame, Strategy::Cpu);
        match &made {
            Ok(()) => {
                let now = Instant::now();
                self.made(frame, Strategy::Cpu, Some(now - start), now);
            }
            Err(failure) => self.failed(frame, Strategy::Cpu, failure),
        }
        made
    }

    /// Bytes of staging memory that no copy uses at the moment.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.copiers.iter().map(Copier::spare_bytes).sum()
    }

    pub(super) fn pair(&self) -> Arc<Pair> {
        self.pair.clone()
    }
}

/// What [`Records`](crate::blit::choose::records::Records) has to know of a blitter to choose.
pub(in crate::blit) fn asker<'a>(
    sides: &[BlitDevice; 2],
    options: &Options,
    allowed: &'a Allowed,
    before_trials: &'a [Strategy],
) -> Asker<'a> {
    let is_hosts = |side: &BlitDevice| matches!(side.gpu, Gpu::Host(_));
    Asker {
        allowed,
        before_trials,
        may_risk: !sides.iter().any(is_hosts),
        pushes_freely: options.push == Push::Freely,
        software: [0, 1].map(|end: usize| sides[end].is_software()),
    }
}

/// The strategies that may make frames before trials are over, the best guess first. With a GPU, host memory
/// comes first: GPUs read video memory faster than the CPU does. The program's own device is given only
/// what is known to work.
pub(in crate::blit) fn before_trials(sides: &[BlitDevice; 2]) -> Allowed {
    let is_own_or_none = |side: &BlitDevice| !matches!(side.gpu, Gpu::Host(_));
    let is_gpu = |side: &BlitDevice| side.physical().is_some() && !side.is_software();
    match (sides.iter().all(is_own_or_none), sides.iter().any(is_gpu)) {
        (true, true) => Allowed::from_iter([Strategy::HostMemory, Strategy::Cpu]),
        (true, false) => Allowed::from_iter([Strategy::Cpu, Strategy::HostMemory]),
        (false, _) => Allowed::from_iter([Strategy::Cpu]),
    }
}

/// Leaves the sync file of a copy in the dma-bufs, for users that synchronise implicitly.
pub(super) fn leave(frame: &Frame, file: &SyncFile) -> Result<(), sync::Error> {
    implicit::import_sync_file(&frame.source, file, Access::Read)?;
    implicit::import_sync_file(&frame.destination, file, Access::Write)
}
