//! What was tried for a pair of buffers, and how it went.

use std::fmt;

use super::choose::pick::HeldBack;
use super::choose::plan::WhyNot;
use super::strategy::Strategy;
use super::{BlitDevice, Failure};
use crate::buffer::{DmaBuf, Fourcc, Modifier};
use crate::gem;

/// What is known of one strategy for one pair of devices, formats and modifiers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was out of the question.
    NotOffered(WhyNot),
    /// [`Options::strategies`](super::Options::strategies) or [`Options::push`](super::Options::push) leave it out.
    NotAllowed,
    /// Nothing yet.
    Untried,
    /// It failed. It is tried again after a while.
    Failed(Failure),
    /// There are no buffers to try it with. It is used where nothing else works.
    Untestable(Failure),
    /// It works.
    Works {
        /// Whether what arrived was compared with what was sent, in a trial.
        verified: bool,
        /// Bytes per second of the largest copies; `None` before it was measured.
        bytes_per_second: Option<f64>,
    },
}

/// One line of a [`Verdict`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attempt {
    /// What was tried.
    pub strategy: Strategy,
    /// How it went.
    pub outcome: Outcome,
    /// Why it is not the one in use, if its time does not say it.
    pub held_back: Option<HeldBack>,
}

/// Bytes per second, printed in a unit that suits slow copies of tiny pictures, too.
struct Rate(f64);

/// Which strategies were tried between two devices for buffers of these formats and modifiers,
/// what came of each, and which one is used. Prints one line for each.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The device whose buffers are read.
    pub source: String,
    /// The device whose buffers are written.
    pub destination: String,
    /// Format and modifier of the source and of the destination.
    pub formats: [(Fourcc, Modifier); 2],
    /// What the DRM devices answered to a PRIME import of each other's buffers: the destination's device to the
    /// source's buffer, and the other way round. `None` in the verdicts of a [`Blitter`](super::Blitter), which asks no
    /// driver: put in what [`Blitter::ask_drivers`](super::Blitter::ask_drivers) has answered, and it is printed. A
    /// strategy may do without: Vulkan and the CPU can reach memory that the DRM
    /// driver refuses.
    pub imports: [Option<Result<(), gem::Error>>; 2],
    /// Every strategy, in the order of [`Strategy::ALL`].
    pub attempts: Vec<Attempt>,
    /// The one in use, once one is known to work.
    pub chosen: Option<Strategy>,
    /// Whether all that may work has been tried. What is chosen can change later, when copies take
    /// another time or fail.
    pub settled: bool,
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
            Self::NotAllowed => f.write_str("not allowed by the options"),
            Self::Untried => f.write_str("not tried yet"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Untestable(why) => write!(f, "not tried: {why}"),
            Self::Works {
                verified,
                bytes_per_second,
            } => {
                f.write_str("works")?;
                if let Some(rate) = bytes_per_second {
                    write!(f, ", {}", Rate(*rate))?;
                }
                match verified {
                    true => Ok(()),
                    false => f.write_str(" (not compared)"),
                }
            }
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rate = self.0 / 1024.0;
        for unit in ["KiB/s", "MiB/s"] {
            if rate < 1024.0 {
                return write!(f, "{rate:.2} {unit}");
            }
            rate /= 1024.0;
        }
        write!(f, "{rate:.2} GiB/s")
    }
}

/// Imports each buffer on the other end's DRM device, and drops the imports at once.
pub(super) fn imports(
    sides: &[BlitDevice; 2],
    source: &DmaBuf,
    destination: &DmaBuf,
) -> [Option<Result<(), gem::Error>>; 2] {
    let ask = |side: &BlitDevice, buffer: &DmaBuf| {
        let imported = side.drm.as_ref()?.import(buffer);
        Some(imported.map(drop).map_err(|error| error.cause))
    };
    [ask(&sides[1], source), ask(&sides[0], destination)]
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(from, tiling), (to, arrangement)] = self.formats;
        write!(
            f,
            "{} ({from}, {tiling}) to {} ({to}, {arrangement})",
            self.source, self.destination
        )?;
        let buffers = ["source", "destination"];
        for (buffer, answer) in buffers.into_iter().zip(&self.imports) {
            match answer {
                None => {}
                Some(Ok(())) => write!(f, "\n  PRIME import of the {buffer} works")?,
                Some(Err(why)) => write!(f, "\n  PRIME import of the {buffer} refused: {why}")?,
            }
        }
        for attempt in &self.attempts {
            let Attempt {
                strategy,
                outcome,
                held_back,
            } = attempt;
            let mark = match self.chosen == Some(*strategy) {
                true => '*',
                false => ' ',
            };
            write!(f, "\n{mark} {strategy:<18} {outcome}")?;
            if let Some(why) = held_back {
                write!(f, "; {why}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Errno;

    use super::*;

    #[test]
    fn rates_have_a_unit_that_shows_something() {
        let shown = |bytes_per_second| Rate(bytes_per_second).to_string();
        assert_eq!(shown(0.0), "0.00 KiB/s");
        assert_eq!(shown(512.0), "0.50 KiB/s");
        assert_eq!(shown(40.0 * 1024.0), "40.00 KiB/s");
        assert_eq!(shown(1.5 * f64::from(1 << 20)), "1.50 MiB/s");
        assert_eq!(shown(1023.0 * f64::from(1 << 20)), "1023.00 MiB/s");
        assert_eq!(shown(12.345 * f64::from(1 << 30)), "12.35 GiB/s");
    }

    #[test]
    fn a_verdict_says_what_the_drivers_answered() {
        let refused = gem::Error::Import {
            device: "qxl (/dev/dri/card2)".to_owned(),
            errno: Errno::ENOSYS,
        };
        let mut verdict = Verdict {
            source: "one".to_owned(),
            destination: "other".to_owned(),
            formats: [(Fourcc::XRGB8888, Modifier::LINEAR); 2],
            imports: [Some(Err(refused)), Some(Ok(()))],
            attempts: Vec::new(),
            chosen: None,
            settled: false,
        };
        let text = verdict.to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert!(lines[0].contains("of the source refused: qxl"), "{text}");
        assert!(lines[0].contains("ENOSYS"), "{text}");
        assert!(lines[1].contains("of the destination works"), "{text}");
        verdict.imports = [None, None];
        assert_eq!(verdict.to_string().lines().count(), 1);
        verdict.attempts = vec![Attempt {
            strategy: Strategy::Push,
            outcome: Outcome::Works {
                verified: true,
                bytes_per_second: None,
            },
            held_back: Some(HeldBack::LastResort),
        }];
        assert!(verdict.to_string().contains("works; held back: "));
    }
}
