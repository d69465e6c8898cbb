//! The shader's parameters: where the components of both pictures are, and how they are converted. Pure.

use crate::blit::copy::convert::{ALPHA, Codec, Component, Model, Numbers};
use crate::blit::copy::record::Work;
use crate::blit::copy::regions::{Picture, bytes_of, in_plane};
use crate::blit::copy::resample::cut;
use crate::blit::damage::{MAX_RECTS, Rect, Rects};
use crate::blit::scale::{Axis, Scaling};
use crate::buffer::PlaneInfo;
use crate::vk::Error;

/// Invocations of a workgroup across and down: `local_size` in the shader.
pub(super) const GROUP: (u32, u32) = (8, 8);
/// The most planes of a format that has a codec.
const PLANES: usize = 3;
/// The most jobs, of which each is a rectangle in a plane of the destination: `MAX_JOBS` in the shader.
const MAX_JOBS: usize = MAX_RECTS * PLANES;
/// Bytes of the parameters: eight components, six planes, two axes, four vectors and the jobs.
pub(super) const BYTES: u64 = (8 * 48 + 6 * 32 + 2 * 16 + 4 * 16 + MAX_JOBS * 32) as u64;
/// The most that a length of the source's box times one of the destination's may be: the shader computes
/// twice this product in 31 bits.
const MAX_PRODUCT: u64 = (1 << 30) - 1;

const MIRRORED: u32 = 1;
const LINEAR: u32 = 2;

/// The parameters, and the number of workgroups.
#[derive(Debug)]
pub(in crate::blit::copy) struct Parameters {
    bytes: Vec<u8>,
    groups: [u32; 3],
    rects: Rects,
}

impl Parameters {
    /// The parameters for two pictures in the storage buffers. The scaling in `work` must have been checked
    /// against both.
    pub(super) fn new([from, to]: [Picture<'_>; 2], work: Work<'_>) -> Result<Self, Error> {
        let Work {
            rects,
            scaling,
            encoding,
        } = work;
        let codec = |picture: Picture<'_>| {
            let fourcc = picture.layout.fourcc;
            Codec::new(fourcc, encoding).ok_or(Error::Format(fourcc))
        };
        let size = |picture: Picture<'_>| (picture.layout.width, picture.layout.height);
        let codecs = (codec(from)?, codec(to)?);
        let scaling = match scaling {
            Some(scaling) => *scaling,
            None => Scaling::whole(size(from), size(to)),
        };
        let model = Model::between(&codecs.0, &codecs.1, encoding);
        let rects = rects.iter();
        let rects = rects.map(|rect| cut(rect, &scaling.destination, codecs.1.grid()));
        let rects: Rects = rects.filter(|rect| rect.area() > 0).collect();
        let mut words = Words::default();
        // Unused bits in the place of alpha are not read, but are written.
        let read = |index: usize| {
            let component = codecs.0.component(index);
            component.filter(|_| index != ALPHA || codecs.0.has_alpha())
        };
        words.components(&codecs.0, from, read)?;
        words.components(&codecs.1, to, |index| codecs.1.component(index))?;
        words.planes(&codecs.0, from, |_| 0)?;
        words.planes(&codecs.1, to, |plane| needed(&codecs.1, plane, model))?;
        for axis in scaling.axes() {
            words.axis(&axis)?;
        }
        let Rect {
            x,
            y,
            width,
            height,
        } = scaling.destination;
        words.put([x, y, x + width, y + height]);
        words.model(model, &scaling, &codecs.1);
        let groups = words.jobs(to, &rects)?;
        Ok(Self {
            bytes: words.0,
            groups,
            rects,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many workgroups there are in each direction.
    pub(super) fn groups(&self) -> [u32; 3] {
        self.groups
    }

    /// The rectangles of the destination that are made.
    pub(in crate::blit::copy) fn rects(&self) -> &Rects {
        &self.rects
    }
}

/// Which components of the source a plane of the destination is made of, as a bit for each.
fn needed(to: &Codec, plane: usize, model: Model) -> u32 {
    let in_plane = |index: &usize| {
        let component = to.component(*index);
        component.is_some_and(|component| component.place.plane == plane)
    };
    let bits = (0..4).filter(in_plane);
    let bits = bits.fold(0, |bits, index| bits | 1 << index);
    match model {
        Model::Same => bits,
        _ => bits | 0b111,
    }
}

/// The words of the shader's buffer, in the layout `std140`: vectors of four words.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn put(&mut self, words: [u32; 4]) {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        self.0.extend(bytes);
    }

    fn put_floats(&mut self, words: [f32; 4]) {
        self.put(words.map(f32::to_bits));
    }

    fn components(
        &mut self,
        codec: &Codec,
        picture: Picture<'_>,
        used: impl Fn(usize) -> Option<Component>,
    ) -> Result<(), Error> {
        for index in 0..4 {
            match used(index) {
                Some(component) => self.component(codec, &component, picture)?,
                None => (0..3).for_each(|_| self.put([0; 4])),
            }
        }
        Ok(())
    }

    fn component(
        &mut self,
        codec: &Codec,
        component: &Component,
        picture: Picture<'_>,
    ) -> Result<(), Error> {
        let unknown = || Error::Format(picture.layout.fourcc);
        let (place, shared) = (component.place, component.shared);
        let info = codec.planes().get(place.plane).ok_or_else(unknown)?;
        let log2 = |value| log2(value).ok_or_else(unknown);
        self.put([place.plane as u32, place.bit, place.bits, place.step]);
        let (is_half, zero, unit) = match component.numbers {
            Numbers::Linear { zero, unit } => (0, zero, unit),
            Numbers::Half => (1, 0.0, 1.0),
        };
        let samples = samples(info, shared.0);
        self.put([log2(shared.0)?, log2(shared.1)?, samples, is_half]);
        self.put_floats([zero, unit, 0.0, 0.0]);
        Ok(())
    }

    fn planes(
        &mut self,
        codec: &Codec,
        picture: Picture<'_>,
        needed: impl Fn(usize) -> u32,
    ) -> Result<(), Error> {
        let unknown = || Error::Format(picture.layout.fourcc);
        let log2 = |value| log2(value).ok_or_else(unknown);
        for index in 0..PLANES {
            let (Some(info), Some(place)) = (codec.planes().get(index), picture.planes.get(index))
            else {
                self.put([0; 4]);
                self.put([0; 4]);
                continue;
            };
            let in_plane = (0..4).filter_map(|component| codec.component(component));
            let in_plane = in_plane.filter(|component| component.place.plane == index);
            let samples = in_plane.map(|component| samples(info, component.shared.0));
            let log2_of_block = log2(info.block_width)?;
            self.put([place.offset, place.stride, info.block_bytes, log2_of_block]);
            self.put([
                log2(info.horizontal)?,
                log2(info.vertical)?,
                needed(index),
                samples.max().unwrap_or(0),
            ]);
        }
        Ok(())
    }

    fn axis(&mut self, axis: &Axis) -> Result<(), Error> {
        let product = u64::from(axis.from) * u64::from(axis.to);
        if product > MAX_PRODUCT {
            return Err(Error::TooManyPixels {
                from: axis.from,
                to: axis.to,
            });
        }
        let mirrored = if axis.mirrored { MIRRORED } else { 0 };
        let linear = match axis.filter {
            crate::blit::Filter::Nearest => 0,
            crate::blit::Filter::Linear => LINEAR,
        };
        self.put([axis.start, axis.from, axis.to, mirrored | linear]);
        Ok(())
    }

    fn model(&mut self, model: Model, scaling: &Scaling, to: &Codec) {
        let swaps = scaling.transform.swaps_axes().into();
        let opaque = (!to.has_alpha()).into();
        let (number, matrix, spans) = match model {
            Model::Same => (0, [0.0; 4], [0.0; 2]),
            Model::ToRgb(matrix) => (1, matrix, [0.0; 2]),
            Model::ToYcbcr([red, green, blue], spans) => (2, [red, green, blue, 0.0], spans),
        };
        self.put([number, swaps, opaque, 0]);
        self.put_floats(matrix);
        self.put_floats([spans[0], spans[1], 0.0, 0.0]);
    }

    /// Adds a job for each rectangle in each plane, in whole words. Gives the workgroups that the largest
    /// job needs.
    fn jobs(&mut self, to: Picture<'_>, rects: &Rects) -> Result<[u32; 3], Error> {
        let mut groups = [0; 3];
        for plane in 0..to.planes.len() {
            for rect in rects {
                let rect = in_plane(to.layout.fourcc, plane, rect);
                let (start, bytes) = bytes_of(to, plane, &rect)?;
                let place = to.planes[plane];
                let above = u64::from(place.offset) + u64::from(rect.y) * u64::from(place.stride);
                let first = (start - above) / 4;
                let words = (start - above + bytes).div_ceil(4) - first;
                // A row has less than 2^32 bytes.
                let (first, words) = (first as u32, words as u32);
                self.put([plane as u32, first, rect.y, words]);
                self.put([rect.height, 0, 0, 0]);
                groups[0] = words.div_ceil(GROUP.0).max(groups[0]);
                groups[1] = rect.height.div_ceil(GROUP.1).max(groups[1]);
                groups[2] += 1;
            }
        }
        Ok(groups)
    }
}

/// How many samples of a component a block has.
fn samples(info: &PlaneInfo, shared: u32) -> u32 {
    info.block_width * info.horizontal / shared
}

/// `None` if the value is not a power of two.
fn log2(value: u32) -> Option<u32> {
    value.is_power_of_two().then(|| value.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blit::copy::host::arrange;
    use crate::blit::scale::{Filter, Transform};
    use crate::blit::ycbcr::YcbcrEncoding;
    use crate::buffer::{BufferDesc, FormatInfo, Fourcc};

    fn try_parameters(
        [from, to]: [(Fourcc, u32, u32); 2],
        scaling: Option<&Scaling>,
        rects: &[Rect],
    ) -> Result<Parameters, Error> {
        let layout = |(fourcc, width, height)| BufferDesc::linear(width, height, fourcc);
        let layouts = [layout(from), layout(to)];
        let planes = [
            arrange(&layouts[0]).unwrap().0,
            arrange(&layouts[1]).unwrap().0,
        ];
        let picture = |end: usize| Picture {
            layout: &layouts[end],
            planes: &planes[end],
        };
        let rects = rects.iter().copied().collect();
        let work = Work::new(&rects, scaling, YcbcrEncoding::default());
        Parameters::new([picture(0), picture(1)], work)
    }

    /// The four words from this one on.
    fn vector(parameters: &Parameters, at: usize) -> [u32; 4] {
        std::array::from_fn(|index| {
            let start = 4 * (at + index);
            u32::from_le_bytes(parameters.bytes[start..start + 4].try_into().unwrap())
        })
    }

    /// Where the parts of the shader's buffer begin, in words.
    const COMPONENTS: [usize; 2] = [0, 48];
    const PLANES_OF: [usize; 2] = [96, 120];
    const AXES: usize = 144;
    const BOUNDS: usize = 152;
    const HOW: usize = 156;
    const JOBS: usize = 168;

    const WHOLE: Rect = Rect {
        x: 0,
        y: 0,
        width: 20,
        height: 10,
    };

    #[test]
    fn components_and_planes_are_where_the_shader_looks() {
        let both = [(Fourcc::NV12, 20, 10), (Fourcc::XRGB8888, 20, 10)];
        let parameters = try_parameters(both, None, &[WHOLE]).unwrap();
        let component = |end: usize, index: usize| {
            let at = COMPONENTS[end] + 12 * index;
            [vector(&parameters, at), vector(&parameters, at + 4)]
        };
        // Cr: plane 1, bit 8, eight bits; shared by 2x2 pixels, one in a block.
        assert_eq!(component(0, 2), [[1, 8, 8, 0], [1, 1, 1, 0]]);
        assert_eq!(component(0, 3), [[0; 4]; 2]);
        // Red, and what is in the place of alpha.
        assert_eq!(component(1, 0), [[0, 16, 8, 0], [0, 0, 1, 0]]);
        assert_eq!(component(1, 3), [[0, 24, 8, 0], [0, 0, 1, 0]]);
        // Two bytes a block, halved in both directions; of one sample.
        let (width, rows) = (32, 10);
        assert_eq!(
            vector(&parameters, PLANES_OF[0] + 8)[..2],
            [width * rows, 32]
        );
        assert_eq!(vector(&parameters, PLANES_OF[0] + 8)[2..], [2, 0]);
        assert_eq!(vector(&parameters, PLANES_OF[0] + 12), [1, 1, 0, 1]);
        // All components of the source make the one plane.
        assert_eq!(vector(&parameters, PLANES_OF[1] + 4), [0, 0, 0b1111, 1]);
        assert_eq!(vector(&parameters, BOUNDS), [0, 0, 20, 10]);
        // To RGB, without swapped axes, opaque.
        assert_eq!(vector(&parameters, HOW), [1, 0, 1, 0]);
        assert_eq!(vector(&parameters, JOBS), [0, 0, 0, 20]);
        assert_eq!(vector(&parameters, JOBS + 4), [10, 0, 0, 0]);
        assert_eq!(parameters.groups, [3, 2, 1]);
        assert!(parameters.bytes.len() as u64 <= BYTES);
    }

    #[test]
    fn blocks_of_several_pixels_have_their_samples() {
        let both = [(Fourcc::YUYV, 20, 10), (Fourcc::NV15, 20, 10)];
        let parameters = try_parameters(both, None, &[WHOLE]).unwrap();
        let at = COMPONENTS[0];
        assert_eq!(vector(&parameters, at), [0, 0, 8, 16]);
        assert_eq!(vector(&parameters, at + 4), [0, 0, 2, 0]);
        assert_eq!(vector(&parameters, at + 12 + 4), [1, 0, 1, 0]);
        // Four numbers of ten bits in five bytes, two of each colour difference.
        assert_eq!(vector(&parameters, PLANES_OF[1])[2..], [5, 2]);
        assert_eq!(vector(&parameters, PLANES_OF[1] + 4), [0, 0, 0b001, 4]);
        assert_eq!(vector(&parameters, PLANES_OF[1] + 12), [1, 1, 0b110, 2]);
        // 25 bytes of luma are seven words, and as many of colour differences.
        assert_eq!(vector(&parameters, JOBS), [0, 0, 0, 7]);
        assert_eq!(vector(&parameters, JOBS + 8), [1, 0, 0, 7]);
        assert_eq!(vector(&parameters, JOBS + 12), [5, 0, 0, 0]);
        assert_eq!(parameters.groups, [1, 2, 2]);
    }

    #[test]
    fn rectangles_are_cut_to_the_box_and_made_in_whole_words() {
        let scaling = Scaling {
            source: WHOLE,
            destination: Rect {
                x: 4,
                y: 2,
                width: 10,
                height: 6,
            },
            transform: Transform::Rotate90,
            filter: Filter::Linear,
        };
        let both = [(Fourcc::XRGB8888, 20, 10), (Fourcc::RGB888, 20, 10)];
        let outside = Rect {
            x: 14,
            y: 0,
            width: 6,
            height: 10,
        };
        let parameters = try_parameters(both, Some(&scaling), &[WHOLE, outside]).unwrap();
        assert_eq!(parameters.rects()[..], [scaling.destination]);
        // Bytes 12 to 41.
        assert_eq!(vector(&parameters, JOBS), [0, 3, 2, 8]);
        assert_eq!(vector(&parameters, HOW), [0, 1, 1, 0]);
        // The columns of the destination show rows of the source, and none is mirrored but the other.
        assert_eq!(vector(&parameters, AXES), [0, 10, 10, LINEAR]);
        assert_eq!(vector(&parameters, AXES + 4), [0, 20, 6, LINEAR | MIRRORED]);
    }

    #[test]
    fn as_many_rectangles_as_there_may_be_fit_in_every_format() {
        let rects: Vec<Rect> = (0..MAX_RECTS as u32)
            .map(|at| Rect {
                x: 16 * at,
                y: 16 * at,
                width: 12,
                height: 4,
            })
            .collect();
        let mut planes = 0;
        for info in FormatInfo::all() {
            let both = [(Fourcc::ABGR8888, 256, 256), (info.fourcc, 256, 256)];
            let Ok(parameters) = try_parameters(both, None, &rects) else {
                continue;
            };
            assert!(parameters.bytes.len() as u64 <= BYTES, "{}", info.fourcc);
            planes = planes.max(info.planes.len());
        }
        assert_eq!(planes, PLANES);
    }

    #[test]
    fn what_the_shader_cannot_count_or_does_not_know_is_refused() {
        let both = [(Fourcc::XRGB8888, 40_000, 1), (Fourcc::XRGB8888, 30_000, 1)];
        let scaling = Scaling::whole((40_000, 1), (30_000, 1));
        let refused = try_parameters(both, Some(&scaling), &[WHOLE]).unwrap_err();
        let (from, to) = (40_000, 30_000);
        assert_eq!(refused, Error::TooManyPixels { from, to });
        let both = [(Fourcc::P030, 20, 10), (Fourcc::XRGB8888, 20, 10)];
        let refused = try_parameters(both, None, &[WHOLE]).unwrap_err();
        assert_eq!(refused, Error::Format(Fourcc::P030));
    }
}
