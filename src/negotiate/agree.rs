//! The negotiation itself. The result must not depend on the order of endpoints or of their lists: `tests.rs`
//! checks that with random input.

use std::cmp::Reverse;

use super::{Agreement, Choice, Endpoint, Nothing, Reason, Support, Usage, Wanted, Why};
use crate::buffer::{Colour, FormatInfo, Fourcc, Modifier};

/// Finds what all endpoints can share, by the [rules](super#the-rules) and in the
/// [order](super#the-order) of this module.
///
/// Takes time in proportion to what the endpoints list.
pub fn negotiate<'a>(endpoints: &[&'a Endpoint], wanted: &Wanted) -> Agreement<'a> {
    let mut table = Table::new(endpoints, wanted);
    table.allocators();
    for fourcc in candidates(endpoints, wanted) {
        table.format(fourcc);
    }
    Agreement {
        choices: table.choices,
        reasons: table.reasons,
        endpoints: endpoints.to_vec(),
        wanted: wanted.clone(),
    }
}

/// Finds what the endpoints can share with one of these alternatives, which are in the order of
/// preference: the tranches of a Wayland compositor ([`Feedback::endpoints`](super::Feedback::endpoints)), of which a buffer
/// needs to suit one.
///
/// Gives the index of the alternative and the agreement with it, in which it is the last endpoint;
/// if no alternative will do, an error that says why for each. Of alternatives whose best formats
/// differ, the one with the [best-liked](super#the-order) format is taken; then the first.
pub fn negotiate_one_of<'a>(
    endpoints: &[&'a Endpoint],
    alternatives: &'a [Endpoint],
    wanted: &Wanted,
) -> Result<(usize, Agreement<'a>), Nothing> {
    let with = |alternative| {
        let mut all = endpoints.to_vec();
        all.push(alternative);
        negotiate(&all, wanted)
    };
    let mut refused: Option<Nothing> = None;
    let mut best: Option<(_, usize, Agreement<'a>)> = None;
    for (index, agreement) in alternatives.iter().map(with).enumerate() {
        match agreement.best() {
            Ok(choice) => {
                let rank = rank(choice.fourcc, wanted);
                if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
                    best = Some((rank, index, agreement));
                }
            }
            Err(nothing) => match &mut refused {
                Some(refused) => refused.or(nothing),
                None => refused = Some(nothing),
            },
        }
    }
    match (best, refused) {
        (Some((_, index, agreement)), _) => Ok((index, agreement)),
        (None, Some(nothing)) => Err(nothing),
        // No alternatives at all.
        (None, None) => Err(Nothing::of_no_alternatives(endpoints)),
    }
}

/// How well a format would do: smaller is better.
fn rank(fourcc: Fourcc, wanted: &Wanted) -> (usize, (u8, u8), Fourcc) {
    let place = wanted.formats.iter().position(|known| *known == fourcc);
    (place.unwrap_or(0), liking(fourcc), fourcc)
}

/// The formats to be tried, best first and each once.
fn candidates(endpoints: &[&Endpoint], wanted: &Wanted) -> Vec<Fourcc> {
    let mut formats = Vec::new();
    if wanted.formats.is_empty() {
        formats.extend(endpoints.iter().flat_map(|e| e.formats.formats()));
        formats.sort_unstable();
        formats.dedup();
        formats.sort_by_cached_key(|fourcc| liking(*fourcc));
    } else {
        for fourcc in &wanted.formats {
            if !formats.contains(fourcc) {
                formats.push(*fourcc);
            }
        }
    }
    formats
}

/// How a format is liked where nobody says: smaller is better.
fn liking(fourcc: Fourcc) -> (u8, u8) {
    match FormatInfo::of(fourcc) {
        // The usual formats of displays and of cursors.
        _ if fourcc == Fourcc::XRGB8888 => (0, 0),
        _ if fourcc == Fourcc::ARGB8888 => (1, 0),
        Some(info) if is_full_rgb(info) => (2, info.depth),
        Some(_) => (3, 0),
        None => (4, 0),
    }
}

/// Whether it is a picture in one plane that has three colours of at least eight bits.
fn is_full_rgb(info: &FormatInfo) -> bool {
    let rgb = matches!(info.colour, Colour::Rgb | Colour::RgbFloat);
    match info.planes {
        [plane] => rgb && info.depth >= 8 && plane.block_bytes * 8 >= 3 * u32::from(info.depth),
        _ => false,
    }
}

/// What an endpoint says of one format and modifier.
#[derive(Clone, Copy)]
pub(super) struct Verdict<'a> {
    /// The numbers of memory planes with which it can be imported, a bit each.
    import: u32,
    /// The same for allocation.
    allocate: u32,
    /// Why it cannot be imported.
    refusal: Option<Why<'a>>,
}

impl Verdict<'_> {
    pub(super) fn usable(&self) -> bool {
        self.import | self.allocate != 0
    }
}

/// What an endpoint can do with a buffer that it lists so, under the format's own name and under
/// its twin's. Only what is listed under its own name can be allocated.
pub(super) fn judge<'a>(
    endpoint: &Endpoint,
    wanted: &Wanted,
    own: &[Support],
    twin: &[Support],
) -> Verdict<'a> {
    let mut verdict = Verdict {
        import: 0,
        allocate: 0,
        refusal: None,
    };
    let own = own.iter().map(|entry| (entry, entry.allocate));
    let twin = twin.iter().map(|entry| (entry, false));
    let mut listed = false;
    for (entry, allocate) in own.chain(twin) {
        listed = true;
        let missing = endpoint.usage - entry.usage;
        let refusal = if !missing.is_empty() {
            Some(Why::Usage(missing))
        } else if wanted.width > entry.max_width || wanted.height > entry.max_height {
            Some(Why::TooLarge {
                max_width: entry.max_width,
                max_height: entry.max_height,
            })
        } else {
            None
        };
        if refusal.is_some() {
            verdict.refusal = verdict.refusal.or(refusal);
            continue;
        }
        let planes = entry.planes.map_or(u32::MAX, |count| 1 << count.min(31));
        if entry.import {
            verdict.import |= planes;
        }
        if allocate {
            verdict.allocate |= planes;
        }
    }
    verdict.refusal = match () {
        () if !listed => Some(Why::NotListed),
        () if verdict.import != 0 => None,
        () => verdict.refusal.or(Some(Why::NotImported)),
    };
    verdict
}

/// How good a modifier is: smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Explicit,
    Implicit,
    Linear,
}

impl Kind {
    fn of(modifier: Modifier) -> Self {
        match modifier {
            Modifier::LINEAR => Self::Linear,
            Modifier::INVALID => Self::Implicit,
            _ => Self::Explicit,
        }
    }
}

/// What an endpoint lists of the format under way, from the modifier under way on.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    own: &'a [Support],
    twin: &'a [Support],
}

impl<'a> Cursor<'a> {
    fn modifier(&self) -> Option<Modifier> {
        let first = |entries: &[Support]| entries.first().map(|entry| entry.modifier);
        let (own, twin) = (first(self.own), first(self.twin));
        own.into_iter().chain(twin).min()
    }

    /// Steps past the entries of this modifier, which must be the least that is left.
    fn take(&mut self, modifier: Modifier) -> Self {
        let split = |entries: &mut &'a [Support]| {
            let others = entries.iter().position(|entry| entry.modifier != modifier);
            let (taken, rest) = entries.split_at(others.unwrap_or(entries.len()));
            *entries = rest;
            taken
        };
        Self {
            own: split(&mut self.own),
            twin: split(&mut self.twin),
        }
    }
}

/// The endpoints, with memory that is used again for every format.
struct Table<'a, 'w> {
    endpoints: &'w [&'a Endpoint],
    wanted: &'w Wanted,
    one_device: bool,
    may_allocate: Vec<bool>,
    choices: Vec<Choice>,
    reasons: Vec<Reason<'a>>,
    cursors: Vec<Cursor<'a>>,
    verdicts: Vec<Verdict<'a>>,
    /// What each endpoint could allocate of the format under way.
    offers: Vec<Vec<(Kind, Modifier)>>,
}

impl<'a, 'w> Table<'a, 'w> {
    fn new(endpoints: &'w [&'a Endpoint], wanted: &'w Wanted) -> Self {
        let one_device = match endpoints {
            [] | [_] => true,
            [first, others @ ..] => {
                let same = |other: &&Endpoint| other.device == first.device;
                first.device.is_some() && others.iter().all(same)
            }
        };
        Self {
            endpoints,
            wanted,
            one_device,
            may_allocate: vec![true; endpoints.len()],
            choices: Vec::new(),
            reasons: Vec::new(),
            cursors: Vec::with_capacity(endpoints.len()),
            verdicts: Vec::with_capacity(endpoints.len()),
            offers: vec![Vec::new(); endpoints.len()],
        }
    }

    /// Finds the endpoints that may allocate, and notes why others may not.
    fn allocators(&mut self) {
        let needs = self.endpoints.iter().filter(|e| e.needs_contiguous);
        let Some(for_endpoint) = needs.map(|e| e.name.as_str()).min() else {
            return;
        };
        for (endpoint, may) in self.endpoints.iter().zip(&mut self.may_allocate) {
            *may = endpoint.allocates_contiguous;
            if !*may && endpoint.formats.iter().any(|entry| entry.allocate) {
                self.reasons.push(Reason {
                    fourcc: None,
                    modifier: None,
                    endpoint: Some(&endpoint.name),
                    why: Why::NotContiguous { for_endpoint },
                });
            }
        }
    }

    fn format(&mut self, fourcc: Fourcc) {
        let twin = self.wanted.substitute.twin(fourcc);
        let mut listed_by_all = true;
        self.cursors.clear();
        for &endpoint in self.endpoints {
            let cursor = Cursor {
                own: endpoint.formats.of(fourcc),
                twin: twin.map_or(&[], |twin| endpoint.formats.of(twin)),
            };
            if cursor.own.is_empty() && cursor.twin.is_empty() {
                listed_by_all = false;
                self.reasons.push(Reason {
                    fourcc: Some(fourcc),
                    modifier: None,
                    endpoint: Some(&endpoint.name),
                    why: Why::NotListed,
                });
            }
            self.cursors.push(cursor);
        }
        if !listed_by_all {
            return;
        }
        self.offers.iter_mut().for_each(Vec::clear);
        while let Some(modifier) = self.cursors.iter().filter_map(Cursor::modifier).min() {
            self.verdicts.clear();
            for (endpoint, cursor) in self.endpoints.iter().zip(&mut self.cursors) {
                let Cursor { own, twin } = cursor.take(modifier);
                self.verdicts.push(judge(endpoint, self.wanted, own, twin));
            }
            self.pair(fourcc, modifier);
        }
        self.choose(fourcc);
    }

    /// Offers the pair under way to those who can allocate it, or says why there is none.
    fn pair(&mut self, fourcc: Fourcc, modifier: Modifier) {
        let mut reason = |endpoint, why| {
            self.reasons.push(Reason {
                fourcc: Some(fourcc),
                modifier: Some(modifier),
                endpoint,
                why,
            });
        };
        if modifier == Modifier::INVALID && !self.one_device {
            reason(None, Why::AcrossDevices);
            return;
        }
        // The allocator alone need not import.
        let refusing = self.verdicts.iter().filter(|v| v.import == 0).count();
        let (mut offered, mut miscounted) = (false, false);
        if refusing <= 1 {
            for (index, allocator) in self.verdicts.iter().enumerate() {
                let is_it = allocator.import == 0 || refusing == 0;
                if !is_it || allocator.allocate == 0 || !self.may_allocate[index] {
                    continue;
                }
                let others = self.verdicts.iter().enumerate();
                let imports = others.filter(|(other, _)| *other != index);
                let planes = imports.fold(allocator.allocate, |planes, (_, v)| planes & v.import);
                if planes != 0 {
                    self.offers[index].push((Kind::of(modifier), modifier));
                    offered = true;
                } else {
                    miscounted = true;
                }
            }
        }
        if offered {
            return;
        }
        if miscounted {
            reason(None, Why::PlaneCounts);
        } else if refusing == 0 {
            reason(None, Why::NoAllocator);
        } else {
            for (endpoint, verdict) in self.endpoints.iter().zip(&self.verdicts) {
                if let Some(why) = verdict.refusal {
                    reason(Some(&endpoint.name), why);
                }
            }
        }
    }

    /// Makes choices of the offers for a format, best first.
    fn choose(&mut self, fourcc: Fourcc) {
        let first = self.choices.len();
        for (allocator, offers) in self.offers.iter_mut().enumerate() {
            if offers.is_empty() {
                continue;
            }
            offers.sort_unstable();
            let choice = Choice {
                fourcc,
                allocator,
                modifiers: offers.iter().map(|offer| offer.1).collect(),
            };
            if choice.only_linear() {
                self.reasons.push(Reason {
                    fourcc: Some(fourcc),
                    modifier: None,
                    endpoint: Some(&self.endpoints[allocator].name),
                    why: Why::OnlyLinear,
                });
            }
            self.choices.push(choice);
        }
        self.choices[first..].sort_by_key(|choice| {
            let endpoint = self.endpoints[choice.allocator];
            (
                self.offers[choice.allocator][0].0,
                !endpoint.usage.contains(Usage::RENDER),
                Reverse(choice.modifiers.len()),
                &endpoint.name,
                endpoint.device,
            )
        });
    }
}
