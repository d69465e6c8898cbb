//! The Vulkan commands of a copy by one GPU.

use arrayvec::ArrayVec;
use ash::vk;

use super::frame::{self, Frame};
use super::shader::{Parameters, Scratch};
use crate::blit::copy::convert::is_known;
use crate::blit::copy::pixels::{Relation, relation, suits_blit};
use crate::blit::copy::regions::{
    Picture, aspects, blit_region, byte_regions, image_region, in_plane, mixed_regions,
    scaled_region,
};
use crate::blit::damage::{MAX_RECTS, Rects};
use crate::blit::{Filter, Scaling, YcbcrEncoding};
use crate::vk::{Error, Image, Use};

/// Which parts of the destination are to be written, from which part of the source, and what the numbers of
/// a YCbCr format mean.
#[derive(Clone, Copy)]
pub(in crate::blit) struct Work<'a> {
    pub(super) rects: &'a Rects,
    pub(super) scaling: Option<&'a Scaling>,
    pub(super) encoding: YcbcrEncoding,
}

impl<'a> Work<'a> {
    /// Unscaled pixels, from the same place in the source.
    pub(in crate::blit) fn plain(rects: &'a Rects) -> Self {
        Self::new(rects, None, YcbcrEncoding::default())
    }

    pub(super) fn new(
        rects: &'a Rects,
        scaling: Option<&'a Scaling>,
        encoding: YcbcrEncoding,
    ) -> Self {
        Self {
            rects,
            scaling,
            encoding,
        }
    }

    pub(in crate::blit) fn of(frame: &'a Frame) -> Self {
        Self::new(&frame.rects, frame.scaling.as_ref(), frame.encoding)
    }
}

/// One end of a copy command.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    Image(&'a Image),
    Bytes(vk::Buffer),
}

/// Source and destination of a copy command.
pub(super) type Forms<'a> = (Form<'a>, Form<'a>);

/// How pixels of the one picture become those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// They are copied unchanged.
    Copy,
    /// vkCmdBlitImage makes them, which needs no scratch memory.
    Blit(vk::Filter),
    Shader,
}

/// How to make such a copy: unchanged pixels are copied, a blit is used if it suffices and the device
/// supports it, and else the shader.
pub(super) fn way(
    [source, destination]: [Picture<'_>; 2],
    work: Work<'_>,
    ends: Forms<'_>,
    queue: vk::QueueFlags,
) -> Result<Way, Error> {
    let (from, to) = (source.layout.fourcc, destination.layout.fourcc);
    if work.scaling.is_none() && relation(from, to) == Relation::Same {
        return Ok(Way::Copy);
    }
    let (Form::Image(source), Form::Image(destination)) = ends else {
        return Ok(Way::Shader);
    };
    if !suits_blit(from, to, work.scaling) {
        return Ok(Way::Shader);
    }
    let filter = match work.scaling {
        Some(scaling) if scaling.filter == Filter::Linear && scaling.scales() => vk::Filter::LINEAR,
        _ => vk::Filter::NEAREST,
    };
    match source.require_blit(destination, queue, filter) {
        Ok(()) => Ok(Way::Blit(filter)),
        Err(_) if is_known(from) && is_known(to) => Ok(Way::Shader),
        Err(refused) => Err(refused),
    }
}

/// Puts a copy's commands into a command buffer.
pub(super) struct Recorder<'a> {
    pub(super) raw: &'a ash::Device,
    pub(super) commands: vk::CommandBuffer,
    /// What the queue can do.
    pub(super) queue: vk::QueueFlags,
    /// Passed in so that it is not allocated for each copy.
    pub(super) rows: &'a mut Vec<vk::BufferCopy>,
}

impl Recorder<'_> {
    /// Copies pixels unchanged.
    ///
    /// # Safety
    /// As for [`Commands::record`](crate::vk::Commands::record); both ends are acquired for this, of one
    /// format, and the rectangles are inside both.
    pub(super) unsafe fn copy(
        &mut self,
        [source, destination]: [Picture<'_>; 2],
        rects: &Rects,
        ends: Forms<'_>,
    ) -> Result<(), Error> {
        use Form::{Bytes, Image};
        let layouts = (Use::Source.layout(), Use::Destination.layout());
        let fourcc = source.layout.fourcc;
        let planes = aspects(fourcc);
        let (raw, commands) = (self.raw, self.commands);
        match ends {
            (Image(from), Image(to)) => {
                let (from, to) = (from.raw(), to.raw());
                for (plane, aspect) in planes.into_iter().enumerate() {
                    let region = |rect| image_region(aspect, in_plane(fourcc, plane, rect));
                    let regions: ArrayVec<_, MAX_RECTS> = rects.iter().map(region).collect();
                    // SAFETY: as the caller promises.
                    unsafe {
                        raw.cmd_copy_image(commands, from, layouts.0, to, layouts.1, &regions);
                    }
                }
            }
            (Bytes(from), Image(to)) => {
                for plane in 0..planes.len() {
                    let regions = mixed_regions(source, plane, rects, self.queue)?;
                    // SAFETY: as the caller promises.
                    unsafe {
                        raw.cmd_copy_buffer_to_image(commands, from, to.raw(), layouts.1, &regions);
                    }
                }
            }
            (Image(from), Bytes(to)) => {
                for plane in 0..planes.len() {
                    let regions = mixed_regions(destination, plane, rects, self.queue)?;
                    // SAFETY: as the caller promises.
                    unsafe {
                        raw.cmd_copy_image_to_buffer(commands, from.raw(), layouts.0, to, &regions);
                    }
                }
            }
            (Bytes(from), Bytes(to)) => {
                byte_regions(source, destination, rects, self.rows)?;
                // SAFETY: as the caller promises.
                unsafe { raw.cmd_copy_buffer(commands, from, to, self.rows) };
            }
        }
        Ok(())
    }

    /// Copies images by vkCmdBlitImage.
    ///
    /// # Safety
    /// As for [`Self::copy`], but for the formats; the ends can be blitted with the filter.
    pub(super) unsafe fn blit(
        &mut self,
        work: Work<'_>,
        ends: Forms<'_>,
        filter: vk::Filter,
    ) -> Result<(), Error> {
        let (Form::Image(from), Form::Image(to)) = ends else {
            return Ok(());
        };
        // A part of a scaled picture may begin between two pixels of the source, so all of it is made.
        let regions: ArrayVec<_, MAX_RECTS> = match work.scaling {
            Some(scaling) => [scaled_region(scaling)].into_iter().collect(),
            None => work.rects.iter().map(blit_region).collect(),
        };
        let layouts = (Use::Source.layout(), Use::Destination.layout());
        let (from, to) = (from.raw(), to.raw());
        // SAFETY: as the caller promises.
        unsafe {
            self.raw.cmd_blit_image(
                self.commands,
                from,
                layouts.0,
                to,
                layouts.1,
                &regions,
                filter,
            );
        }
        Ok(())
    }

    /// Copies by the shader, through scratch memory.
    ///
    /// # Safety
    /// As for [`Self::copy`], but for the formats; the scratch memory has been prepared for this work, and
    /// nothing that is being executed uses it.
    pub(super) unsafe fn shader(
        &mut self,
        [source, destination]: [Picture<'_>; 2],
        work: Work<'_>,
        (from, to): Forms<'_>,
        scratch: &Scratch,
        parameters: &Parameters,
    ) -> Result<(), Error> {
        let rects = parameters.rects();
        if rects.is_empty() {
            return Ok(());
        }
        let shown = frame::shown(source.layout, work.scaling);
        let ((read, read_from), (made, made_in)) = (scratch.end(0), scratch.end(1));
        // SAFETY: as the caller promises; scratch memory is as large as both pictures.
        unsafe {
            self.copy([source, read], &shown, (from, Form::Bytes(read_from)))?;
            scratch.make(self.raw, self.commands, parameters);
            self.copy([made, destination], rects, (Form::Bytes(made_in), to))
        }
    }

    /// Makes what a copy has written visible to the CPU, once the submission is done
    /// (Vulkan specification, "Host Access to Device Memory Objects").
    ///
    /// # Safety
    /// As for [`Commands::record`](crate::vk::Commands::record).
    pub(super) unsafe fn show_to_host(&mut self) {
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        // SAFETY: as the caller promises.
        unsafe {
            self.raw.cmd_pipeline_barrier(
                self.commands,
                vk::PipelineStageFlags::TRANSFER,
                vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &[barrier],
                &[],
                &[],
            );
        }
    }
}
