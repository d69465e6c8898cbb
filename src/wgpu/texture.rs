//! Shared buffers as wgpu textures. Whenever wgpu may use one, it must be in the layout that `IdleState` says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use wgpu::hal::api::Vulkan;
use wgpu::{Extent3d, Features, TextureFormat, TextureUsages};

use super::format::{self, IdleState, format_of};
use super::scopes::catch;
use super::{Device, Error};
use crate::alloc::Request;
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo, Modifier, Refusal, WeakPerBuffer};
use crate::vk::{self, Image, ImageUsage};

/// What a shared texture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextureUse {
    /// All uses by wgpu.
    pub usages: TextureUsages,
    /// Whether views may also be of the format's `Srgb` twin, which is then one of the texture's
    /// `view_formats`. Passed over for formats that have none.
    pub srgb: bool,
}

impl TextureUse {
    /// As before, with views as sRGB.
    pub fn with_srgb(self) -> Self {
        Self { srgb: true, ..self }
    }
}

impl From<TextureUsages> for TextureUse {
    fn from(usages: TextureUsages) -> Self {
        Self {
            usages,
            srgb: false,
        }
    }
}

/// A shared buffer as a wgpu texture.
///
/// At first, and between [`Device::release`] and [`Device::acquire`], it belongs to the outside world. wgpu
/// must not use it then, neither in submissions nor in `Queue::write_texture`: what is read or written would be
/// undefined. wgpu takes its contents for initialised and never clears them.
///
/// Image and memory are destroyed when neither this value nor wgpu uses them any more: wgpu keeps them for as
/// long as submitted work uses the texture. It keeps the memory, not the [`DmaBuf`]'s fds.
#[derive(Debug)]
pub struct Texture {
    texture: wgpu::Texture,
    /// Also kept by wgpu's texture.
    pub(super) image: Arc<Image>,
    pub(super) idle: IdleState,
    acquired: AtomicBool,
}

/// What a device has imported and what is in use, by what it is used for.
#[derive(Default)]
pub(super) struct Textures(Mutex<FxHashMap<TextureUse, WeakPerBuffer<Texture, Error>>>);

impl Textures {
    fn of(&self, used: TextureUse) -> WeakPerBuffer<Texture, Error> {
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        caches.entry(used).or_default().clone()
    }
}

impl Device {
    /// Imports a buffer as a texture of the caller's own, contents kept. [`Self::texture`] finds
    /// one again that is in use already.
    ///
    /// The texture's format is [`format_of`] the buffer's. NV12 and P010 are textures of two
    /// planes: view them with `TextureAspect::Plane0` and `Plane1`. The fds stay the buffer's own.
    /// Refusals are those of [`vk::Device::import_image`], and wgpu's: formats it does not have,
    /// features and limits the device was created without.
    pub fn import(&self, buffer: &DmaBuf, used: impl Into<TextureUse>) -> Result<Texture, Error> {
        let plan = self.plan(buffer.desc(), used.into())?;
        let image = self.vulkan().import_image(buffer, plan.usage)?;
        self.wrap_image(image, &plan)
    }

    /// The texture of a buffer for this use: the one that is in use already, or a new one.
    ///
    /// One texture per memory, layout and use, whoever asks; it goes with its last user. A refusal
    /// is remembered with its reason until the buffer goes, unless it is transient, such as a lack of
    /// memory. No system call where the answer is known.
    pub fn texture(
        &self,
        buffer: &DmaBuf,
        used: impl Into<TextureUse>,
    ) -> Result<Arc<Texture>, Error> {
        let used = used.into();
        let found = self.textures().of(used).get_or_make(buffer, || {
            self.import(buffer, used)
                .map_err(|error| match error.is_transient() {
                    true => Refusal::Transient(error),
                    false => Refusal::Permanent(error),
                })
        });
        found.map_err(Arc::unwrap_or_clone)
    }

    /// Allocates a texture that can be shared, in whichever of the request's layouts the driver
    /// likes best, and its buffer, as [`vk::Device::create_image`] does.
    ///
    /// The contents are undefined. wgpu's queue makes the layout of tiled memory, and nobody else may use the
    /// buffer before that is done: the first [`Self::release`] comes after it.
    pub fn create(
        &self,
        request: &Request,
        used: impl Into<TextureUse>,
    ) -> Result<(Texture, DmaBuf), Error> {
        let &Request {
            width,
            height,
            fourcc,
            ..
        } = request;
        let asked = BufferDesc::new(width, height, fourcc, Modifier::INVALID);
        let plan = self.plan(&asked, used.into())?;
        let (image, buffer) = self.vulkan().create_image(
            request.width,
            request.height,
            request.fourcc,
            &request.modifiers,
            plan.usage,
        )?;
        let texture = self.wrap_image(image, &plan)?;
        if buffer.modifier() != Modifier::LINEAR {
            self.initialize(&texture)?;
        }
        Ok((texture, buffer))
    }

    /// Whether wgpu has such textures on this device, and what they are.
    fn plan(&self, layout: &BufferDesc, used: TextureUse) -> Result<Plan, Error> {
        let format = format_of(layout.fourcc).ok_or(Error::Format(layout.fourcc))?;
        let enabled = self.device().features();
        let missing = format.required_features() - enabled;
        if !missing.is_empty() {
            return Err(Error::Features { format, missing });
        }
        let mut refused = format::unknown(used.usages);
        // With that feature the driver decides, which is asked before importing.
        let guaranteed = !enabled.contains(Features::TEXTURE_ADAPTER_SPECIFIC_FORMAT_FEATURES);
        if guaranteed || format.is_multi_planar_format() {
            let allowed = format.guaranteed_format_features(enabled).allowed_usages;
            refused |= used.usages - allowed;
        }
        let idle = format::idle_state(used.usages).filter(|_| refused.is_empty());
        let idle = idle.ok_or(Error::Usages {
            format,
            usages: refused,
        })?;
        let most = self.device().limits().max_texture_dimension_2d;
        if layout.width > most || layout.height > most {
            return Err(Error::TooLarge {
                width: layout.width,
                height: layout.height,
                most,
            });
        }
        let twin = Some(format.add_srgb_suffix()).filter(|twin| used.srgb && *twin != format);
        let usage = ImageUsage::from(format::image_usage(used.usages));
        Ok(Plan {
            format,
            twin,
            usages: used.usages,
            usage: ImageUsage {
                srgb: twin.is_some(),
                // wgpu views planes, and nothing else of such formats.
                planes: format.is_multi_planar_format(),
                ..usage
            },
            idle,
        })
    }

    fn wrap_image(&self, image: Image, plan: &Plan) -> Result<Texture, Error> {
        let Plan { idle, .. } = *plan;
        let size = Extent3d {
            width: image.extent().width,
            height: image.extent().height,
            depth_or_array_layers: 1,
        };
        let view_formats = Vec::from_iter(plan.twin);
        let descriptor = wgpu::TextureDescriptor {
            label: None,
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: plan.format,
            usage: plan.usages,
            view_formats: &view_formats,
        };
        let hal_descriptor = wgpu::hal::TextureDescriptor {
            label: None,
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: plan.format,
            usage: idle.state,
            memory_flags: wgpu::hal::MemoryFlags::empty(),
            view_formats: view_formats.clone(),
        };
        let image = Arc::new(image);
        let kept = image.clone();
        let done = Box::new(move || drop(kept));
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { self.device().as_hal::<Vulkan>() }.ok_or(Error::NotVulkan)?;
        let texture = catch(self.device(), || {
            // SAFETY: the image is of this device, made as the descriptor says, with
            // MUTABLE_FORMAT where there are view formats, and alive with its memory until `done`.
            // With a state that is not UNINITIALIZED wgpu keeps the contents, and as a texture
            // from outside it is not cleared either (`init` is false for it in wgpu-core's
            // create_texture_from_hal). The state is what the layout is whenever wgpu may look:
            // after `acquire`.
            Ok(unsafe {
                let texture = hal.texture_from_raw(
                    image.raw(),
                    &hal_descriptor,
                    Some(done),
                    wgpu::hal::vulkan::TextureMemory::External,
                );
                self.device()
                    .create_texture_from_hal::<Vulkan>(texture, &descriptor, idle.state)
            })
        })?;
        Ok(Texture {
            texture,
            image,
            idle,
            acquired: AtomicBool::new(false),
        })
    }
}

/// What to make of a buffer.
struct Plan {
    format: TextureFormat,
    /// What it may also be viewed as.
    twin: Option<TextureFormat>,
    usages: TextureUsages,
    usage: ImageUsage,
    idle: IdleState,
}

impl Texture {
    /// wgpu's texture, to be used between [`Device::acquire`] and [`Device::release`].
    pub fn get(&self) -> &wgpu::Texture {
        &self.texture
    }

    /// The image it is.
    pub fn image(&self) -> &vk::Image {
        &self.image
    }

    /// Size, format and modifier of the buffer.
    pub fn desc(&self) -> &BufferDesc {
        self.image.desc()
    }

    /// Whether alpha that a shader samples is undefined, so that one has to be used instead.
    pub fn is_opaque(&self) -> bool {
        FormatInfo::of(self.desc().fourcc).is_some_and(|info| !info.alpha)
    }

    /// Whether wgpu may use it now.
    pub fn is_acquired(&self) -> bool {
        self.acquired.load(Ordering::Acquire)
    }

    /// Marks the texture as acquired or released. An error if it is so already.
    pub(super) fn set_acquired(&self, acquired: bool) -> Result<(), Error> {
        let was = self.acquired.swap(acquired, Ordering::AcqRel);
        match (was == acquired, acquired) {
            (false, _) => Ok(()),
            (true, true) => Err(Error::Acquired),
            (true, false) => Err(Error::NotAcquired),
        }
    }
}
