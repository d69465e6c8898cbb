//! What a blitter has done, for people.

use std::fmt;
use std::time::Duration;

use super::strategy::Strategy;

/// How many latencies are kept: those of the last copies.
const LATENCIES: usize = 512;
const STRATEGIES: usize = Strategy::LIST.len();

/// What a [`Blitter`](super::Blitter) has done since it was made. Prints a table.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// The strategies that were used or have failed, in order of trust.
    pub strategies: Vec<StrategyStatistics>,
    /// Frames that no strategy has made, and frames whose fences were not signalled in time.
    pub failed: u64,
    /// From the call of [`Blitter::blit`](super::Blitter::blit) until the end of the copy was seen: the
    /// middle one of the last copies. `None` before the first.
    pub median: Option<Duration>,
    /// The latency that 99 of 100 of the last copies stay below.
    pub percentile_99: Option<Duration>,
    /// Bytes of staging memory that is kept for the next frames, and of the GPUs' scratch memory for pictures
    /// that are scaled, turned or converted.
    pub staging_bytes: u64,
}

/// Part of [`Statistics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrategyStatistics {
    /// Which.
    pub strategy: Strategy,
    /// Frames it has made.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Frames it has not made.
    pub failures: u64,
}

/// The counts behind [`Statistics`]. Counting allocates nothing.
#[derive(Debug)]
pub(super) struct Counts {
    each: [(u64, u64, u64); STRATEGIES],
    failed: u64,
    latencies: Vec<Duration>,
    next: usize,
}

fn index(strategy: Strategy) -> usize {
    let found = Strategy::LIST.iter().position(|of| *of == strategy);
    found.unwrap_or_default()
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            each: [(0, 0, 0); STRATEGIES],
            failed: 0,
            latencies: Vec::with_capacity(LATENCIES),
            next: 0,
        }
    }

    /// A frame was made.
    pub(super) fn made(&mut self, strategy: Strategy, bytes: u64) {
        let (frames, all, _) = &mut self.each[index(strategy)];
        *frames += 1;
        *all += bytes;
    }

    /// A strategy has not made a frame.
    pub(super) fn failed(&mut self, strategy: Strategy) {
        self.each[index(strategy)].2 += 1;
    }

    /// A copy has ended.
    pub(super) fn ended(&mut self, well: bool, latency: Duration) {
        self.failed += u64::from(!well);
        if self.latencies.len() < LATENCIES {
            self.latencies.push(latency);
        } else {
            self.latencies[self.next] = latency;
            self.next = (self.next + 1) % LATENCIES;
        }
    }

    pub(super) fn statistics(&self, staging_bytes: u64) -> Statistics {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |hundredths: usize| {
            let last = sorted.len().checked_sub(1)?;
            sorted.get(last * hundredths / 100).copied()
        };
        let each = Strategy::LIST.into_iter().zip(self.each);
        let used = each.filter(|(_, (frames, _, failures))| frames + failures > 0);
        Statistics {
            strategies: used
                .map(|(strategy, (frames, bytes, failures))| StrategyStatistics {
                    strategy,
                    frames,
                    bytes,
                    failures,
                })
                .collect(),
            failed: self.failed,
            median: at(50),
            percentile_99: at(99),
            staging_bytes,
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{:<18} {:>9} {:>12} {:>9}",
            "strategy", "frames", "MiB", "failures"
        )?;
        for of in &self.strategies {
            writeln!(
                f,
                "{:<18} {:>9} {:>12.1} {:>9}",
                of.strategy,
                of.frames,
                mebibytes(of.bytes),
                of.failures
            )?;
        }
        if let (Some(median), Some(most)) = (self.median, self.percentile_99) {
            let milliseconds = |latency: Duration| latency.as_secs_f64() * 1e3;
            writeln!(
                f,
                "latency: median {:.3} ms, 99 of 100 below {:.3} ms",
                milliseconds(median),
                milliseconds(most)
            )?;
        }
        if self.failed > 0 {
            writeln!(f, "frames not made: {}", self.failed)?;
        }
        write!(
            f,
            "staging memory kept: {:.1} MiB",
            mebibytes(self.staging_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_counted_and_printed() {
        let mut counts = Counts::new();
        for milliseconds in 1..=1000 {
            counts.made(Strategy::Pull, 1 << 20);
            counts.ended(true, Duration::from_millis(milliseconds));
        }
        counts.failed(Strategy::PullBytes);
        counts.ended(false, Duration::from_millis(1000));
        let statistics = counts.statistics(3 << 20);
        assert_eq!(statistics.strategies[0].frames, 1000);
        assert_eq!(statistics.strategies[1].failures, 1);
        // Of the last 512.
        assert_eq!(statistics.median, Some(Duration::from_millis(745)));
        assert_eq!(statistics.percentile_99, Some(Duration::from_millis(995)));
        let text = statistics.to_string();
        assert!(text.contains("1000.0"), "{text}");
        assert!(text.contains("frames not made: 1\n"), "{text}");
        assert!(text.contains("kept: 3.0 MiB"), "{text}");
    }

    #[test]
    fn before_the_first_copy_there_is_nothing_to_say() {
        let none = Counts::new().statistics(0);
        assert_eq!(none.median, None);
        assert!(!none.to_string().contains("latency"));
    }
}
