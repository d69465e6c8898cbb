//! A compute shader, and what it reads and writes.

use std::io::Cursor;
use std::sync::Arc;

use ash::{util, vk};

use super::{Call, Device, Error};

/// The shader's buffers, in order of their bindings in set 0: one of parameters, one that it reads and
/// one that it writes.
const BINDINGS: [vk::DescriptorType; 3] = [
    vk::DescriptorType::UNIFORM_BUFFER,
    vk::DescriptorType::STORAGE_BUFFER,
    vk::DescriptorType::STORAGE_BUFFER,
];

/// A compute shader ready to be run on one device. Destroyed on drop; work that uses it must be finished
/// by then.
#[derive(Debug)]
pub(crate) struct Compute {
    device: Device,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    limits: Limits,
}

/// The device's limits for one dispatch.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes of a storage buffer.
    range: u64,
    /// Workgroups in each direction.
    groups: [u32; 3],
}

impl Compute {
    /// Compiles a shader in SPIR-V, whose entry point is `main`. [`Error::NoCompute`] if the device's queue
    /// does not compute.
    pub(crate) fn new(device: &Device, spirv: &[u8]) -> Result<Self, Error> {
        if !device.queue_flags().contains(vk::QueueFlags::COMPUTE) {
            return Err(Error::NoCompute {
                device: device.physical().name().to_owned(),
            });
        }
        // Handles are null until made, and destroying null does nothing.
        let mut compute = Self {
            device: device.clone(),
            set_layout: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
            limits: limits(device),
        };
        let raw = device.raw();
        let mut binding = 0..;
        let bindings = BINDINGS.map(|kind| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding.next().unwrap_or_default())
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        });
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: `info` and what it points to live until the call returns.
        compute.set_layout = unsafe { raw.create_descriptor_set_layout(&info, None) }
            .map_err(device.failed(Call::CreateDescriptorSetLayout))?;
        let layouts = [compute.set_layout];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
        // SAFETY: as above, and the set layout is of this device.
        compute.layout = unsafe { raw.create_pipeline_layout(&info, None) }
            .map_err(device.failed(Call::CreatePipelineLayout))?;
        let module = Module::new(device, spirv)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module.raw)
            .name(c"main");
        let info = vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(compute.layout);
        let cache = vk::PipelineCache::null();
        // SAFETY: as above; the module is of this device and alive.
        let made = unsafe { raw.create_compute_pipelines(cache, &[info], None) };
        // The one that was not made is null, or nothing at all.
        let pipelines =
            made.map_err(|(_, result)| device.failed(Call::CreateComputePipelines)(result))?;
        compute.pipeline = pipelines.first().copied().unwrap_or_default();
        Ok(compute)
    }

    /// [`Error::ComputeLimit`] if a storage buffer is larger than the device allows.
    pub(crate) fn check_range(&self, bytes: u64) -> Result<(), Error> {
        self.check("maxStorageBufferRange", bytes, self.limits.range)
    }

    /// [`Error::ComputeLimit`] if the device does not run so many workgroups in one dispatch.
    pub(crate) fn check_groups(&self, groups: [u32; 3]) -> Result<(), Error> {
        for (groups, most) in groups.into_iter().zip(self.limits.groups) {
            self.check("maxComputeWorkGroupCount", groups.into(), most.into())?;
        }
        Ok(())
    }

    fn check(&self, limit: &'static str, needed: u64, most: u64) -> Result<(), Error> {
        match needed > most {
            true => Err(Error::ComputeLimit {
                device: self.device.physical().name().to_owned(),
                limit,
                needed,
                most,
            }),
            false => Ok(()),
        }
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        let (pipeline, layout, set_layout) = (self.pipeline, self.layout, self.set_layout);
        self.device.destroy(move |raw| {
            // SAFETY: nothing uses them any more, as the type's contract says.
            unsafe {
                raw.destroy_pipeline(pipeline, None);
                raw.destroy_pipeline_layout(layout, None);
                raw.destroy_descriptor_set_layout(set_layout, None);
            }
        });
    }
}

fn limits(device: &Device) -> Limits {
    let physical = device.physical();
    let instance = physical.instance().raw();
    // SAFETY: the handle is of the instance.
    let limits = unsafe { instance.get_physical_device_properties(physical.raw()) }.limits;
    Limits {
        range: limits.max_storage_buffer_range.into(),
        groups: limits.max_compute_work_group_count,
    }
}

/// A shader's code, which only the making of its pipeline needs.
struct Module<'a> {
    device: &'a Device,
    raw: vk::ShaderModule,
}

impl<'a> Module<'a> {
    fn new(device: &'a Device, spirv: &[u8]) -> Result<Self, Error> {
        // Bytes that are no SPIR-V: the driver is given nothing.
        let invalid =
            || device.failed(Call::CreateShaderModule)(vk::Result::ERROR_INVALID_SHADER_NV);
        let code = util::read_spv(&mut Cursor::new(spirv)).map_err(|_| invalid())?;
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: `info` and the code live until the call returns; it is SPIR-V that uses no feature and
        // no capability but Shader.
        let raw = unsafe { device.raw().create_shader_module(&info, None) }
            .map_err(device.failed(Call::CreateShaderModule))?;
        Ok(Self { device, raw })
    }
}

impl Drop for Module<'_> {
    fn drop(&mut self) {
        // SAFETY: a module may go once its pipeline is made, and nobody else has it.
        unsafe { self.device.raw().destroy_shader_module(self.raw, None) };
    }
}

/// A part of a buffer for a binding, from its first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) buffer: vk::Buffer,
    pub(crate) bytes: u64,
}

/// The buffers that a shader is run with. Destroyed on drop; work that uses it must be finished by then.
#[derive(Debug)]
pub(crate) struct Bindings {
    compute: Arc<Compute>,
    pool: vk::DescriptorPool,
    set: vk::DescriptorSet,
}

impl Bindings {
    pub(crate) fn new(compute: &Arc<Compute>) -> Result<Self, Error> {
        let device = &compute.device;
        // Null until made, as above.
        let mut bindings = Self {
            compute: Arc::clone(compute),
            pool: vk::DescriptorPool::null(),
            set: vk::DescriptorSet::null(),
        };
        let sizes = BINDINGS.map(|kind| {
            vk::DescriptorPoolSize::default()
                .ty(kind)
                .descriptor_count(1)
        });
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(1)
            .pool_sizes(&sizes);
        // SAFETY: `info` and what it points to live until the call returns.
        bindings.pool = unsafe { device.raw().create_descriptor_pool(&info, None) }
            .map_err(device.failed(Call::CreateDescriptorPool))?;
        let layouts = [compute.set_layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(bindings.pool)
            .set_layouts(&layouts);
        // SAFETY: as above; the pool is new, and has room for one set.
        let sets = unsafe { device.raw().allocate_descriptor_sets(&info) }
            .map_err(device.failed(Call::AllocateDescriptorSets))?;
        bindings.set = sets.first().copied().unwrap_or_default();
        Ok(bindings)
    }

    /// Binds buffers of the same device: parameters, what is read, what is written.
    ///
    /// # Safety
    /// No work that was recorded with these bindings is being executed. The buffers have so many bytes
    /// and were made for their bindings' types; they are alive whenever such work is executed.
    pub(crate) unsafe fn bind(&mut self, bound: [Bound; 3]) {
        let infos = bound.map(|part| {
            [vk::DescriptorBufferInfo::default()
                .buffer(part.buffer)
                .range(part.bytes)]
        });
        let mut binding = 0..;
        let writes = std::array::from_fn::<_, 3, _>(|index| {
            vk::WriteDescriptorSet::default()
                .dst_set(self.set)
                .dst_binding(binding.next().unwrap_or_default())
                .descriptor_type(BINDINGS[index])
                .buffer_info(&infos[index])
        });
        // SAFETY: the set is alive, and the rest as the caller promises.
        unsafe {
            self.compute
                .device
                .raw()
                .update_descriptor_sets(&writes, &[])
        };
    }

    /// Records the shader's run.
    ///
    /// # Safety
    /// As for [`Commands::record`](super::Commands::record); buffers are [bound](Self::bind), and the number
    /// of workgroups has been [checked](Compute::check_groups).
    pub(crate) unsafe fn dispatch(&self, commands: vk::CommandBuffer, groups: [u32; 3]) {
        let raw = self.compute.device.raw();
        let point = vk::PipelineBindPoint::COMPUTE;
        let [x, y, z] = groups;
        // SAFETY: all are of this device, and the rest as the caller promises.
        unsafe {
            raw.cmd_bind_pipeline(commands, point, self.compute.pipeline);
            let (layout, sets) = (self.compute.layout, [self.set]);
            raw.cmd_bind_descriptor_sets(commands, point, layout, 0, &sets, &[]);
            raw.cmd_dispatch(commands, x, y, z);
        }
    }
}

impl Drop for Bindings {
    fn drop(&mut self) {
        let pool = self.pool;
        self.compute.device.destroy(move |raw| {
            // SAFETY: nothing uses the set any more, as the type's contract says; it goes with its pool.
            unsafe { raw.destroy_descriptor_pool(pool, None) }
        });
    }
}
