//! A frame: two buffers, and what of the one is to be copied to the other.

use super::pixels::{Relation, relation};
use crate::blit::copy::method::grid;
use crate::blit::copy::place::{Ends, Place, Shape};
use crate::blit::damage::{Rect, Rects, snap};
use crate::blit::{Scaling, YcbcrEncoding};
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo, PlaneObject};

/// A picture to copy.
#[derive(Clone, Debug)]
pub(in crate::blit) struct Frame {
    pub(in crate::blit) source: DmaBuf,
    pub(in crate::blit) destination: DmaBuf,
    /// The rectangles of the destination that are to be written.
    pub(in crate::blit) rects: Rects,
    /// Set if sizes or places differ, or if the picture is turned.
    pub(in crate::blit) scaling: Option<Scaling>,
    /// What the numbers of a YCbCr format mean, if one is converted.
    pub(in crate::blit) encoding: YcbcrEncoding,
}

impl Frame {
    pub(in crate::blit) fn new(source: DmaBuf, destination: DmaBuf, rects: Rects) -> Self {
        Self {
            source,
            destination,
            rects,
            scaling: None,
            encoding: YcbcrEncoding::default(),
        }
    }

    /// Both buffers as ends of a copy, imported as these shapes.
    pub(in crate::blit) fn ends(&self, [from, to]: [Shape; 2]) -> Ends<'_> {
        [
            Place::Buffer(&self.source, from),
            Place::Buffer(&self.destination, to),
        ]
    }

    /// The layouts of source and destination.
    pub(in crate::blit) fn layouts(&self) -> [BufferDesc; 2] {
        [&self.source, &self.destination].map(|buffer| *buffer.desc())
    }

    /// Whether pixels are scaled, turned or converted, and not just copied or rearranged.
    pub(in crate::blit) fn is_resampled(&self) -> bool {
        let formats = (self.source.fourcc(), self.destination.fourcc());
        self.scaling.is_some() || relation(formats.0, formats.1) == Relation::Converted
    }

    /// The part of the source that the first of two steps has to copy.
    pub(in crate::blit) fn source_rects(&self) -> Rects {
        match self.is_resampled() {
            true => shown(self.source.desc(), self.scaling.as_ref()),
            false => self.rects.clone(),
        }
    }

    /// Whether two frames must not be copied at the same time: one writes what the other reads or writes.
    pub(in crate::blit) fn conflicts(&self, other: &Frame) -> bool {
        let writes_into = |buffer: &DmaBuf, other: &Frame| {
            shares_memory(buffer, &other.source) || shares_memory(buffer, &other.destination)
        };
        writes_into(&self.destination, other) || shares_memory(&self.source, &other.destination)
    }

    /// Whether this frame writes what the other one reads.
    pub(in crate::blit) fn feeds(&self, other: &Frame) -> bool {
        shares_memory(&self.destination, &other.source)
    }

    /// How many bytes of the first plane are copied, as a measure for all planes.
    pub(in crate::blit) fn bytes(&self) -> u64 {
        let pixel = FormatInfo::of(self.destination.fourcc());
        let bytes = pixel.map_or(4, |info| u64::from(info.planes[0].block_bytes));
        self.rects.iter().map(|rect| rect.area() * bytes).sum()
    }
}

/// The part of a source that is shown, in whole blocks of its format, and with the pixels beside it that
/// filters read.
pub(super) fn shown(source: &BufferDesc, scaling: Option<&Scaling>) -> Rects {
    let size = (source.width, source.height);
    let part = scaling.map_or(Rect::whole(size.0, size.1), |scaling| scaling.source);
    snap([part].into_iter(), size, grid(source.fourcc))
}

fn shares_memory(one: &DmaBuf, other: &DmaBuf) -> bool {
    let of_other = |object: &PlaneObject| other.objects().iter().any(|of| of.id() == object.id());
    one.objects().iter().any(of_other)
}
