//! Rectangles as Vulkan's copy regions and as bytes in memory. Pure.

use arrayvec::ArrayVec;
use ash::vk;

use crate::blit::Scaling;
use crate::blit::damage::{MAX_RECTS, Rect, Rects};
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo, Fourcc, MAX_PLANES, Plane};
use crate::vk::{Error, region};

/// Where a picture's rows are in its memory.
#[derive(Clone, Copy)]
pub(in crate::blit) struct Picture<'a> {
    pub(in crate::blit) layout: &'a BufferDesc,
    pub(in crate::blit) planes: &'a [Plane],
}

impl<'a> From<&'a DmaBuf> for Picture<'a> {
    fn from(buffer: &'a DmaBuf) -> Self {
        Self {
            layout: buffer.desc(),
            planes: buffer.planes(),
        }
    }
}

/// The aspects of the format's planes.
pub(in crate::blit) fn aspects(fourcc: Fourcc) -> ArrayVec<vk::ImageAspectFlags, MAX_PLANES> {
    let planes = FormatInfo::of(fourcc).map_or(1, |info| info.planes.len());
    let each = [
        vk::ImageAspectFlags::PLANE_0,
        vk::ImageAspectFlags::PLANE_1,
        vk::ImageAspectFlags::PLANE_2,
    ];
    match planes {
        1 => ArrayVec::from_iter([vk::ImageAspectFlags::COLOR]),
        planes => each.into_iter().take(planes).collect(),
    }
}

/// The rectangle in a plane's own pixels.
pub(in crate::blit) fn in_plane(fourcc: Fourcc, plane: usize, rect: &Rect) -> Rect {
    let info = FormatInfo::of(fourcc).and_then(|info| info.planes.get(plane));
    let (across, down) = info.map_or((1, 1), |info| (info.horizontal, info.vertical));
    let (right, bottom) = (rect.x + rect.width, rect.y + rect.height);
    let (x, y) = (rect.x / across, rect.y / down);
    Rect {
        x,
        y,
        width: right.div_ceil(across) - x,
        height: bottom.div_ceil(down) - y,
    }
}

fn layers(aspect: vk::ImageAspectFlags) -> vk::ImageSubresourceLayers {
    vk::ImageSubresourceLayers::default()
        .aspect_mask(aspect)
        .layer_count(1)
}

fn offset(rect: &Rect) -> vk::Offset3D {
    // Pictures are smaller than 2^31, since they were checked against the driver's limits.
    vk::Offset3D {
        x: rect.x as i32,
        y: rect.y as i32,
        z: 0,
    }
}

fn extent(rect: &Rect) -> vk::Extent3D {
    vk::Extent3D {
        width: rect.width,
        height: rect.height,
        depth: 1,
    }
}

pub(in crate::blit) fn image_region(aspect: vk::ImageAspectFlags, rect: Rect) -> vk::ImageCopy {
    vk::ImageCopy::default()
        .src_subresource(layers(aspect))
        .src_offset(offset(&rect))
        .dst_subresource(layers(aspect))
        .dst_offset(offset(&rect))
        .extent(extent(&rect))
}

pub(in crate::blit) fn blit_region(rect: &Rect) -> vk::ImageBlit {
    let corners = [
        offset(rect),
        vk::Offset3D {
            x: (rect.x + rect.width) as i32,
            y: (rect.y + rect.height) as i32,
            z: 1,
        },
    ];
    vk::ImageBlit::default()
        .src_subresource(layers(vk::ImageAspectFlags::COLOR))
        .src_offsets(corners)
        .dst_subresource(layers(vk::ImageAspectFlags::COLOR))
        .dst_offsets(corners)
}

/// The region of a whole scaled picture, which may be mirrored.
pub(super) fn scaled_region(scaling: &Scaling) -> vk::ImageBlit {
    let corners = |rect: &Rect, (columns, rows): (bool, bool)| {
        let (left, right) = (rect.x as i32, (rect.x + rect.width) as i32);
        let (top, bottom) = (rect.y as i32, (rect.y + rect.height) as i32);
        let pick = |mirrored: bool, first, last| {
            if mirrored {
                [last, first]
            } else {
                [first, last]
            }
        };
        let (x, y) = (pick(columns, left, right), pick(rows, top, bottom));
        [0, 1].map(|index: usize| vk::Offset3D {
            x: x[index],
            y: y[index],
            z: index as i32,
        })
    };
    vk::ImageBlit::default()
        .src_subresource(layers(vk::ImageAspectFlags::COLOR))
        .src_offsets(corners(&scaling.source, scaling.transform.mirrors()))
        .dst_subresource(layers(vk::ImageAspectFlags::COLOR))
        .dst_offsets(corners(&scaling.destination, (false, false)))
}

/// Regions between an image and the bytes of a plane of `buffer`.
pub(in crate::blit) fn mixed_regions(
    picture: Picture<'_>,
    plane: usize,
    rects: &Rects,
    queue: vk::QueueFlags,
) -> Result<ArrayVec<vk::BufferImageCopy, MAX_RECTS>, Error> {
    let whole = region(picture.layout, picture.planes, plane)?;
    let regions = rects.iter().map(|rect| {
        let rect = in_plane(picture.layout.fourcc, plane, rect);
        let (start, _) = bytes_of(picture, plane, &rect)?;
        // VUID-vkCmdCopyBufferToImage-commandBuffer-07737, for queues that only copy.
        let draws = queue.intersects(vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE);
        if !draws && !start.is_multiple_of(4) {
            return Err(Error::Misaligned {
                plane,
                offset: start as u32,
                stride: picture.planes[plane].stride,
                unit: 4,
            });
        }
        Ok(whole
            .buffer_offset(start)
            .image_offset(offset(&rect))
            .image_extent(extent(&rect)))
    });
    regions.collect()
}

/// Where a rectangle (in the plane's own pixels) begins in the dma-buf, and how many bytes its rows have.
pub(in crate::blit) fn bytes_of(
    picture: Picture<'_>,
    plane: usize,
    rect: &Rect,
) -> Result<(u64, u64), Error> {
    let fourcc = picture.layout.fourcc;
    let info = FormatInfo::of(fourcc).ok_or(Error::Format(fourcc))?;
    let (Some(info), Some(place)) = (info.planes.get(plane), picture.planes.get(plane)) else {
        return Err(Error::NoPlane {
            fourcc,
            plane,
            planes: info.planes.len(),
        });
    };
    // No overflow: the rectangle lies inside the picture, whose rows fit into the stride.
    let blocks = |pixels: u32| u64::from(pixels.div_ceil(info.block_width));
    let block = u64::from(info.block_bytes);
    let start = u64::from(place.offset)
        + u64::from(rect.y) * u64::from(place.stride)
        + u64::from(rect.x / info.block_width) * block;
    Ok((start, blocks(rect.width) * block))
}

/// Regions between the bytes of two planes: one for each row, or one for all if neither plane has gaps
/// between these rows.
pub(in crate::blit) fn byte_regions(
    source: Picture<'_>,
    destination: Picture<'_>,
    rects: &Rects,
    rows: &mut Vec<vk::BufferCopy>,
) -> Result<(), Error> {
    rows.clear();
    let fourcc = source.layout.fourcc;
    for plane in 0..aspects(fourcc).len() {
        for rect in rects {
            let rect = in_plane(fourcc, plane, rect);
            let (from, length) = bytes_of(source, plane, &rect)?;
            let (to, _) = bytes_of(destination, plane, &rect)?;
            let stride = |picture: Picture<'_>| u64::from(picture.planes[plane].stride);
            let (from_stride, to_stride) = (stride(source), stride(destination));
            let rows_here = u64::from(rect.height);
            let without_gaps = from_stride == length && to_stride == length;
            let (count, size) = match without_gaps {
                true => (1, length * rows_here),
                false => (rows_here, length),
            };
            rows.extend((0..count).map(|row| vk::BufferCopy {
                src_offset: from + row * from_stride,
                dst_offset: to + row * to_stride,
                size,
            }));
        }
    }
    Ok(())
}
