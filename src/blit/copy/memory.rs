//! The bytes that copies by the CPU read and write, in mapped dma-bufs or in host memory.

use arrayvec::ArrayVec;

use crate::blit::Failure;
use crate::blit::copy::threads::{MOST, OfThreads};
use crate::buffer::MAX_PLANES;
use crate::sync;
use crate::sys::map::{Region, RegionMut};
use crate::vk::Error;

/// A byte in a dma-buf's mapping (by the dma-buf's index in the buffer), or in host memory, which is one
/// object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) object: usize,
    pub(super) offset: usize,
}

/// A range of bytes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) object: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A range for each plane.
pub(super) type Spans = ArrayVec<Span, MAX_PLANES>;

#[derive(Debug)]
pub(super) enum Readable<'a> {
    Mapped(ArrayVec<Region<'a>, MAX_PLANES>),
    Host(&'a [u8]),
}

impl Readable<'_> {
    pub(super) fn read(&self, at: At, into: &mut [u8]) -> Result<(), Failure> {
        let (length, size) = (into.len(), self.size(at.object));
        let read = match self {
            Self::Mapped(maps) => maps
                .get(at.object)
                .and_then(|map| map.read(at.offset, into)),
            Self::Host(bytes) => {
                let inside = bytes.get(at.offset..).and_then(|b| b.get(..length));
                inside.map(|inside| into.copy_from_slice(inside))
            }
        };
        read.ok_or_else(|| self.outside(at, length, size))
    }

    /// Whether reads are slow, because the memory is not cached.
    pub(super) fn is_uncached(&self) -> bool {
        match self {
            Self::Mapped(maps) => maps.iter().any(Region::is_uncached),
            Self::Host(_) => false,
        }
    }

    fn size(&self, object: usize) -> usize {
        match self {
            Self::Mapped(maps) => maps.get(object).map_or(0, Region::length),
            Self::Host(bytes) => bytes.len(),
        }
    }

    fn outside(&self, at: At, length: usize, size: usize) -> Failure {
        match self {
            Self::Mapped(_) => outside_mapping(at, length, size),
            Self::Host(_) => outside_host(at, length, size),
        }
    }
}

/// Bytes to write: a part of each object that nobody else writes.
#[derive(Debug)]
pub(super) struct Writable<'a> {
    windows: ArrayVec<Window<'a>, MAX_PLANES>,
}

/// The part of an object that may be written. It begins at `start`.
#[derive(Debug)]
struct Window<'a> {
    object: usize,
    start: usize,
    bytes: Bytes<'a>,
}

#[derive(Debug)]
enum Bytes<'a> {
    Mapped(RegionMut<'a>),
    Host(&'a mut [u8]),
}

impl<'a> Writable<'a> {
    /// All of each object.
    pub(super) fn mapped(objects: impl IntoIterator<Item = RegionMut<'a>>) -> Self {
        let window = |(object, region)| Window {
            object,
            start: 0,
            bytes: Bytes::Mapped(region),
        };
        Self {
            windows: objects.into_iter().enumerate().map(window).collect(),
        }
    }

    pub(super) fn host(bytes: &'a mut [u8]) -> Self {
        let window = Window {
            object: 0,
            start: 0,
            bytes: Bytes::Host(bytes),
        };
        Self {
            windows: ArrayVec::from_iter([window]),
        }
    }

    pub(super) fn write(&mut self, at: At, bytes: &[u8]) -> Result<(), Failure> {
        let length = bytes.len();
        let (window, offset) = self.find(at, length)?;
        let written = match &mut window.bytes {
            Bytes::Mapped(region) => region.write(offset, bytes),
            Bytes::Host(all) => part_mut(all, offset, length).map(|all| all.copy_from_slice(bytes)),
        };
        written.ok_or_else(|| outside_mapping(at, length, 0))
    }

    pub(super) fn copy(
        &mut self,
        at: At,
        source: &Readable<'_>,
        from: At,
        length: usize,
    ) -> Result<(), Failure> {
        let (window, offset) = self.find(at, length)?;
        match (&mut window.bytes, source) {
            (Bytes::Mapped(to), Readable::Mapped(maps)) => {
                let map = maps.get(from.object);
                let part = map.and_then(|map| map.part(from.offset, length));
                let size = map.map_or(0, Region::length);
                let part = part.ok_or_else(|| outside_mapping(from, length, size))?;
                let copied = to.copy(offset, part);
                copied.ok_or_else(|| outside_mapping(at, length, size))
            }
            (Bytes::Host(all), source) => {
                let size = all.len();
                let part = part_mut(all, offset, length);
                source.read(from, part.ok_or_else(|| outside_host(at, length, size))?)
            }
            (Bytes::Mapped(to), Readable::Host(bytes)) => {
                let inside = bytes.get(from.offset..).and_then(|b| b.get(..length));
                let inside = inside.ok_or_else(|| outside_host(from, length, bytes.len()))?;
                let written = to.write(offset, inside);
                written.ok_or_else(|| outside_mapping(at, length, to.length()))
            }
        }
    }

    /// The window in which these bytes are, and where they begin in it.
    fn find(&mut self, at: At, length: usize) -> Result<(&mut Window<'a>, usize), Failure> {
        let mut size = 0;
        let mut is_host = false;
        let found = self.windows.iter().position(|window| {
            if window.object != at.object {
                return false;
            }
            size = window.start + window.bytes.length();
            is_host = matches!(window.bytes, Bytes::Host(_));
            let end = at.offset.checked_add(length);
            at.offset >= window.start && end.is_some_and(|end| end <= size)
        });
        match found {
            Some(index) => {
                let window = &mut self.windows[index];
                let offset = at.offset - window.start;
                Ok((window, offset))
            }
            None if is_host => Err(outside_host(at, length, size)),
            None => Err(outside_mapping(at, length, size)),
        }
    }

    /// Divides the bytes among several threads, by the spans of each. `None` if spans overlap or reach
    /// outside.
    pub(super) fn split(&mut self, spans: &OfThreads<Spans>) -> Option<OfThreads<Writable<'_>>> {
        let part = |_| Writable {
            windows: ArrayVec::new(),
        };
        let mut parts: OfThreads<Writable<'_>> = spans.iter().map(part).collect();
        let owned = spans.iter().enumerate();
        let mut sorted: ArrayVec<(usize, Span), { MOST * MAX_PLANES }> = owned
            .flat_map(|(part, spans)| spans.iter().map(move |span| (part, *span)))
            .collect();
        sorted.sort_unstable_by_key(|(_, span)| (span.object, span.start));
        let mut left = sorted.len();
        for window in &mut self.windows {
            let mut position = window.start;
            let mut rest = window.bytes.borrow();
            for &(part, span) in sorted
                .iter()
                .filter(|(_, span)| span.object == window.object)
            {
                // Fails if the span begins before the end of the last one.
                let (_, behind) = rest.split(span.start.checked_sub(position)?)?;
                let (bytes, behind) = behind.split(span.end.checked_sub(span.start)?)?;
                rest = behind;
                position = span.end;
                let window = Window {
                    object: span.object,
                    start: span.start,
                    bytes,
                };
                parts[part].windows.try_push(window).ok()?;
                left -= 1;
            }
        }
        (left == 0).then_some(parts)
    }
}

impl Bytes<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Mapped(region) => region.length(),
            Self::Host(bytes) => bytes.len(),
        }
    }

    fn borrow(&mut self) -> Bytes<'_> {
        match self {
            Self::Mapped(region) => Bytes::Mapped(region.borrow()),
            Self::Host(bytes) => Bytes::Host(bytes),
        }
    }
}

impl<'a> Bytes<'a> {
    fn split(self, length: usize) -> Option<(Bytes<'a>, Bytes<'a>)> {
        match self {
            Self::Mapped(region) => {
                let (first, rest) = region.split(length)?;
                Some((Bytes::Mapped(first), Bytes::Mapped(rest)))
            }
            Self::Host(bytes) => {
                let (first, rest) = bytes.split_at_mut_checked(length)?;
                Some((Bytes::Host(first), Bytes::Host(rest)))
            }
        }
    }
}

fn part_mut(all: &mut [u8], offset: usize, length: usize) -> Option<&mut [u8]> {
    all.get_mut(offset..).and_then(|b| b.get_mut(..length))
}

fn outside_mapping(at: At, length: usize, size: usize) -> Failure {
    Failure::Cpu(sync::Error::Range {
        start: at.offset as u64,
        end: (at.offset as u64).saturating_add(length as u64),
        size: size as u64,
    })
}

fn outside_host(at: At, length: usize, size: usize) -> Failure {
    Failure::Vulkan(Error::StagingRange {
        offset: at.offset,
        length,
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(object: usize, start: usize, end: usize) -> Span {
        Span { object, start, end }
    }

    fn at(offset: usize) -> At {
        At { object: 0, offset }
    }

    #[test]
    fn each_part_is_written_where_it_is_in_the_whole_and_nowhere_else() {
        let mut bytes = [0; 10];
        let mut all = Writable::host(&mut bytes);
        let spans = OfThreads::from_iter([
            Spans::from_iter([span(0, 0, 2), span(0, 6, 8)]),
            Spans::from_iter([span(0, 2, 4), span(0, 9, 10)]),
        ]);
        let mut parts = all.split(&spans).unwrap();
        parts[0].write(at(6), &[1, 1]).unwrap();
        parts[1].write(at(3), &[2]).unwrap();
        parts[1]
            .copy(at(9), &Readable::Host(&[7, 8]), at(1), 1)
            .unwrap();
        for outside in [(0, 2), (0, 5), (1, 8), (1, 10)] {
            assert!(parts[outside.0].write(at(outside.1), &[3]).is_err());
        }
        assert!(parts[0].write(at(7), &[3, 3]).is_err());
        drop(parts);
        drop(all);
        assert_eq!(bytes, [0, 0, 0, 2, 0, 0, 1, 1, 0, 8]);
    }

    #[test]
    fn parts_that_overlap_or_are_outside_are_refused() {
        let mut bytes = [0; 10];
        let mut all = Writable::host(&mut bytes);
        for spans in [
            [span(0, 0, 3), span(0, 2, 4)],
            [span(0, 0, 3), span(0, 9, 11)],
            [span(0, 0, 3), span(1, 4, 5)],
        ] {
            let spans = spans.map(|span| Spans::from_iter([span]));
            let spans = OfThreads::from_iter(spans);
            assert!(all.split(&spans).is_none());
        }
    }
}
