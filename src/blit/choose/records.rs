//! What is known of the strategies for each kind of pair of buffers. Nothing is copied or tried here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrayvec::{ArrayString, ArrayVec};
use rustc_hash::FxHashMap;

use super::Allowed;
use super::cost::{self, Cost};
use super::drift::Drift;
use super::pick::{Candidate, Excluded, held_back, pick};
use super::plan::{Plan, WhyNot};
use crate::blit::Failure;
use crate::blit::copy::frame::Frame;
use crate::blit::strategy::Strategy;
use crate::blit::verdict::{Attempt, Outcome, Verdict};
use crate::buffer::{BufferId, DmaBuf, Fourcc, Modifier};

/// How many kinds of pairs are remembered. If there are more, all are forgotten.
const MAX_KINDS: usize = 64;
/// How many failing pairs of buffers are remembered. If there are more, all are forgotten.
const MAX_FAILING_PAIRS: usize = 256;
/// After this many transient failures in a row, a pair of buffers is no longer tried with every frame.
const TRANSIENT_LIMIT: u32 = 3;
/// After failures with this many pairs of buffers in a row, a strategy counts as failed for their kind.
const FAILING_PAIRS_LIMIT: u32 = 3;
/// When a pair of buffers that failed is tried again. Doubled with every failure.
const PAIR_RETRY: Duration = Duration::from_secs(5);
/// When a strategy that failed is tried again. Doubled with every failure.
const RETRY: Duration = Duration::from_secs(60);
/// How many pairs of buffers are remembered that a strategy has imported.
const WARM: usize = 16;
/// How long after copies were measured again because of a drift they may be for another one. Doubled each
/// time.
const DRIFT: Duration = Duration::from_secs(30);
/// The longest of these three times.
const MOST_RETRY: Duration = Duration::from_secs(3600);

/// The name of the module that exported a dma-buf, possibly cut off. Empty if it is not known.
pub(super) type Exporter = ArrayString<15>;

/// What records and verdicts are about: buffers that drivers treat alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::blit) struct Kind {
    /// Of source and destination, as the two fields below.
    pub(super) formats: [(Fourcc, Modifier); 2],
    /// Whether the planes lie in several dma-bufs.
    pub(super) scattered: [bool; 2],
    pub(super) exporters: [Exporter; 2],
    /// Whether pixels are changed on the way: scaled, turned or converted.
    pub(super) resampled: bool,
    /// Whether sizes change or rows become columns, so that no copy pixel by pixel is enough.
    pub(super) reshaped: bool,
}

impl Kind {
    pub(in crate::blit) fn of(frame: &Frame) -> Self {
        let both = [&frame.source, &frame.destination];
        Self {
            formats: both.map(|buffer| (buffer.fourcc(), buffer.modifier())),
            scattered: both.map(|buffer| buffer.objects().len() > 1),
            exporters: both.map(exporter),
            resampled: frame.is_resampled(),
            reshaped: frame.scaling.is_some_and(|scaling| scaling.reshapes()),
        }
    }
}

#[cfg(test)]
impl Kind {
    /// Of buffers of nobody knows which exporter, copied pixel by pixel.
    pub(in crate::blit) fn model(formats: [(Fourcc, Modifier); 2]) -> Self {
        Self {
            formats,
            scattered: [false; 2],
            exporters: [Exporter::new(), Exporter::new()],
            resampled: false,
            reshaped: false,
        }
    }
}

fn exporter(buffer: &DmaBuf) -> Exporter {
    let name = buffer.objects()[0].exporter();
    let name = name.unwrap_or_default().unwrap_or_default();
    let part = name.get(..name.len().min(15));
    part.and_then(|part| Exporter::from(part).ok())
        .unwrap_or_default()
}

/// What is known of buffers of one kind.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) entries: Vec<Entry>,
    /// For each class of sizes, the strategy that made the last frame.
    sizes: FxHashMap<u32, Strategy>,
    /// Whether trials were asked for and are not over.
    in_trial: bool,
    /// When a drift was last seen, and how often there was one.
    drifted: Option<(Instant, u32)>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) strategy: Strategy,
    on_cpu: bool,
    pub(super) state: State,
    drift: Drift,
    /// With how many pairs of buffers in a row the strategy failed.
    failing_pairs: u32,
    /// The pairs of buffers that the strategy made frames of last. The first frame of a pair is not timed,
    /// since it has to import, and touches fresh pages.
    warm: ArrayVec<(BufferId, BufferId), WARM>,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    NotOffered(WhyNot),
    Untried,
    /// There are no buffers to try it with.
    Untestable(Failure),
    Failed {
        why: Failure,
        at: Instant,
        /// How often in a row.
        times: u32,
    },
    Works {
        verified: bool,
        /// The cost that the trials measured.
        promised: Cost,
        /// The cost by the trials and by real frames since.
        cost: Cost,
        /// Whether trials have to be made, again or for the first time.
        stale: bool,
    },
}

impl Entry {
    fn new(strategy: Strategy, on_cpu: bool, state: State) -> Self {
        Self {
            strategy,
            on_cpu,
            state,
            drift: Drift::default(),
            failing_pairs: 0,
            warm: ArrayVec::new(),
        }
    }

    /// Whether the strategy has made a frame of this pair of buffers lately. Notes that it now has.
    fn warm_up(&mut self, pair: (BufferId, BufferId)) -> bool {
        if self.warm.contains(&pair) {
            return true;
        }
        if self.warm.is_full() {
            self.warm.remove(0);
        }
        self.warm.push(pair);
        false
    }

    fn works(&self) -> Option<&Cost> {
        match &self.state {
            State::Works { cost, .. } => Some(cost),
            _ => None,
        }
    }

    fn needs_trial(&self, now: Instant) -> bool {
        match &self.state {
            State::NotOffered(_) | State::Untestable(_) => false,
            State::Untried => true,
            State::Works { stale, .. } => *stale,
            State::Failed { why, at, times } => {
                let base = match why.is_transient() {
                    true => PAIR_RETRY,
                    false => RETRY,
                };
                now.saturating_duration_since(*at) >= backoff(base, *times)
            }
        }
    }

    fn fail(&mut self, why: Failure, at: Instant) {
        let times = match &self.state {
            State::Failed { times, .. } => *times,
            _ => 0,
        };
        self.state = State::Failed {
            why,
            at,
            times: times.saturating_add(1),
        };
    }
}

fn backoff(base: Duration, times: u32) -> Duration {
    let factor = 1 << times.saturating_sub(1).min(16);
    base.saturating_mul(factor).min(MOST_RETRY)
}

/// Failures of one strategy with one pair of buffers.
#[derive(Clone, Copy, Debug)]
struct PairFailures {
    /// Transient failures in a row. A permanent failure raises this to the limit at once.
    times: u32,
    at: Instant,
}

type Pair = (BufferId, BufferId, Strategy);

fn pair(frame: &Frame, strategy: Strategy) -> Pair {
    let id = |buffer: &DmaBuf| buffer.objects()[0].id();
    (id(&frame.source), id(&frame.destination), strategy)
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) kinds: FxHashMap<Kind, Record>,
    pair_failures: FxHashMap<Pair, PairFailures>,
}

impl Known {
    /// Whether a pair of buffers must not be tried now, because it failed lately.
    fn failed_lately(&self, pair: &Pair, now: Instant) -> bool {
        self.pair_failures.get(pair).is_some_and(|failures| {
            let late = failures.times.saturating_sub(TRANSIENT_LIMIT) + 1;
            failures.times >= TRANSIENT_LIMIT
                && now.saturating_duration_since(failures.at) < backoff(PAIR_RETRY, late)
        })
    }
}

/// What [`Records`] have to know of the blitter that asks.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Asker<'a> {
    pub(in crate::blit) allowed: &'a Allowed,
    /// The strategies that may make a frame before trials are over. They do not import the destination or
    /// source on another device.
    pub(in crate::blit) before_trials: &'a [Strategy],
    /// Whether strategies that cannot be tried in private may be used if nothing else works.
    pub(in crate::blit) may_risk: bool,
    /// Whether push is chosen like other strategies, and not only as the last resort.
    pub(in crate::blit) pushes_freely: bool,
    /// Which ends have a Vulkan device that is the CPU.
    pub(in crate::blit) software: [bool; 2],
}

/// How a frame is to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::blit) struct Choice {
    /// The strategy. `None` if nothing is known to work.
    pub(in crate::blit) strategy: Option<Strategy>,
    /// How many seconds it will take, if that is known.
    pub(in crate::blit) seconds: Option<f64>,
    /// Whether the caller has to ask for trials now. Only one choice of a kind says so.
    pub(in crate::blit) wants_trials: bool,
    /// Whether trials are being made.
    pub(in crate::blit) in_trial: bool,
}

/// The outcome of the trials of one strategy.
#[derive(Clone, Debug)]
pub(in crate::blit) enum Tried {
    Works {
        verified: bool,
        cost: Cost,
    },
    Failed(Failure),
    /// There are no buffers to try it with.
    Untestable(Failure),
}

/// What is known of pairs of buffers. Thread-safe.
#[derive(Debug, Default)]
pub(in crate::blit) struct Records(Mutex<Known>);

impl Records {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks all strategies as stale, so that those that work are tried and timed again, and those that
    /// failed are tried again.
    pub(in crate::blit) fn expire(&self) {
        let mut known = self.lock();
        known.pair_failures.clear();
        for record in known.kinds.values_mut() {
            record.expire();
        }
    }

    /// Chooses how a frame is made. `left` are the strategies that have not just failed with it. `plan` is
    /// called for the first frame of a kind.
    pub(in crate::blit) fn choose(
        &self,
        frame: &Frame,
        asker: &Asker<'_>,
        left: &Allowed,
        now: Instant,
        plan: impl FnOnce() -> Plan,
    ) -> Choice {
        let kind = Kind::of(frame);
        let mut known = self.lock();
        if !known.kinds.contains_key(&kind) {
            if known.kinds.len() >= MAX_KINDS {
                known.kinds.clear();
            }
            known
                .kinds
                .insert(kind, Record::new(plan(), asker.software));
        }
        let strategy = known.pick(&kind, frame, asker, left, now);
        let Some(record) = known.kinds.get_mut(&kind) else {
            return Choice {
                strategy,
                seconds: None,
                wants_trials: false,
                in_trial: false,
            };
        };
        if let Some(strategy) = strategy {
            record.sizes.insert(cost::class_of(frame.bytes()), strategy);
        }
        let wants_trials = !record.in_trial && record.to_try(asker.allowed, now).next().is_some();
        record.in_trial |= wants_trials;
        let entry = strategy.and_then(|strategy| record.entry(strategy));
        let cost = entry.as_ref().and_then(|entry| entry.works());
        Choice {
            strategy,
            seconds: cost.and_then(|cost| cost.estimate(frame.bytes())),
            wants_trials,
            in_trial: record.in_trial,
        }
    }

    /// The strategies that still have to be tried for a kind, in order of trust.
    pub(in crate::blit) fn to_try(&self, kind: &Kind, allowed: &Allowed, now: Instant) -> Allowed {
        let known = self.lock();
        let record = known.kinds.get(kind);
        record.map_or_else(Allowed::new, |record| record.to_try(allowed, now).collect())
    }

    /// Notes the outcome of the trials of a strategy.
    pub(in crate::blit) fn tried(
        &self,
        kind: &Kind,
        strategy: Strategy,
        tried: Tried,
        now: Instant,
    ) {
        self.with_entry(kind, strategy, |entry| match tried {
            Tried::Works { verified, cost } => {
                log::debug!("blit by {strategy} works");
                entry.drift = Drift::default();
                entry.failing_pairs = 0;
                entry.state = State::Works {
                    verified,
                    promised: cost.clone(),
                    cost,
                    stale: false,
                };
            }
            Tried::Failed(why) => {
                log::debug!("blit by {strategy}, a trial: {why}");
                entry.fail(why, now);
            }
            // A strategy that has made real frames works, also if it cannot be tried.
            Tried::Untestable(why) => match &mut entry.state {
                State::Works { stale, .. } => *stale = false,
                state => *state = State::Untestable(why),
            },
        });
    }

    /// Whether trials of the kind were asked for and are not over.
    pub(in crate::blit) fn is_in_trial(&self, kind: &Kind) -> bool {
        self.lock().kinds.get(kind).is_some_and(|of| of.in_trial)
    }

    /// Notes that no trials of the kind are being made any more.
    pub(in crate::blit) fn trials_over(&self, kind: &Kind) {
        if let Some(record) = self.lock().kinds.get_mut(kind) {
            record.in_trial = false;
        }
    }

    /// Notes that a strategy has made a frame, and how long it took, if that could be measured.
    pub(in crate::blit) fn made(
        &self,
        frame: &Frame,
        strategy: Strategy,
        took: Option<Duration>,
        now: Instant,
    ) {
        let mut known = self.lock();
        if !known.pair_failures.is_empty() {
            known.pair_failures.remove(&pair(frame, strategy));
        }
        let Some(record) = known.kinds.get_mut(&Kind::of(frame)) else {
            return;
        };
        let Some(entry) = record.entry(strategy) else {
            return;
        };
        entry.failing_pairs = 0;
        if !matches!(entry.state, State::Works { .. }) {
            entry.state = State::Works {
                verified: false,
                promised: Cost::default(),
                cost: Cost::default(),
                // One trial is asked for. If it cannot be made, that is noted, and no other is asked for.
                stale: true,
            };
        }
        let (source, destination, _) = pair(frame, strategy);
        if !entry.warm_up((source, destination)) {
            return;
        }
        let (State::Works { promised, cost, .. }, Some(took)) = (&mut entry.state, took) else {
            return;
        };
        let bytes = frame.bytes();
        cost.add(bytes, took);
        let promised = promised.estimate(bytes);
        let seconds = took.as_secs_f64();
        let is_off = promised.is_some_and(|promised| entry.drift.is_off(seconds, promised, now));
        if is_off && record.may_drift(now) {
            log::debug!("blit by {strategy} takes another time than it did");
            record.expire();
        }
    }

    /// Notes that a strategy has failed to make a frame.
    pub(in crate::blit) fn failed(
        &self,
        frame: &Frame,
        strategy: Strategy,
        failure: &Failure,
        now: Instant,
    ) {
        let of_the_frame = failure.is_of_the_frame();
        match of_the_frame {
            true => log::debug!("blit by {strategy}, this frame: {failure}"),
            false => log::warn!("blit by {strategy}: {failure}"),
        }
        let mut known = self.lock();
        let mut is_new = false;
        if of_the_frame {
            if known.pair_failures.len() >= MAX_FAILING_PAIRS {
                known.pair_failures.clear();
            }
            let failures = known.pair_failures.entry(pair(frame, strategy));
            let failures = failures.or_insert(PairFailures { times: 0, at: now });
            let was_known = failures.times >= TRANSIENT_LIMIT;
            failures.times = match failure.is_transient() {
                true => failures.times.saturating_add(1),
                false => failures.times.max(TRANSIENT_LIMIT - 1).saturating_add(1),
            };
            failures.at = now;
            is_new = !was_known && failures.times >= TRANSIENT_LIMIT;
        }
        let record = known.kinds.get_mut(&Kind::of(frame));
        let Some(entry) = record.and_then(|record| record.entry(strategy)) else {
            return;
        };
        if is_new {
            entry.failing_pairs += 1;
        }
        if !of_the_frame || entry.failing_pairs >= FAILING_PAIRS_LIMIT {
            entry.failing_pairs = 0;
            entry.fail(failure.clone(), now);
        }
    }

    fn with_entry(&self, kind: &Kind, strategy: Strategy, change: impl FnOnce(&mut Entry)) {
        let mut known = self.lock();
        let record = known.kinds.get_mut(kind);
        if let Some(entry) = record.and_then(|record| record.entry(strategy)) {
            change(entry);
        }
    }

    /// What is known of pairs of buffers like these. The DRM drivers' answers are missing, since nobody is
    /// asked here. `None` before the first frame of the kind.
    pub(in crate::blit) fn verdict(
        &self,
        names: [&str; 2],
        frame: &Frame,
        asker: &Asker<'_>,
        now: Instant,
    ) -> Option<Verdict> {
        let kind = Kind::of(frame);
        let known = self.lock();
        let record = known.kinds.get(&kind)?;
        let works = record.entries.iter().any(|entry| entry.works().is_some());
        let chosen = known.pick(&kind, frame, asker, asker.allowed, now);
        let used = record
            .entries
            .iter()
            .find(|one| Some(one.strategy) == chosen);
        let used = used.and_then(|entry| entry.candidate(asker));
        let held_back = |entry: &Entry| {
            let excluded = Excluded {
                is_forbidden: !asker.allowed.contains(&entry.strategy),
                failed_lately: known.failed_lately(&pair(frame, entry.strategy), now),
            };
            let one = entry.candidate(asker)?;
            held_back(&one, excluded, used.as_ref(), frame.bytes())
        };
        let attempt = |entry: &Entry| Attempt {
            strategy: entry.strategy,
            held_back: held_back(entry),
            outcome: match &entry.state {
                State::NotOffered(why) => Outcome::NotOffered(*why),
                State::Untried if !asker.allowed.contains(&entry.strategy) => Outcome::NotAllowed,
                State::Untried => Outcome::Untried,
                State::Untestable(why) => Outcome::Untestable(why.clone()),
                State::Failed { why, .. } => Outcome::Failed(why.clone()),
                State::Works { verified, cost, .. } => Outcome::Works {
                    verified: *verified,
                    bytes_per_second: cost.rate(),
                },
            },
        };
        Some(Verdict {
            source: names[0].to_owned(),
            destination: names[1].to_owned(),
            formats: kind.formats,
            imports: [None, None],
            attempts: record.entries.iter().map(attempt).collect(),
            chosen: chosen.filter(|_| works),
            settled: !record.in_trial && record.to_try(asker.allowed, now).next().is_none(),
        })
    }
}

impl Entry {
    /// If it works, what the choice needs to know of it.
    fn candidate(&self, asker: &Asker<'_>) -> Option<Candidate<'_>> {
        Some(Candidate {
            strategy: self.strategy,
            on_cpu: self.on_cpu,
            is_last_resort: self.strategy.is_push() && !asker.pushes_freely,
            cost: self.works()?,
        })
    }
}

impl Known {
    fn pick(
        &self,
        kind: &Kind,
        frame: &Frame,
        asker: &Asker<'_>,
        left: &Allowed,
        now: Instant,
    ) -> Option<Strategy> {
        let record = self.kinds.get(kind)?;
        let bytes = frame.bytes();
        let last = record.sizes.get(&cost::class_of(bytes)).copied();
        let may_use = |strategy: Strategy| {
            left.contains(&strategy)
                && (self.pair_failures.is_empty()
                    || !self.failed_lately(&pair(frame, strategy), now))
        };
        let works = record.entries.iter().filter_map(|entry| {
            let candidate = entry.candidate(asker)?;
            may_use(entry.strategy).then_some(candidate)
        });
        let untried = |strategy: &Strategy| {
            let find = |entry: &&Entry| entry.strategy == *strategy;
            let entry = record.entries.iter().find(find);
            let is_open = entry.is_some_and(|entry| matches!(entry.state, State::Untried));
            is_open && may_use(*strategy)
        };
        let risked = |entry: &&Entry| {
            asker.may_risk && matches!(entry.state, State::Untestable(_)) && may_use(entry.strategy)
        };
        pick(works, bytes, last)
            .or_else(|| asker.before_trials.iter().copied().find(untried))
            .or_else(|| record.entries.iter().find(risked).map(|e| e.strategy))
    }
}

impl Record {
    pub(super) fn new(plan: Plan, software: [bool; 2]) -> Self {
        let entry = |(strategy, against): (Strategy, Result<(), WhyNot>)| {
            let state = against.map_or_else(State::NotOffered, |()| State::Untried);
            Entry::new(strategy, strategy.is_on_cpu(software), state)
        };
        Self {
            entries: plan.into_iter().map(entry).collect(),
            sizes: FxHashMap::default(),
            in_trial: false,
            drifted: None,
        }
    }

    /// Whether to measure again because of a drift. Allowed after ever longer times, so that a machine whose
    /// load changes all the time does not measure all the time.
    fn may_drift(&mut self, now: Instant) -> bool {
        let times = match self.drifted {
            Some((at, times)) if now.saturating_duration_since(at) < backoff(DRIFT, times) => {
                return false;
            }
            Some((_, times)) => times,
            None => 0,
        };
        self.drifted = Some((now, times.saturating_add(1)));
        true
    }

    fn entry(&mut self, strategy: Strategy) -> Option<&mut Entry> {
        let mut entries = self.entries.iter_mut();
        entries.find(|entry| entry.strategy == strategy)
    }

    fn to_try(&self, allowed: &Allowed, now: Instant) -> impl Iterator<Item = Strategy> {
        let wanted =
            move |entry: &&Entry| allowed.contains(&entry.strategy) && entry.needs_trial(now);
        let entries = self.entries.iter().filter(wanted);
        entries.map(|entry| entry.strategy)
    }

    fn expire(&mut self) {
        for entry in &mut self.entries {
            match &mut entry.state {
                State::Works { stale, .. } => *stale = true,
                State::Failed { .. } | State::Untestable(_) => entry.state = State::Untried,
                State::NotOffered(_) | State::Untried => {}
            }
        }
    }
}
