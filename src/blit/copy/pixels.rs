//! Formats whose pixels differ only in the order of their components or in their alpha. Pure.

use crate::blit::Scaling;
use crate::blit::copy::convert;
use crate::buffer::{Colour, FormatInfo, Fourcc};

/// How pixels of one format become those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) enum Relation {
    /// The same bytes.
    Same,
    /// The same components, in another order or with alpha that has to be set to one.
    Rearranged(Rearrangement),
    /// Other numbers for the same colours: each pixel is decoded and encoded.
    Converted,
    /// The pixels of at least one of the formats are not known.
    Different,
}

/// Where the components of a pixel go, in words of the size of a pixel. DRM's formats are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) struct Rearrangement {
    bytes: usize,
    /// For each component: from which bit, to which bit, and how many bits.
    moves: [(u32, u32, u32); 4],
    /// The bits of an alpha that the source does not have.
    set: u64,
    /// Whether the components change places.
    pub(in crate::blit) reorders: bool,
    /// Whether alpha is set.
    pub(in crate::blit) sets_alpha: bool,
}

/// The components of a pixel in one word: lowest bit and number of bits of R, G, B and A or X.
#[derive(Clone, Copy)]
struct Word {
    bytes: usize,
    components: [(u32, u32); 4],
}

/// How pixels of one format become those of the other.
pub(in crate::blit) fn relation(from: Fourcc, to: Fourcc) -> Relation {
    if from == to {
        return Relation::Same;
    }
    let (Some(source), Some(destination)) = (FormatInfo::of(from), FormatInfo::of(to)) else {
        return Relation::Different;
    };
    let otherwise = match convert::is_known(from) && convert::is_known(to) {
        true => Relation::Converted,
        false => Relation::Different,
    };
    let (Some(a), Some(b)) = (word(from), word(to)) else {
        return otherwise;
    };
    let widths = |word: &Word| word.components.map(|(_, bits)| bits);
    if a.bytes != b.bytes || widths(&a) != widths(&b) || source.colour != destination.colour {
        return otherwise;
    }
    let reorders = a.components != b.components;
    let sets_alpha = destination.alpha && !source.alpha;
    if !reorders && !sets_alpha {
        return Relation::Same;
    }
    let mut moves = [(0, 0, 0); 4];
    for (index, (&(first, bits), &(second, _))) in
        a.components.iter().zip(&b.components).enumerate()
    {
        let is_alpha = index == 3;
        moves[index] = match is_alpha && sets_alpha {
            true => (first, second, 0),
            false => (first, second, bits),
        };
    }
    let (lowest, bits) = b.components[3];
    // One is all bits set, or 1.0 as a half float.
    let one = match source.colour {
        Colour::RgbFloat => 0x3c00,
        _ => mask(bits),
    };
    Relation::Rearranged(Rearrangement {
        bytes: a.bytes,
        moves,
        set: if sets_alpha { one << lowest } else { 0 },
        reorders,
        sets_alpha,
    })
}

/// Whether vkCmdBlitImage may make such a copy, if formats and queue allow it: RGB in one plane, of which
/// rows stay rows, and without alpha that has to be set.
///
/// If the pixels are known, only unscaled pictures are blitted. How a blit scales is up to the driver: it
/// may filter imprecisely, and at the edges of the part that is shown it may mix in pixels outside of it.
pub(in crate::blit) fn suits_blit(from: Fourcc, to: Fourcc, scaling: Option<&Scaling>) -> bool {
    let is_known = convert::is_known(from) && convert::is_known(to);
    let (Some(from), Some(to)) = (FormatInfo::of(from), FormatInfo::of(to)) else {
        return false;
    };
    let is_rgb = |info: &FormatInfo| {
        matches!(info.colour, Colour::Rgb | Colour::RgbFloat) && info.planes.len() == 1
    };
    let turns = scaling.is_some_and(|scaling| scaling.transform.swaps_axes());
    let scales = scaling.is_some_and(Scaling::scales);
    let suits = !turns && is_rgb(from) && is_rgb(to) && (from.alpha || !to.alpha);
    suits && !(scales && is_known)
}

impl Rearrangement {
    /// Rearranges whole pixels in place.
    pub(in crate::blit) fn apply(&self, pixels: &mut [u8]) {
        match self.bytes {
            2 => self.words::<2>(pixels),
            4 => self.words::<4>(pixels),
            _ => self.words::<8>(pixels),
        }
    }

    fn words<const N: usize>(&self, pixels: &mut [u8]) {
        for pixel in pixels.as_chunks_mut::<N>().0 {
            let mut wide = [0; 8];
            wide[..N].copy_from_slice(pixel);
            let old = u64::from_le_bytes(wide);
            let new = self.moves.iter().fold(self.set, |new, &(from, to, bits)| {
                new | ((old >> from) & mask(bits)) << to
            });
            pixel.copy_from_slice(&new.to_le_bytes()[..N]);
        }
    }
}

/// The unused bits of a format's pixels.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Unused {
    bytes: usize,
    bits: u64,
}

/// The unused bits of this format.
pub(in crate::blit) fn unused(fourcc: Fourcc) -> Unused {
    let alpha = FormatInfo::of(fourcc).is_none_or(|info| info.alpha);
    let none = Unused { bytes: 1, bits: 0 };
    word(fourcc).filter(|_| !alpha).map_or(none, |word| {
        let (lowest, bits) = word.components[3];
        Unused {
            bytes: word.bytes,
            bits: mask(bits) << lowest,
        }
    })
}

impl Unused {
    /// Sets the unused bits of whole pixels to zero.
    pub(in crate::blit) fn clear(&self, pixels: &mut [u8]) {
        let bits = self.bits.to_le_bytes();
        if self.bits != 0 {
            for pixel in pixels.chunks_exact_mut(self.bytes) {
                pixel
                    .iter_mut()
                    .zip(bits)
                    .for_each(|(byte, bits)| *byte &= !bits);
            }
        }
    }
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The components of a format that has four of them in one word.
fn word(fourcc: Fourcc) -> Option<Word> {
    // From the most significant bit, as the formats' names have them.
    let place = |bytes: usize, order: &[u8; 4], bits: [u32; 4]| {
        let mut components = [(0, 0); 4];
        let mut end = bytes as u32 * 8;
        for (name, bits) in order.iter().zip(bits) {
            end -= bits;
            let index = match name {
                b'R' => 0,
                b'G' => 1,
                b'B' => 2,
                _ => 3,
            };
            components[index] = (end, bits);
        }
        Some(Word { bytes, components })
    };
    const EIGHTS: [u32; 4] = [8; 4];
    const TENS: [u32; 4] = [2, 10, 10, 10];
    const SIXTEENS: [u32; 4] = [16; 4];
    match fourcc {
        Fourcc::XRGB8888 | Fourcc::ARGB8888 => place(4, b"XRGB", EIGHTS),
        Fourcc::XBGR8888 | Fourcc::ABGR8888 => place(4, b"XBGR", EIGHTS),
        Fourcc::RGBX8888 | Fourcc::RGBA8888 => place(4, b"RGBX", EIGHTS),
        Fourcc::BGRX8888 | Fourcc::BGRA8888 => place(4, b"BGRX", EIGHTS),
        Fourcc::XRGB2101010 | Fourcc::ARGB2101010 => place(4, b"XRGB", TENS),
        Fourcc::XBGR2101010 | Fourcc::ABGR2101010 => place(4, b"XBGR", TENS),
        Fourcc::RGBX1010102 | Fourcc::RGBA1010102 => place(4, b"RGBX", [10, 10, 10, 2]),
        Fourcc::BGRX1010102 | Fourcc::BGRA1010102 => place(4, b"BGRX", [10, 10, 10, 2]),
        Fourcc::XRGB16161616 | Fourcc::ARGB16161616 => place(8, b"XRGB", SIXTEENS),
        Fourcc::XBGR16161616 | Fourcc::ABGR16161616 => place(8, b"XBGR", SIXTEENS),
        Fourcc::XRGB16161616F | Fourcc::ARGB16161616F => place(8, b"XRGB", SIXTEENS),
        Fourcc::XBGR16161616F | Fourcc::ABGR16161616F => place(8, b"XBGR", SIXTEENS),
        Fourcc::XRGB4444 | Fourcc::ARGB4444 => place(2, b"XRGB", [4; 4]),
        Fourcc::XBGR4444 | Fourcc::ABGR4444 => place(2, b"XBGR", [4; 4]),
        Fourcc::XRGB1555 | Fourcc::ARGB1555 => place(2, b"XRGB", [1, 5, 5, 5]),
        Fourcc::XBGR1555 | Fourcc::ABGR1555 => place(2, b"XBGR", [1, 5, 5, 5]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted<const N: usize>(from: Fourcc, to: Fourcc, mut pixel: [u8; N]) -> [u8; N] {
        match relation(from, to) {
            Relation::Rearranged(rearrangement) => rearrangement.apply(&mut pixel),
            Relation::Same => {}
            Relation::Converted | Relation::Different => panic!("{from} to {to}"),
        }
        pixel
    }

    #[test]
    fn dropping_alpha_is_a_plain_copy_and_inventing_it_is_not() {
        use Relation::Same;
        assert_eq!(relation(Fourcc::ARGB8888, Fourcc::XRGB8888), Same);
        assert_eq!(relation(Fourcc::NV12, Fourcc::NV12), Same);
        let opaque = converted(Fourcc::XRGB8888, Fourcc::ARGB8888, [1, 2, 3, 77]);
        assert_eq!(opaque, [1, 2, 3, 255]);
    }

    #[test]
    fn components_change_places() {
        let swapped = converted(Fourcc::ARGB8888, Fourcc::ABGR8888, [1, 2, 3, 4]);
        assert_eq!(swapped, [3, 2, 1, 4]);
        let turned = converted(Fourcc::ARGB8888, Fourcc::RGBA8888, [1, 2, 3, 4]);
        assert_eq!(turned, [4, 1, 2, 3]);
        // A, R, G, B from the top: 2, 10, 10, 10 bits.
        let word = |a: u32, b: u32, c: u32, d: u32| (a << 30 | b << 20 | c << 10 | d).to_le_bytes();
        let ten = converted(
            Fourcc::ARGB2101010,
            Fourcc::ABGR2101010,
            word(2, 1023, 5, 9),
        );
        assert_eq!(ten, word(2, 9, 5, 1023));
    }

    #[test]
    fn unused_bits_do_not_make_pictures_differ() {
        let mut pixels = [1, 2, 3, 4, 5, 6, 7, 8];
        unused(Fourcc::ARGB8888).clear(&mut pixels);
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6, 7, 8]);
        unused(Fourcc::XRGB8888).clear(&mut pixels);
        assert_eq!(pixels, [1, 2, 3, 0, 5, 6, 7, 0]);
    }

    #[test]
    fn alpha_of_half_floats_is_one_point_zero() {
        let pixel = converted(Fourcc::XBGR16161616F, Fourcc::ABGR16161616F, [9; 8]);
        assert_eq!(pixel, [9, 9, 9, 9, 9, 9, 0x00, 0x3c]);
    }

    #[test]
    fn other_depths_and_kinds_are_converted_where_they_are_known() {
        for (from, to) in [
            (Fourcc::XRGB8888, Fourcc::XRGB2101010),
            (Fourcc::XRGB8888, Fourcc::RGB565),
            (Fourcc::NV12, Fourcc::NV21),
            (Fourcc::XBGR16161616, Fourcc::XBGR16161616F),
        ] {
            assert_eq!(relation(from, to), Relation::Converted, "{from} to {to}");
        }
        for (from, to) in [
            (Fourcc(1), Fourcc(2)),
            (Fourcc::XRGB8888, Fourcc::C8),
            (Fourcc::R8, Fourcc::XRGB8888),
            (Fourcc::P030, Fourcc::NV12),
            (Fourcc::XRGB8888, Fourcc::RGB888_A8),
        ] {
            assert_eq!(relation(from, to), Relation::Different, "{from} to {to}");
        }
    }

    #[test]
    fn blits_are_for_pixels_one_by_one() {
        use crate::blit::Transform;
        let (xrgb, argb) = (Fourcc::XRGB8888, Fourcc::ARGB8888);
        let whole = Scaling::whole((8, 8), (8, 8));
        let larger = Scaling::whole((8, 8), (9, 9));
        let turned = |transform| Scaling { transform, ..whole };
        assert!(suits_blit(xrgb, Fourcc::XBGR2101010, None));
        assert!(suits_blit(argb, argb, Some(&turned(Transform::Rotate180))));
        assert!(!suits_blit(argb, argb, Some(&turned(Transform::Rotate90))));
        assert!(!suits_blit(xrgb, argb, None));
        assert!(!suits_blit(Fourcc::NV12, xrgb, None));
        assert!(!suits_blit(xrgb, xrgb, Some(&larger)));
        // The shader does not know these.
        assert!(suits_blit(Fourcc::R8, Fourcc::R8, Some(&larger)));
    }

    #[test]
    fn there_and_back_again_is_the_same_picture() {
        let pixels: Vec<u8> = (0..64).map(|byte| byte * 3).collect();
        for (from, to) in [
            (Fourcc::ARGB8888, Fourcc::BGRA8888),
            (Fourcc::RGBA1010102, Fourcc::ABGR2101010),
            (Fourcc::ARGB4444, Fourcc::ABGR4444),
            (Fourcc::ARGB16161616, Fourcc::ABGR16161616),
        ] {
            let mut changed = pixels.clone();
            for (from, to) in [(from, to), (to, from)] {
                if let Relation::Rearranged(rearrangement) = relation(from, to) {
                    rearrangement.apply(&mut changed);
                }
            }
            assert_eq!(changed, pixels, "{from} to {to}");
        }
    }
}
