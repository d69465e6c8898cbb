//! What is known of pairs of buffers, and which strategy is next by it. Nothing is done here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;

use super::frame::Frame;
use super::pace::{self, Pace};
use super::plan::{Plan, WhyNot};
use super::strategy::Strategy;
use super::verdict::{Attempt, Outcome, Verdict, imports};
use super::{Failure, Side};
use crate::buffer::{DmaBuf, Fourcc, Modifier};

/// Runs of a strategy that are timed before it is compared with others.
const TIMED_RUNS: usize = 3;
/// Runs of those that are close to the best by then, in turns, so that what disturbs one for a
/// while does not decide.
const FINAL_RUNS: usize = pace::MOST;
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

impl Kind {
    fn of(frame: &Frame) -> Self {
        let of = |buffer: &DmaBuf| (buffer.fourcc(), buffer.modifier());
        let changed: u64 = frame.rects.iter().map(|rect| rect.area()).sum();
        let all = u64::from(frame.destination.width()) * u64::from(frame.destination.height());
        Self {
            formats: [of(&frame.source), of(&frame.destination)],
            scattered: [&frame.source, &frame.destination].map(|b| b.objects().len() > 1),
            small: changed < all / 4,
        }
    }
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
    NotOffered(WhyNot),
    Untried,
    Failed(Failure),
    Works { verified: bool, pace: Pace },
}

/// The strategies that may be used.
pub(super) type Allowed = ArrayVec<Strategy, { Strategy::ALL.len() }>;

type Kinds = FxHashMap<Kind, Vec<Rung>>;

/// What is known of pairs, shared with whoever asks for a [`Verdict`].
#[derive(Clone, Debug, Default)]
pub(super) struct Records(Arc<Mutex<Kinds>>);

impl Records {
    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// The strategies in use, where it is settled for all kinds of pairs.
    pub(super) fn used(&self, allowed: &Allowed) -> Option<Allowed> {
        let kinds = self.lock();
        let mut used = Allowed::new();
        for rungs in kinds.values() {
            match choose(rungs, allowed) {
                Some(Choice::Use(strategy)) if used.contains(&strategy) => {}
                Some(Choice::Use(strategy)) => used.push(strategy),
                Some(_) => return None,
                None => {}
            }
        }
        Some(used)
    }

    /// What is to be done with a frame. The plan is made where frames like it are new.
    pub(super) fn choose(
        &self,
        frame: &Frame,
        allowed: &Allowed,
        plan: impl FnOnce() -> Plan,
    ) -> Option<Choice> {
        let kind = Kind::of(frame);
        let mut kinds = self.lock();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kinds.clear();
        }
        let rung = |(strategy, against): (Strategy, Result<(), WhyNot>)| Rung {
            strategy,
            state: against.map_or_else(State::NotOffered, |()| State::Untried),
            odd: None,
        };
        let rungs = kinds
            .entry(kind)
            .or_insert_with(|| plan().into_iter().map(rung).collect());
        choose(rungs, allowed)
    }

    /// A strategy has not made the frame.
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

    /// What was chosen has made the frame.
    pub(super) fn worked(&self, frame: &Frame, choice: Choice, took: Duration, verified: bool) {
        let strategy = choice.strategy();
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
        let mut kinds = self.lock();
        let rungs = kinds.get_mut(&Kind::of(frame));
        let mut rungs = rungs.into_iter().flatten();
        if let Some(rung) = rungs.find(|rung| rung.strategy == strategy) {
            change(rung);
        }
    }
    /// What is known of pairs of buffers like these.
    pub(super) fn verdict(
        &self,
        sides: &[Side; 2],
        frame: &Frame,
        allowed: &Allowed,
    ) -> Option<Verdict> {
        let kind = Kind::of(frame);
        // Before the lock, under which nobody waits for a driver.
        let imports = imports(sides, &frame.source, &frame.destination);
        let kinds = self.lock();
        let rungs = kinds.get(&kind)?;
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
                    bytes_per_second: (pace.runs() > 0).then(|| pace.rate()),
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

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    /// For the first time: to be compared afterwards.
    Try(Strategy),
    /// Again, to learn how long it takes.
    Time(Strategy),
    /// It is settled.
    Use(Strategy),
}

impl Choice {
    pub(super) fn strategy(self) -> Strategy {
        let (Self::Try(strategy) | Self::Time(strategy) | Self::Use(strategy)) = self;
        strategy
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
    let best = rungs.clone().filter_map(pace).map(|pace| pace.rate());
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
                let slow = pace.runs() > 0 && pace.rate() * HOPELESS < best;
                if pace.runs() < TIMED_RUNS && !slow {
                    return Some(Choice::Time(rung.strategy));
                }
                timed.push((rung.strategy, pace));
            }
            State::NotOffered(_) | State::Failed(_) => {}
        }
    }
    let close = timed.iter().filter(|(_, pace)| pace.rate() * CLOSE >= best);
    if close.clone().count() > 1
        && let Some((strategy, pace)) = close.min_by_key(|(_, pace)| pace.runs())
        && pace.runs() < FINAL_RUNS
    {
        return Some(Choice::Time(*strategy));
    }
    let fastest = timed
        .into_iter()
        .reduce(|best, other| match other.1.rate() > best.1.rate() {
            true => other,
            false => best,
        });
    let fastest = fastest.map(|(strategy, _)| Choice::Use(strategy));
    fastest.or(hopeless.map(Choice::Try))
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

    fn works(runs: usize, rate: f64) -> State {
        let mut pace = Pace::default();
        for _ in 0..runs {
            pace.add((rate * 1e3) as u64, Duration::from_millis(1));
        }
        State::Works {
            verified: true,
            pace,
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
                let again = pace.rate();
                pace.add((again / 1e3) as u64, Duration::from_millis(1));
            }
        }
        let turns = [Strategy::Pull, Strategy::Cpu].repeat(FINAL_RUNS - TIMED_RUNS);
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
