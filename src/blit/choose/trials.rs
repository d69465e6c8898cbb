//! What is known of pairs of buffers, and which strategy is next by it. Nothing is done here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;

use super::cost::{self, Cost};
use super::pick::{Candidate, Choice, State as Known, pick};
use super::plan::{Plan, WhyNot};
use crate::blit::copy::frame::Frame;
use crate::blit::strategy::Strategy;
use crate::blit::verdict::{Attempt, Outcome, Verdict};
use crate::blit::{Failure, Side};
use crate::buffer::{DmaBuf, Fourcc, Modifier};

/// What has failed so often, for whatever reason, without having worked once is tried again only
/// where nothing else works: while something is to be tried, nothing is settled.
const ENOUGH: u32 = 3;
/// The part of a frame that is copied once more when the frame is timed, to tell what each copy takes
/// from what its bytes take: a sixteenth.
pub(in crate::blit) const PART: u64 = 16;
/// Kinds of pairs that are remembered; more are forgotten all together.
const MAX_KINDS: usize = 64;

/// What verdicts are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    formats: [(Fourcc, Modifier); 2],
    /// Whether either lies in several dma-bufs.
    scattered: [bool; 2],
}

impl Kind {
    fn of(frame: &Frame) -> Self {
        let of = |buffer: &DmaBuf| (buffer.fourcc(), buffer.modifier());
        Self {
            formats: [of(&frame.source), of(&frame.destination)],
            scattered: [&frame.source, &frame.destination].map(|b| b.objects().len() > 1),
        }
    }
}

/// What is known of buffers of one kind.
#[derive(Clone, Debug)]
struct Record {
    rungs: Vec<Rung>,
    /// Of each class of sizes that was asked for: bytes of a frame, and what made the last one.
    sizes: FxHashMap<u32, (u64, Option<Strategy>)>,
}

#[derive(Clone, Debug)]
struct Rung {
    strategy: Strategy,
    on_cpu: bool,
    state: State,
    /// Before it has worked: failures that said nothing of other frames, and the last of them.
    odd: Option<(u32, Failure)>,
}

impl Rung {
    /// `None` where it is out of the question.
    fn candidate(&self) -> Option<Candidate<'_>> {
        let state = match &self.state {
            State::Untried if self.has_failed_enough() => Known::Hopeless,
            State::Untried => Known::Untried,
            State::Works { cost, .. } => Known::Works(cost),
            State::NotOffered(_) | State::Failed(_) => return None,
        };
        Some(Candidate {
            strategy: self.strategy,
            on_cpu: self.on_cpu,
            state,
        })
    }

    fn has_failed_enough(&self) -> bool {
        self.odd.as_ref().is_some_and(|(times, _)| *times >= ENOUGH)
    }
}

#[derive(Clone, Debug)]
enum State {
    NotOffered(WhyNot),
    Untried,
    Failed(Failure),
    Works { verified: bool, cost: Cost },
}

/// The strategies that may be used.
pub(in crate::blit) type Allowed = ArrayVec<Strategy, { Strategy::ALL.len() }>;

type Kinds = FxHashMap<Kind, Record>;

impl Record {
    /// The strategy for a frame of this size.
    fn pick(&self, bytes: u64, allowed: &Allowed) -> Option<Choice> {
        let allowed = |rung: &&Rung| allowed.contains(&rung.strategy);
        let last = self
            .sizes
            .get(&cost::class_of(bytes))
            .and_then(|size| size.1);
        let candidates = self
            .rungs
            .iter()
            .filter(allowed)
            .filter_map(Rung::candidate);
        pick(candidates, bytes, last)
    }
}

/// What is known of pairs, shared with whoever asks for a [`Verdict`].
#[derive(Clone, Debug, Default)]
pub(in crate::blit) struct Records(Arc<Mutex<Kinds>>);

impl Records {
    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::blit) fn forget(&self) {
        self.lock().clear();
    }

    /// The strategies in use, where it is settled for all kinds of pairs and all sizes.
    pub(in crate::blit) fn used(&self, allowed: &Allowed) -> Option<Allowed> {
        let kinds = self.lock();
        let mut used = Allowed::new();
        for record in kinds.values() {
            for (bytes, _) in record.sizes.values() {
                match record.pick(*bytes, allowed) {
                    Some(Choice::Use(strategy)) if used.contains(&strategy) => {}
                    Some(Choice::Use(strategy)) => used.push(strategy),
                    Some(_) => return None,
                    None => {}
                }
            }
        }
        Some(used)
    }

    /// What is to be done with a frame. The plan is made where frames like it are new; `software` says
    /// which ends have a Vulkan device that is the CPU.
    pub(in crate::blit) fn choose(
        &self,
        frame: &Frame,
        allowed: &Allowed,
        software: [bool; 2],
        plan: impl FnOnce() -> Plan,
    ) -> Option<Choice> {
        let kind = Kind::of(frame);
        let mut kinds = self.lock();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kinds.clear();
        }
        let rung = |(strategy, against): (Strategy, Result<(), WhyNot>)| Rung {
            strategy,
            on_cpu: strategy.is_on_cpu(software),
            state: against.map_or_else(State::NotOffered, |()| State::Untried),
            odd: None,
        };
        let record = kinds.entry(kind).or_insert_with(|| Record {
            rungs: plan().into_iter().map(rung).collect(),
            sizes: FxHashMap::default(),
        });
        let bytes = frame.bytes();
        let choice = record.pick(bytes, allowed);
        let size = record.sizes.entry(cost::class_of(bytes));
        let size = size.or_insert((bytes, None));
        if let Some(Choice::Use(strategy)) = choice {
            size.1 = Some(strategy);
        }
        choice
    }

    /// A strategy has not made the frame.
    pub(in crate::blit) fn failed(&self, frame: &Frame, strategy: Strategy, failure: &Failure) {
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

    /// What was chosen has made the frame.
    pub(in crate::blit) fn worked(
        &self,
        frame: &Frame,
        choice: Choice,
        took: Duration,
        verified: bool,
    ) {
        let strategy = choice.strategy();
        self.with_rung(frame, strategy, |rung| match (choice, &mut rung.state) {
            (Choice::Try(_), state) => {
                log::debug!("blit by {strategy} works");
                // The first time imports and touches fresh pages; it says nothing of the others.
                *state = State::Works {
                    verified,
                    cost: Cost::default(),
                };
            }
            (_, State::Works { cost, .. }) => cost.add(frame.bytes(), took),
            _ => {}
        });
    }

    fn with_rung(&self, frame: &Frame, strategy: Strategy, change: impl FnOnce(&mut Rung)) {
        let mut kinds = self.lock();
        let record = kinds.get_mut(&Kind::of(frame));
        let mut rungs = record.into_iter().flat_map(|record| &mut record.rungs);
        if let Some(rung) = rungs.find(|rung| rung.strategy == strategy) {
            change(rung);
        }
    }

    /// What is known of pairs of buffers like these, but for what the DRM devices say of them: nobody is
    /// asked here.
    pub(in crate::blit) fn verdict(
        &self,
        sides: &[Side; 2],
        frame: &Frame,
        allowed: &Allowed,
    ) -> Option<Verdict> {
        let kind = Kind::of(frame);
        let kinds = self.lock();
        let record = kinds.get(&kind)?;
        let attempt = |rung: &Rung| Attempt {
            strategy: rung.strategy,
            outcome: match &rung.state {
                State::NotOffered(why) => Outcome::NotOffered(*why),
                State::Untried => match &rung.odd {
                    Some((_, failure)) => Outcome::Failed(failure.clone()),
                    None => Outcome::Untried,
                },
                State::Failed(failure) => Outcome::Failed(failure.clone()),
                State::Works { verified, cost } => Outcome::Works {
                    verified: *verified,
                    bytes_per_second: cost.rate(),
                },
            },
        };
        let next = record.pick(frame.bytes(), allowed);
        let chosen = match next {
            Some(Choice::Use(strategy) | Choice::Time(strategy)) => Some(strategy),
            _ => None,
        };
        Some(Verdict {
            source: sides[0].name.clone(),
            destination: sides[1].name.clone(),
            formats: kind.formats,
            imports: [None, None],
            attempts: record.rungs.iter().map(attempt).collect(),
            chosen,
            settled: matches!(next, Some(Choice::Use(_))),
        })
    }
}
