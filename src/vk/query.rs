//! What a driver says that it imports and exports. Each question is asked once per device.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use rustc_hash::FxHashMap;

use super::external::DMA_BUF;
use super::{Call, Device, Error, ImageUsage};
use crate::buffer::Modifier;
use crate::sys;

/// A kind of image.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) format: vk::Format,
    /// The format of other views, if there are to be some.
    pub(super) twin: Option<vk::Format>,
    /// The formats of views of single planes, if there are to be some.
    pub(super) planes: &'static [vk::Format],
    pub(super) modifier: Modifier,
    pub(super) usage: ImageUsage,
    pub(super) disjoint: bool,
}

impl Kind {
    pub(super) fn flags(&self) -> vk::ImageCreateFlags {
        let mut flags = vk::ImageCreateFlags::empty();
        if self.twin.is_some() || !self.planes.is_empty() {
            flags |= vk::ImageCreateFlags::MUTABLE_FORMAT;
        }
        if self.disjoint {
            flags |= vk::ImageCreateFlags::DISJOINT;
        }
        flags
    }

    /// The formats of its views, which have to be named (VUID-VkImageCreateInfo-tiling-02353).
    pub(super) fn views(&self) -> Vec<vk::Format> {
        let others = self.twin.into_iter().chain(self.planes.iter().copied());
        let others: Vec<_> = others.collect();
        match others.is_empty() {
            true => others,
            false => [vec![self.format], others].concat(),
        }
    }
}

/// The largest images of a kind, and what can be done with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) extent: vk::Extent3D,
    pub(super) features: vk::ExternalMemoryFeatureFlags,
}

type Listed = Arc<[vk::DrmFormatModifierPropertiesEXT]>;

/// The answers so far. A device's answers do not change, except that a lack of memory is not remembered.
#[derive(Default)]
pub(super) struct Answers {
    modifiers: Memo<vk::Format, Listed>,
    limits: Memo<Kind, Result<Limits, vk::Result>>,
    buffers: Memo<vk::BufferUsageFlags, vk::ExternalMemoryFeatureFlags>,
}

struct Memo<K, V>(Mutex<FxHashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    /// The remembered answer, or a new one, which is remembered if `keep` says so. The driver is asked
    /// without the lock.
    fn get(&self, question: K, ask: impl FnOnce(&K) -> V, keep: impl FnOnce(&V) -> bool) -> V {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&question).cloned();
        known.unwrap_or_else(|| {
            let answer = ask(&question);
            if keep(&answer) {
                lock().insert(question, answer.clone());
            }
            answer
        })
    }
}

/// The device that is asked.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    pub(super) instance: &'a ash::Instance,
    pub(super) device: vk::PhysicalDevice,
}

impl<'a> On<'a> {
    fn of(device: &'a Device) -> Self {
        Self {
            instance: device.physical().instance().raw(),
            device: device.physical().raw(),
        }
    }
}

/// Whether a device imports dma-bufs at all: as buffers to copy from, or as images of the most common
/// format. Some export only.
///
/// `has_modifiers`: whether the device has VK_EXT_image_drm_format_modifier. It has
/// VK_EXT_external_memory_dma_buf.
pub(super) fn imports(on: On<'_>, has_modifiers: bool) -> bool {
    let importable = vk::ExternalMemoryFeatureFlags::IMPORTABLE;
    if ask_buffers(on, vk::BufferUsageFlags::TRANSFER_SRC).contains(importable) {
        return true;
    }
    let format = vk::Format::B8G8R8A8_UNORM;
    has_modifiers
        && ask_modifiers(on, format).iter().any(|listed| {
            let kind = Kind {
                format,
                twin: None,
                planes: &[],
                modifier: Modifier(listed.drm_format_modifier),
                usage: vk::ImageUsageFlags::TRANSFER_SRC.into(),
                disjoint: false,
            };
            ask_limits(on, &kind).is_ok_and(|limits| limits.features.contains(importable))
        })
}

/// The modifiers that the device lists for a format.
pub(super) fn modifiers(device: &Device, format: vk::Format) -> Listed {
    let ask = |format: &vk::Format| ask_modifiers(On::of(device), *format);
    device.answers().modifiers.get(format, ask, |_| true)
}

/// The limits for images of this kind, shared as dma-bufs.
pub(super) fn limits(device: &Device, kind: Kind) -> Result<Limits, vk::Result> {
    let final_answer = |answer: &Result<Limits, vk::Result>| {
        matches!(answer, Ok(_) | Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED))
    };
    let ask = |kind: &Kind| ask_limits(On::of(device), kind);
    device.answers().limits.get(kind, ask, final_answer)
}

/// What can be done with buffers of this usage, shared as dma-bufs.
pub(super) fn buffers(
    device: &Device,
    usage: vk::BufferUsageFlags,
) -> vk::ExternalMemoryFeatureFlags {
    let ask = |usage: &vk::BufferUsageFlags| ask_buffers(On::of(device), *usage);
    device.answers().buffers.get(usage, ask, |_| true)
}

/// The features of a format that a usage needs.
pub(super) fn features(kind: &Kind) -> vk::FormatFeatureFlags {
    use vk::{FormatFeatureFlags as F, ImageUsageFlags as U};
    let needs = [
        (U::TRANSFER_SRC, F::TRANSFER_SRC),
        (U::TRANSFER_DST, F::TRANSFER_DST),
        (U::SAMPLED, F::SAMPLED_IMAGE),
        (U::STORAGE, F::STORAGE_IMAGE),
        (U::COLOR_ATTACHMENT, F::COLOR_ATTACHMENT),
    ];
    let mut features = match kind.disjoint {
        true => F::DISJOINT,
        false => F::empty(),
    };
    for (usage, feature) in needs {
        if kind.usage.flags.contains(usage) {
            features |= feature;
        }
    }
    features
}

fn ask_modifiers(on: On<'_>, format: vk::Format) -> Listed {
    let query = |list: &mut vk::DrmFormatModifierPropertiesListEXT<'_>| {
        let mut properties = vk::FormatProperties2::default().push_next(list);
        // SAFETY: the device has VK_EXT_image_drm_format_modifier.
        unsafe {
            on.instance
                .get_physical_device_format_properties2(on.device, format, &mut properties);
        }
    };
    let mut count = vk::DrmFormatModifierPropertiesListEXT::default();
    query(&mut count);
    let count = count.drm_format_modifier_count as usize;
    let mut listed = vec![vk::DrmFormatModifierPropertiesEXT::default(); count];
    let mut list = vk::DrmFormatModifierPropertiesListEXT::default()
        .drm_format_modifier_properties(&mut listed);
    query(&mut list);
    let filled = list.drm_format_modifier_count as usize;
    listed.truncate(filled);
    listed.into()
}

fn ask_limits(on: On<'_>, kind: &Kind) -> Result<Limits, vk::Result> {
    let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(DMA_BUF);
    let mut drm = vk::PhysicalDeviceImageDrmFormatModifierInfoEXT::default()
        .drm_format_modifier(kind.modifier.0)
        .sharing_mode(vk::SharingMode::EXCLUSIVE);
    let views = kind.views();
    let mut list = vk::ImageFormatListCreateInfo::default().view_formats(&views);
    let mut info = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(kind.format)
        .ty(vk::ImageType::TYPE_2D)
        .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
        .usage(kind.usage.flags)
        .flags(kind.flags())
        .push_next(&mut external)
        .push_next(&mut drm);
    if !views.is_empty() {
        info = info.push_next(&mut list);
    }
    let mut external = vk::ExternalImageFormatProperties::default();
    let mut properties = vk::ImageFormatProperties2::default().push_next(&mut external);
    // SAFETY: the device has the extensions whose structures are chained.
    unsafe {
        on.instance.get_physical_device_image_format_properties2(
            on.device,
            &info,
            &mut properties,
        )?;
    }
    Ok(Limits {
        extent: properties.image_format_properties.max_extent,
        features: external.external_memory_properties.external_memory_features,
    })
}

fn ask_buffers(on: On<'_>, usage: vk::BufferUsageFlags) -> vk::ExternalMemoryFeatureFlags {
    let info = vk::PhysicalDeviceExternalBufferInfo::default()
        .usage(usage)
        .handle_type(DMA_BUF);
    let mut answer = vk::ExternalBufferProperties::default();
    // SAFETY: the device has VK_EXT_external_memory_dma_buf.
    unsafe {
        on.instance
            .get_physical_device_external_buffer_properties(on.device, &info, &mut answer);
    }
    answer.external_memory_properties.external_memory_features
}

/// The memory types that a dma-buf can be imported as.
///
/// Mesa's lavapipe says so of any file, a dma-buf or not.
pub(super) fn memory_types(device: &Device, fd: std::os::fd::BorrowedFd<'_>) -> Result<u32, Error> {
    use std::os::fd::AsRawFd;
    let mut properties = vk::MemoryFdPropertiesKHR::default();
    sys::clear_errno();
    // SAFETY: the device has VK_KHR_external_memory_fd; the fd is open and stays the caller's.
    unsafe {
        device
            .functions()
            .memory_fd
            .get_memory_fd_properties(DMA_BUF, fd.as_raw_fd(), &mut properties)
            .map_err(|result| {
                let name = device.physical().name();
                Error::of_import(name, Call::GetMemoryFdProperties, result, sys::last_errno())
            })?;
    }
    Ok(properties.memory_type_bits)
}
