//! What a negotiation gives: choices, reasons, and their text.

use std::fmt;

use super::agree::judge;
use super::{Endpoint, Usage, Wanted};
use crate::buffer::{Fourcc, Modifier};

/// What endpoints can share, and why not more.
///
/// Prints as a list of both, a line each.
#[derive(Clone, Debug)]
pub struct Agreement<'a> {
    /// What would do, best first.
    pub choices: Vec<Choice>,
    /// What dropped out and why, by format and modifier in no promised order; and which choices
    /// are a last resort.
    pub reasons: Vec<Reason<'a>>,
    pub(super) endpoints: Vec<&'a Endpoint>,
    pub(super) wanted: Wanted,
}

/// A format, and who can allocate it with which modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// The format to allocate.
    pub fourcc: Fourcc,
    /// Which of the endpoints should allocate: its index among those that were given.
    pub allocator: usize,
    /// The modifiers that would do, best first; at least one. The allocator should get them all
    /// to choose from. [`Modifier::INVALID`] among them allows it a layout of its own.
    pub modifiers: Vec<Modifier>,
}

impl Choice {
    /// Whether LINEAR is all that is left: correct, and on most hardware slow to render to.
    pub fn only_linear(&self) -> bool {
        self.modifiers == [Modifier::LINEAR]
    }
}

impl<'a> Agreement<'a> {
    /// The best choice; if there is none, an error that says why.
    pub fn best(&self) -> Result<&Choice, Nothing> {
        self.choices.first().ok_or_else(|| Nothing {
            endpoints: names(&self.endpoints),
            reasons: self.reasons.iter().map(ToString::to_string).collect(),
        })
    }

    /// Who should allocate. `None`: the choice is of other endpoints.
    pub fn allocator(&self, choice: &Choice) -> Option<&'a Endpoint> {
        self.endpoints.get(choice.allocator).copied()
    }

    /// The format as which an endpoint, by its index, uses a buffer of this format and modifier:
    /// its twin where the endpoint only takes that. `None` where it takes neither.
    pub fn used_as(&self, fourcc: Fourcc, modifier: Modifier, endpoint: usize) -> Option<Fourcc> {
        let endpoint = self.endpoints.get(endpoint)?;
        let own = endpoint.formats.pair(fourcc, modifier);
        if judge(endpoint, &self.wanted, own, &[]).usable() {
            return Some(fourcc);
        }
        let twin = self.wanted.substitute.twin(fourcc)?;
        let listed = endpoint.formats.pair(twin, modifier);
        let usable = judge(endpoint, &self.wanted, &[], listed).usable();
        usable.then_some(twin)
    }
}

impl fmt::Display for Agreement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for choice in &self.choices {
            f.write_str(separator)?;
            separator = "\n";
            // `choices` is open to the program.
            let name = self.allocator(choice).map_or("nobody", |it| &it.name);
            write!(f, "{} allocated by {name} with", choice.fourcc)?;
            for (index, modifier) in choice.modifiers.iter().enumerate() {
                let comma = if index == 0 { " " } else { ", " };
                write!(f, "{comma}{modifier}")?;
            }
        }
        for reason in &self.reasons {
            write!(f, "{separator}{reason}")?;
            separator = "\n";
        }
        Ok(())
    }
}

/// Why something dropped out, or is a last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Reason<'a> {
    /// The format. `None`: all.
    pub fourcc: Option<Fourcc>,
    /// The modifier. `None`: all.
    pub modifier: Option<Modifier>,
    /// The name of the endpoint it is due to. `None`: not to one alone.
    pub endpoint: Option<&'a str>,
    /// What happened.
    pub why: Why<'a>,
}

/// What [`Reason`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Why<'a> {
    /// The endpoint does not list it.
    NotListed,
    /// The endpoint cannot use it so.
    Usage(Usage),
    /// The endpoint does not take pictures of this size.
    TooLarge {
        /// Most pixels across.
        max_width: u32,
        /// Most pixels down.
        max_height: u32,
    },
    /// The endpoint does not import it.
    NotImported,
    /// An implicit layout, and the endpoints are not known to be of one device.
    AcrossDevices,
    /// The endpoints do not state the same number of memory planes.
    PlaneCounts,
    /// All would take it, and nobody allocates it.
    NoAllocator,
    /// The endpoint cannot allocate, since it has no contiguous memory.
    NotContiguous {
        /// The name of an endpoint that needs it.
        for_endpoint: &'a str,
    },
    /// Not dropped: LINEAR is the only modifier left if the endpoint allocates.
    OnlyLinear,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fourcc, self.modifier) {
            (Some(fourcc), Some(modifier)) => write!(f, "{fourcc} with {modifier}: ")?,
            (Some(fourcc), None) => write!(f, "{fourcc}: ")?,
            (None, _) => {}
        }
        let endpoint = self.endpoint.unwrap_or("nobody");
        match self.why {
            Why::NotListed => write!(f, "{endpoint} does not list it"),
            Why::Usage(usage) => write!(f, "{endpoint} cannot use it for {usage}"),
            Why::TooLarge {
                max_width,
                max_height,
            } => write!(f, "{endpoint} takes at most {max_width}x{max_height}"),
            Why::NotImported => write!(f, "{endpoint} does not import it"),
            Why::AcrossDevices => {
                f.write_str("not all are known to be of one device, and only that knows the layout")
            }
            Why::PlaneCounts => f.write_str("not all mean the same number of memory planes"),
            Why::NoAllocator => f.write_str("all would take it, and nobody allocates it"),
            Why::NotContiguous { for_endpoint } => write!(
                f,
                "{endpoint} cannot allocate the contiguous memory that {for_endpoint} needs"
            ),
            Why::OnlyLinear => write!(f, "only LINEAR is left if {endpoint} allocates"),
        }
    }
}

/// There is nothing that all endpoints can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{endpoints} can share no format and modifier{}", lines(reasons))]
#[non_exhaustive]
pub struct Nothing {
    /// The endpoints' names.
    pub endpoints: String,
    /// What dropped out and why: [`Agreement::reasons`] in words.
    pub reasons: Vec<String>,
}

impl Nothing {
    /// That there was no alternative to choose from.
    pub(super) fn of_no_alternatives(endpoints: &[&Endpoint]) -> Self {
        Self {
            endpoints: names(endpoints),
            reasons: vec!["there is nobody to share with".to_owned()],
        }
    }

    /// Adds another alternative that will not do either.
    pub(super) fn or(&mut self, other: Self) {
        self.endpoints.push_str("; or ");
        self.endpoints.push_str(&other.endpoints);
        for reason in other.reasons {
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }
}

fn names(endpoints: &[&Endpoint]) -> String {
    let names: Vec<&str> = endpoints.iter().map(|e| e.name.as_str()).collect();
    names.join(" and ")
}

fn lines(reasons: &[String]) -> String {
    let lines = reasons.iter().map(|reason| format!("\n  {reason}"));
    lines.collect()
}
