//! Decides by which strategy a frame is made.

use arrayvec::ArrayVec;

use super::cost::{Cost, Estimate, KEPT};
use crate::blit::strategy::Strategy;

/// Samples, of whatever size, that are needed of a strategy even if no other can be the best.
const TIMED: usize = 3;
/// What may take up to so many times as long as the best may be the best.
const CLOSE: f64 = 1.25;
/// A GPU is preferred to the CPU unless it takes so many times as long: the CPU has other things to do.
pub(super) const CPU_COUNTS: f64 = 1.5;
/// What made the last frame of the size makes the next, unless it takes so many times as long as the best.
const HYSTERESIS: f64 = 1.1;

/// A strategy that can be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) strategy: Strategy,
    /// Whether the CPU does it, or a Vulkan device that is one.
    pub(super) on_cpu: bool,
    pub(super) state: State<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State<'a> {
    Untried,
    /// It has failed too often to be tried while anything else works.
    Hopeless,
    Works(&'a Cost),
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::blit) enum Choice {
    /// For the first time: to be compared afterwards.
    Try(Strategy),
    /// Again, to learn how long it takes.
    Time(Strategy),
    /// It is settled.
    Use(Strategy),
}

impl Choice {
    pub(in crate::blit) fn strategy(self) -> Strategy {
        let (Self::Try(strategy) | Self::Time(strategy) | Self::Use(strategy)) = self;
        strategy
    }
}

/// One that works, and what it takes; times of the CPU are made longer.
#[derive(Clone, Copy)]
struct Contender<'a> {
    strategy: Strategy,
    cost: &'a Cost,
    estimate: Estimate,
}

/// The strategy for a frame of this size: one that was never tried, one of those that may be the
/// best and were seldom timed at the size, or the best. `last` made the last frame of about the size.
pub(super) fn pick<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    bytes: u64,
    last: Option<Strategy>,
) -> Option<Choice> {
    let mut hopeless = None;
    let mut never_timed = None;
    let mut known: ArrayVec<Contender<'a>, { Strategy::ALL.len() }> = ArrayVec::new();
    for candidate in candidates {
        let strategy = candidate.strategy;
        match candidate.state {
            State::Untried => return Some(Choice::Try(strategy)),
            State::Hopeless => {
                hopeless.get_or_insert(Choice::Try(strategy));
            }
            State::Works(cost) => match cost.estimate(bytes) {
                Some(estimate) => known.push(Contender {
                    strategy,
                    cost,
                    estimate: counted(estimate, candidate.on_cpu),
                }),
                None => {
                    never_timed.get_or_insert(Choice::Time(strategy));
                }
            },
        }
    }
    if never_timed.is_some() {
        return never_timed;
    }
    let most = known.iter().map(|one| one.estimate.most);
    let bound = most.fold(f64::INFINITY, f64::min) * CLOSE;
    known.retain(|one| one.estimate.least <= bound);
    // Of one alone it is enough to know that it is the best.
    let enough = match known.len() {
        1 => 0,
        _ => KEPT,
    };
    let seldom = |one: &&Contender<'_>| one.cost.samples(bytes) < enough;
    let next = known.iter().filter(seldom);
    if let Some(next) = next.min_by_key(|one| one.cost.samples(bytes)) {
        return Some(Choice::Time(next.strategy));
    }
    let few = |one: &&Contender<'_>| one.cost.all_samples() < TIMED;
    if let Some(next) = known.iter().find(few) {
        return Some(Choice::Time(next.strategy));
    }
    let by_time = |a: &&Contender<'_>, b: &&Contender<'_>| {
        let middle = |one: &Contender<'_>| one.estimate.least + one.estimate.most;
        middle(a).total_cmp(&middle(b))
    };
    let best = known.iter().min_by(by_time);
    let best = best.map(|best| {
        let limit = best.estimate.most * HYSTERESIS;
        let stays = |one: &&Contender<'_>| Some(one.strategy) == last && one.estimate.most <= limit;
        known.iter().find(stays).unwrap_or(best).strategy
    });
    best.map(Choice::Use).or(hopeless)
}

fn counted(Estimate { least, most }: Estimate, on_cpu: bool) -> Estimate {
    let factor = match on_cpu {
        true => CPU_COUNTS,
        false => 1.0,
    };
    Estimate {
        least: least * factor,
        most: most * factor,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BYTES: u64 = 8 << 20;

    /// Of copies of one size that took so many milliseconds.
    fn cost(samples: usize, milliseconds: u64) -> Cost {
        let mut cost = Cost::default();
        for _ in 0..samples {
            cost.add(BYTES, Duration::from_millis(milliseconds));
        }
        cost
    }

    fn works(strategy: Strategy, cost: &Cost) -> Candidate<'_> {
        Candidate {
            strategy,
            on_cpu: matches!(strategy, Strategy::Cpu | Strategy::HostMemory),
            state: State::Works(cost),
        }
    }

    fn untried(strategy: Strategy, state: State<'static>) -> Candidate<'static> {
        Candidate {
            strategy,
            on_cpu: false,
            state,
        }
    }

    fn choose(candidates: &[Candidate<'_>]) -> Option<Choice> {
        pick(candidates.iter().copied(), BYTES, None)
    }

    #[test]
    fn everything_is_tried_then_timed_then_the_fastest_is_used() {
        let (new, slow, fast) = (Cost::default(), cost(KEPT, 60), cost(KEPT, 10));
        let pull = works(Strategy::Pull, &fast);
        let push = untried(Strategy::Push, State::Untried);
        let cpu = works(Strategy::Cpu, &slow);
        assert_eq!(
            choose(&[pull, push, cpu]),
            Some(Choice::Try(Strategy::Push))
        );
        let push = works(Strategy::Push, &new);
        assert_eq!(
            choose(&[pull, push, cpu]),
            Some(Choice::Time(Strategy::Push))
        );
        let push = works(Strategy::Push, &slow);
        assert_eq!(
            choose(&[pull, push, cpu]),
            Some(Choice::Use(Strategy::Pull))
        );
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn those_that_are_close_are_timed_in_turns() {
        let mut costs = [cost(1, 10), cost(1, 30), cost(1, 11)];
        let strategies = [Strategy::Pull, Strategy::Push, Strategy::PullBytes];
        let mut timed = Vec::new();
        loop {
            let candidates: Vec<_> = strategies.iter().zip(&costs).collect();
            let candidates: Vec<_> = candidates.into_iter().map(|(s, c)| works(*s, c)).collect();
            match choose(&candidates) {
                Some(Choice::Time(strategy)) => {
                    timed.push(strategy);
                    let place = strategies.iter().position(|s| *s == strategy).unwrap();
                    let milliseconds = [10, 30, 11][place];
                    costs[place].add(BYTES, Duration::from_millis(milliseconds));
                }
                other => break assert_eq!(other, Some(Choice::Use(Strategy::Pull))),
            }
        }
        let turns = [Strategy::Pull, Strategy::PullBytes].repeat(KEPT - 1);
        assert_eq!(timed, turns);
    }

    #[test]
    fn a_gpu_is_preferred_unless_the_cpu_is_better_by_half() {
        let ask = |gpu, cpu| {
            let (gpu, cpu) = (cost(KEPT, gpu), cost(KEPT, cpu));
            choose(&[works(Strategy::Pull, &gpu), works(Strategy::Cpu, &cpu)])
        };
        assert_eq!(ask(14, 10), Some(Choice::Use(Strategy::Pull)));
        assert_eq!(ask(16, 10), Some(Choice::Use(Strategy::Cpu)));
        // A Vulkan device that is the CPU is no better than the CPU.
        let (lavapipe, cpu) = (cost(KEPT, 14), cost(KEPT, 10));
        let mut pull = works(Strategy::Pull, &lavapipe);
        pull.on_cpu = true;
        let chosen = choose(&[pull, works(Strategy::Cpu, &cpu)]);
        assert_eq!(chosen, Some(Choice::Use(Strategy::Cpu)));
    }

    #[test]
    fn it_does_not_go_to_and_fro_between_equals() {
        let (a, b, c) = (cost(KEPT, 100), cost(KEPT, 105), cost(KEPT, 120));
        let candidates = [
            works(Strategy::Pull, &a),
            works(Strategy::Push, &b),
            works(Strategy::PullBytes, &c),
        ];
        let after = |last| pick(candidates.into_iter(), BYTES, Some(last));
        assert_eq!(after(Strategy::Push), Some(Choice::Use(Strategy::Push)));
        assert_eq!(
            after(Strategy::PullBytes),
            Some(Choice::Use(Strategy::Pull))
        );
    }

    #[test]
    fn what_fails_again_and_again_is_only_better_than_nothing() {
        let good = cost(KEPT, 10);
        let bad = untried(Strategy::Pull, State::Hopeless);
        let chosen = choose(&[bad, works(Strategy::Cpu, &good)]);
        assert_eq!(chosen, Some(Choice::Use(Strategy::Cpu)));
        assert_eq!(choose(&[bad]), Some(Choice::Try(Strategy::Pull)));
    }

    #[test]
    fn the_best_differs_with_the_size() {
        let (mut gpu, mut cpu) = (Cost::default(), Cost::default());
        for (bytes, fast, slow) in [(16 << 10, 20, 400), (8 << 20, 9000, 2000)] {
            for _ in 0..KEPT {
                cpu.add(bytes, Duration::from_micros(fast));
                gpu.add(bytes, Duration::from_micros(slow));
            }
        }
        let at = |bytes| {
            let candidates = [works(Strategy::Pull, &gpu), works(Strategy::Cpu, &cpu)];
            pick(candidates.into_iter(), bytes, None)
        };
        assert_eq!(at(16 << 10), Some(Choice::Use(Strategy::Cpu)));
        assert_eq!(at(8 << 20), Some(Choice::Use(Strategy::Pull)));
        // Sizes that were never copied.
        assert_eq!(at(4 << 10), Some(Choice::Use(Strategy::Cpu)));
        assert_eq!(at(32 << 20), Some(Choice::Use(Strategy::Pull)));
    }
}
