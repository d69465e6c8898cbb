//! Conversions of unscaled rows in integers, for the formats that screens and video decoders use
//! most. Pure. Each gives the same as [`Codec`], except that a value in the middle of two numbers may be
//! rounded to the other one.

use crate::blit::copy::convert::{Codec, Component, Model, Numbers};

/// The bytes of one row of the picture in each plane.
pub(super) type PlaneRows = Vec<Vec<u8>>;

/// A conversion of whole rows.
#[derive(Debug)]
pub(in crate::blit) enum Fast {
    Words(Box<Words>),
    ToWords(Box<ToWords>),
    FromWords(Box<FromWords>),
}

impl Fast {
    pub(in crate::blit) fn new(from: &Codec, to: &Codec, model: Model) -> Option<Self> {
        match model {
            Model::Same => Words::new(from, to).map(Box::new).map(Self::Words),
            Model::ToRgb(factors) => {
                let fast = ToWords::new(from, to, factors);
                fast.map(Box::new).map(Self::ToWords)
            }
            Model::ToYcbcr(weights, spans) => {
                let fast = FromWords::new(from, to, weights, spans);
                fast.map(Box::new).map(Self::FromWords)
            }
        }
    }

    /// As [`Codec::encode`], from rows that begin at a multiple of both formats' grids.
    pub(super) fn encode(&self, plane: usize, rows: &[PlaneRows], into: &mut [u8]) {
        let Some(first) = rows.first() else {
            return;
        };
        match self {
            Self::Words(words) => words.row(&first[0], into),
            Self::ToWords(words) => words.row(first, into),
            Self::FromWords(words) if plane == 0 => words.luma(&first[0], into),
            Self::FromWords(words) => words.chroma(plane, rows, into),
        }
    }
}

/// The most numbers that a component of [`Words`] can have.
const NUMBERS: usize = 1 << 10;

/// Converts pixels of one word each. The source's components have up to ten bits, and the destination's word
/// up to four bytes.
#[derive(Debug)]
pub(in crate::blit) struct Words {
    bytes: (u32, u32),
    /// The lowest bit of each component of the source, and its largest number.
    components: [(u32, usize); 4],
    /// What each number of a component adds to the destination's word.
    tables: [[u32; NUMBERS]; 4],
    /// Bits that are set in every word of the destination.
    set: u32,
}

/// The bytes of a pixel's word, if the format has one word for each pixel.
fn word_bytes(codec: &Codec) -> Option<u32> {
    match codec.planes() {
        [plane] if plane.block_width == 1 => Some(plane.block_bytes),
        _ => None,
    }
}

impl Words {
    fn new(from: &Codec, to: &Codec) -> Option<Self> {
        let bytes = (
            word_bytes(from)?,
            word_bytes(to).filter(|&bytes| bytes <= 4)?,
        );
        let mut words = Self {
            bytes,
            components: [(0, 0); 4],
            tables: [[0; NUMBERS]; 4],
            set: 0,
        };
        for index in 0..4 {
            let Some(to_component) = to.component(index) else {
                continue;
            };
            let put = |value: f32| to_component.encode(value) << to_component.place.bit;
            let is_float = |of: &Component| of.numbers == Numbers::Half;
            match from.component(index) {
                _ if index == 3 && !(from.has_alpha() && to.has_alpha()) => words.set = put(1.0),
                Some(of) if of.place.bits <= 10 && !is_float(&of) && !is_float(&to_component) => {
                    words.components[index] = (of.place.bit, of.max() as usize);
                    let table = &mut words.tables[index];
                    for (number, entry) in table.iter_mut().enumerate().take(1 << of.place.bits) {
                        *entry = put(of.decode(number as u32));
                    }
                }
                _ => return None,
            }
        }
        Some(words)
    }

    fn row(&self, from: &[u8], into: &mut [u8]) {
        match self.bytes {
            (2, 2) => self.words::<2, 2>(from, into),
            (2, 4) => self.words::<2, 4>(from, into),
            (4, 2) => self.words::<4, 2>(from, into),
            (4, 4) => self.words::<4, 4>(from, into),
            (3, 4) => self.words::<3, 4>(from, into),
            (4, 3) => self.words::<4, 3>(from, into),
            (from_bytes, to_bytes) => {
                let pixels = from.chunks_exact(from_bytes as usize);
                for (pixel, into) in pixels.zip(into.chunks_exact_mut(to_bytes as usize)) {
                    let mut wide = [0; 8];
                    wide[..pixel.len()].copy_from_slice(pixel);
                    let new = self.word(u64::from_le_bytes(wide)).to_le_bytes();
                    into.copy_from_slice(&new[..into.len()]);
                }
            }
        }
    }

    fn words<const FROM: usize, const TO: usize>(&self, from: &[u8], into: &mut [u8]) {
        let pixels = from.as_chunks::<FROM>().0;
        for (pixel, into) in pixels.iter().zip(into.as_chunks_mut::<TO>().0) {
            let mut wide = [0; 8];
            wide[..FROM].copy_from_slice(pixel);
            let new = self.word(u64::from_le_bytes(wide)).to_le_bytes();
            into.copy_from_slice(&new[..TO]);
        }
    }

    fn word(&self, old: u64) -> u32 {
        let mut new = self.set;
        for (&(bit, max), table) in self.components.iter().zip(&self.tables) {
            new |= table[(old >> bit) as usize & max & (NUMBERS - 1)];
        }
        new
    }
}

/// Bits after the binary point in the tables.
const POINT: u32 = 20;

fn fixed(value: f32) -> i32 {
    (f64::from(value) * f64::from(1 << POINT)).round() as i32
}

/// Where the bytes of Cb and of Cr are: the plane, the first byte, and the distance from one to the next.
type Differences = [(usize, usize, usize); 2];

/// Where the colour differences are, if all components have eight bits and the first plane has only luma.
fn planes_of_bytes(codec: &Codec) -> Option<Differences> {
    let luma = codec.component(0)?;
    let is_luma = codec.planes().len() > 1
        && codec.planes()[0].block_bytes == 1
        && codec.planes()[0].block_width == 1;
    if !is_luma || luma.place.plane != 0 || luma.place.bits != 8 || codec.has_alpha() {
        return None;
    }
    let difference = |index| {
        let Component { place, .. } = codec.component(index)?;
        let plane = codec.planes()[place.plane];
        let is_of_bytes = place.bits == 8 && plane.block_width == 1 && place.bit % 8 == 0;
        let step = plane.block_bytes as usize;
        is_of_bytes.then_some((place.plane, place.bit as usize / 8, step))
    };
    Some([difference(1)?, difference(2)?])
}

/// The order of four components of eight bits in a word, from the highest bit. With constant shifts, rows
/// take half the time.
#[derive(Clone, Copy, Debug)]
enum Order {
    Rgb,
    Bgr,
    RgbX,
    BgrX,
}

fn order(codec: &Codec) -> Option<Order> {
    word_bytes(codec).filter(|&bytes| bytes == 4)?;
    let bit = |index| {
        let component = codec.component(index)?;
        (component.place.bits == 8).then_some(component.place.bit)
    };
    match [bit(0)?, bit(1)?, bit(2)?] {
        [16, 8, 0] => Some(Order::Rgb),
        [0, 8, 16] => Some(Order::Bgr),
        [24, 16, 8] => Some(Order::RgbX),
        [8, 16, 24] => Some(Order::BgrX),
        _ => None,
    }
}

/// Converts planes of eight bits to words of RGB of eight bits.
#[derive(Debug)]
pub(in crate::blit) struct ToWords {
    across: usize,
    differences: Differences,
    order: Order,
    set: u32,
    /// The factor of luma's number, and the constant that is added.
    luma: [f32; 2],
    /// For each colour, the factors of the numbers of Cb and Cr, and the constant that is added.
    red: [f32; 3],
    green: [f32; 3],
    blue: [f32; 3],
}

/// How many pixels are converted at a time: several SIMD vectors, and a multiple of the pixels that share
/// colours in any subsampled format.
const CHUNK: usize = 32;

impl ToWords {
    fn new(from: &Codec, to: &Codec, factors: [f32; 4]) -> Option<Self> {
        let differences = planes_of_bytes(from)?;
        let order = order(to)?;
        let linear = |index| match from.component(index)?.numbers {
            Numbers::Linear { zero, unit } => Some((zero, 255.0 / unit)),
            Numbers::Half => None,
        };
        let (zero, unit) = linear(0)?;
        let ((cb_zero, cb_unit), (cr_zero, cr_unit)) = (linear(1)?, linear(2)?);
        let colour = |cb: f32, cr: f32| {
            let (cb, cr) = (cb * cb_unit, cr * cr_unit);
            [cb, cr, -cb * cb_zero - cr * cr_zero]
        };
        let alpha = to.component(3)?;
        let across = from.shared().0 as usize;
        CHUNK.is_multiple_of(across).then_some(Self {
            across,
            differences,
            order,
            set: alpha.max() << alpha.place.bit,
            luma: [unit, -zero * unit],
            red: colour(0.0, factors[0]),
            green: colour(factors[1], factors[2]),
            blue: colour(factors[3], 0.0),
        })
    }

    fn row(&self, rows: &[Vec<u8>], into: &mut [u8]) {
        match self.order {
            Order::Rgb => self.row_of::<16, 8, 0>(rows, into),
            Order::Bgr => self.row_of::<0, 8, 16>(rows, into),
            Order::RgbX => self.row_of::<24, 16, 8>(rows, into),
            Order::BgrX => self.row_of::<8, 16, 24>(rows, into),
        }
    }

    fn row_of<const RED: u32, const GREEN: u32, const BLUE: u32>(
        &self,
        rows: &[Vec<u8>],
        into: &mut [u8],
    ) {
        let [cb, cr] = self.differences.map(|(plane, first, step)| {
            let bytes = rows[plane].get(first..).unwrap_or_default();
            bytes.chunks(CHUNK / self.across * step)
        });
        let step = self.differences[0].2;
        let words = into.as_chunks_mut::<4>().0.chunks_mut(CHUNK);
        for (((luma, cb), cr), into) in rows[0].chunks(CHUNK).zip(cb).zip(cr).zip(words) {
            // The compiler uses SIMD for arrays of a known length.
            let mut numbers = [[0.0; CHUNK]; 3];
            for (number, &luma) in numbers[0].iter_mut().zip(luma) {
                *number = f32::from(luma);
            }
            let differences = cb.iter().step_by(step).zip(cr.iter().step_by(step));
            let groups = (0..CHUNK).step_by(self.across);
            for (at, (&cb, &cr)) in groups.zip(differences) {
                let end = at + self.across;
                numbers[1][at..end].fill(f32::from(cb));
                numbers[2][at..end].fill(f32::from(cr));
            }
            let words = self.words::<RED, GREEN, BLUE>(&numbers);
            for (into, word) in into.iter_mut().zip(words) {
                *into = word.to_le_bytes();
            }
        }
    }

    #[inline(always)]
    fn words<const RED: u32, const GREEN: u32, const BLUE: u32>(
        &self,
        [luma, cb, cr]: &[[f32; CHUNK]; 3],
    ) -> [u32; CHUNK] {
        // From 2^23 on, the last bit of an f32 stands for 1. So this addition rounds to an integer, and
        // leaves it in the lowest bits.
        const ROUND: f32 = (1 << 23) as f32;
        let [unit, zero] = self.luma;
        std::array::from_fn(|at| {
            let y = luma[at] * unit + zero;
            let number = |[of_cb, of_cr, add]: [f32; 3]| {
                let value = y + of_cb * cb[at] + of_cr * cr[at] + add;
                (value.clamp(0.0, 255.0) + ROUND).to_bits() & 0xff
            };
            self.set
                | number(self.red) << RED
                | number(self.green) << GREEN
                | number(self.blue) << BLUE
        })
    }
}

/// Converts words of RGB of eight bits to planes of eight bits.
#[derive(Debug)]
pub(in crate::blit) struct FromWords {
    across: usize,
    down: usize,
    differences: Differences,
    order: Order,
    /// The factors of red, green and blue, and the constant that is added.
    luma: [i32; 4],
    /// The same for the sum of the pixels that share a colour difference.
    cb: [i32; 4],
    cr: [i32; 4],
    /// Bits after the binary point in `cb` and `cr`.
    point: u32,
}

impl FromWords {
    fn new(from: &Codec, to: &Codec, weights: [f32; 3], spans: [f32; 2]) -> Option<Self> {
        let differences = planes_of_bytes(to)?;
        let order = order(from)?;
        let (across, down) = to.shared();
        // The sums of more pixels would overflow.
        if across > 2 || down > 2 {
            return None;
        }
        let pixels = across * down;
        let point = POINT + pixels.trailing_zeros();
        let scaled = |index, values: [f32; 3], point: u32| {
            let Numbers::Linear { zero, unit } = to.component(index)?.numbers else {
                return None;
            };
            let [red, green, blue] = values.map(|value| fixed(value * unit / 255.0));
            let zero = (f64::from(zero) * f64::from(1 << point)) as i32;
            Some([red, green, blue, zero + (1 << (point - 1))])
        };
        let [red, green, blue] = weights;
        let of_cb = [-red, -green, 1.0 - blue].map(|value| value / spans[0]);
        let of_cr = [1.0 - red, -green, -blue].map(|value| value / spans[1]);
        Some(Self {
            across: across as usize,
            down: down as usize,
            differences,
            order,
            luma: scaled(0, weights, POINT)?,
            cb: scaled(1, of_cb, point)?,
            cr: scaled(2, of_cr, point)?,
            point,
        })
    }

    fn components(&self, pixel: [u8; 4]) -> [i32; 3] {
        let [a, b, c, d] = pixel.map(i32::from);
        match self.order {
            Order::Rgb => [c, b, a],
            Order::Bgr => [a, b, c],
            Order::RgbX => [d, c, b],
            Order::BgrX => [b, c, d],
        }
    }

    fn luma(&self, from: &[u8], into: &mut [u8]) {
        let [red, green, blue, add] = self.luma;
        for (&pixel, into) in from.as_chunks::<4>().0.iter().zip(into) {
            let [r, g, b] = self.components(pixel);
            *into = number(r * red + g * green + b * blue + add, POINT);
        }
    }

    fn chroma(&self, plane: usize, rows: &[PlaneRows], into: &mut [u8]) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return;
        };
        // At the picture's edge a group may have fewer pixels. Its last one counts for those that are
        // missing.
        let [upper, lower] = match self.down {
            1 => [&first[0][..], &[]],
            _ => [&first[0][..], &last[0][..]],
        };
        let mut lower = lower.as_chunks::<4>().0.chunks(self.across);
        for (group, upper) in upper.as_chunks::<4>().0.chunks(self.across).enumerate() {
            let mut sum = [0; 3];
            for row in [upper, lower.next().unwrap_or_default()] {
                let mut last = [0; 3];
                for &pixel in row {
                    last = self.components(pixel);
                    sum.iter_mut().zip(last).for_each(|(sum, of)| *sum += of);
                }
                let missing = if row.is_empty() {
                    0
                } else {
                    self.across - row.len()
                };
                sum.iter_mut()
                    .zip(last)
                    .for_each(|(sum, of)| *sum += of * missing as i32);
            }
            for (factors, (of_plane, first, step)) in
                [self.cb, self.cr].iter().zip(self.differences)
            {
                if let (true, Some(byte)) = (of_plane == plane, into.get_mut(group * step + first))
                {
                    let [red, green, blue, add] = *factors;
                    let value = sum[0] * red + sum[1] * green + sum[2] * blue + add;
                    *byte = number(value, self.point);
                }
            }
        }
    }
}

fn number(value: i32, point: u32) -> u8 {
    (value >> point).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blit::ycbcr::{Matrix, Range, YcbcrEncoding};
    use crate::buffer::Fourcc;

    const ENCODINGS: [YcbcrEncoding; 3] = [
        YcbcrEncoding {
            matrix: Matrix::Bt709,
            range: Range::Narrow,
        },
        YcbcrEncoding {
            matrix: Matrix::Bt601,
            range: Range::Full,
        },
        YcbcrEncoding {
            matrix: Matrix::Bt2020,
            range: Range::Narrow,
        },
    ];

    /// The largest difference between the numbers that the fast and the exact conversion give.
    fn difference(from: Fourcc, to: Fourcc, encoding: YcbcrEncoding, size: (u32, u32)) -> u32 {
        let codec = |fourcc| Codec::new(fourcc, encoding).unwrap();
        let (from, to) = (codec(from), codec(to));
        let model = Model::between(&from, &to, encoding);
        let fast = Fast::new(&from, &to, model).unwrap();
        let mut state = 5_u32;
        let mut random = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let (width, height) = size;
        let mut row = || -> PlaneRows {
            let planes = from.planes().iter();
            let bytes = planes.map(|plane| plane.row_bytes(width).unwrap());
            bytes
                .map(|bytes| (0..bytes).map(&mut random).collect())
                .collect()
        };
        let rows: Vec<PlaneRows> = (0..height).map(|_| row()).collect();
        let pixels: Vec<Vec<_>> = rows
            .iter()
            .map(|row| {
                let mut pixels = vec![[0.0; 4]; width as usize];
                from.decode(row, 0, &mut pixels);
                model.apply(&mut pixels);
                pixels
            })
            .collect();
        let mut worst = 0;
        for (plane, info) in to.planes().iter().enumerate() {
            let vertical = info.vertical as usize;
            for (rows, pixels) in rows.chunks(vertical).zip(pixels.chunks(vertical)) {
                let length = info.row_bytes(width).unwrap() as usize;
                let (mut quick, mut exact) = (vec![0x77; length], vec![0x88; length]);
                fast.encode(plane, rows, &mut quick);
                let pixels: Vec<&[_]> = pixels.iter().map(|row| &row[..]).collect();
                to.encode(plane, &pixels, 0, &mut exact);
                let word = |bytes: &[u8]| {
                    let mut wide = [0; 8];
                    wide[..bytes.len()].copy_from_slice(bytes);
                    u64::from_le_bytes(wide)
                };
                let block = info.block_bytes as usize;
                for (quick, exact) in quick.chunks(block).zip(exact.chunks(block)) {
                    for component in (0..4).filter_map(|index| to.component(index)) {
                        let place = component.place;
                        let number = |bytes| (word(bytes) >> place.bit) as u32 & component.max();
                        if place.plane == plane {
                            worst = worst.max(number(quick).abs_diff(number(exact)));
                        }
                    }
                }
            }
        }
        worst
    }

    #[test]
    fn words_become_what_the_exact_way_makes_of_them() {
        for (from, to) in [
            (Fourcc::XRGB2101010, Fourcc::XRGB8888),
            (Fourcc::ABGR2101010, Fourcc::ARGB8888),
            (Fourcc::ARGB8888, Fourcc::XBGR2101010),
            (Fourcc::XRGB8888, Fourcc::RGB565),
            (Fourcc::RGB565, Fourcc::ARGB8888),
            (Fourcc::BGR888, Fourcc::RGBX8888),
            (Fourcc::ARGB8888, Fourcc::RGB888),
            (Fourcc::ARGB4444, Fourcc::RGBA5551),
            (Fourcc::AXBXGXRX106106106106, Fourcc::ARGB2101010),
            (Fourcc::AYUV, Fourcc::Y410),
        ] {
            let worst = difference(from, to, YcbcrEncoding::default(), (333, 2));
            assert_eq!(worst, 0, "{from} to {to}");
        }
    }

    #[test]
    fn video_becomes_what_the_exact_way_makes_of_it() {
        for encoding in ENCODINGS {
            for size in [(16, 2), (33, 3), (1, 1), (500, 1)] {
                for (from, to) in [
                    (Fourcc::NV12, Fourcc::XRGB8888),
                    (Fourcc::NV21, Fourcc::ABGR8888),
                    (Fourcc::YUV420, Fourcc::RGBX8888),
                    (Fourcc::YVU422, Fourcc::XRGB8888),
                    (Fourcc::NV24, Fourcc::BGRA8888),
                    (Fourcc::XRGB8888, Fourcc::NV12),
                    (Fourcc::ABGR8888, Fourcc::NV21),
                    (Fourcc::RGBX8888, Fourcc::YUV420),
                    (Fourcc::XRGB8888, Fourcc::YVU420),
                    (Fourcc::XRGB8888, Fourcc::NV16),
                    (Fourcc::XRGB8888, Fourcc::YUV444),
                ] {
                    let worst = difference(from, to, encoding, size);
                    assert!(worst <= 1, "{from} to {to}, {encoding:?}: {worst}");
                }
            }
        }
    }

    #[test]
    fn what_has_more_bits_or_other_planes_goes_the_exact_way() {
        for (from, to) in [
            (Fourcc::P010, Fourcc::XRGB8888),
            (Fourcc::XRGB16161616, Fourcc::XRGB8888),
            (Fourcc::XBGR16161616F, Fourcc::XRGB8888),
            (Fourcc::YUYV, Fourcc::XRGB8888),
            (Fourcc::NV12, Fourcc::XRGB2101010),
            (Fourcc::NV12, Fourcc::NV21),
            (Fourcc::XRGB8888, Fourcc::YUV410),
            (Fourcc::XRGB8888, Fourcc::YUV411),
        ] {
            let encoding = YcbcrEncoding::default();
            let codec = |fourcc| Codec::new(fourcc, encoding).unwrap();
            let (from_codec, to_codec) = (codec(from), codec(to));
            let model = Model::between(&from_codec, &to_codec, encoding);
            assert!(
                Fast::new(&from_codec, &to_codec, model).is_none(),
                "{from} to {to}"
            );
        }
    }
}
