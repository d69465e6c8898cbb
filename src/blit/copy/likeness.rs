//! Whether two pictures are the same but for rounding. Pure.

use crate::blit::copy::convert::{Codec, Component, Numbers, Pixel};
use crate::blit::copy::regions::Picture;
use crate::blit::ycbcr::YcbcrEncoding;

/// How much two pictures may differ: by this many numbers of a component, or by this part of its range. That
/// is what GPUs round. A picture that did not arrive differs by more.
const NUMBERS: f32 = 1.5;
const PART: f32 = 1.0 / 64.0;

/// Where two pictures differ first: the plane, the row in it, and the byte of the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) struct Difference {
    pub(in crate::blit) plane: usize,
    pub(in crate::blit) row: u32,
    pub(in crate::blit) byte: usize,
}

/// The first difference between two pictures of one layout, whose bytes are given.
pub(in crate::blit) fn first_difference(
    picture: Picture<'_>,
    [made, wanted]: [&[u8]; 2],
    encoding: YcbcrEncoding,
) -> Option<Difference> {
    let codec = Codec::new(picture.layout.fourcc, encoding)?;
    let (width, height) = (picture.layout.width, picture.layout.height);
    let mut pixels = [made, wanted].map(|_| vec![Pixel::default(); width as usize]);
    for y in 0..height {
        for (pixels, bytes) in pixels.iter_mut().zip([made, wanted]) {
            codec.decode(&rows(&codec, picture, bytes, y)?, 0, pixels);
        }
        let [made, wanted] = &pixels;
        for (x, (made, wanted)) in made.iter().zip(wanted).enumerate() {
            for index in 0..4 {
                let Some(component) = codec.component(index) else {
                    continue;
                };
                if !is_near(&component, made[index], wanted[index]) {
                    let plane = component.place.plane;
                    let info = codec.planes().get(plane)?;
                    let block = x as u32 / info.horizontal / info.block_width;
                    return Some(Difference {
                        plane,
                        row: y / info.vertical,
                        byte: (block * info.block_bytes) as usize,
                    });
                }
            }
        }
    }
    None
}

/// The bytes of the row of each plane in which a row of the picture is.
fn rows(codec: &Codec, picture: Picture<'_>, bytes: &[u8], y: u32) -> Option<Vec<Vec<u8>>> {
    let row = |(info, plane): (&crate::buffer::PlaneInfo, &crate::buffer::Plane)| {
        let start = plane.offset as usize + (y / info.vertical) as usize * plane.stride as usize;
        let length = info.row_bytes(picture.layout.width)? as usize;
        bytes.get(start..)?.get(..length).map(<[u8]>::to_vec)
    };
    codec.planes().iter().zip(picture.planes).map(row).collect()
}

fn is_near(component: &Component, made: f32, wanted: f32) -> bool {
    let most = match component.numbers {
        Numbers::Linear { unit, .. } => (NUMBERS / unit).max(PART),
        Numbers::Half => PART * wanted.abs().max(1.0),
    };
    (made - wanted).abs() <= most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blit::copy::host::arrange;
    use crate::buffer::{BufferDesc, Fourcc};

    /// The difference between two pictures of which one has `add` added to this byte.
    fn difference(fourcc: Fourcc, byte: usize, add: u8) -> Option<Difference> {
        let layout = BufferDesc::linear(20, 10, fourcc);
        let (planes, size) = arrange(&layout).unwrap();
        let picture = Picture {
            layout: &layout,
            planes: &planes,
        };
        let wanted = vec![0x30; size as usize];
        let mut made = wanted.clone();
        made[byte] += add;
        first_difference(picture, [&made, &wanted], YcbcrEncoding::default())
    }

    #[test]
    fn rounding_is_no_difference_and_other_colours_are_one() {
        let second_row = 128;
        for fourcc in [Fourcc::XRGB8888, Fourcc::ARGB8888] {
            assert_eq!(difference(fourcc, second_row + 9, 3), None);
            let found = Difference {
                plane: 0,
                row: 1,
                byte: 8,
            };
            assert_eq!(difference(fourcc, second_row + 9, 9), Some(found));
        }
        // What means nothing is not looked at.
        assert_eq!(difference(Fourcc::XRGB8888, 3, 200), None);
        assert!(difference(Fourcc::ARGB8888, 3, 200).is_some());
    }

    #[test]
    fn planes_have_rows_of_their_own() {
        let chroma = 32 * 10;
        let found = difference(Fourcc::NV12, chroma + 32 + 7, 50);
        let wanted = Difference {
            plane: 1,
            row: 1,
            byte: 6,
        };
        assert_eq!(found, Some(wanted));
    }
}
