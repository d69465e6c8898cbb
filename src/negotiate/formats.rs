//! Sets of formats and modifiers, sorted for lookup.

use std::fmt;
use std::ops::Range;

use crate::buffer::{Fourcc, Modifier, Usage};

/// A format and modifier, and what can be done with it.
///
/// [`Self::new`] makes one without limits that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Support {
    /// The format.
    pub fourcc: Fourcc,
    /// The modifier. [`Modifier::INVALID`]: buffers whose layout is left to the driver.
    pub modifier: Modifier,
    /// What it can be used for.
    pub usage: Usage,
    /// Most pixels across.
    pub max_width: u32,
    /// Most pixels down.
    pub max_height: u32,
    /// Memory planes, where known. Endpoints that state different numbers do not mean the same
    /// layout, and do not agree on it.
    pub planes: Option<u8>,
    /// Whether such buffers can be allocated, and exported.
    pub allocate: bool,
    /// Whether such buffers can be imported.
    pub import: bool,
}

impl Support {
    /// Without limits, to be imported and not allocated.
    pub fn new(fourcc: Fourcc, modifier: Modifier) -> Self {
        Self {
            fourcc,
            modifier,
            usage: Usage::all(),
            max_width: u32::MAX,
            max_height: u32::MAX,
            planes: None,
            allocate: false,
            import: true,
        }
    }
}

impl From<(Fourcc, Modifier)> for Support {
    fn from((fourcc, modifier): (Fourcc, Modifier)) -> Self {
        Self::new(fourcc, modifier)
    }
}

/// The formats and modifiers that somebody knows, ordered by both.
///
/// One pair can be listed several times with different limits: it can be used where any of them
/// suits. Collect one from [`Support`]s or from pairs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FormatSet {
    entries: Vec<Support>,
    /// Each format once, with the end of its entries.
    groups: Vec<(Fourcc, usize)>,
}

impl FormatSet {
    /// Formats whose layout is left to the driver ([`Modifier::INVALID`]): what there is to say of
    /// a device that knows no modifiers.
    pub fn implicit(formats: impl IntoIterator<Item = Fourcc>) -> Self {
        let formats = formats.into_iter();
        formats.map(|fourcc| (fourcc, Modifier::INVALID)).collect()
    }

    /// The same, each format with [`Modifier::INVALID`] too: for users that also take buffers
    /// without a modifier, such as KMS planes.
    pub fn and_implicit(self) -> Self {
        let implicit = Self::implicit(self.formats());
        self.entries.into_iter().chain(implicit.entries).collect()
    }

    /// Each entry changed, or left out where `change` says `None`.
    pub fn filter_map(&self, change: impl FnMut(Support) -> Option<Support>) -> Self {
        self.entries.iter().copied().filter_map(change).collect()
    }

    /// The formats, each once and in the order of their codes.
    pub fn formats(&self) -> impl Iterator<Item = Fourcc> + Clone {
        self.groups.iter().map(|(fourcc, _)| *fourcc)
    }

    /// What is listed of one format, ordered by modifier.
    pub fn of(&self, fourcc: Fourcc) -> &[Support] {
        match self.groups.binary_search_by_key(&fourcc, |group| group.0) {
            Ok(group) => &self.entries[self.range(group)],
            Err(_) => &[],
        }
    }

    fn range(&self, group: usize) -> Range<usize> {
        let before = group.checked_sub(1);
        let start = before.map_or(0, |before| self.groups[before].1);
        start..self.groups[group].1
    }

    /// The modifiers of one format, in the order of their numbers.
    pub fn modifiers(&self, fourcc: Fourcc) -> impl Iterator<Item = Modifier> {
        let entries = self.of(fourcc);
        let same = entries.chunk_by(|a, b| a.modifier == b.modifier);
        same.map(|entries| entries[0].modifier)
    }

    /// What is listed of one pair.
    pub fn pair(&self, fourcc: Fourcc, modifier: Modifier) -> &[Support] {
        let entries = self.of(fourcc);
        let start = entries.partition_point(|entry| entry.modifier < modifier);
        let end = entries.partition_point(|entry| entry.modifier <= modifier);
        &entries[start..end]
    }

    /// Whether the pair is listed, whatever for.
    pub fn contains(&self, fourcc: Fourcc, modifier: Modifier) -> bool {
        !self.pair(fourcc, modifier).is_empty()
    }

    /// All entries, ordered by format and modifier.
    pub fn iter(&self) -> impl Iterator<Item = &Support> {
        self.entries.iter()
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<S: Into<Support>> FromIterator<S> for FormatSet {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut entries: Vec<Support> = entries.into_iter().map(Into::into).collect();
        entries.sort_unstable();
        entries.dedup();
        let mut end = 0;
        let groups = entries
            .chunk_by(|a, b| a.fourcc == b.fourcc)
            .map(|group| {
                end += group.len();
                (group[0].fourcc, end)
            })
            .collect();
        Self { entries, groups }
    }
}

impl fmt::Debug for FormatSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.entries).finish()
    }
}
