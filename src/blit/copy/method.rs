//! How the CPU makes a copy: as bytes or pixel by pixel, by one thread or by several.

use std::sync::{Mutex, PoisonError};

use crate::blit::Failure;
use crate::blit::copy::memory::{At, Readable, Span, Spans, Writable};
use crate::blit::copy::pixels::{Rearrangement, Relation, relation};
use crate::blit::copy::regions::{Picture, bytes_of, in_plane};
use crate::blit::copy::resample::{self, Resampling, Scratch};
use crate::blit::copy::threads::{OfThreads, bands};
use crate::blit::damage::{Rect, Rects};
use crate::blit::scale::Scaling;
use crate::blit::ycbcr::YcbcrEncoding;
use crate::buffer::{FormatInfo, Fourcc};
use crate::sync;
use crate::sys::thread;

/// How the pixels of a copy are made.
#[derive(Debug)]
pub(super) enum Method {
    /// Rows of bytes are copied, possibly rearranged, and possibly to another place.
    Bytes {
        how: Option<Rearrangement>,
        shift: Shift,
        /// The part of the destination that is written, and the grid on which it can be written.
        bounds: Option<(Rect, (u32, u32))>,
    },
    Pixels(Box<Resampling>),
}

/// What threads use while they copy. It is kept from copy to copy, so that they allocate nothing.
#[derive(Debug, Default)]
pub(super) struct Memory {
    own: MemoryOfThread,
    of_others: Vec<MemoryOfThread>,
}

#[derive(Debug, Default)]
struct MemoryOfThread {
    row: Vec<u8>,
    scratch: Scratch,
}

/// By how much pixels move from the source to the destination.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shift {
    from: (u32, u32),
    to: (u32, u32),
}

impl Shift {
    /// The rectangle of the source for one of the destination.
    fn source(&self, rect: &Rect) -> Rect {
        Rect {
            x: rect.x - self.to.0 + self.from.0,
            y: rect.y - self.to.1 + self.from.1,
            ..*rect
        }
    }
}

/// A source with its bytes, and a destination without.
pub(super) type Pictures<'a> = ((Picture<'a>, &'a Readable<'a>), Picture<'a>);

impl Method {
    pub(super) fn new(
        from: Picture<'_>,
        to: Picture<'_>,
        scaling: Option<&Scaling>,
        encoding: YcbcrEncoding,
    ) -> Result<Self, Failure> {
        let size = |picture: Picture<'_>| (picture.layout.width, picture.layout.height);
        let grid = grid(to.layout.fourcc);
        if let Some(scaling) = scaling {
            scaling
                .check(size(from), size(to), grid)
                .map_err(|_| outside(&scaling.destination, to))?;
        }
        let how = match relation(from.layout.fourcc, to.layout.fourcc) {
            Relation::Same => Some(None),
            Relation::Rearranged(how) => Some(Some(how)),
            Relation::Converted | Relation::Different => None,
        };
        match (how, scaling) {
            (Some(how), None) => Ok(Self::Bytes {
                how,
                shift: Shift::default(),
                bounds: None,
            }),
            (Some(how), Some(scaling)) if moves_blocks(scaling, grid) => Ok(Self::Bytes {
                how,
                shift: Shift {
                    from: (scaling.source.x, scaling.source.y),
                    to: (scaling.destination.x, scaling.destination.y),
                },
                bounds: Some((scaling.destination, grid)),
            }),
            (_, scaling) => {
                let scaling = match scaling {
                    Some(scaling) => *scaling,
                    None if size(from) == size(to) => Scaling::whole(size(from), size(to)),
                    None => return Err(outside(&Rect::whole(size(from).0, size(from).1), to)),
                };
                let resampling = Resampling::new(from, to, scaling, encoding)?;
                Ok(Self::Pixels(Box::new(resampling)))
            }
        }
    }

    /// The rectangles that are really written: cut to the destination's box, and grown to its grid.
    pub(super) fn cut(&self, rects: &Rects) -> Rects {
        let cut = |rect: &Rect| match self {
            Self::Bytes { bounds: None, .. } => *rect,
            Self::Bytes {
                bounds: Some((bounds, grid)),
                ..
            } => resample::cut(rect, bounds, *grid),
            Self::Pixels(resampling) => resampling.cut(rect),
        };
        let rects = rects.iter().map(cut);
        rects.filter(|rect| rect.area() > 0).collect()
    }

    pub(super) fn copy(
        &self,
        pictures: Pictures<'_>,
        destination: &mut Writable<'_>,
        rects: &Rects,
        threads: usize,
        memory: &mut Memory,
    ) -> Result<(), Failure> {
        if threads > 1 {
            let bands = bands(rects, threads, BAND);
            let spans = bands.iter().map(|band| self.spans(pictures, band));
            let spans: OfThreads<Spans> = spans.collect::<Result<_, _>>()?;
            // If planes overlap, one thread writes all.
            if let Some(parts) = destination.split(&spans) {
                let bands = parts.into_iter().zip(&bands).collect();
                return self.copy_bands(pictures, bands, memory);
            }
        }
        self.copy_band(pictures, destination, rects, &mut memory.own)
    }

    /// Copies each band by a thread. The calling thread is one of them.
    fn copy_bands(
        &self,
        pictures: Pictures<'_>,
        bands: OfThreads<(Writable<'_>, &Rects)>,
        memory: &mut Memory,
    ) -> Result<(), Failure> {
        let others = bands.len().saturating_sub(1);
        memory
            .of_others
            .resize_with(others.max(memory.of_others.len()), MemoryOfThread::default);
        let bands = Mutex::new(bands);
        let next = || bands.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = |memory: &mut MemoryOfThread| {
            while let Some((mut destination, rects)) = next() {
                self.copy_band(pictures, &mut destination, rects, memory)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            // If a thread cannot be started, the others copy its band.
            let start = |memory| {
                let work = move || work(memory);
                thread::spawn_scoped(scope, "primeshare-copy", work).ok()
            };
            let of_others = memory.of_others.iter_mut().take(others);
            let started: OfThreads<_> = of_others.filter_map(start).collect();
            let mut done = work(&mut memory.own);
            for thread in started {
                let ended = thread.join();
                done = done.and(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        })
    }

    fn copy_band(
        &self,
        ((from, source), to): Pictures<'_>,
        destination: &mut Writable<'_>,
        rects: &Rects,
        MemoryOfThread { row, scratch }: &mut MemoryOfThread,
    ) -> Result<(), Failure> {
        match self {
            Self::Bytes { how, shift, .. } => {
                for part in parts(from, to, rects, *shift)? {
                    for at in part.each_row() {
                        match how {
                            Some(how) => {
                                row.resize(part.length, 0);
                                source.read(at.from, row)?;
                                how.apply(row);
                                destination.write(at.to, row)?;
                            }
                            None => destination.copy(at.to, source, at.from, part.length)?,
                        }
                    }
                }
                Ok(())
            }
            Self::Pixels(resampling) => rects.iter().try_for_each(|rect| {
                resampling.copy((from, source), (to, destination), rect, scratch)
            }),
        }
    }

    /// The range of bytes that is written in each plane.
    fn spans(&self, ((from, _), to): Pictures<'_>, rects: &Rects) -> Result<Spans, Failure> {
        let shift = match self {
            Self::Pixels(resampling) => return Ok(resampling.spans(to, rects)),
            Self::Bytes { shift, .. } => *shift,
        };
        let mut spans = Spans::new();
        for part in parts(from, to, rects, shift)? {
            let start = part.to.offset;
            let end = start + part.rows.saturating_sub(1) * part.to_stride + part.length;
            match spans.get_mut(part.plane) {
                Some(span) => {
                    span.start = span.start.min(start);
                    span.end = span.end.max(end);
                }
                None => spans.push(Span {
                    object: part.to.object,
                    start,
                    end,
                }),
            }
        }
        Ok(spans)
    }
}

/// Bands begin at multiples of this many rows, which suits every subsampled format.
const BAND: u32 = 4;

/// Whether a scaling only moves pixels by whole blocks of the format, which both pictures have.
fn moves_blocks(scaling: &Scaling, (across, down): (u32, u32)) -> bool {
    let Rect { x, y, .. } = scaling.source;
    scaling.is_plain() && x.is_multiple_of(across) && y.is_multiple_of(down)
}

/// How many pixels of a format, across and down, can only be written together: the grid of
/// [`Scaling::check`].
pub(in crate::blit) fn grid(fourcc: Fourcc) -> (u32, u32) {
    let Some(info) = FormatInfo::of(fourcc) else {
        return (1, 1);
    };
    let blocks = info.planes.iter();
    let blocks = blocks.map(|plane| plane.block_width * plane.horizontal);
    (blocks.fold(info.chroma.0, u32::max), info.chroma.1)
}

/// How many bytes the rectangles have in all planes.
pub(super) fn bytes(picture: Picture<'_>, rects: &Rects) -> u64 {
    let fourcc = picture.layout.fourcc;
    let planes = FormatInfo::of(fourcc).map_or(&[][..], |info| info.planes);
    let of_plane = |(plane, info): (usize, &crate::buffer::PlaneInfo)| -> u64 {
        let of_rect = |rect: &Rect| {
            let rect = in_plane(fourcc, plane, rect);
            rect.area() * u64::from(info.block_bytes) / u64::from(info.block_width)
        };
        rects.iter().map(of_rect).sum()
    };
    planes.iter().enumerate().map(of_plane).sum()
}

fn outside(rect: &Rect, picture: Picture<'_>) -> Failure {
    let row = |y: u32| u64::from(y) * u64::from(picture.layout.width);
    Failure::Cpu(sync::Error::Range {
        start: row(rect.y),
        end: row(rect.y.saturating_add(rect.height)),
        size: row(picture.layout.height),
    })
}

/// Rows of one plane, in bytes.
pub(super) struct Part {
    pub(super) plane: usize,
    pub(super) rows: usize,
    pub(super) length: usize,
    pub(super) from: At,
    pub(super) from_stride: usize,
    pub(super) to: At,
    pub(super) to_stride: usize,
}

/// Where a row begins in the source and in the destination.
pub(super) struct Row {
    pub(super) from: At,
    pub(super) to: At,
}

impl Part {
    pub(super) fn each_row(&self) -> impl Iterator<Item = Row> + use<> {
        let Self {
            from,
            from_stride,
            to,
            to_stride,
            ..
        } = *self;
        let down = |at: At, bytes: usize| At {
            offset: at.offset + bytes,
            ..at
        };
        (0..self.rows).map(move |row| Row {
            from: down(from, row * from_stride),
            to: down(to, row * to_stride),
        })
    }
}

/// The bytes of the rectangles, plane by plane. Rows that follow each other without gaps become one.
pub(super) fn parts<'a>(
    source: Picture<'a>,
    destination: Picture<'a>,
    rects: &'a Rects,
    shift: Shift,
) -> Result<impl Iterator<Item = Part> + use<'a>, Failure> {
    let fourcc = source.layout.fourcc;
    let planes = FormatInfo::of(fourcc).map_or(0, |info| info.planes.len());
    for picture in [source, destination] {
        // Fails early if the rows below would fail.
        bytes_of(picture, planes.saturating_sub(1), &Rect::whole(0, 0)).map_err(Failure::Vulkan)?;
    }
    let part = move |plane: usize, rect: &Rect| {
        let source_rect = in_plane(fourcc, plane, &shift.source(rect));
        let rect = in_plane(fourcc, plane, rect);
        let place = |picture: Picture<'_>, rect: &Rect| {
            let (start, length) = bytes_of(picture, plane, rect).unwrap_or_default();
            let plane = picture.planes[plane];
            let at = At {
                object: plane.object,
                offset: start as usize,
            };
            (at, length as usize, plane.stride as usize)
        };
        let (from, length, from_stride) = place(source, &source_rect);
        let (to, _, to_stride) = place(destination, &rect);
        let rows = rect.height as usize;
        let (rows, length) = match from_stride == length && to_stride == length {
            true => (1, length * rows),
            false => (rows, length),
        };
        Part {
            plane,
            rows,
            length,
            from,
            from_stride,
            to,
            to_stride,
        }
    };
    Ok((0..planes).flat_map(move |plane| rects.iter().map(move |rect| part(plane, rect))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blit::copy::convert::{Codec, Model, Pixel};
    use crate::blit::scale::{Filter, Transform};
    use crate::buffer::{BufferDesc, Plane};

    /// A picture in ordinary memory, its planes one after the other with gaps after rows.
    struct Memory {
        layout: BufferDesc,
        planes: Vec<Plane>,
        bytes: Vec<u8>,
    }

    impl Memory {
        fn new(fourcc: Fourcc, (width, height): (u32, u32), fill: impl Fn(usize) -> u8) -> Self {
            let info = FormatInfo::of(fourcc).unwrap();
            let mut end = 0;
            let plane = |info: &crate::buffer::PlaneInfo| {
                let stride = info.row_bytes(width).unwrap() + 5;
                let plane = Plane {
                    object: 0,
                    offset: end,
                    stride,
                };
                end += stride * info.rows(height);
                plane
            };
            let planes = info.planes.iter().map(plane).collect();
            Self {
                layout: BufferDesc::linear(width, height, fourcc),
                planes,
                bytes: (0..end as usize).map(fill).collect(),
            }
        }

        /// Bytes that look random.
        fn random(fourcc: Fourcc, size: (u32, u32)) -> Self {
            let fill = |at: usize| {
                let mixed = (at as u32 + 1).wrapping_mul(2_654_435_761);
                (mixed >> 13 ^ mixed >> 24) as u8
            };
            Self::new(fourcc, size, fill)
        }

        fn picture(&self) -> Picture<'_> {
            Picture {
                layout: &self.layout,
                planes: &self.planes,
            }
        }

        fn size(&self) -> (u32, u32) {
            (self.layout.width, self.layout.height)
        }

        /// The pixels of a row.
        fn row(&self, y: u32, encoding: YcbcrEncoding) -> Vec<Pixel> {
            let codec = Codec::new(self.layout.fourcc, encoding).unwrap();
            let row = |(info, plane): (&crate::buffer::PlaneInfo, &Plane)| {
                let start = (plane.offset + y / info.vertical * plane.stride) as usize;
                let length = info.row_bytes(self.layout.width).unwrap() as usize;
                self.bytes[start..start + length].to_vec()
            };
            let planes = codec.planes().iter().zip(&self.planes);
            let planes: Vec<Vec<u8>> = planes.map(row).collect();
            let mut pixels = vec![[0.0; 4]; self.layout.width as usize];
            codec.decode(&planes, 0, &mut pixels);
            pixels
        }

        fn word(&self, x: u32, y: u32) -> u32 {
            let at = (y * self.planes[0].stride + 4 * x) as usize;
            u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
        }
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    fn try_copy(
        source: &Memory,
        destination: &mut Memory,
        rects: &[Rect],
        scaling: Option<&Scaling>,
        threads: usize,
    ) -> Result<(), Failure> {
        let encoding = YcbcrEncoding::default();
        let to = Picture {
            layout: &destination.layout,
            planes: &destination.planes,
        };
        let method = Method::new(source.picture(), to, scaling, encoding)?;
        let rects = method.cut(&rects.iter().copied().collect());
        let readable = Readable::Host(&source.bytes);
        let mut writable = Writable::host(&mut destination.bytes);
        let mut memory = super::Memory::default();
        let ends = ((source.picture(), &readable), to);
        method.copy(ends, &mut writable, &rects, threads, &mut memory)
    }

    fn copy(source: &Memory, destination: &mut Memory, scaling: Option<&Scaling>) {
        let (width, height) = destination.size();
        let whole = [Rect::whole(width, height)];
        try_copy(source, destination, &whole, scaling, 1).unwrap();
    }

    /// What a pixel of the destination shows, as the Vulkan specification has it ("Image Copies With
    /// Scaling"), step by step and in f64.
    fn reference(source: &Memory, scaling: &Scaling, (x, y): (u32, u32)) -> [f64; 4] {
        let (from, to) = (&scaling.source, &scaling.destination);
        let u = (f64::from(x - to.x) + 0.5) / f64::from(to.width);
        let v = (f64::from(y - to.y) + 0.5) / f64::from(to.height);
        let (u, v) = match scaling.transform {
            Transform::Normal => (u, v),
            Transform::Rotate90 => (1.0 - v, u),
            Transform::Rotate180 => (1.0 - u, 1.0 - v),
            Transform::Rotate270 => (v, 1.0 - u),
            Transform::Flipped => (1.0 - u, v),
            Transform::Flipped90 => (v, u),
            Transform::Flipped180 => (u, 1.0 - v),
            Transform::Flipped270 => (1.0 - v, 1.0 - u),
        };
        let (u, v) = (u * f64::from(from.width), v * f64::from(from.height));
        let pixel = |x: f64, y: f64| {
            let x = x.clamp(0.0, f64::from(from.width - 1)) as u32 + from.x;
            let y = y.clamp(0.0, f64::from(from.height - 1)) as u32 + from.y;
            source.row(y, YcbcrEncoding::default())[x as usize].map(f64::from)
        };
        match scaling.filter {
            // Without this, a rounding error could decide.
            Filter::Nearest => pixel((u + 1e-9).floor(), (v + 1e-9).floor()),
            Filter::Linear => {
                let (u, v) = (u - 0.5, v - 0.5);
                let (left, top) = (u.floor(), v.floor());
                let (right, low) = (u - left, v - top);
                std::array::from_fn(|index| {
                    let at = |x: f64, y: f64| pixel(left + x, top + y)[index];
                    let upper = at(0.0, 0.0) * (1.0 - right) + at(1.0, 0.0) * right;
                    let lower = at(0.0, 1.0) * (1.0 - right) + at(1.0, 1.0) * right;
                    upper * (1.0 - low) + lower * low
                })
            }
        }
    }

    #[test]
    fn scaled_pictures_are_those_of_the_specification() {
        let source = Memory::random(Fourcc::ARGB16161616, (23, 17));
        for transform in Transform::ALL {
            for filter in [Filter::Nearest, Filter::Linear] {
                // More than a tile, less than the source, and the same size.
                for (width, height) in [(150, 40), (9, 5), (11, 11), (13, 1)] {
                    let scaling = Scaling {
                        source: rect(3, 2, 13, 11),
                        destination: rect(4, 1, width, height),
                        transform,
                        filter,
                    };
                    let size = (width + 7, height + 3);
                    let mut made = Memory::new(Fourcc::ARGB16161616, size, |_| 0x5a);
                    copy(&source, &mut made, Some(&scaling));
                    for y in 0..size.1 {
                        let row = made.row(y, YcbcrEncoding::default());
                        // Some columns: reading the reference is slow.
                        for x in (0..size.0).filter(|x| x % 7 < 2 || *x > width) {
                            let is_inside =
                                (4..4 + width).contains(&x) && (1..=height).contains(&y);
                            let expected = match is_inside {
                                true => reference(&source, &scaling, (x, y)),
                                false => [f64::from(0x5a5a) / 65535.0; 4],
                            };
                            for (got, expected) in row[x as usize].iter().zip(expected) {
                                let off = (f64::from(*got) - expected).abs();
                                assert!(off < 2e-5, "{scaling:?} {x} {y}: {off}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn pictures_of_one_size_are_turned_exactly() {
        let source = Memory::random(Fourcc::ARGB8888, (300, 70));
        for transform in Transform::ALL {
            let size = match transform.swaps_axes() {
                false => (300, 70),
                true => (70, 300),
            };
            let scaling = Scaling {
                transform,
                ..Scaling::whole((300, 70), size)
            };
            let mut turned = Memory::new(Fourcc::ARGB8888, size, |_| 0);
            copy(&source, &mut turned, Some(&scaling));
            let (x, y) = (size.0 - 3, 4);
            let shown = match transform {
                Transform::Normal => (x, y),
                Transform::Rotate90 => (299 - y, x),
                Transform::Rotate180 => (299 - x, 69 - y),
                Transform::Rotate270 => (y, 69 - x),
                Transform::Flipped => (299 - x, y),
                Transform::Flipped90 => (y, x),
                Transform::Flipped180 => (x, 69 - y),
                Transform::Flipped270 => (299 - y, 69 - x),
            };
            assert_eq!(
                turned.word(x, y),
                source.word(shown.0, shown.1),
                "{transform:?}"
            );
            let back = Scaling {
                transform: transform.inverse(),
                ..Scaling::whole(size, (300, 70))
            };
            let mut again = Memory::new(Fourcc::ARGB8888, (300, 70), |_| 0);
            copy(&turned, &mut again, Some(&back));
            for (x, y) in (0..300).flat_map(|x| (0..70).map(move |y| (x, y))) {
                assert_eq!(again.word(x, y), source.word(x, y), "{transform:?}");
            }
        }
    }

    #[test]
    fn a_window_moves_without_being_converted() {
        for fourcc in [Fourcc::XRGB8888, Fourcc::NV12] {
            let source = Memory::random(fourcc, (40, 30));
            let scaling = Scaling {
                source: rect(4, 6, 20, 10),
                destination: rect(10, 2, 20, 10),
                ..Scaling::whole((1, 1), (1, 1))
            };
            let method = Method::new(
                source.picture(),
                source.picture(),
                Some(&scaling),
                YcbcrEncoding::default(),
            );
            assert!(matches!(method, Ok(Method::Bytes { .. })));
            let mut made = Memory::new(fourcc, (50, 16), |_| 0);
            copy(&source, &mut made, Some(&scaling));
            for y in 0..16 {
                let row = made.row(y, YcbcrEncoding::default());
                let empty = Memory::new(fourcc, (50, 16), |_| 0).row(y, YcbcrEncoding::default());
                if !(2..12).contains(&y) {
                    assert_eq!(row, empty);
                    continue;
                }
                let shown = source.row(y + 4, YcbcrEncoding::default());
                assert_eq!(row[10..30], shown[4..24]);
                assert_eq!(row[..10], empty[..10]);
                assert_eq!(row[30..], empty[30..]);
            }
        }
    }

    /// Converts all pixels exactly, in one thread.
    fn converted(source: &Memory, to: Fourcc) -> Memory {
        let encoding = YcbcrEncoding::default();
        let from_codec = Codec::new(source.layout.fourcc, encoding).unwrap();
        let codec = Codec::new(to, encoding).unwrap();
        let (width, height) = source.size();
        let rows = (0..height).map(|y| {
            let mut row = source.row(y, encoding);
            Model::between(&from_codec, &codec, encoding).apply(&mut row);
            row
        });
        let rows: Vec<_> = rows.collect();
        let mut made = Memory::new(to, (width, height), |_| 0x11);
        for (plane, info) in codec.planes().iter().enumerate() {
            for (index, rows) in rows.chunks(info.vertical as usize).enumerate() {
                let rows: Vec<&[Pixel]> = rows.iter().map(|row| &row[..]).collect();
                let place = made.planes[plane];
                let start = place.offset as usize + index * place.stride as usize;
                let length = info.row_bytes(width).unwrap() as usize;
                codec.encode(plane, &rows, 0, &mut made.bytes[start..start + length]);
            }
        }
        made
    }

    #[test]
    fn whole_pictures_and_parts_of_odd_sizes_are_converted() {
        for (from, to) in [
            (Fourcc::XRGB2101010, Fourcc::XRGB8888),
            (Fourcc::NV12, Fourcc::XRGB8888),
            (Fourcc::XRGB8888, Fourcc::NV12),
            (Fourcc::XRGB8888, Fourcc::YUYV),
            (Fourcc::NV12, Fourcc::P010),
            (Fourcc::YUV420, Fourcc::NV21),
            (Fourcc::P010, Fourcc::XBGR16161616),
            (Fourcc::NV15, Fourcc::YUV410),
        ] {
            let source = Memory::random(from, (131, 37));
            let expected = converted(&source, to);
            let mut made = Memory::new(to, (131, 37), |_| 0x11);
            copy(&source, &mut made, None);
            let close = |made: &Memory| {
                let bytes = made.bytes.iter().zip(&expected.bytes);
                // A fast conversion may be one number off.
                bytes
                    .clone()
                    .all(|(made, expected)| made.abs_diff(*expected) <= 1)
            };
            assert!(close(&made), "{from} to {to}");
            // In parts, by several threads.
            let parts = [rect(0, 0, 67, 9), rect(67, 0, 64, 9), rect(0, 9, 131, 99)];
            let mut made = Memory::new(to, (131, 37), |_| 0x11);
            try_copy(&source, &mut made, &parts, None, 3).unwrap();
            assert!(close(&made), "{from} to {to} in parts");
        }
    }

    #[test]
    fn several_threads_write_what_one_does() {
        let size = (64, 50);
        let rects = [rect(0, 0, 20, 50), rect(30, 10, 34, 33)];
        for (from, to) in [
            (Fourcc::XRGB8888, Fourcc::XRGB8888),
            (Fourcc::XRGB8888, Fourcc::ABGR8888),
            (Fourcc::NV12, Fourcc::NV12),
            (Fourcc::NV12, Fourcc::XRGB8888),
        ] {
            let source = Memory::random(from, size);
            let mut by_one = Memory::new(to, size, |_| 3);
            try_copy(&source, &mut by_one, &rects, None, 1).unwrap();
            for threads in [2, 3, 8] {
                let mut by_several = Memory::new(to, size, |_| 3);
                try_copy(&source, &mut by_several, &rects, None, threads).unwrap();
                assert!(by_several.bytes == by_one.bytes, "{from} {to} {threads}");
            }
        }
    }

    #[test]
    fn threads_are_given_bytes_that_do_not_overlap() {
        for (from, to) in [
            (Fourcc::XRGB8888, Fourcc::XRGB8888),
            (Fourcc::NV12, Fourcc::NV12),
            (Fourcc::XRGB8888, Fourcc::YUV420),
        ] {
            let source = Memory::random(from, (64, 48));
            let mut made = Memory::new(to, (64, 48), |_| 0);
            let rects: Rects = [rect(2, 4, 20, 40), rect(30, 0, 34, 48)]
                .into_iter()
                .collect();
            let readable = Readable::Host(&source.bytes);
            let to = Picture {
                layout: &made.layout,
                planes: &made.planes,
            };
            let method = Method::new(source.picture(), to, None, YcbcrEncoding::default()).unwrap();
            let bands = bands(&rects, 4, BAND);
            assert_eq!(bands.len(), 4);
            let spans = |band| {
                method
                    .spans(((source.picture(), &readable), to), band)
                    .unwrap()
            };
            let spans: OfThreads<Spans> = bands.iter().map(spans).collect();
            let mut writable = Writable::host(&mut made.bytes);
            assert!(writable.split(&spans).is_some());
        }
    }

    #[test]
    fn video_that_is_turned_into_another_layout_and_back_is_the_same() {
        let source = Memory::random(Fourcc::NV12, (66, 34));
        for other in [Fourcc::YUV444, Fourcc::P010, Fourcc::YVU420, Fourcc::Y416] {
            let mut there = Memory::new(other, source.size(), |_| 0);
            copy(&source, &mut there, None);
            let mut back = Memory::new(Fourcc::NV12, source.size(), |_| 0);
            copy(&there, &mut back, None);
            for y in 0..34 {
                let encoding = YcbcrEncoding::default();
                assert_eq!(back.row(y, encoding), source.row(y, encoding), "{other}");
            }
        }
    }

    #[test]
    fn the_grid_holds_whole_blocks_of_all_planes() {
        for (fourcc, expected) in [
            (Fourcc::XRGB8888, (1, 1)),
            (Fourcc::NV12, (2, 2)),
            (Fourcc::YUYV, (2, 1)),
            (Fourcc::NV15, (4, 2)),
            (Fourcc::P030, (6, 2)),
            (Fourcc::YUV410, (4, 4)),
            (Fourcc(1), (1, 1)),
        ] {
            assert_eq!(grid(fourcc), expected, "{fourcc}");
        }
    }

    #[test]
    fn what_does_not_fit_or_is_not_known_is_refused() {
        let source = Memory::random(Fourcc::XRGB8888, (8, 8));
        let whole = [Rect::whole(8, 8)];
        let mut indexed = Memory::new(Fourcc::C8, (8, 8), |_| 0);
        let refused = try_copy(&source, &mut indexed, &whole, None, 1).unwrap_err();
        assert_eq!(
            refused,
            Failure::Vulkan(crate::vk::Error::Format(Fourcc::C8))
        );
        let mut video = Memory::new(Fourcc::NV12, (8, 8), |_| 0);
        let odd = Scaling {
            destination: rect(1, 0, 4, 4),
            ..Scaling::whole((8, 8), (8, 8))
        };
        let refused = try_copy(&source, &mut video, &whole, Some(&odd), 1);
        assert!(matches!(refused, Err(Failure::Cpu(_))));
        let mut smaller = Memory::new(Fourcc::NV12, (8, 6), |_| 0);
        let refused = try_copy(&source, &mut smaller, &whole, None, 1);
        assert!(matches!(refused, Err(Failure::Cpu(_))));
    }
}
