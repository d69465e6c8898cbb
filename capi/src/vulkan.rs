//! # Vulkan
//!
//! Buffers as images of the program's own Vulkan device. Handles have Vulkan's types as they are in memory: dispatchable
//! ones (VkInstance, VkDevice, VkCommandBuffer) are pointers, and the others (VkImage) are 64-bit numbers.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

use ash::vk::{self, Handle as _};
use primeshare::vk::{Device, Host, Image, ImageUsage, Instance, Transfer, Use};

use crate::allocator::usage;
use crate::arguments::{Growing, array, out, required, text};
use crate::buffer::primeshare_buffer;
use crate::failure::{Failure, call};
use crate::negotiation::primeshare_endpoint;
use crate::object::{Object, give, give_exclusive, is_null, of, reference, unreference};

failures! { primeshare::vk::Error }

/// The image is copied from.
pub const PRIMESHARE_VULKAN_SOURCE: u32 = 1;
/// It is copied into.
pub const PRIMESHARE_VULKAN_DESTINATION: u32 = 2;
/// It is sampled.
pub const PRIMESHARE_VULKAN_SAMPLED: u32 = 4;
/// It is rendered into.
pub const PRIMESHARE_VULKAN_ATTACHMENT: u32 = 8;
/// It is read and written by shaders.
pub const PRIMESHARE_VULKAN_STORAGE: u32 = 16;

const USES: [(u32, Use); 5] = [
    (PRIMESHARE_VULKAN_SOURCE, Use::Source),
    (PRIMESHARE_VULKAN_DESTINATION, Use::Destination),
    (PRIMESHARE_VULKAN_SAMPLED, Use::Sampled),
    (PRIMESHARE_VULKAN_ATTACHMENT, Use::Attachment),
    (PRIMESHARE_VULKAN_STORAGE, Use::Storage),
];

fn image_usage(uses: u32) -> Result<ImageUsage, Failure> {
    let mut flags = vk::ImageUsageFlags::empty();
    let mut rest = uses;
    for (bit, used) in USES {
        if uses & bit != 0 {
            flags |= used.usage();
            rest &= !bit;
        }
    }
    match rest {
        0 => Ok(flags.into()),
        rest => Err(Failure::invalid(format!(
            "there is no use {rest:#x} of an image"
        ))),
    }
}

fn one_use(use_bit: u32) -> Result<Use, Failure> {
    let used = USES.into_iter().find(|(bit, _)| *bit == use_bit);
    let used = used.map(|(_, used)| used);
    used.ok_or_else(|| Failure::invalid(format!("{use_bit:#x} is not one use of an image")))
}

/// A device that the program made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_vulkan_device_info {
    /// sizeof(struct primeshare_vulkan_device_info)
    pub size: usize,
    /// vkGetInstanceProcAddr
    pub get_instance_proc_addr: *const c_void,
    /// VkInstance
    pub instance: *mut c_void,
    /// VkApplicationInfo::apiVersion of the instance: at least Vulkan 1.1.
    pub api_version: u32,
    /// The family of the queue that works with shared images.
    pub queue_family: u32,
    /// VkPhysicalDevice
    pub physical_device: *mut c_void,
    /// VkDevice
    pub device: *mut c_void,
    /// The extensions that the device was created with.
    pub extensions: *const *const c_char,
    /// How many.
    pub extension_count: usize,
    /// 1 if it was created with the feature samplerYcbcrConversion.
    pub ycbcr: u32,
    /// 1 if it was created with the feature timelineSemaphore.
    pub timeline: u32,
}

// SAFETY: repr(C), the size first, numbers and pointers that may be NULL.
unsafe impl Growing for primeshare_vulkan_device_info {
    const NAME: &'static str = "primeshare_vulkan_device_info";
}

/// A Vulkan device of the program's. All calls are thread-safe.
pub struct primeshare_vulkan_device(Device);

impl Object for primeshare_vulkan_device {
    const NAME: &'static str = "primeshare_vulkan_device";
}

/// Takes part in a device of the program's, which must live longer than this and all images that are made with it. What
/// the device was not created with is an error of the functions that need it: images need
/// VK_EXT_external_memory_dma_buf, VK_KHR_external_memory_fd, VK_EXT_image_drm_format_modifier and
/// VK_EXT_queue_family_foreign.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_device_wrap(
    info: *const primeshare_vulkan_device_info,
    device: Option<&mut MaybeUninit<*mut primeshare_vulkan_device>>,
) -> c_int {
    call(c"primeshare_vulkan_device_wrap", || {
        // SAFETY: as the header asks.
        let info = unsafe { required(info, "info") }?;
        let place = out(device, "device")?;
        for (pointer, name) in [
            (
                info.get_instance_proc_addr.cast_mut(),
                "get_instance_proc_addr",
            ),
            (info.instance, "instance"),
            (info.physical_device, "physical_device"),
            (info.device, "device of info"),
        ] {
            if pointer.is_null() {
                return Err(is_null(name));
            }
        }
        // SAFETY: as the header asks.
        let names = unsafe { array(info.extensions, info.extension_count, "extensions") }?;
        let mut extensions: Vec<&CStr> = Vec::with_capacity(names.len());
        for name in names {
            // SAFETY: as the header asks.
            extensions.push(unsafe { text(*name, "one of extensions") }?);
        }
        let handle = |pointer: *mut c_void| pointer.addr() as u64;
        let static_fn = ash::StaticFn {
            // SAFETY: the header says that it is this function.
            get_instance_proc_addr: unsafe {
                std::mem::transmute::<*const c_void, vk::PFN_vkGetInstanceProcAddr>(
                    info.get_instance_proc_addr,
                )
            },
        };
        let instance = vk::Instance::from_raw(handle(info.instance));
        // SAFETY: the program's instance, of which this is the function.
        let instance = unsafe { ash::Instance::load(&static_fn, instance) };
        let raw = vk::Device::from_raw(handle(info.device));
        // SAFETY: the program's device, of that instance.
        let raw = unsafe { ash::Device::load(instance.fp_v1_0(), raw) };
        // SAFETY: the header asks that the program's instance lives longer.
        let instance = unsafe { Instance::wrap(instance, info.api_version) }?;
        let physical = vk::PhysicalDevice::from_raw(handle(info.physical_device));
        // SAFETY: it is of that instance.
        let physical = unsafe { instance.physical_device(physical) }?;
        let mut host = Host::new(physical, raw, &extensions, info.queue_family);
        host.ycbcr = info.ycbcr != 0;
        host.timeline = info.timeline != 0;
        // SAFETY: the header asks for all of it; there is no queue to submit to.
        let device = unsafe { Device::wrap(host) };
        place.write(give(Arc::new(primeshare_vulkan_device(device))));
        Ok(())
    })
}

/// Adds a reference, and returns the device. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_device_ref(
    device: *const primeshare_vulkan_device,
) -> *mut primeshare_vulkan_device {
    // SAFETY: as the header asks.
    unsafe { reference(device) }
}

/// Takes a reference back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_device_unref(device: *mut primeshare_vulkan_device) {
    // SAFETY: as the header asks.
    unsafe { unreference(device) }
}

/// What the device can do with buffers for a usage (PRIMESHARE_USAGE_*), for primeshare_negotiate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_device_get_endpoint(
    device: Option<&primeshare_vulkan_device>,
    usage_bits: u32,
    endpoint: Option<&mut MaybeUninit<*mut primeshare_endpoint>>,
) -> c_int {
    call(c"primeshare_vulkan_device_get_endpoint", || {
        let device = of(device, "device")?;
        let place = out(endpoint, "endpoint")?;
        let endpoint = device.0.endpoint(usage(usage_bits)?)?;
        place.write(give_exclusive(primeshare_endpoint(endpoint)));
        Ok(())
    })
}

/// A buffer as an image of a Vulkan device. All calls are thread-safe.
// The same in memory, so that a lookup of an image allocates nothing. The header's writer is not to see it.
#[cfg_attr(all(), repr(transparent))]
pub struct primeshare_vulkan_image(Image);

impl Object for primeshare_vulkan_image {
    const NAME: &'static str = "primeshare_vulkan_image";
}

/// The image of a buffer for these uses (PRIMESHARE_VULKAN_*, added). Imported with the first call, and a lookup as long
/// as the program has it; a refusal is remembered with the buffer. An image must be kept until the GPU has done the
/// work that uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_device_get_image(
    device: Option<&primeshare_vulkan_device>,
    buffer: Option<&primeshare_buffer>,
    uses: u32,
    image: Option<&mut MaybeUninit<*mut primeshare_vulkan_image>>,
) -> c_int {
    call(c"primeshare_vulkan_device_get_image", || {
        let device = of(device, "device")?;
        let buffer = of(buffer, "buffer")?;
        let place = out(image, "image")?;
        let image = Arc::into_raw(device.0.image(&buffer.0, image_usage(uses)?)?);
        // SAFETY: both types are the same in memory.
        let image = unsafe { Arc::from_raw(image.cast::<primeshare_vulkan_image>()) };
        place.write(give(image));
        Ok(())
    })
}

/// Adds a reference, and returns the image. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_image_ref(
    image: *const primeshare_vulkan_image,
) -> *mut primeshare_vulkan_image {
    // SAFETY: as the header asks.
    unsafe { reference(image) }
}

/// Takes a reference back. The VkImage is destroyed with the last one. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_image_unref(image: *mut primeshare_vulkan_image) {
    // SAFETY: as the header asks.
    unsafe { unreference(image) }
}

/// The VkImage; 0, VK_NULL_HANDLE, if `image` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_vulkan_image_handle(image: Option<&primeshare_vulkan_image>) -> u64 {
    of(image, "image").map_or(0, |image| image.0.raw().as_raw())
}

/// Its VkFormat; 0, VK_FORMAT_UNDEFINED, if `image` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_vulkan_image_format(image: Option<&primeshare_vulkan_image>) -> i32 {
    of(image, "image").map_or(0, |image| image.0.format().as_raw())
}

/// The VkImageLayout in which an image is used so: that of an acquired image, and of one that is to be released.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_vulkan_layout_of(use_bit: u32) -> i32 {
    one_use(use_bit).map_or(0, |used| used.layout().as_raw())
}

/// Records what makes an image the queue family's own, after others have worked on its buffer: a barrier from
/// VK_QUEUE_FAMILY_FOREIGN_EXT into the layout of one use. `command_buffer` is a VkCommandBuffer in the recording state,
/// outside of a render pass. The submission must wait for the buffer's fences.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_image_acquire(
    image: Option<&primeshare_vulkan_image>,
    command_buffer: *mut c_void,
    use_bit: u32,
) -> c_int {
    call(c"primeshare_vulkan_image_acquire", || {
        transfer(image, command_buffer, use_bit, |commands, transfers| {
            // SAFETY: as the header asks.
            unsafe { primeshare::vk::acquire(commands, transfers) }
        })
    })
}

/// Records what gives an image back to others, after one use: the barrier to VK_QUEUE_FAMILY_FOREIGN_EXT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_vulkan_image_release(
    image: Option<&primeshare_vulkan_image>,
    command_buffer: *mut c_void,
    use_bit: u32,
) -> c_int {
    call(c"primeshare_vulkan_image_release", || {
        transfer(image, command_buffer, use_bit, |commands, transfers| {
            // SAFETY: as the header asks.
            unsafe { primeshare::vk::release(commands, transfers) }
        })
    })
}

fn transfer(
    image: Option<&primeshare_vulkan_image>,
    command_buffer: *mut c_void,
    use_bit: u32,
    record: impl FnOnce(vk::CommandBuffer, &[Transfer<'_>]),
) -> Result<(), Failure> {
    let image = of(image, "image")?;
    if command_buffer.is_null() {
        return Err(is_null("command_buffer"));
    }
    let used = one_use(use_bit)?;
    let commands = vk::CommandBuffer::from_raw(command_buffer.addr() as u64);
    record(commands, &[Transfer::image(&image.0, used)]);
    Ok(())
}
