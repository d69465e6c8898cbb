//! Allocation through Mesa's gbm.
//!
//! Mesa keeps a handle table of its own on the file description it is given, and closes handles
//! as *it* counts them. So gbm gets a file description that no [`gem`] table shares,
//! and its handles are neither counted nor closed here. A buffer is exported, also by Mesa, so that
//! its driver knows of it, and the `gbm_bo` is destroyed. From then on the dma-buf keeps the memory.
//!
//! ```no_run
//! use primeshare::gbm::{self, Gbm};
//! use primeshare::{Allocator, Device, Fourcc, Modifier, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = Device::open("/dev/dri/renderD128")?;
//! let gbm = Gbm::new(&gpu)?;
//! let tiled = Modifier(0x0100_0000_0000_0002);
//! let request = Request::new(1920, 1080, Fourcc::XRGB8888).modifiers([tiled, Modifier::LINEAR]);
//! match gbm.allocate(&request) {
//!     Ok(buffer) => println!("{} by {}", buffer.modifier(), gbm.backend()),
//!     Err(error) => println!("{error}; gbm's own error: {:?}", error.of::<gbm::Error>()),
//! }
//! # Ok(())
//! # }
//! ```

mod create;
mod error;
mod export;
mod in_use;

pub use error::Error;

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use gbm::BufferObjectFlags;

use crate::Errno;
use crate::alloc::{self, Allocator, Request, Usage};
use crate::buffer::{BufferDesc, BufferId, DmaBuf, Fourcc, MAX_PLANES, Modifier, PlaneFd};
use crate::device::{self, Device};
use crate::negotiate::{Endpoint, Support};
use crate::sys::process::Owner;
use crate::{gem, sys};
use in_use::InUse;

/// Whether the device has a render node and no GPU: there gbm makes dumb buffers, which the kernel
/// refuses on render nodes (`DRM_IOCTL_MODE_CREATE_DUMB` lacks `DRM_RENDER_ALLOW`). Trying works too,
/// but Mesa complains on standard error.
fn has_no_gpu(device: &Device) -> bool {
    match device.driver() {
        "vgem" => true,
        // A virtual machine's screen, unless its host draws for it.
        "virtio_gpu" => sys::virtgpu::has_3d(device.as_fd()) == Ok(false),
        _ => false,
    }
}

/// Allocates through gbm.
///
/// On a device without a GPU driver Mesa's gbm makes dumb buffers, and then needs a primary node.
///
/// # Layouts
/// A buffer has a modifier that was asked for, or none is made. A LINEAR buffer is also asked for
/// without [`Usage::RENDER`] if gbm refuses both together, as NVIDIA's does: other devices can read
/// it, but its own may not draw into it.
///
/// # Writing by the CPU
/// A buffer can be mapped for writing, with one exception. Several of Mesa's drivers keep one
/// screen for all file descriptions of a node in the process (nouveau, panfrost, lima, freedreno,
/// etnaviv, asahi, v3d, vc4, radeon). If the program used gbm or EGL on the node before, then only
/// Mesa can export the buffer, and some of these drivers export it read-only (they call
/// PRIME_HANDLE_TO_FD without `DRM_RDWR`: etnaviv, lima, v3d, vc4). A writable mapping then fails
/// with EACCES; GPUs and displays are not affected.
///
/// # Memory of its own
/// Drivers keep the memory of destroyed buffers for new ones, unless it was exported. Mesa's driver
/// is told of every export by `gbm_bo_get_fd_for_plane`, and a buffer of which it cannot be told is
/// not handed out ([`Error::Export`]). Nor is a new buffer in the memory of an older one that
/// still lives ([`Error::Reused`]).
pub struct Gbm {
    device: String,
    /// Behind a lock: Mesa's software winsys (kms_swrast) is not thread-safe, and nothing says
    /// that another backend is.
    gbm: ManuallyDrop<Mutex<gbm::Device<OwnedFd>>>,
    owner: Owner,
}

impl Drop for Gbm {
    fn drop(&mut self) {
        // Mesa would close the parent's handles.
        if self.owner.is_here() {
            // SAFETY: dropped once, here, and not used after it.
            unsafe { ManuallyDrop::drop(&mut self.gbm) }
        }
    }
}

impl Gbm {
    /// An allocator for the device, on a file description of its own.
    ///
    /// Of the device's render node where gbm can allocate there: a primary node opened while a
    /// compositor runs is not authenticated, and drivers refuse rendering to it. Mesa's software
    /// gbm needs the primary node, for dumb buffers. (An error of the moment, such as EMFILE, is
    /// given back: what is made on the primary node for want of an fd would stay there.)
    pub fn new(device: &Device) -> Result<Self, alloc::Error> {
        let render = device.node().render_node()?;
        let render = render
            .filter(|node| node.id != device.node().id)
            .filter(|_| !has_no_gpu(device));
        if let Some(node) = render {
            match Self::open(&node.path) {
                Err(error) if is_refusal(&error) => {
                    log::debug!("gbm on {}: {error}", node.path.display());
                }
                made_or_failed => return made_or_failed,
            }
        }
        Self::open(&device.node().path)
    }

    /// An allocator for the node at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, alloc::Error> {
        let path = path.as_ref();
        Self::on(device::open_node(path)?, path.display().to_string())
    }

    /// An allocator on an fd of a DRM node, which is gbm's from now on, also after an error. No
    /// [`Device`] and no other code may use its file description.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, alloc::Error> {
        let name = sys::drm::driver_name(fd.as_fd()).unwrap_or_else(|_| "DRM device".to_owned());
        Self::on(fd, name)
    }

    fn on(file: OwnedFd, device: String) -> Result<Self, alloc::Error> {
        let gbm = gbm::Device::new(file).map_err(|error| Error::Backend {
            device: device.clone(),
            errno: sys::errno(error),
        })?;
        let new = Self {
            device,
            gbm: ManuallyDrop::new(Mutex::new(gbm)),
            owner: Owner::current(),
        };
        // gbm makes devices that cannot allocate: on the render node of a device without a GPU,
        // and after an error that Mesa keeps to itself (seen with EMFILE, Mesa 26.1). Others might
        // allocate what cannot be exported.
        let mut request = Request::new(64, 64, Fourcc::XRGB8888);
        request.modifiers = vec![Modifier::INVALID];
        new.make(&new.lock(), &request)?;
        Ok(new)
    }

    /// A new buffer's planes, and its modifier. The `gbm_bo` goes before this returns.
    fn make(
        &self,
        gbm: &gbm::Device<OwnedFd>,
        request: &Request,
    ) -> Result<(ArrayVec<PlaneFd, MAX_PLANES>, Modifier), alloc::Error> {
        let (bo, modifier) = create::create(gbm, &self.device, request)?;
        let planes = export::planes(gbm.as_fd(), &self.device, &bo)?;
        Ok((planes, modifier))
    }

    /// Mesa's name for the backend: `drm` for its own drivers, `nvidia` …
    pub fn backend(&self) -> String {
        self.lock().backend_name().to_owned()
    }

    /// Of these pairs, those that gbm says it knows for this usage, and what is left to the driver
    /// ([`Modifier::INVALID`]) of formats that it supports. For
    /// [`negotiate`](crate::negotiate::negotiate): `candidates` are what the other endpoints know,
    /// since gbm lists nothing by itself.
    ///
    /// [`alloc::Error::Device`] if it cannot be found out which device this is.
    pub fn endpoint(
        &self,
        usage: Usage,
        candidates: impl IntoIterator<Item = (Fourcc, Modifier)>,
    ) -> Result<Endpoint, alloc::Error> {
        let gbm = self.lock();
        let device = device::key_of_fd(gbm.as_fd())?;
        let known = |(fourcc, modifier): (Fourcc, Modifier)| {
            let format = gbm::Format::try_from(fourcc.0).ok()?;
            if !gbm.is_format_supported(format, flags_of(usage)) {
                return None;
            }
            let planes = match modifier.is_explicit() {
                true => gbm.format_modifier_plane_count(format, modifier.0.into()),
                false => None,
            };
            // Backends that know no modifiers say nothing of any, and make LINEAR when told to.
            let knows =
                planes.is_some() || matches!(modifier, Modifier::LINEAR | Modifier::INVALID);
            knows.then(|| Support {
                planes: planes.and_then(|planes| u8::try_from(planes).ok()),
                ..Support::new(fourcc, modifier)
            })
        };
        let formats = candidates.into_iter().filter_map(known).collect();
        Ok(Endpoint::gbm(self.device.clone(), device, usage, formats))
    }

    fn lock(&self) -> MutexGuard<'_, gbm::Device<OwnedFd>> {
        self.gbm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether gbm will never work on this node, as far as an errno can tell: Mesa's may be of something
/// else that it met (ENOENT of a library, for want of an fd).
fn is_refusal(error: &alloc::Error) -> bool {
    let errno = match (error, error.of()) {
        (alloc::Error::Device(device::Error::Open { errno, .. }), _) => {
            if *errno == Errno::ENOENT {
                return true;
            }
            *errno
        }
        (_, Some(Error::Backend { errno, .. } | Error::Create { errno, .. })) => *errno,
        // Mesa gives no reason, or one of its own.
        (_, Some(Error::Export { errno, .. })) => errno.unwrap_or(Errno::EINVAL),
        _ => return false,
    };
    matches!(
        errno,
        Errno::EACCES
            | Errno::EINVAL
            | Errno::ENODEV
            | Errno::ENOSYS
            | Errno::ENXIO
            | Errno::EOPNOTSUPP
            | Errno::EPERM
    )
}

fn flags_of(usage: Usage) -> BufferObjectFlags {
    let mut flags = BufferObjectFlags::empty();
    // gbm has one word for all that a GPU does.
    let by_gpu = Usage::RENDER | Usage::SAMPLE | Usage::STORE | Usage::COPY_FROM | Usage::COPY_TO;
    flags.set(BufferObjectFlags::RENDERING, usage.intersects(by_gpu));
    flags.set(BufferObjectFlags::SCANOUT, usage.contains(Usage::SCANOUT));
    flags
}

impl Allocator for Gbm {
    fn name(&self) -> &'static str {
        "gbm"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, alloc::Error> {
        if request.width == 0 || request.height == 0 {
            return Err(crate::buffer::Error::Empty {
                width: request.width,
                height: request.height,
            }
            .into());
        }
        if !self.owner.is_here() {
            let device = self.device.clone();
            return Err(gem::Error::Forked { device }.into());
        }
        let (planes, modifier) = self.make(&self.lock(), request)?;
        // Without an identity it is no dma-buf, which `DmaBuf` says below.
        let ids = planes.iter().flat_map(|plane| BufferId::of(&plane.fd));
        let in_use = InUse::enter(ids).map_err(|id| Error::Reused {
            device: self.device.clone(),
            id,
        })?;
        let layout = BufferDesc::new(request.width, request.height, request.fourcc, modifier);
        Ok(DmaBuf::new_keeping(layout, planes, Some(Box::new(in_use)))?)
    }
}

impl std::fmt::Debug for Gbm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gbm").field("device", &self.device).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(errno: Errno) -> alloc::Error {
        let path = "/dev/dri/renderD128".into();
        alloc::Error::Device(device::Error::Open { path, errno })
    }

    fn backend(errno: Errno) -> alloc::Error {
        let device = "/dev/dri/renderD128".to_owned();
        Error::Backend { device, errno }.into()
    }

    fn create(errno: Errno) -> alloc::Error {
        Error::Create {
            device: "/dev/dri/renderD128".to_owned(),
            width: 64,
            height: 64,
            fourcc: Fourcc::XRGB8888,
            modifiers: Vec::new(),
            usage: crate::alloc::Usage::SCANOUT,
            errno,
        }
        .into()
    }

    /// The errors that `Gbm::open` gave on vgem's render node, in the guest with Mesa 26.1.
    #[test]
    fn only_a_refusal_sends_gbm_to_the_primary_node() {
        assert!(is_refusal(&create(Errno::EACCES)));
        for of_the_moment in [
            open(Errno::EMFILE),
            open(Errno::ENOMEM),
            backend(Errno::EMFILE),
            backend(Errno::ENOMEM),
            create(Errno::EMFILE),
            create(Errno::ENOENT),
        ] {
            assert!(!is_refusal(&of_the_moment), "{of_the_moment}");
        }
    }

    #[test]
    fn an_export_without_a_reason_sends_gbm_to_the_primary_node() {
        let export = |errno| {
            let device = "/dev/dri/renderD128".to_owned();
            alloc::Error::from(Error::Export {
                device,
                plane: 0,
                errno,
            })
        };
        assert!(is_refusal(&export(None)));
        assert!(!is_refusal(&export(Some(Errno::EMFILE))));
    }

    #[test]
    fn a_render_node_that_is_not_ours_to_open_is_a_refusal() {
        assert!(is_refusal(&open(Errno::EACCES)));
        assert!(is_refusal(&open(Errno::ENOENT)));
    }
}
