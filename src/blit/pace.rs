//! How fast copies by one strategy are.

use std::time::Duration;

/// Copies that are timed of a strategy at most.
pub(super) const MOST: usize = 8;

/// Bytes per second of the copies that were timed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// In their order; only as many as there are runs.
    rates: [f64; MOST],
    runs: usize,
}

impl Pace {
    /// One more copy. More than are remembered say nothing new.
    pub(super) fn add(&mut self, bytes: u64, took: Duration) {
        let rate = bytes as f64 / took.as_secs_f64().max(1e-9);
        let Some(place) = self.rates.get_mut(self.runs) else {
            return;
        };
        *place = rate;
        self.runs += 1;
        self.rates[..self.runs].sort_unstable_by(f64::total_cmp);
    }

    pub(super) fn runs(&self) -> usize {
        self.runs
    }

    /// The middle one, or zero. Neither what was disturbed once counts nor what was lucky once: the
    /// fastest of a few runs tells little of those that will follow.
    pub(super) fn rate(&self) -> f64 {
        let (half, runs) = (self.runs / 2, &self.rates[..self.runs]);
        match runs {
            [] => 0.0,
            _ if runs.len() % 2 == 1 => runs[half],
            _ => (runs[half - 1] + runs[half]) / 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_one_in_the_middle() {
        let mut pace = Pace::default();
        assert_eq!((pace.runs(), pace.rate()), (0, 0.0));
        for (seconds, middle) in [(1, 100.0), (10, 55.0), (2, 50.0), (4, 37.5)] {
            pace.add(100, Duration::from_secs(seconds));
            assert_eq!(pace.rate(), middle);
        }
        assert_eq!(pace.runs(), 4);
    }

    #[test]
    fn more_than_are_remembered_change_nothing() {
        let mut pace = Pace::default();
        for _ in 0..MOST {
            pace.add(100, Duration::from_secs(1));
        }
        let before = pace;
        pace.add(100, Duration::from_secs(9));
        assert_eq!(pace, before);
    }
}
