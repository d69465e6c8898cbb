//! What was tried for a pair of buffers, and how it went.

use std::fmt;
use std::time::Duration;

use super::Failure;
use super::plan::WhyNot;
use super::strategy::Strategy;
use crate::buffer::{Fourcc, Modifier};

/// What is known of one strategy for one pair of devices, formats and modifiers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was out of the question.
    NotOffered(WhyNot),
    /// Nothing yet.
    Untried,
    /// It failed, and is not tried again.
    Failed(Failure),
    /// It works.
    Works {
        /// Whether what arrived was compared with what was sent. Memory that is not LINEAR cannot
        /// be looked at.
        verified: bool,
        /// Bytes of the picture per second, warm; `None` before it was measured.
        bytes_per_second: Option<f64>,
    },
}

/// One line of a [`Verdict`].
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// What was tried.
    pub strategy: Strategy,
    /// How it went.
    pub outcome: Outcome,
}

/// Which strategies were tried between two devices for buffers of these formats and modifiers,
/// what came of each, and which one is used. Prints one line for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The device whose buffers are read.
    pub source: String,
    /// The device whose buffers are written.
    pub destination: String,
    /// Format and modifier of the source and of the destination.
    pub formats: [(Fourcc, Modifier); 2],
    /// Every strategy, in the order of [`Strategy::ALL`].
    pub attempts: Vec<Attempt>,
    /// The one in use, once one is known to work.
    pub chosen: Option<Strategy>,
}

impl Verdict {
    /// What is known of a strategy.
    pub fn outcome(&self, strategy: Strategy) -> Option<&Outcome> {
        let found = self.attempts.iter().find(|a| a.strategy == strategy);
        found.map(|attempt| &attempt.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered(why) => write!(f, "not possible: {why}"),
            Self::Untried => f.write_str("not tried"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Works {
                verified,
                bytes_per_second,
            } => {
                f.write_str("works")?;
                if let Some(rate) = bytes_per_second {
                    write!(f, ", {:.2} GiB/s", rate / f64::from(1 << 30))?;
                }
                match verified {
                    true => Ok(()),
                    false => f.write_str(" (not compared: the memory is not LINEAR)"),
                }
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(from, tiling), (to, arrangement)] = self.formats;
        writeln!(
            f,
            "{} ({from}, {tiling}) to {} ({to}, {arrangement})",
            self.source, self.destination
        )?;
        for Attempt { strategy, outcome } in &self.attempts {
            let mark = match self.chosen == Some(*strategy) {
                true => '*',
                false => ' ',
            };
            writeln!(f, "{mark} {strategy:<18} {outcome}")?;
        }
        Ok(())
    }
}

/// Shortest time of the measured runs, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    pub(super) runs: u32,
    pub(super) best: f64,
}

impl Pace {
    pub(super) fn add(&mut self, bytes: u64, took: Duration) {
        self.runs += 1;
        let rate = bytes as f64 / took.as_secs_f64().max(1e-9);
        self.best = self.best.max(rate);
    }
}
