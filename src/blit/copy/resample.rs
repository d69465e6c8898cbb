//! Pictures scaled, turned and converted, pixel by pixel.

use arrayvec::ArrayVec;

use crate::blit::Failure;
use crate::blit::copy::convert::{Codec, Model, Pixel};
use crate::blit::copy::fast::{Fast, PlaneRows};
use crate::blit::copy::memory::{At, Readable, Span, Spans, Writable};
use crate::blit::copy::regions::Picture;
use crate::blit::damage::Rect;
use crate::blit::scale::{Axis, Scaling, Tap};
use crate::blit::ycbcr::YcbcrEncoding;
use crate::buffer::{MAX_PLANES, PlaneInfo};
use crate::vk;

/// How many pixels of the destination, across and down, are made at a time: few enough for their sources to
/// stay in a second-level cache, and multiples of every format's grid.
const TILE: (u32, u32) = (128, 32);

/// The most rows of pixels that are written together.
const MAX_ROWS: usize = 4;

/// How the pixels of one picture become those of another.
#[derive(Debug)]
pub(super) struct Resampling {
    from: Codec,
    to: Codec,
    model: Model,
    fast: Option<Fast>,
    scaling: Scaling,
    axes: [Axis; 2],
    grid: (u32, u32),
}

impl Resampling {
    /// `scaling` must have been checked against both pictures and the destination's grid.
    pub(super) fn new(
        from: Picture<'_>,
        to: Picture<'_>,
        scaling: Scaling,
        encoding: YcbcrEncoding,
    ) -> Result<Self, Failure> {
        let codec = |picture: Picture<'_>| {
            let fourcc = picture.layout.fourcc;
            let codec = Codec::new(fourcc, encoding);
            codec.ok_or(Failure::Vulkan(vk::Error::Format(fourcc)))
        };
        let (from, to) = (codec(from)?, codec(to)?);
        let model = Model::between(&from, &to, encoding);
        let (across, down) = (from.grid().0.max(to.grid().0), to.grid().1);
        // If both boxes are on the grid, rows of both begin with whole blocks.
        let on_grid = [scaling.source, scaling.destination]
            .iter()
            .all(|rect| rect.x.is_multiple_of(across));
        let fast = match scaling.is_plain() && on_grid {
            true => Fast::new(&from, &to, model),
            false => None,
        };
        Ok(Self {
            grid: match fast {
                Some(_) => (across, down),
                None => to.grid(),
            },
            from,
            to,
            model,
            fast,
            scaling,
            axes: scaling.axes(),
        })
    }

    /// The part of a destination rectangle that is inside the scaling's box, grown to the grid of pixels
    /// that are written together.
    pub(super) fn cut(&self, rect: &Rect) -> Rect {
        cut(rect, &self.scaling.destination, self.grid)
    }

    /// The range of bytes that such rectangles write in each plane.
    pub(super) fn spans(&self, to: Picture<'_>, rects: &[Rect]) -> Spans {
        let spans = self.to.planes().iter().zip(to.planes).enumerate();
        let span = |(plane, (info, place)): (usize, (&PlaneInfo, &crate::buffer::Plane))| {
            let ends = rects.iter().map(|rect| {
                let (start, length) = row(to, info, plane, rect.y, rect.x, rect.width);
                let rows = rect.height.div_ceil(info.vertical).saturating_sub(1);
                (
                    start.offset,
                    start.offset + rows as usize * place.stride as usize + length,
                )
            });
            let (start, end) = ends.fold((usize::MAX, 0), |(start, end), (first, last)| {
                (start.min(first), end.max(last))
            });
            Span {
                object: place.object,
                start: start.min(end),
                end,
            }
        };
        spans.map(span).collect()
    }

    /// Makes a [cut](Self::cut) rectangle of the destination.
    pub(super) fn copy(
        &self,
        (from, source): (Picture<'_>, &Readable<'_>),
        (to, destination): (Picture<'_>, &mut Writable<'_>),
        rect: &Rect,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        scratch.rows.forget();
        if let Some(fast) = &self.fast {
            return self.copy_fast(fast, (from, source), (to, destination), rect, scratch);
        }
        let (right, bottom) = (rect.x + rect.width, rect.y + rect.height);
        for y in (rect.y..bottom).step_by(TILE.1 as usize) {
            for x in (rect.x..right).step_by(TILE.0 as usize) {
                let tile = Rect {
                    x,
                    y,
                    width: TILE.0.min(right - x),
                    height: TILE.1.min(bottom - y),
                };
                self.make_tile((from, source), &tile, scratch)?;
                self.write_tile((to, destination), &tile, scratch)?;
            }
        }
        Ok(())
    }

    fn copy_fast(
        &self,
        fast: &Fast,
        (from, source): (Picture<'_>, &Readable<'_>),
        (to, destination): (Picture<'_>, &mut Writable<'_>),
        rect: &Rect,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let boxes = (&self.scaling.source, &self.scaling.destination);
        let (left, top) = (
            rect.x - boxes.1.x + boxes.0.x,
            rect.y - boxes.1.y + boxes.0.y,
        );
        let Scratch { rows, bytes, .. } = scratch;
        let group = self.to.grid().1;
        for first in (0..rect.height).step_by(group as usize) {
            let count = group.min(rect.height - first);
            for row in 0..count {
                let y = top + first + row;
                rows.read(
                    &self.from,
                    (from, source),
                    row as usize,
                    y,
                    left,
                    rect.width,
                )?;
            }
            let read = &rows.planes[..count as usize];
            for (plane, info) in self.to.planes().iter().enumerate() {
                let vertical = info.vertical as usize;
                for (index, read) in read.chunks(vertical).enumerate() {
                    let y = rect.y + first + (index * vertical) as u32;
                    let (at, length) = row(to, info, plane, y, rect.x, rect.width);
                    bytes.resize(length, 0);
                    fast.encode(plane, read, bytes);
                    destination.write(at, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the pixels of a tile.
    fn make_tile(
        &self,
        (from, source): (Picture<'_>, &Readable<'_>),
        tile: &Rect,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let taps = |axis: &Axis, start: u32, length: u32, taps: &mut Vec<Tap>| {
            taps.clear();
            taps.extend((start..start + length).map(|at| axis.tap(at)));
        };
        let place = &self.scaling.destination;
        taps(
            &self.axes[0],
            tile.x - place.x,
            tile.width,
            &mut scratch.across,
        );
        taps(
            &self.axes[1],
            tile.y - place.y,
            tile.height,
            &mut scratch.down,
        );
        let swaps = self.scaling.transform.swaps_axes();
        let (columns, rows) = match swaps {
            false => (&scratch.across, &scratch.down),
            true => (&scratch.down, &scratch.across),
        };
        // Of the source, all columns from the first to the last are decoded, and the rows that are shown.
        let ends = |tap: &Tap| [tap.first, tap.second];
        let left = columns.iter().flat_map(ends).min().unwrap_or(0);
        let right = columns.iter().flat_map(ends).max().unwrap_or(0);
        scratch.shown.clear();
        scratch.shown.extend(rows.iter().flat_map(ends));
        scratch.shown.sort_unstable();
        scratch.shown.dedup();
        let width = (right - left + 1) as usize;
        scratch.source.resize(width * scratch.shown.len(), [0.0; 4]);
        let into = scratch.source.chunks_exact_mut(width);
        for (pixels, &y) in into.zip(&scratch.shown) {
            let read = &mut scratch.rows;
            read.read(&self.from, (from, source), 0, y, left, width as u32)?;
            self.from.decode(&read.planes[0], left, pixels);
        }
        if self.scaling.is_plain() {
            // Unscaled: each pixel is one pixel of the source.
            std::mem::swap(&mut scratch.source, &mut scratch.made);
            self.model.apply(&mut scratch.made);
            return Ok(());
        }
        let shown = &scratch.shown;
        let pixels = &scratch.source;
        let row_of = |y: u32| {
            let index = shown.binary_search(&y).unwrap_or(0);
            &pixels[index * width..(index + 1) * width]
        };
        let rows_of = |tap: &Tap| (row_of(tap.first), row_of(tap.second), tap.weight);
        let column_of = |tap: &Tap| {
            let [first, second] = [tap.first, tap.second].map(|x| (x - left) as usize);
            (first, second, tap.weight)
        };
        scratch.made.clear();
        match swaps {
            false => {
                for down in &scratch.down {
                    let rows = rows_of(down);
                    let made = scratch.across.iter();
                    scratch
                        .made
                        .extend(made.map(|across| mix(rows, column_of(across))));
                }
            }
            true => {
                let rows: ArrayVec<_, { TILE.0 as usize }> =
                    scratch.across.iter().map(rows_of).collect();
                for down in &scratch.down {
                    let column = column_of(down);
                    scratch
                        .made
                        .extend(rows.iter().map(|rows| mix(*rows, column)));
                }
            }
        }
        self.model.apply(&mut scratch.made);
        Ok(())
    }

    fn write_tile(
        &self,
        (to, destination): (Picture<'_>, &mut Writable<'_>),
        tile: &Rect,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let Scratch { made, bytes, .. } = scratch;
        for (plane, info) in self.to.planes().iter().enumerate() {
            let vertical = info.vertical as usize;
            let groups = made.chunks(tile.width as usize * vertical);
            for (index, group) in groups.enumerate() {
                let rows: ArrayVec<&[Pixel], MAX_ROWS> =
                    group.chunks(tile.width as usize).take(MAX_ROWS).collect();
                let y = tile.y + (index * vertical) as u32;
                let (at, length) = row(to, info, plane, y, tile.x, tile.width);
                bytes.resize(length, 0);
                self.to.encode(plane, &rows, tile.x, bytes);
                destination.write(at, bytes)?;
            }
        }
        Ok(())
    }
}

/// The part of a rectangle that is inside `bounds`, grown to a grid, but not past the bounds.
pub(super) fn cut(rect: &Rect, bounds: &Rect, (across, down): (u32, u32)) -> Rect {
    let part = |start: u32, length: u32, first: u32, size: u32, step: u32| {
        let (end, last) = (start.saturating_add(length), first + size);
        let (start, end) = (start.max(first), end.min(last));
        if start >= end {
            return (first, 0);
        }
        let start = (start - start % step).max(first);
        let end = end.checked_next_multiple_of(step).unwrap_or(last).min(last);
        (start, end - start)
    };
    let (x, width) = part(rect.x, rect.width, bounds.x, bounds.width, across);
    let (y, height) = part(rect.y, rect.height, bounds.y, bounds.height, down);
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// A pixel between four others. Given are two rows and the weight of the second, and two columns and the
/// weight of the second.
fn mix(
    (upper, lower, down): (&[Pixel], &[Pixel], f32),
    (first, second, across): (usize, usize, f32),
) -> Pixel {
    let of_row = |row: &[Pixel]| match across == 0.0 {
        true => row[first],
        false => between(row[first], row[second], across),
    };
    match down == 0.0 {
        true => of_row(upper),
        false => between(of_row(upper), of_row(lower), down),
    }
}

fn between(first: Pixel, second: Pixel, weight: f32) -> Pixel {
    std::array::from_fn(|index| first[index] + (second[index] - first[index]) * weight)
}

/// Where the blocks of a row's pixels begin in a plane, and how many bytes they have.
fn row(
    picture: Picture<'_>,
    info: &PlaneInfo,
    plane: usize,
    y: u32,
    x: u32,
    width: u32,
) -> (At, usize) {
    let place = picture.planes[plane];
    let first = x / info.horizontal / info.block_width;
    let end = (x + width)
        .div_ceil(info.horizontal)
        .div_ceil(info.block_width);
    let bytes = |blocks: u32| blocks as usize * info.block_bytes as usize;
    let above = (y / info.vertical) as usize * place.stride as usize;
    let at = At {
        object: place.object,
        offset: place.offset as usize + above + bytes(first),
    };
    (at, bytes(end - first))
}

/// Memory that is kept from one rectangle to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Rows,
    bytes: Vec<u8>,
    across: Vec<Tap>,
    down: Vec<Tap>,
    /// The rows of the source that a tile shows, and their pixels.
    shown: Vec<u32>,
    source: Vec<Pixel>,
    /// The pixels of the destination.
    made: Vec<Pixel>,
}

/// Bytes of some rows of the source.
#[derive(Debug, Default)]
struct Rows {
    planes: [PlaneRows; MAX_ROWS],
    /// For the first row: where its bytes in each plane were last read from.
    last: [Option<(At, usize)>; MAX_PLANES],
}

impl Rows {
    fn forget(&mut self) {
        self.last = Default::default();
    }

    /// Reads the bytes of pixels of a row of the picture.
    fn read(
        &mut self,
        codec: &Codec,
        (picture, source): (Picture<'_>, &Readable<'_>),
        index: usize,
        y: u32,
        x: u32,
        width: u32,
    ) -> Result<(), Failure> {
        let rows = &mut self.planes[index];
        rows.resize_with(codec.planes().len(), Vec::new);
        for (plane, (info, bytes)) in codec.planes().iter().zip(rows).enumerate() {
            let (at, length) = row(picture, info, plane, y, x, width);
            // Rows of pixels that share colour differences read these only once.
            if index == 0 && self.last[plane] == Some((at, length)) {
                continue;
            }
            bytes.resize(length, 0);
            source.read(at, bytes)?;
            if index == 0 {
                self.last[plane] = Some((at, length));
            }
        }
        Ok(())
    }
}
