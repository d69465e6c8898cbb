//! Whether copies still take as long as they did when the strategies were compared.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

/// How many copies are looked at together. One slow copy says nothing.
const WINDOW: usize = 8;
/// If copies have become slower or faster by this factor, the strategies have to be compared again.
const FACTOR: f64 = 2.0;
/// How long copies have to be off by the factor.
const WHILE: Duration = Duration::from_secs(2);

/// Real copies by one strategy, compared with its trials.
///
/// Real copies may always take longer than trials, because of what else the machine does. So what counts
/// is a change of the relation between the two.
#[derive(Clone, Debug, Default)]
pub(super) struct Drift {
    /// How many windows there were since the trials. The first one does not count: its copies touch fresh
    /// pages.
    windows: u64,
    /// The usual ratio of real times to the times that the trials promise.
    usual: Option<f64>,
    recent: ArrayVec<f64, WINDOW>,
    off_since: Option<Instant>,
}

impl Drift {
    /// Adds a copy. `true` if copies have been off by the factor from the usual ratio for a while. The usual
    /// ratio is learnt anew then.
    pub(super) fn is_off(&mut self, seconds: f64, promised: f64, now: Instant) -> bool {
        self.recent.push(seconds / promised.max(1e-9));
        if !self.recent.is_full() {
            return false;
        }
        self.recent.sort_unstable_by(f64::total_cmp);
        let middle = self.recent[WINDOW / 2];
        self.recent.clear();
        self.windows += 1;
        if self.windows == 1 {
            return false;
        }
        let usual = *self.usual.get_or_insert(middle);
        if middle <= usual * FACTOR && middle * FACTOR >= usual {
            self.off_since = None;
            return false;
        }
        let since = *self.off_since.get_or_insert(now);
        let is_off = now.saturating_duration_since(since) >= WHILE;
        if is_off {
            *self = Self::default();
        }
        is_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_change_is_noticed_once_and_a_short_one_is_not() {
        let mut drift = Drift::default();
        let mut now = Instant::now();
        let mut run = |count: usize, factor: f64| {
            let off = (0..count).filter(|_| {
                now += Duration::from_millis(16);
                drift.is_off(factor * 3e-3, 1e-3, now)
            });
            off.count()
        };
        assert_eq!(run(8, 5.0), 0, "fresh pages");
        assert_eq!(run(50, 1.0), 0, "always slower than the trial by the same");
        assert_eq!(run(100, 9.0), 0, "a second of disturbance");
        assert_eq!(run(50, 1.0), 0);
        assert_eq!(run(300, 2.5), 1, "slower for good");
        assert_eq!(run(300, 1.0), 1, "as before");
    }
}
