//! Records as text, for the next start of the program.
//!
//! One line for each strategy that worked: the kind, the strategy, and samples of bytes and nanoseconds.

use std::fmt::Write;
use std::time::Duration;

use super::cost::Cost;
use super::plan::Plan;
use super::records::{Exporter, Kind, Record, Records, State};
use crate::blit::strategy::Strategy;
use crate::buffer::{Fourcc, Modifier};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// The first line, with the version of what follows.
const HEAD: &str = "primeshare blit records 1";

/// Why saved records cannot be used. Nothing is taken over then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// They are no records, or of another version.
    #[error("these are no blit records of this version")]
    NotRecords,
    /// They were made with other devices or drivers.
    #[error("these blit records are of other devices or drivers")]
    OtherDevices,
    /// A line makes no sense.
    #[error("line {0} of the blit records makes no sense")]
    Line(usize),
}

impl SavedError {
    /// What can be done about it: they are all of what was passed in.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// None: no system call was made.
    pub fn errno(&self) -> Option<Errno> {
        None
    }
}

into_io_error!(SavedError);

impl Records {
    /// All strategies that work, and how fast. `devices` names the devices and drivers.
    pub(in crate::blit) fn save(&self, devices: &str) -> String {
        let mut text = format!("{HEAD}\n{devices}\n");
        for (kind, record) in &self.lock().kinds {
            for entry in &record.entries {
                let State::Works { verified, cost, .. } = &entry.state else {
                    continue;
                };
                // Writing to a `String` cannot fail.
                let _ = write!(
                    text,
                    "{}{} {}",
                    words(kind),
                    entry.strategy,
                    u8::from(*verified)
                );
                for (bytes, nanoseconds) in cost.samples() {
                    let _ = write!(text, " {bytes}:{nanoseconds}");
                }
                text.push('\n');
            }
        }
        text
    }

    /// Takes over what was saved of kinds of which nothing is known yet.
    pub(in crate::blit) fn load(
        &self,
        text: &str,
        devices: &str,
        software: [bool; 2],
    ) -> Result<(), SavedError> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(SavedError::NotRecords);
        }
        if lines.next() != Some(devices) {
            return Err(SavedError::OtherDevices);
        }
        let parsed = lines
            .enumerate()
            .map(|(index, line)| parse(line).ok_or(SavedError::Line(index + 3)));
        let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
        let mut known = self.lock();
        let known_before: Vec<Kind> = known.kinds.keys().copied().collect();
        for (kind, strategy, verified, cost) in parsed {
            if known_before.contains(&kind) {
                continue;
            }
            let untried = || {
                let plan: Plan = Strategy::LIST.into_iter().map(|of| (of, Ok(()))).collect();
                Record::new(plan, software)
            };
            let record = known.kinds.entry(kind).or_insert_with(untried);
            let entry = record.entries.iter_mut().find(|e| e.strategy == strategy);
            if let Some(entry) = entry {
                entry.state = State::Works {
                    verified,
                    promised: cost.clone(),
                    cost,
                    stale: false,
                };
            }
        }
        Ok(())
    }
}

fn words(kind: &Kind) -> String {
    let mut text = String::new();
    for end in 0..2 {
        let (fourcc, modifier) = kind.formats[end];
        let exporter = match kind.exporters[end].as_str() {
            "" => "-",
            name => name,
        };
        let scattered = u8::from(kind.scattered[end]);
        let _ = write!(
            text,
            "{:08x} {:x} {exporter} {scattered} ",
            fourcc.0, modifier.0
        );
    }
    let flags = [kind.resampled, kind.reshaped].map(u8::from);
    let _ = write!(text, "{} {} ", flags[0], flags[1]);
    text
}

fn parse(line: &str) -> Option<(Kind, Strategy, bool, Cost)> {
    let mut words = line.split(' ');
    let mut end = || {
        let fourcc = Fourcc(u32::from_str_radix(words.next()?, 16).ok()?);
        let modifier = Modifier(u64::from_str_radix(words.next()?, 16).ok()?);
        let exporter = match words.next()? {
            "-" => Exporter::new(),
            name => Exporter::from(name).ok()?,
        };
        Some(((fourcc, modifier), exporter, flag(words.next()?)?))
    };
    let (from, to) = (end()?, end()?);
    let kind = Kind {
        formats: [from.0, to.0],
        exporters: [from.1, to.1],
        scattered: [from.2, to.2],
        resampled: flag(words.next()?)?,
        reshaped: flag(words.next()?)?,
    };
    let strategy = words.next()?.parse().ok()?;
    let verified = flag(words.next()?)?;
    let mut cost = Cost::default();
    for sample in words {
        let (bytes, nanoseconds) = sample.split_once(':')?;
        cost.add(
            bytes.parse().ok()?,
            Duration::from_nanos(nanoseconds.parse().ok()?),
        );
    }
    Some((kind, strategy, verified, cost))
}

fn flag(word: &str) -> Option<bool> {
    match word {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTWARE: [bool; 2] = [false, false];

    /// Records of one kind, of which pull works.
    fn text() -> String {
        let kind = "34325258 0 drm 0 34325258 100000000000001 - 0 0 0";
        format!("{HEAD}\nof these\n{kind} pull 1 65536:40000 4194304:900000\n{kind} cpu 0\n")
    }

    #[test]
    fn what_was_saved_is_known_again() {
        let records = Records::default();
        records.load(&text(), "of these", SOFTWARE).unwrap();
        let again = records.save("of these");
        assert_eq!(again, text());
        // Once more changes nothing.
        records.load(&text(), "of these", SOFTWARE).unwrap();
        assert_eq!(records.save("of these"), again);
    }

    #[test]
    fn records_of_others_and_nonsense_are_refused() {
        let load = |text: &str| Records::default().load(text, "of these", SOFTWARE);
        assert_eq!(load(""), Err(SavedError::NotRecords));
        let others = text().replace("of these", "of those");
        assert_eq!(load(&others), Err(SavedError::OtherDevices));
        let nonsense = text().replace("pull", "teleport");
        assert_eq!(load(&nonsense), Err(SavedError::Line(3)));
        let nonsense = text().replace("cpu 0", "cpu 2");
        assert_eq!(load(&nonsense), Err(SavedError::Line(4)));
        for end in 0..text().len() {
            // Text that is cut off anywhere gives an error or fewer records, and never a panic.
            let _ = load(&text()[..end]);
        }
    }
}
