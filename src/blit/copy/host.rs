//! Pictures in host memory, which one GPU and the CPU share with nobody else.

use arrayvec::ArrayVec;
use ash::vk;

use crate::blit::copy::regions::Picture;
use crate::buffer::{BufferDesc, FormatInfo, MAX_PLANES, Modifier, Plane};
use crate::vk::{Device, Error, Staging};

/// Rows and planes begin at multiples of this many blocks. So they begin with whole pixels and at multiples
/// of four bytes, as copies between buffers and images require
/// (VUID-vkCmdCopyBufferToImage-dstImage-07975, -commandBuffer-07737).
const BLOCKS: u32 = 16;

/// A picture in memory of one Vulkan device that the CPU has mapped.
#[derive(Debug)]
pub(in crate::blit) struct HostPicture {
    layout: BufferDesc,
    planes: Planes,
    memory: Staging,
}

pub(super) type Planes = ArrayVec<Plane, MAX_PLANES>;

impl HostPicture {
    /// Memory that a GPU writes and the CPU reads.
    pub(in crate::blit) fn download(device: &Device, layout: &BufferDesc) -> Result<Self, Error> {
        Self::new(layout, |size| Staging::download(device, size))
    }

    /// Memory that the CPU writes and a GPU reads.
    pub(in crate::blit) fn upload(device: &Device, layout: &BufferDesc) -> Result<Self, Error> {
        Self::new(layout, |size| Staging::upload(device, size))
    }

    fn new(
        layout: &BufferDesc,
        allocate: impl FnOnce(usize) -> Result<Staging, Error>,
    ) -> Result<Self, Error> {
        let layout = BufferDesc {
            modifier: Modifier::LINEAR,
            ..*layout
        };
        let (planes, size) = arrange(&layout)?;
        Ok(Self {
            layout,
            planes,
            memory: allocate(size as usize)?,
        })
    }

    pub(in crate::blit) fn picture(&self) -> Picture<'_> {
        Picture {
            layout: &self.layout,
            planes: &self.planes,
        }
    }

    pub(in crate::blit) fn raw(&self) -> vk::Buffer {
        self.memory.raw()
    }

    pub(in crate::blit) fn bytes(&self) -> Result<&[u8], Error> {
        self.memory.bytes()
    }

    /// Makes what the CPU has written visible to the GPU.
    pub(in crate::blit) fn flush(&self) -> Result<(), Error> {
        self.memory.flush()
    }

    /// The picture, which says where the planes are, and its bytes.
    pub(in crate::blit) fn parts_mut(&mut self) -> (Picture<'_>, &mut [u8]) {
        let picture = Picture {
            layout: &self.layout,
            planes: &self.planes,
        };
        (picture, self.memory.bytes_mut())
    }
}

/// Lays the planes out one after the other. Gives their places, and how many bytes they have in all.
pub(super) fn arrange(layout: &BufferDesc) -> Result<(Planes, u32), Error> {
    let format = FormatInfo::of(layout.fourcc).ok_or(Error::Format(layout.fourcc))?;
    let too_many = Error::TooManyBytes {
        size: u64::MAX,
        most: u32::MAX.into(),
    };
    let mut planes = Planes::new();
    let mut end = 0_u32;
    for info in format.planes {
        let place = || {
            let unit = BLOCKS * info.block_bytes;
            let offset = end.checked_next_multiple_of(unit)?;
            let stride = info
                .row_bytes(layout.width)?
                .checked_next_multiple_of(unit)?;
            let bytes = stride.checked_mul(info.rows(layout.height))?;
            let end = offset.checked_add(bytes)?;
            let plane = Plane {
                object: 0,
                offset,
                stride,
            };
            Some((plane, end))
        };
        let plane;
        (plane, end) = place().ok_or_else(|| too_many.clone())?;
        planes.push(plane);
    }
    Ok((planes, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Fourcc;

    fn planes(width: u32, height: u32, fourcc: Fourcc) -> Vec<(u32, u32)> {
        let (planes, size) = arrange(&BufferDesc::linear(width, height, fourcc)).unwrap();
        let end = planes.last().unwrap();
        assert!(size >= end.offset + end.stride);
        planes.iter().map(|p| (p.offset, p.stride)).collect()
    }

    #[test]
    fn rows_are_whole_pixels_and_planes_follow_each_other() {
        assert_eq!(planes(1, 1, Fourcc::XRGB8888), [(0, 64)]);
        assert_eq!(planes(17, 3, Fourcc::RGB888), [(0, 96)]);
        assert_eq!(planes(32, 2, Fourcc::NV12), [(0, 32), (64, 32)]);
        assert_eq!(
            planes(33, 3, Fourcc::YUV420),
            [(0, 48), (144, 32), (208, 32)]
        );
    }

    #[test]
    fn a_picture_past_four_gigabytes_is_refused() {
        let huge = BufferDesc::linear(1 << 16, 1 << 16, Fourcc::XRGB8888);
        assert!(matches!(
            arrange(&huge).unwrap_err(),
            Error::TooManyBytes { .. }
        ));
    }
}
