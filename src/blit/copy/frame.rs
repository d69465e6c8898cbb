//! What is to be copied.

use crate::blit::copy::gpu::{Ends, Place, Shape};
use crate::blit::damage::{Rect, Rects};
use crate::buffer::{DmaBuf, FormatInfo, Layout, Object};

/// A frame.
#[derive(Clone, Debug)]
pub(in crate::blit) struct Frame {
    pub(in crate::blit) source: DmaBuf,
    pub(in crate::blit) destination: DmaBuf,
    pub(in crate::blit) rects: Rects,
}

impl Frame {
    /// From the one buffer to the other.
    pub(in crate::blit) fn ends(&self, [from, to]: [Shape; 2]) -> Ends<'_> {
        [
            Place::Buffer(&self.source, from),
            Place::Buffer(&self.destination, to),
        ]
    }

    /// Of source and destination.
    pub(in crate::blit) fn layouts(&self) -> [Layout; 2] {
        [&self.source, &self.destination].map(|buffer| *buffer.layout())
    }

    /// Whether the other one reads what this one writes.
    pub(in crate::blit) fn feeds(&self, other: &Frame) -> bool {
        let read = other.source.objects();
        let written = self.destination.objects();
        let is_read = |object: &Object| read.iter().any(|of| of.id() == object.id());
        written.iter().any(is_read)
    }

    /// The upper rows of the largest rectangle, about one in so many; `None` if it has too few. (In
    /// fours, which suits every subsampled format.)
    pub(in crate::blit) fn part(&self, one_in: u64) -> Option<Frame> {
        let largest = self.rects.iter().max_by_key(|rect| rect.area())?;
        let rows = (largest.height / u32::try_from(one_in).ok()?) & !3;
        let part = Rect {
            height: rows,
            ..*largest
        };
        (rows > 0).then(|| Self {
            rects: [part].into_iter().collect(),
            ..self.clone()
        })
    }

    /// Bytes that are copied: of the first plane, which stands for all.
    pub(in crate::blit) fn bytes(&self) -> u64 {
        let pixel = FormatInfo::of(self.destination.fourcc());
        let bytes = pixel.map_or(4, |info| u64::from(info.planes[0].block_bytes));
        self.rects.iter().map(|rect| rect.area() * bytes).sum()
    }
}
