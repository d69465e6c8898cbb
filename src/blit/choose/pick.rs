//! Decides by which of the strategies that work a frame is made.

use std::fmt;

use super::cost::Cost;
use crate::blit::strategy::Strategy;

/// The CPU's time counts this many times, so that a GPU is preferred: the CPU has other things to do.
pub(super) const CPU_COUNTS: f64 = 1.5;
/// The strategy that made the last frame of a size is kept, unless it takes this many times as long as the
/// best one.
const HYSTERESIS: f64 = 1.1;

/// A strategy that works.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) strategy: Strategy,
    /// Whether the CPU makes the copy, by itself or as a software Vulkan device.
    pub(super) on_cpu: bool,
    /// Whether it is used only if no other works.
    pub(super) is_last_resort: bool,
    pub(super) cost: &'a Cost,
}

impl Candidate<'_> {
    /// The estimated seconds, of which those of the CPU count for more. Infinite if nothing was measured.
    fn seconds(&self, bytes: u64) -> f64 {
        let factor = match self.on_cpu {
            true => CPU_COUNTS,
            false => 1.0,
        };
        self.cost
            .estimate(bytes)
            .map_or(f64::INFINITY, |seconds| seconds * factor)
    }
}

/// The strategy for a frame of this size. The candidates come in order of trust. `last` is the strategy that
/// made the last frame of about this size.
pub(super) fn pick<'a>(
    candidates: impl Iterator<Item = Candidate<'a>> + Clone,
    bytes: u64,
    last: Option<Strategy>,
) -> Option<Strategy> {
    let is_safe = |one: &Candidate<'_>| !one.is_last_resort;
    let any_safe = candidates.clone().any(|one| is_safe(&one));
    let eligible = candidates.filter(|one| !any_safe || is_safe(one));
    // Another strategy than the last one has to be better by more than the hysteresis.
    let counted = eligible.map(|one| {
        let seconds = one.seconds(bytes);
        match Some(one.strategy) == last {
            true => (one.strategy, seconds / HYSTERESIS),
            false => (one.strategy, seconds),
        }
    });
    // Of equally good ones the first, which is trusted more.
    let best = counted.reduce(|best, one| match one.1 < best.1 {
        true => one,
        false => best,
    });
    best.map(|(strategy, _)| strategy)
}

/// Why a strategy that works is not the one in use, although it is faster or could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBack {
    /// [`Options::strategies`](crate::blit::Options::strategies) or
    /// [`Options::push`](crate::blit::Options::push) leave it out. That it works is known of another blitter.
    NotAllowed,
    /// It works in general, and failed lately with these buffers. It is tried again after a while.
    FailedLately,
    /// It has the source's GPU write into the destination, which may move that out of the screen's reach: it is used
    /// if nothing else works. [`Push`](crate::blit::Push) changes that.
    LastResort,
    /// The CPU is used if it is better by half, since it has other things to do.
    Cpu,
    /// It is faster by too little to change from the strategy before.
    AboutAsFast,
}

/// What keeps a strategy that works from the choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excluded {
    /// Whether the options leave it out.
    pub(super) is_forbidden: bool,
    /// Whether it failed lately with these buffers.
    pub(super) failed_lately: bool,
}

/// Why this one is not in use, if its time does not say it. `used` is the one in use.
pub(super) fn held_back(
    one: &Candidate<'_>,
    excluded: Excluded,
    used: Option<&Candidate<'_>>,
    bytes: u64,
) -> Option<HeldBack> {
    if excluded.is_forbidden {
        return Some(HeldBack::NotAllowed);
    }
    if excluded.failed_lately {
        return Some(HeldBack::FailedLately);
    }
    let used = used.filter(|used| used.strategy != one.strategy)?;
    if one.is_last_resort && !used.is_last_resort {
        return Some(HeldBack::LastResort);
    }
    let is_faster = one.cost.estimate(bytes)? < used.cost.estimate(bytes)?;
    is_faster.then_some(match one.on_cpu && !used.on_cpu {
        true => HeldBack::Cpu,
        false => HeldBack::AboutAsFast,
    })
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "not allowed by the options",
            Self::FailedLately => "failed with these buffers a moment ago",
            Self::LastResort => {
                "held back: the source's GPU writes into the destination, which may move it"
            }
            Self::Cpu => "not better by half than a GPU",
            Self::AboutAsFast => "not faster by enough to change",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BYTES: u64 = 8 << 20;

    fn cost(milliseconds: u64) -> Cost {
        let mut cost = Cost::default();
        cost.add(BYTES, Duration::from_millis(milliseconds));
        cost
    }

    fn candidate(strategy: Strategy, cost: &Cost) -> Candidate<'_> {
        Candidate {
            strategy,
            on_cpu: matches!(strategy, Strategy::Cpu | Strategy::HostMemory),
            is_last_resort: strategy.is_push(),
            cost,
        }
    }

    fn picked(candidates: &[Candidate<'_>], last: Option<Strategy>) -> Option<Strategy> {
        pick(candidates.iter().copied(), BYTES, last)
    }

    #[test]
    fn the_fastest_is_used() {
        let (slow, fast) = (cost(9), cost(4));
        let both = [
            candidate(Strategy::Pull, &slow),
            candidate(Strategy::PullBytes, &fast),
        ];
        assert_eq!(picked(&both, None), Some(Strategy::PullBytes));
        assert_eq!(picked(&[], None), None);
    }

    #[test]
    fn what_was_never_measured_comes_last_and_alone_is_used() {
        let (unknown, known) = (Cost::default(), cost(4));
        let pull = candidate(Strategy::Pull, &unknown);
        assert_eq!(picked(&[pull], None), Some(Strategy::Pull));
        let both = [pull, candidate(Strategy::HostMemory, &known)];
        assert_eq!(picked(&both, None), Some(Strategy::HostMemory));
    }

    #[test]
    fn the_cpu_has_to_be_better_by_half() {
        let gpu = cost(10);
        for (milliseconds, wanted) in [(8, Strategy::Pull), (6, Strategy::Cpu)] {
            let cpu = cost(milliseconds);
            let both = [
                candidate(Strategy::Pull, &gpu),
                candidate(Strategy::Cpu, &cpu),
            ];
            assert_eq!(picked(&both, None), Some(wanted), "{milliseconds} ms");
        }
    }

    #[test]
    fn a_small_difference_changes_nothing() {
        let costs = [cost(100), cost(95), cost(80)];
        let all = [
            candidate(Strategy::Pull, &costs[0]),
            candidate(Strategy::PullBytes, &costs[1]),
        ];
        assert_eq!(picked(&all, Some(Strategy::Pull)), Some(Strategy::Pull));
        assert_eq!(picked(&all, None), Some(Strategy::PullBytes));
        let all = [all[0], candidate(Strategy::PullBytes, &costs[2])];
        let last = Some(Strategy::Pull);
        assert_eq!(picked(&all, last), Some(Strategy::PullBytes));
    }

    #[test]
    fn the_last_resort_is_used_where_nothing_else_works() {
        let (slow, fast) = (cost(90), cost(1));
        let push = candidate(Strategy::Push, &fast);
        let both = [candidate(Strategy::HostMemory, &slow), push];
        assert_eq!(picked(&both, None), Some(Strategy::HostMemory));
        assert_eq!(picked(&[push], None), Some(Strategy::Push));
    }

    #[test]
    fn what_is_faster_and_not_used_has_a_reason() {
        let (slow, fast) = (cost(10), cost(8));
        let pull = candidate(Strategy::Pull, &slow);
        let nothing = Excluded {
            is_forbidden: false,
            failed_lately: false,
        };
        let why =
            |strategy, cost| held_back(&candidate(strategy, cost), nothing, Some(&pull), BYTES);
        assert_eq!(why(Strategy::Cpu, &fast), Some(HeldBack::Cpu));
        assert_eq!(why(Strategy::PullBytes, &fast), Some(HeldBack::AboutAsFast));
        assert_eq!(why(Strategy::Push, &fast), Some(HeldBack::LastResort));
        assert_eq!(why(Strategy::PullBytes, &slow), None);
        assert_eq!(why(Strategy::Pull, &fast), None);
        assert_eq!(why(Strategy::PullBytes, &Cost::default()), None);
        let push = candidate(Strategy::Push, &fast);
        assert_eq!(held_back(&push, nothing, None, BYTES), None);
    }

    #[test]
    fn what_may_not_be_used_says_so_before_anything_else() {
        let (slow, fast) = (cost(10), cost(8));
        let (pull, push) = (
            candidate(Strategy::Pull, &slow),
            candidate(Strategy::Push, &fast),
        );
        let why = |is_forbidden, failed_lately| {
            let excluded = Excluded {
                is_forbidden,
                failed_lately,
            };
            held_back(&push, excluded, Some(&pull), BYTES)
        };
        assert_eq!(why(true, true), Some(HeldBack::NotAllowed));
        assert_eq!(why(false, true), Some(HeldBack::FailedLately));
        assert_eq!(why(false, false), Some(HeldBack::LastResort));
    }
}
