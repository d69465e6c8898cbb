//! Pixels of one format as those of another. Pure.
//!
//! A row of pixels is decoded to [`Pixel`]s and encoded from them. Numbers are scaled, not shifted:
//! white stays white. Alpha that the source does not have is 1, alpha that the destination does not
//! have is dropped; colours that were multiplied by alpha stay so.
//!
//! Where pixels share colour differences, each of them gets the shared value, and the shared value
//! is the mean of theirs. Both belong together: a picture that goes to 4:4:4 or RGB and back again
//! has the same colour differences as before, and a change of some pixels shows in these pixels
//! only. They are then sited in the middle of their pixels, as in JPEG. Interpolation would be
//! smoother, but needs pixels outside of what has changed.

use crate::blit::copy::half::{from_half, to_half};
use crate::blit::ycbcr::{Range, YcbcrEncoding};
use crate::buffer::{Colour, FormatInfo, Fourcc, PlaneInfo};

/// Red, green and blue from 0 to 1, or luma from 0 to 1 and colour differences (Cb, Cr) from -1/2
/// to 1/2; then alpha.
pub(in crate::blit) type Pixel = [f32; 4];

pub(super) const ALPHA: usize = 3;

/// Where the bits of a component are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) plane: usize,
    /// The lowest bit in a block, little-endian, and how many there are.
    pub(super) bit: u32,
    pub(super) bits: u32,
    /// Bits from one pixel of a block to the next.
    pub(super) step: u32,
}

/// How the numbers of a component encode its value: value = (number - zero) / unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Numbers {
    Linear { zero: f32, unit: f32 },
    Half,
}

/// A component of a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Component {
    pub(super) place: Place,
    pub(super) numbers: Numbers,
    /// How many pixels of the picture, across and down, share one number.
    pub(super) shared: (u32, u32),
}

impl Component {
    pub(super) fn max(&self) -> u32 {
        (1 << self.place.bits) - 1
    }

    pub(super) fn decode(&self, number: u32) -> f32 {
        match self.numbers {
            Numbers::Linear { zero, unit } => (number as f32 - zero) / unit,
            Numbers::Half => from_half(number as u16),
        }
    }

    /// The nearest number. Values that are too large get the last number, and NaN gets the first.
    pub(super) fn encode(&self, value: f32) -> u32 {
        match self.numbers {
            Numbers::Linear { zero, unit } => {
                let number = (value * unit + zero + 0.5).max(0.0);
                (number as u32).min(self.max())
            }
            Numbers::Half => to_half(value).into(),
        }
    }
}

/// Where the pixels of a format are in the bytes, and what their numbers mean.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Codec {
    planes: &'static [PlaneInfo],
    /// Red, green, blue and alpha, or Y, Cb, Cr and alpha. Unused bits in the place of alpha are a
    /// component too, whose value is 1.
    components: [Option<Component>; 4],
    has_alpha: bool,
    colour: Colour,
    chroma: (u32, u32),
}

/// Whether pixels of the format can be decoded and encoded.
pub(in crate::blit) fn is_known(fourcc: Fourcc) -> bool {
    places(fourcc).is_some() && FormatInfo::of(fourcc).is_some()
}

impl Codec {
    /// `None` for formats whose pixels are not known: indexed ones, those without all three colours,
    /// those with alpha in a plane of its own, and `P030`.
    pub(in crate::blit) fn new(fourcc: Fourcc, encoding: YcbcrEncoding) -> Option<Self> {
        let info = FormatInfo::of(fourcc)?;
        let places = places(fourcc)?;
        let mut components = [None; 4];
        for (index, place) in places.into_iter().enumerate() {
            let is_difference = info.colour == Colour::YCbCr && (index == 1 || index == 2);
            let shared = if is_difference { info.chroma } else { (1, 1) };
            components[index] = place.map(|place| Component {
                place,
                numbers: numbers(info.colour, index, place.bits, encoding.range),
                shared,
            });
        }
        Some(Self {
            planes: info.planes,
            components,
            has_alpha: info.alpha,
            colour: info.colour,
            chroma: info.chroma,
        })
    }

    /// How many pixels, across and down, can only be written together.
    pub(in crate::blit) fn grid(&self) -> (u32, u32) {
        let blocks = self.planes.iter();
        let blocks = blocks.map(|plane| plane.block_width * plane.horizontal);
        (blocks.fold(self.chroma.0, u32::max), self.chroma.1)
    }

    /// How many pixels, across and down, share their colour differences.
    pub(super) fn shared(&self) -> (u32, u32) {
        self.chroma
    }

    pub(super) fn has_alpha(&self) -> bool {
        self.has_alpha
    }

    pub(super) fn component(&self, index: usize) -> Option<Component> {
        self.components[index]
    }

    pub(in crate::blit) fn planes(&self) -> &'static [PlaneInfo] {
        self.planes
    }

    fn is_ycbcr(&self) -> bool {
        self.colour == Colour::YCbCr
    }

    /// Decodes pixels of one row of the picture. `rows` has a row of each plane, from the byte on in which
    /// the block of column `start` begins.
    pub(in crate::blit) fn decode(&self, rows: &[Vec<u8>], start: u32, pixels: &mut [Pixel]) {
        for (index, component) in self.components.iter().enumerate() {
            let absent = if index == ALPHA { 1.0 } else { 0.0 };
            match component {
                Some(component) if index != ALPHA || self.has_alpha => {
                    self.decode_component(component, index, rows, start, pixels);
                }
                _ => pixels.iter_mut().for_each(|pixel| pixel[index] = absent),
            }
        }
    }

    fn decode_component(
        &self,
        component: &Component,
        index: usize,
        rows: &[Vec<u8>],
        start: u32,
        pixels: &mut [Pixel],
    ) {
        let place = component.place;
        let (Some(info), Some(row)) = (self.planes.get(place.plane), rows.get(place.plane)) else {
            return;
        };
        let blocks = Blocks::new(info, start);
        let max = component.max();
        // With the constants known, the compiler makes a fast loop for each of these cases.
        match (info.block_width, info.horizontal, component.numbers) {
            (1, 1, Numbers::Linear { zero, unit }) => {
                let words = row.chunks_exact(info.block_bytes as usize);
                for (pixel, word) in pixels.iter_mut().zip(words) {
                    let number = (word_of(word) >> place.bit) as u32 & max;
                    pixel[index] = (number as f32 - zero) / unit;
                }
            }
            _ => {
                for (at, pixel) in pixels.iter_mut().enumerate() {
                    let (block, within) = blocks.find(start + at as u32);
                    let word = bytes(row, block, info).map_or(0, word_of);
                    let number = (word >> (place.bit + within * place.step)) as u32 & max;
                    pixel[index] = component.decode(number);
                }
            }
        }
    }

    /// Encodes one row of a plane from the rows of pixels that share it. At the picture's edge there are
    /// fewer of these. The row begins with the block of column `start`, a multiple of [`Self::grid`].
    pub(in crate::blit) fn encode(
        &self,
        plane: usize,
        rows: &[&[Pixel]],
        start: u32,
        into: &mut [u8],
    ) {
        let Some(info) = self.planes.get(plane) else {
            return;
        };
        if info.block_width == 1 && self.chroma == (1, 1) {
            let pixels = rows.first().copied().unwrap_or_default();
            return self.encode_words(plane, pixels, info.block_bytes as usize, into);
        }
        into.fill(0);
        let width = rows.first().map_or(0, |row| row.len());
        let blocks = Blocks::new(info, start);
        for (index, component) in self.components.iter().enumerate() {
            let Some(component) = component.filter(|component| component.place.plane == plane)
            else {
                continue;
            };
            let opaque = index == ALPHA && !self.has_alpha;
            let place = component.place;
            let across = component.shared.0 as usize;
            for first in (0..width).step_by(across) {
                let last = (first + across).min(width);
                let value = match opaque {
                    true => 1.0,
                    false => mean(rows, first..last, index),
                };
                let (block, within) = blocks.find(start + first as u32);
                let number = u64::from(component.encode(value));
                let number = number << (place.bit + within * place.step);
                if let Some(bytes) = bytes_mut(into, block, info) {
                    for (byte, new) in bytes.iter_mut().zip(number.to_le_bytes()) {
                        *byte |= new;
                    }
                }
            }
        }
    }

    /// As [`Self::encode`], for planes in which each pixel has a word of its own.
    fn encode_words(&self, plane: usize, pixels: &[Pixel], bytes: usize, into: &mut [u8]) {
        let in_plane = |component: &Option<Component>| {
            component.filter(|component| component.place.plane == plane)
        };
        let components = self.components.each_ref().map(in_plane);
        for (pixel, into) in pixels.iter().zip(into.chunks_exact_mut(bytes)) {
            let mut word = 0;
            for (index, component) in components.iter().enumerate() {
                let Some(component) = component else {
                    continue;
                };
                let opaque = index == ALPHA && !self.has_alpha;
                let value = if opaque { 1.0 } else { pixel[index] };
                word |= u64::from(component.encode(value)) << component.place.bit;
            }
            let word = word.to_le_bytes();
            match into {
                [a, b, c, d] => [*a, *b, *c, *d] = [word[0], word[1], word[2], word[3]],
                into => into.copy_from_slice(&word[..bytes]),
            }
        }
    }
}

/// Finds the pixels of a row in the blocks of a plane.
struct Blocks {
    first: u32,
    width: u32,
    horizontal: u32,
}

impl Blocks {
    /// `start` is the column of the picture with whose block the bytes begin.
    fn new(info: &PlaneInfo, start: u32) -> Self {
        Self {
            first: start / info.horizontal / info.block_width,
            width: info.block_width,
            horizontal: info.horizontal,
        }
    }

    /// The block of a column of the picture, and the pixel of the block.
    fn find(&self, column: u32) -> (usize, u32) {
        let pixel = column / self.horizontal;
        let block = pixel / self.width - self.first;
        (block as usize, pixel % self.width)
    }
}

fn bytes<'a>(row: &'a [u8], block: usize, info: &PlaneInfo) -> Option<&'a [u8]> {
    let bytes = info.block_bytes as usize;
    row.get(block * bytes..)?.get(..bytes)
}

fn bytes_mut<'a>(row: &'a mut [u8], block: usize, info: &PlaneInfo) -> Option<&'a mut [u8]> {
    let bytes = info.block_bytes as usize;
    row.get_mut(block * bytes..)?.get_mut(..bytes)
}

/// The word that up to eight bytes make, little-endian.
fn word_of(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => bytes
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

fn mean(rows: &[&[Pixel]], columns: std::ops::Range<usize>, index: usize) -> f32 {
    let count = rows.len() * columns.len();
    let row = |row: &&[Pixel]| {
        row[columns.clone()]
            .iter()
            .map(|pixel| pixel[index])
            .sum::<f32>()
    };
    match count {
        1 => rows[0][columns.start][index],
        count => rows.iter().map(row).sum::<f32>() / count as f32,
    }
}

fn numbers(colour: Colour, index: usize, bits: u32, range: Range) -> Numbers {
    let max = ((1_u32 << bits) - 1) as f32;
    let (zero, unit) = match (colour, index, range) {
        (Colour::RgbFloat, ..) => return Numbers::Half,
        // BT.601-7 2.5.3, BT.709-6 item 3.4, BT.2020-2 table 5: (219 Y + 16) 2^(bits - 8) and
        // (224 C + 128) 2^(bits - 8).
        (Colour::YCbCr, 0, Range::Narrow) => (16.0 * over_eight(bits), 219.0 * over_eight(bits)),
        (Colour::YCbCr, 1 | 2, Range::Narrow) => {
            (128.0 * over_eight(bits), 224.0 * over_eight(bits))
        }
        // BT.2100-2 table 9, as Vulkan's VK_SAMPLER_YCBCR_RANGE_ITU_FULL.
        (Colour::YCbCr, 1 | 2, Range::Full) => (128.0 * over_eight(bits), max),
        _ => (0.0, max),
    };
    Numbers::Linear { zero, unit }
}

/// 2^(bits - 8).
fn over_eight(bits: u32) -> f32 {
    2f32.powi(bits as i32 - 8)
}

/// How pixels of one colour model are converted to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::blit) enum Model {
    Same,
    /// Factors of Cr in red, of Cb in green, of Cr in green, and of Cb in blue.
    ToRgb([f32; 4]),
    /// Weights of red, green and blue in luma; the spans of Cb and Cr.
    ToYcbcr([f32; 3], [f32; 2]),
}

impl Model {
    pub(in crate::blit) fn between(from: &Codec, to: &Codec, encoding: YcbcrEncoding) -> Self {
        let (red, blue) = encoding.matrix.weights();
        let green = 1.0 - red - blue;
        // Y = Kr R + Kg G + Kb B, Cb = (B - Y) / (2 - 2 Kb), Cr = (R - Y) / (2 - 2 Kr).
        let (cb, cr) = (2.0 - 2.0 * blue, 2.0 - 2.0 * red);
        match (from.is_ycbcr(), to.is_ycbcr()) {
            (true, false) => {
                let of_green = [-cb * blue / green, -cr * red / green];
                Self::ToRgb([cr, of_green[0], of_green[1], cb].map(|value| value as f32))
            }
            (false, true) => Self::ToYcbcr(
                [red, green, blue].map(|value| value as f32),
                [cb, cr].map(|value| value as f32),
            ),
            _ => Self::Same,
        }
    }

    pub(in crate::blit) fn apply(&self, pixels: &mut [Pixel]) {
        match *self {
            Self::Same => {}
            Self::ToRgb([red, green_of_cb, green_of_cr, blue]) => {
                for pixel in pixels {
                    let [y, cb, cr, alpha] = *pixel;
                    let green = y + green_of_cb * cb + green_of_cr * cr;
                    *pixel = [y + red * cr, green, y + blue * cb, alpha];
                }
            }
            Self::ToYcbcr(weights, [cb, cr]) => {
                for pixel in pixels {
                    let [red, green, blue, alpha] = *pixel;
                    // Half floats can be brighter than white, which YCbCr cannot encode.
                    let [red, green, blue] = [red, green, blue].map(|value| value.clamp(0.0, 1.0));
                    let y = weights[0] * red + weights[1] * green + weights[2] * blue;
                    *pixel = [y, (blue - y) / cb, (red - y) / cr, alpha];
                }
            }
        }
    }
}

/// The components of a word from the highest bit to the lowest, each with its name and its number of bits.
/// `x` are unused bits, `X` unused bits in the place of alpha.
type Word = &'static [(u8, u32)];

/// Where the components of a format are.
fn places(fourcc: Fourcc) -> Option<[Option<Place>; 4]> {
    if let Some(word) = word(fourcc) {
        return Some(of_word(word));
    }
    let place = |plane, bit, bits, step| {
        Some(Place {
            plane,
            bit,
            bits,
            step,
        })
    };
    // Two pixels in a block. `y`, `cb` and `cr` are first bits; of each unit the upper `bits` are used.
    let pair = |y, cb, cr, unit: u32, bits| {
        let low = unit - bits;
        let at = |index: u32, step| place(0, index * unit + low, bits, step);
        Some([at(y, 2 * unit), at(cb, 0), at(cr, 0), None])
    };
    // A plane of Y and a plane of both colour differences. Of each unit the upper `bits` are used.
    let two = |cb: u32, cr: u32, unit: u32, bits: u32| {
        let low = unit - bits;
        let at = |plane, index: u32| place(plane, index * unit + low, bits, 0);
        Some([at(0, 0), at(1, cb), at(1, cr), None])
    };
    // The same two planes, with numbers that follow each other without gaps.
    let dense = || {
        Some([
            place(0, 0, 10, 10),
            place(1, 0, 10, 20),
            place(1, 10, 10, 20),
            None,
        ])
    };
    // Three planes.
    let three = |cb, cr, bit, bits| {
        let at = |plane| place(plane, bit, bits, 0);
        Some([at(0), at(cb), at(cr), None])
    };
    match fourcc {
        Fourcc::YUYV => pair(0, 1, 3, 8, 8),
        Fourcc::YVYU => pair(0, 3, 1, 8, 8),
        Fourcc::UYVY => pair(1, 0, 2, 8, 8),
        Fourcc::VYUY => pair(1, 2, 0, 8, 8),
        Fourcc::Y210 => pair(0, 1, 3, 16, 10),
        Fourcc::Y212 => pair(0, 1, 3, 16, 12),
        Fourcc::Y216 => pair(0, 1, 3, 16, 16),
        Fourcc::NV12 | Fourcc::NV16 | Fourcc::NV24 => two(0, 1, 8, 8),
        Fourcc::NV21 | Fourcc::NV61 | Fourcc::NV42 => two(1, 0, 8, 8),
        Fourcc::P010 | Fourcc::P210 => two(0, 1, 16, 10),
        Fourcc::P012 => two(0, 1, 16, 12),
        Fourcc::P016 => two(0, 1, 16, 16),
        Fourcc::NV15 | Fourcc::NV20 | Fourcc::NV30 => dense(),
        Fourcc::YUV410 | Fourcc::YUV411 | Fourcc::YUV420 | Fourcc::YUV422 | Fourcc::YUV444 => {
            three(1, 2, 0, 8)
        }
        Fourcc::YVU410 | Fourcc::YVU411 | Fourcc::YVU420 | Fourcc::YVU422 | Fourcc::YVU444 => {
            three(2, 1, 0, 8)
        }
        Fourcc::Q410 => three(1, 2, 6, 10),
        Fourcc::Q401 => three(2, 1, 6, 10),
        Fourcc::S010 | Fourcc::S210 | Fourcc::S410 => three(1, 2, 0, 10),
        Fourcc::S012 | Fourcc::S212 | Fourcc::S412 => three(1, 2, 0, 12),
        Fourcc::S016 | Fourcc::S216 | Fourcc::S416 => three(1, 2, 0, 16),
        _ => None,
    }
}

fn of_word(word: Word) -> [Option<Place>; 4] {
    let mut places = [None; 4];
    let mut bit = 0;
    for &(name, bits) in word.iter().rev() {
        let index = match name {
            b'R' | b'Y' => Some(0),
            b'G' | b'U' => Some(1),
            b'B' | b'V' => Some(2),
            b'X' | b'A' => Some(ALPHA),
            _ => None,
        };
        if let Some(index) = index {
            places[index] = Some(Place {
                plane: 0,
                bit,
                bits,
                step: 0,
            });
        }
        bit += bits;
    }
    places
}

/// The components of formats of one pixel in a word, as `drm_fourcc.h` has them.
#[rustfmt::skip]
fn word(fourcc: Fourcc) -> Option<Word> {
    const A: u8 = b'A'; const R: u8 = b'R'; const G: u8 = b'G'; const B: u8 = b'B';
    const X: u8 = b'X'; const Y: u8 = b'Y'; const U: u8 = b'U'; const V: u8 = b'V';
    const GAP: u8 = b'x';
    Some(match fourcc {
        Fourcc::RGB332 => &[(R, 3), (G, 3), (B, 2)],
        Fourcc::BGR233 => &[(B, 2), (G, 3), (R, 3)],
        Fourcc::XRGB4444 | Fourcc::ARGB4444 => &[(X, 4), (R, 4), (G, 4), (B, 4)],
        Fourcc::XBGR4444 | Fourcc::ABGR4444 => &[(X, 4), (B, 4), (G, 4), (R, 4)],
        Fourcc::RGBX4444 | Fourcc::RGBA4444 => &[(R, 4), (G, 4), (B, 4), (X, 4)],
        Fourcc::BGRX4444 | Fourcc::BGRA4444 => &[(B, 4), (G, 4), (R, 4), (X, 4)],
        Fourcc::XRGB1555 | Fourcc::ARGB1555 => &[(X, 1), (R, 5), (G, 5), (B, 5)],
        Fourcc::XBGR1555 | Fourcc::ABGR1555 => &[(X, 1), (B, 5), (G, 5), (R, 5)],
        Fourcc::RGBX5551 | Fourcc::RGBA5551 => &[(R, 5), (G, 5), (B, 5), (X, 1)],
        Fourcc::BGRX5551 | Fourcc::BGRA5551 => &[(B, 5), (G, 5), (R, 5), (X, 1)],
        Fourcc::RGB565 => &[(R, 5), (G, 6), (B, 5)],
        Fourcc::BGR565 => &[(B, 5), (G, 6), (R, 5)],
        Fourcc::RGB888 => &[(R, 8), (G, 8), (B, 8)],
        Fourcc::BGR888 => &[(B, 8), (G, 8), (R, 8)],
        Fourcc::XRGB8888 | Fourcc::ARGB8888 => &[(X, 8), (R, 8), (G, 8), (B, 8)],
        Fourcc::XBGR8888 | Fourcc::ABGR8888 => &[(X, 8), (B, 8), (G, 8), (R, 8)],
        Fourcc::RGBX8888 | Fourcc::RGBA8888 => &[(R, 8), (G, 8), (B, 8), (X, 8)],
        Fourcc::BGRX8888 | Fourcc::BGRA8888 => &[(B, 8), (G, 8), (R, 8), (X, 8)],
        Fourcc::XRGB2101010 | Fourcc::ARGB2101010 => &[(X, 2), (R, 10), (G, 10), (B, 10)],
        Fourcc::XBGR2101010 | Fourcc::ABGR2101010 => &[(X, 2), (B, 10), (G, 10), (R, 10)],
        Fourcc::RGBX1010102 | Fourcc::RGBA1010102 => &[(R, 10), (G, 10), (B, 10), (X, 2)],
        Fourcc::BGRX1010102 | Fourcc::BGRA1010102 => &[(B, 10), (G, 10), (R, 10), (X, 2)],
        Fourcc::RGB161616 => &[(R, 16), (G, 16), (B, 16)],
        Fourcc::BGR161616 => &[(B, 16), (G, 16), (R, 16)],
        Fourcc::XRGB16161616 | Fourcc::ARGB16161616
        | Fourcc::XRGB16161616F | Fourcc::ARGB16161616F => &[(X, 16), (R, 16), (G, 16), (B, 16)],
        Fourcc::XBGR16161616 | Fourcc::ABGR16161616
        | Fourcc::XBGR16161616F | Fourcc::ABGR16161616F => &[(X, 16), (B, 16), (G, 16), (R, 16)],
        Fourcc::AXBXGXRX106106106106 => &[
            (A, 10), (GAP, 6), (B, 10), (GAP, 6), (G, 10), (GAP, 6), (R, 10), (GAP, 6),
        ],
        Fourcc::XYUV8888 | Fourcc::AYUV => &[(X, 8), (Y, 8), (U, 8), (V, 8)],
        Fourcc::XVUY8888 | Fourcc::AVUY8888 => &[(X, 8), (V, 8), (U, 8), (Y, 8)],
        Fourcc::VUY888 => &[(V, 8), (U, 8), (Y, 8)],
        Fourcc::XVYU2101010 | Fourcc::Y410 => &[(X, 2), (V, 10), (Y, 10), (U, 10)],
        Fourcc::XVYU12_16161616 | Fourcc::Y412 => &[
            (X, 12), (GAP, 4), (V, 12), (GAP, 4), (Y, 12), (GAP, 4), (U, 12), (GAP, 4),
        ],
        Fourcc::XVYU16161616 | Fourcc::Y416 => &[(X, 16), (V, 16), (Y, 16), (U, 16)],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blit::ycbcr::Matrix;

    fn encoding(matrix: Matrix, range: Range) -> YcbcrEncoding {
        YcbcrEncoding { matrix, range }
    }

    /// A row of pixels of a format whose first plane has all of them.
    fn decoded(fourcc: Fourcc, row: &[u8], width: usize) -> Vec<Pixel> {
        let codec = Codec::new(fourcc, YcbcrEncoding::default()).unwrap();
        let mut pixels = vec![[9.0; 4]; width];
        codec.decode(&[row.to_vec()], 0, &mut pixels);
        pixels
    }

    fn encoded(fourcc: Fourcc, pixels: &[Pixel]) -> Vec<u8> {
        let codec = Codec::new(fourcc, YcbcrEncoding::default()).unwrap();
        let bytes = codec.planes[0].row_bytes(pixels.len() as u32).unwrap();
        let mut row = vec![0x55; bytes as usize];
        codec.encode(0, &[pixels], 0, &mut row);
        row
    }

    /// The numbers of Y, Cb and Cr for a colour.
    fn ycbcr(colour: [f32; 3], to: Fourcc, encoding: YcbcrEncoding) -> [u32; 3] {
        let rgb = Codec::new(Fourcc::XRGB8888, encoding).unwrap();
        let codec = Codec::new(to, encoding).unwrap();
        let [red, green, blue] = colour;
        let mut pixels = [[red, green, blue, 1.0]];
        Model::between(&rgb, &codec, encoding).apply(&mut pixels);
        std::array::from_fn(|index| codec.components[index].unwrap().encode(pixels[0][index]))
    }

    const RED: [f32; 3] = [1.0, 0.0, 0.0];
    const GREEN: [f32; 3] = [0.0, 1.0, 0.0];
    const BLUE: [f32; 3] = [0.0, 0.0, 1.0];
    const YELLOW: [f32; 3] = [1.0, 1.0, 0.0];
    const WHITE: [f32; 3] = [1.0, 1.0, 1.0];
    const BLACK: [f32; 3] = [0.0, 0.0, 0.0];

    #[test]
    fn colour_bars_have_the_numbers_of_the_standards() {
        let narrow_601 = encoding(Matrix::Bt601, Range::Narrow);
        let narrow_709 = encoding(Matrix::Bt709, Range::Narrow);
        let full_601 = encoding(Matrix::Bt601, Range::Full);
        let full_709 = encoding(Matrix::Bt709, Range::Full);
        for (encoding, colour, numbers) in [
            (narrow_601, WHITE, [235, 128, 128]),
            (narrow_601, YELLOW, [210, 16, 146]),
            (narrow_601, GREEN, [145, 54, 34]),
            (narrow_601, RED, [81, 90, 240]),
            (narrow_601, BLUE, [41, 240, 110]),
            (narrow_601, BLACK, [16, 128, 128]),
            (narrow_709, WHITE, [235, 128, 128]),
            (narrow_709, YELLOW, [219, 16, 138]),
            (narrow_709, GREEN, [173, 42, 26]),
            (narrow_709, RED, [63, 102, 240]),
            (narrow_709, BLUE, [32, 240, 118]),
            (narrow_709, BLACK, [16, 128, 128]),
            // JPEG's.
            (full_601, WHITE, [255, 128, 128]),
            (full_601, GREEN, [150, 44, 21]),
            (full_601, RED, [76, 85, 255]),
            (full_601, BLUE, [29, 255, 107]),
            (full_709, RED, [54, 99, 255]),
            (full_709, BLACK, [0, 128, 128]),
        ] {
            let got = ycbcr(colour, Fourcc::YUV444, encoding);
            assert_eq!(got, numbers, "{encoding:?} {colour:?}");
        }
        let narrow_2020 = encoding(Matrix::Bt2020, Range::Narrow);
        assert_eq!(ycbcr(RED, Fourcc::S410, narrow_2020), [294, 387, 960]);
        assert_eq!(ycbcr(WHITE, Fourcc::S410, narrow_2020), [940, 512, 512]);
        let full_2020 = encoding(Matrix::Bt2020, Range::Full);
        assert_eq!(ycbcr(WHITE, Fourcc::S410, full_2020), [1023, 512, 512]);
    }

    #[test]
    fn colours_survive_the_way_to_ycbcr_and_back() {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [Range::Narrow, Range::Full] {
                let encoding = encoding(matrix, range);
                let codec = |fourcc| Codec::new(fourcc, encoding).unwrap();
                let (rgb, ycbcr) = (codec(Fourcc::XRGB8888), codec(Fourcc::S416));
                for colour in (0..512).map(|n| [n & 7, n >> 3 & 7, n >> 6]) {
                    let before = colour.map(|n| n as f32 / 7.0);
                    let mut pixels = [[before[0], before[1], before[2], 1.0]];
                    Model::between(&rgb, &ycbcr, encoding).apply(&mut pixels);
                    for (index, value) in pixels[0].iter_mut().enumerate().take(3) {
                        let component = ycbcr.components[index].unwrap();
                        *value = component.decode(component.encode(*value));
                    }
                    Model::between(&ycbcr, &rgb, encoding).apply(&mut pixels);
                    for (after, before) in pixels[0].iter().zip(before) {
                        assert!((after - before).abs() < 1e-4, "{encoding:?} {colour:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn components_are_where_the_formats_say() {
        let red = [[1.0, 0.0, 0.0, 0.5]];
        assert_eq!(encoded(Fourcc::RGB565, &red), [0x00, 0xf8]);
        assert_eq!(encoded(Fourcc::BGR565, &red), [0x1f, 0x00]);
        assert_eq!(encoded(Fourcc::RGB888, &red), [0, 0, 0xff]);
        assert_eq!(encoded(Fourcc::BGR888, &red), [0xff, 0, 0]);
        // What is in the place of alpha is one.
        assert_eq!(encoded(Fourcc::XRGB8888, &red), [0, 0, 0xff, 0xff]);
        assert_eq!(encoded(Fourcc::ARGB8888, &red), [0, 0, 0xff, 0x80]);
        assert_eq!(
            encoded(Fourcc::RGBA1010102, &red),
            0xffc0_0002_u32.to_le_bytes()
        );
        assert_eq!(encoded(Fourcc::BGR161616, &red), [0xff, 0xff, 0, 0, 0, 0]);
        let half = [0, 0, 0, 0, 0x00, 0x3c, 0x00, 0x38];
        assert_eq!(encoded(Fourcc::ARGB16161616F, &red), half);
        let gaps = [0xc0, 0xff, 0, 0, 0, 0, 0x00, 0x80];
        assert_eq!(encoded(Fourcc::AXBXGXRX106106106106, &red), gaps);

        // Black and white, and a colour difference each of one unit.
        let pair = [
            [0.0, 1.0 / 224.0, -1.0 / 224.0, 1.0],
            [1.0, 1.0 / 224.0, -1.0 / 224.0, 1.0],
        ];
        assert_eq!(encoded(Fourcc::YUYV, &pair), [16, 129, 235, 127]);
        assert_eq!(encoded(Fourcc::YVYU, &pair), [16, 127, 235, 129]);
        assert_eq!(encoded(Fourcc::UYVY, &pair), [129, 16, 127, 235]);
        assert_eq!(encoded(Fourcc::VYUY, &pair), [127, 16, 129, 235]);
        assert_eq!(encoded(Fourcc::AYUV, &pair[..1]), [127, 129, 16, 255]);
        assert_eq!(encoded(Fourcc::AVUY8888, &pair[..1]), [16, 129, 127, 255]);
        assert_eq!(encoded(Fourcc::NV12, &pair), [16, 235]);
        // 64 and 940 in the upper ten bits.
        assert_eq!(encoded(Fourcc::P010, &pair), [0x00, 0x10, 0x00, 0xeb]);
        // Without gaps: 64 | 940 << 10.
        assert_eq!(encoded(Fourcc::NV15, &pair), [0x40, 0xb0, 0x0e, 0x00, 0x00]);

        let planes = |fourcc| {
            let codec = Codec::new(fourcc, YcbcrEncoding::default()).unwrap();
            let planes = 1..codec.planes.len();
            let plane = |plane: usize| {
                let bytes = codec.planes[plane].row_bytes(2).unwrap() as usize;
                let mut row = vec![0; bytes];
                codec.encode(plane, &[&pair, &pair], 0, &mut row);
                row
            };
            planes.map(plane).collect::<Vec<_>>().concat()
        };
        assert_eq!(planes(Fourcc::NV12), [129, 127]);
        assert_eq!(planes(Fourcc::NV21), [127, 129]);
        assert_eq!(planes(Fourcc::YUV420), [129, 127]);
        assert_eq!(planes(Fourcc::YVU420), [127, 129]);
        // 516 and 508 times 2^6.
        assert_eq!(planes(Fourcc::P010), [0x00, 0x81, 0x00, 0x7f]);
    }

    #[test]
    fn alpha_that_is_not_there_is_one() {
        let pixel = [0, 0, 255, 77];
        assert_eq!(decoded(Fourcc::XRGB8888, &pixel, 1), [[1.0, 0.0, 0.0, 1.0]]);
        let alpha = 77.0 / 255.0;
        assert_eq!(
            decoded(Fourcc::ARGB8888, &pixel, 1),
            [[1.0, 0.0, 0.0, alpha]]
        );
        assert_eq!(
            decoded(Fourcc::RGB565, &[0x00, 0xf8], 1),
            [[1.0, 0.0, 0.0, 1.0]]
        );
    }

    #[test]
    fn values_past_the_last_number_become_the_last() {
        let pixel = [[7.0, -3.0, f32::NAN, f32::INFINITY]];
        assert_eq!(encoded(Fourcc::ARGB8888, &pixel), [0, 0, 255, 255]);
        // Half floats have room for them.
        let floats = decoded(
            Fourcc::ABGR16161616F,
            &encoded(Fourcc::ABGR16161616F, &pixel),
            1,
        );
        assert_eq!(floats[0][..2], [7.0, -3.0]);
        assert_eq!(floats[0][3], f32::INFINITY);
        // YCbCr has not: brighter than white is white.
        let bright = ycbcr([3.0, 3.0, 3.0], Fourcc::YUV444, YcbcrEncoding::default());
        assert_eq!(bright, [235, 128, 128]);
    }

    #[test]
    fn every_known_format_is_decoded_and_encoded_without_loss() {
        let mut checked = 0;
        for info in FormatInfo::all() {
            let Some(codec) = Codec::new(info.fourcc, YcbcrEncoding::default()) else {
                continue;
            };
            checked += 1;
            let width = 21_usize;
            let mut state = 1_u32;
            let mut random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let rows = |bytes: &mut dyn FnMut() -> u8| -> Vec<Vec<u8>> {
                let row = |plane: &PlaneInfo| plane.row_bytes(width as u32).unwrap();
                let planes = codec.planes.iter();
                planes
                    .map(|plane| (0..row(plane)).map(|_| bytes()).collect())
                    .collect()
            };
            let mut planes = rows(&mut random);
            if codec.colour == Colour::RgbFloat {
                // No infinity and none that is no number.
                planes[0].iter_mut().for_each(|byte| *byte &= 0x3b);
            }
            // All rows of pixels have the same bytes here.
            let mut pixels = vec![[0.0; 4]; width];
            codec.decode(&planes, 0, &mut pixels);
            let again: Vec<Vec<u8>> = (0..planes.len())
                .map(|plane| {
                    let mut row = vec![0; planes[plane].len()];
                    let vertical = codec.planes[plane].vertical as usize;
                    let rows: Vec<&[Pixel]> = vec![&pixels; vertical];
                    codec.encode(plane, &rows, 0, &mut row);
                    row
                })
                .collect();
            let mut decoded = vec![[0.0; 4]; width];
            codec.decode(&again, 0, &mut decoded);
            assert_eq!(decoded, pixels, "{}", info.fourcc);
            // From the middle of the row.
            let start = codec.grid().0 * 2;
            let from_there: Vec<Vec<u8>> = planes
                .iter()
                .zip(codec.planes)
                .map(|(row, plane)| {
                    let blocks = start / plane.horizontal / plane.block_width;
                    row[(blocks * plane.block_bytes) as usize..].to_vec()
                })
                .collect();
            let mut part = vec![[0.0; 4]; width - start as usize];
            codec.decode(&from_there, start, &mut part);
            assert_eq!(part, pixels[start as usize..], "{}", info.fourcc);
        }
        assert!(checked > 90, "{checked}");
    }

    #[test]
    fn pixels_that_share_colour_differences_have_their_mean() {
        let codec = Codec::new(Fourcc::NV12, encoding(Matrix::Bt709, Range::Full)).unwrap();
        let pixel = |cb: i32| [0.0, cb as f32 / 255.0, 0.0, 1.0];
        let rows = [
            [pixel(1), pixel(2), pixel(40)],
            [pixel(3), pixel(6), pixel(50)],
        ];
        let mut row = [0; 4];
        codec.encode(1, &[&rows[0], &rows[1]], 0, &mut row);
        assert_eq!(row, [128 + 3, 128, 128 + 45, 128]);
        // The picture's last row has no other one.
        codec.encode(1, &[&rows[0]], 0, &mut row);
        assert_eq!(row, [128 + 2, 128, 128 + 40, 128]);
    }
}
