//! Pictures scaled, turned and converted by the GPU that copies them, with one compute shader.
//!
//! The source's pixels are first copied to scratch memory, row by row. The shader reads them there and makes
//! the destination's pixels in scratch memory, from which they are copied to the destination. The shader
//! reads and writes words of plain memory and is told the formats by parameters. So it needs nothing of a
//! driver but a compute queue: no format features, no views and no samplers, whatever the tiling of the
//! buffers. Its source is `resample.comp`; `cargo xtask shaders` compiles it.

mod parameters;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ash::vk;

pub(super) use parameters::Parameters;

use crate::blit::copy::host::{Planes, arrange};
use crate::blit::copy::record::Work;
use crate::blit::copy::regions::Picture;
use crate::buffer::{BufferDesc, Modifier};
use crate::vk::{Bindings, Bound, Compute, Device, Error, LocalBuffer};

/// The compiled `resample.comp`.
static SPIRV: &[u8] = include_bytes!("resample.spv");

/// The shader for one device, made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Shader(Option<Arc<Compute>>);

impl Shader {
    fn compute(&mut self, device: &Device) -> Result<&Arc<Compute>, Error> {
        let compute = match self.0.take() {
            Some(known) => known,
            None => Arc::new(Compute::new(device, SPIRV)?),
        };
        Ok(self.0.insert(compute))
    }

    /// The shader's parameters for a copy, and the scratch memory for it. Memory that was made for other
    /// sizes or formats is made anew. No submission may be using the memory that is passed in.
    pub(super) fn prepare(
        &mut self,
        device: &Device,
        scratch: &mut Option<Scratch>,
        [from, to]: [Picture<'_>; 2],
        work: Work<'_>,
    ) -> Result<Parameters, Error> {
        let (from, to) = (Arranged::new(from.layout)?, Arranged::new(to.layout)?);
        let parameters = Parameters::new([from.picture(), to.picture()], work)?;
        let compute = self.compute(device)?;
        for end in [&from, &to] {
            compute.check_range(end.bytes)?;
        }
        compute.check_groups(parameters.groups())?;
        let new = match scratch.take() {
            Some(known) => known.rearranged(device, [from, to])?,
            None => Scratch::new(device, compute, [from, to])?,
        };
        *scratch = Some(new);
        Ok(parameters)
    }
}

/// Where the planes of a picture are in a scratch buffer.
#[derive(Debug)]
struct Arranged {
    layout: BufferDesc,
    planes: Planes,
    bytes: u64,
}

impl Arranged {
    fn new(layout: &BufferDesc) -> Result<Self, Error> {
        let layout = BufferDesc {
            modifier: Modifier::LINEAR,
            ..*layout
        };
        let (planes, bytes) = arrange(&layout)?;
        Ok(Self {
            layout,
            planes,
            bytes: bytes.into(),
        })
    }

    fn picture(&self) -> Picture<'_> {
        Picture {
            layout: &self.layout,
            planes: &self.planes,
        }
    }
}

/// A buffer that is more than this many times as large as its picture counts as too large. It is still used
/// for a while, since small pictures may alternate with large ones.
const MOST_WASTE: u64 = 4;
/// After this many pictures in a row for which a buffer was too large, a smaller one is made.
const MOST_WASTED: u32 = 64;

const USAGES: [vk::BufferUsageFlags; 2] = [
    vk::BufferUsageFlags::from_raw(
        vk::BufferUsageFlags::TRANSFER_DST.as_raw() | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw(),
    ),
    vk::BufferUsageFlags::from_raw(
        vk::BufferUsageFlags::TRANSFER_SRC.as_raw() | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw(),
    ),
];

/// Memory of the GPU for one copy at a time: the source's pixels, the destination's pixels, and the shader's
/// parameters.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Declared before what they bind: fields are dropped in order.
    bindings: Bindings,
    parameters: LocalBuffer,
    pictures: [Arranged; 2],
    buffers: [LocalBuffer; 2],
    /// For how many pictures in a row each of the buffers was too large.
    wasted: [u32; 2],
}

impl Scratch {
    fn new(
        device: &Device,
        compute: &Arc<Compute>,
        pictures: [Arranged; 2],
    ) -> Result<Self, Error> {
        let usage = vk::BufferUsageFlags::TRANSFER_DST | vk::BufferUsageFlags::UNIFORM_BUFFER;
        let buffer = |end: usize| LocalBuffer::new(device, pictures[end].bytes, USAGES[end]);
        let new = Self {
            bindings: Bindings::new(compute)?,
            parameters: LocalBuffer::new(device, parameters::BYTES, usage)?,
            buffers: [buffer(0)?, buffer(1)?],
            pictures,
            wasted: [0; 2],
        };
        Ok(new.bound())
    }

    /// Prepares the memory for other pictures. Buffers that do not fit are replaced; the old one is freed
    /// before the new one is made, so that not both are held at a time.
    fn rearranged(self, device: &Device, pictures: [Arranged; 2]) -> Result<Self, Error> {
        let Self {
            bindings,
            parameters,
            buffers,
            mut wasted,
            ..
        } = self;
        let [from, to] = buffers;
        let mut fitting = |buffer: LocalBuffer, end: usize| {
            let bytes = pictures[end].bytes;
            wasted[end] = match buffer.size() / MOST_WASTE > bytes {
                true => wasted[end] + 1,
                false => 0,
            };
            if bytes <= buffer.size() && wasted[end] <= MOST_WASTED {
                return Ok(buffer);
            }
            wasted[end] = 0;
            drop(buffer);
            LocalBuffer::new(device, bytes, USAGES[end])
        };
        let new = Self {
            buffers: [fitting(from, 0)?, fitting(to, 1)?],
            bindings,
            parameters,
            pictures,
            wasted,
        };
        Ok(new.bound())
    }

    /// How many bytes its buffers have.
    pub(super) fn bytes(&self) -> u64 {
        self.buffers.iter().map(LocalBuffer::size).sum()
    }

    fn bound(mut self) -> Self {
        let bound = |buffer: &LocalBuffer, bytes| Bound {
            buffer: buffer.raw(),
            bytes,
        };
        let [from, to] = &self.buffers;
        let parts = [
            bound(&self.parameters, parameters::BYTES),
            bound(from, self.pictures[0].bytes),
            bound(to, self.pictures[1].bytes),
        ];
        // SAFETY: nothing that is being executed uses them, as `Shader::prepare` says; the buffers are of
        // these sizes and usages, and live as long as the bindings.
        unsafe { self.bindings.bind(parts) };
        self
    }

    /// The buffer of one end: the source's pixels are copied to it, or the destination's pixels from it.
    pub(super) fn end(&self, end: usize) -> (Picture<'_>, vk::Buffer) {
        (self.pictures[end].picture(), self.buffers[end].raw())
    }

    /// Records the commands that make the destination's pixels. They go between the copy into scratch memory
    /// and the copy out of it.
    ///
    /// # Safety
    /// As for [`Commands::record`](crate::vk::Commands::record); the parameters are those that this memory
    /// was [prepared](Shader::prepare) with.
    pub(super) unsafe fn make(
        &self,
        raw: &ash::Device,
        commands: vk::CommandBuffer,
        parameters: &Parameters,
    ) {
        use vk::{AccessFlags as A, PipelineStageFlags as S};
        let barrier = |before: (S, A), after: (S, A)| {
            let barrier = vk::MemoryBarrier::default()
                .src_access_mask(before.1)
                .dst_access_mask(after.1);
            let flags = vk::DependencyFlags::empty();
            // SAFETY: as the caller promises.
            unsafe {
                let (before, after) = (before.0, after.0);
                raw.cmd_pipeline_barrier(commands, before, after, flags, &[barrier], &[], &[]);
            }
        };
        // SAFETY: as the caller promises; the parameters are whole words, fit, and are fewer than 64 KiB
        // (VUID-vkCmdUpdateBuffer-dataSize-00037). The workgroups were checked.
        unsafe {
            raw.cmd_update_buffer(commands, self.parameters.raw(), 0, parameters.bytes());
            barrier(
                (S::TRANSFER, A::TRANSFER_WRITE),
                (S::COMPUTE_SHADER, A::SHADER_READ | A::UNIFORM_READ),
            );
            self.bindings.dispatch(commands, parameters.groups());
            barrier(
                (S::COMPUTE_SHADER, A::SHADER_WRITE),
                (S::TRANSFER, A::TRANSFER_READ),
            );
        }
    }
}
