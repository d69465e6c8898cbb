//! Allocation through Mesa's gbm.
//!
//! Mesa keeps a handle table of its own on the file description it is given, and closes handles
//! as *it* counts them. So gbm gets a file description that no [`gem`] table shares,
//! and its handles are neither counted nor closed here: the buffer is exported and the `gbm_bo`
//! destroyed, since from then on the dma-buf keeps the memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use gbm::{BufferObject, BufferObjectFlags};
use nix::errno::Errno;

use crate::alloc::{Allocator, Error, Request, Usage};
use crate::buffer::{DmaBuf, Fourcc, Layout, MAX_PLANES, Modifier, PlaneFd};
use crate::device::{self, Device};
use crate::negotiate::{self, DeviceKey, Endpoint, Support};
use crate::{gem, sys};

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
pub struct Gbm {
    device: String,
    /// Behind a lock: Mesa's software winsys (kms_swrast) is not thread-safe, and nothing says
    /// that another backend is.
    gbm: Mutex<gbm::Device<OwnedFd>>,
}

impl Gbm {
    /// An allocator for the device, on a file description of its own.
    ///
    /// Of the device's render node where gbm can allocate there: a primary node opened while a
    /// compositor runs is not authenticated, and drivers refuse rendering to it. Mesa's software
    /// gbm needs the primary node, for dumb buffers. (An error of the moment, such as EMFILE, is
    /// given back: what is made on the primary node for want of an fd would stay there.)
    pub fn new(device: &Device) -> Result<Self, Error> {
        let render = device::render_node_of(device.node())?
            .filter(|path| *path != device.node().path)
            .filter(|_| !has_no_gpu(device));
        if let Some(path) = render {
            match Self::open(&path) {
                Err(error) if is_refusal(&error) => {
                    log::debug!("gbm on {}: {error}", path.display());
                }
                made_or_failed => return made_or_failed,
            }
        }
        Self::open(&device.node().path)
    }

    /// An allocator for the node at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::on(device::open_node(path)?, path.display().to_string())
    }

    /// An allocator on an fd of a DRM node, which is gbm's from now on, also after an error. No
    /// [`Device`] and no other code may use its file description.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let name = sys::drm::driver_name(fd.as_fd()).unwrap_or_else(|_| "DRM device".to_owned());
        Self::on(fd, name)
    }

    fn on(file: OwnedFd, device: String) -> Result<Self, Error> {
        let gbm = gbm::Device::new(file).map_err(|error| Error::GbmDevice {
            device: device.clone(),
            errno: sys::errno(error),
        })?;
        let new = Self {
            device,
            gbm: Mutex::new(gbm),
        };
        // gbm makes devices that cannot allocate: on the render node of a device without a GPU,
        // and where Mesa met an error that it keeps to itself (seen with EMFILE, Mesa 26.1).
        let mut request = Request::new(64, 64, Fourcc::XRGB8888);
        request.modifiers.push(Modifier::INVALID);
        new.create(&new.lock(), &request)?;
        Ok(new)
    }

    /// Mesa's name for the backend: `drm` for its own drivers, `nvidia` …
    pub fn backend(&self) -> String {
        self.lock().backend_name().to_owned()
    }

    /// Of these pairs, those that gbm says it knows for this usage, and what is left to the driver
    /// ([`Modifier::INVALID`]) of formats that it supports. For
    /// [`negotiate`](crate::negotiate::negotiate): `candidates` are what the other endpoints know,
    /// since gbm lists nothing by itself.
    pub fn endpoint(
        &self,
        device: DeviceKey,
        usage: Usage,
        candidates: impl IntoIterator<Item = (Fourcc, Modifier)>,
    ) -> Endpoint {
        let gbm = self.lock();
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
        let mut uses = negotiate::Usage::empty();
        uses.set(negotiate::Usage::RENDER, usage.contains(Usage::RENDER));
        uses.set(negotiate::Usage::SCANOUT, usage.contains(Usage::SCANOUT));
        Endpoint::gbm(self.device.clone(), device, uses, formats)
    }

    fn lock(&self) -> MutexGuard<'_, gbm::Device<OwnedFd>> {
        self.gbm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A `gbm_bo`, and its modifier: one of those asked for.
    ///
    /// Tried in turn: the explicit modifiers; LINEAR as a flag, for backends that know no
    /// modifiers; what the driver pleases.
    fn create(
        &self,
        gbm: &gbm::Device<OwnedFd>,
        request: &Request,
    ) -> Result<(BufferObject<()>, Modifier), Error> {
        let (width, height) = (request.width, request.height);
        // The crate's format is a closed enum, to be met at this edge only.
        let format = gbm::Format::try_from(request.fourcc.0).map_err(|_| Error::Format {
            allocator: "gbm",
            fourcc: request.fourcc,
        })?;
        let flags = flags_of(request.usage);
        let allows = |modifier| request.modifiers.contains(&modifier);
        let mut explicit = request.modifiers.iter().filter(|m| m.is_explicit());
        let mut refused = None;
        if explicit.clone().next().is_some() {
            let modifiers = explicit
                .by_ref()
                .map(|modifier| gbm::Modifier::from(modifier.0));
            match gbm.create_buffer_object_with_modifiers2(width, height, format, modifiers, flags)
            {
                Ok(bo) => {
                    if let Some(named) = named(bo, request) {
                        return Ok(named);
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        if allows(Modifier::LINEAR) {
            let flags = flags | BufferObjectFlags::LINEAR;
            match gbm.create_buffer_object(width, height, format, flags) {
                Ok(bo) => return Ok((bo, Modifier::LINEAR)),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if allows(Modifier::INVALID) {
            match gbm.create_buffer_object::<()>(width, height, format, flags) {
                Ok(bo) => {
                    let modifier = Modifier(bo.modifier().into());
                    let known = if allows(modifier) {
                        modifier
                    } else {
                        Modifier::INVALID
                    };
                    return Ok((bo, known));
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(match refused {
            None => Error::Modifiers {
                allocator: "gbm",
                modifiers: request.modifiers.clone(),
            },
            Some(_) if gem::is_lost(gbm.as_fd()) => {
                let device = self.device.clone();
                gem::Error::Lost { device }.into()
            }
            Some(error) => Error::GbmCreate {
                device: self.device.clone(),
                width,
                height,
                fourcc: request.fourcc,
                // Mesa does not always set errno; success would be a strange reason.
                errno: match sys::errno(error) {
                    Errno::UnknownErrno => Errno::EINVAL,
                    errno => errno,
                },
            },
        })
    }

    /// Exports every plane by its handle and not with `gbm_bo_get_fd`, whose first call makes the
    /// dma-buf read-only for good on Mesa 25.0's software drivers.
    fn export_planes(
        &self,
        file: BorrowedFd<'_>,
        bo: &BufferObject<()>,
    ) -> Result<ArrayVec<PlaneFd, MAX_PLANES>, Error> {
        let count = bo.plane_count();
        if count == 0 || count as usize > MAX_PLANES {
            return Err(Error::GbmPlanes(count));
        }
        (0..count as i32)
            .map(|plane| {
                // SAFETY: every member of the union is plain data of the same eight bytes, and
                // drm backends fill in the 32-bit one.
                let handle = unsafe { bo.handle_for_plane(plane).u32_ };
                Ok(PlaneFd {
                    fd: gem::export_unowned(file, &self.device, handle)?,
                    offset: bo.offset(plane),
                    stride: bo.stride_for_plane(plane),
                })
            })
            .collect()
    }
}

/// Whether gbm will never work on this node, as far as an errno can tell: Mesa's may be of something
/// else that it met (ENOENT of a library, for want of an fd).
fn is_refusal(error: &Error) -> bool {
    use Errno::{EACCES, EINVAL, ENODEV, ENOENT, ENOSYS, ENXIO, EOPNOTSUPP, EPERM};
    let errno = match *error {
        Error::Device(device::Error::Open { errno: ENOENT, .. }) => return true,
        Error::Device(device::Error::Open { errno, .. }) => errno,
        Error::GbmDevice { errno, .. } | Error::GbmCreate { errno, .. } => errno,
        _ => return false,
    };
    matches!(
        errno,
        EACCES | EINVAL | ENODEV | ENOSYS | ENXIO | EOPNOTSUPP | EPERM
    )
}

/// A `gbm_bo` that was made with modifiers, and which of them it has. Mesa 25.0 says INVALID of a
/// buffer that it was told to make LINEAR: where only one was asked for, it is that.
fn named(bo: BufferObject<()>, request: &Request) -> Option<(BufferObject<()>, Modifier)> {
    let said = Modifier(bo.modifier().into());
    let mut explicit = request
        .modifiers
        .iter()
        .copied()
        .filter(|m| m.is_explicit());
    let modifier = match (said, explicit.next(), explicit.next()) {
        (Modifier::INVALID, Some(only), None) => only,
        _ if said.is_explicit() && request.modifiers.contains(&said) => said,
        _ => return None,
    };
    Some((bo, modifier))
}

fn flags_of(usage: Usage) -> BufferObjectFlags {
    let mut flags = BufferObjectFlags::empty();
    flags.set(BufferObjectFlags::RENDERING, usage.contains(Usage::RENDER));
    flags.set(BufferObjectFlags::SCANOUT, usage.contains(Usage::SCANOUT));
    flags
}

impl Allocator for Gbm {
    fn name(&self) -> &'static str {
        "gbm"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, Error> {
        if request.width == 0 || request.height == 0 {
            return Err(crate::buffer::Error::Empty {
                width: request.width,
                height: request.height,
            }
            .into());
        }
        let gbm = self.lock();
        let (bo, modifier) = self.create(&gbm, request)?;
        let planes = self.export_planes(gbm.as_fd(), &bo)?;
        let layout = Layout {
            width: request.width,
            height: request.height,
            fourcc: request.fourcc,
            modifier,
        };
        Ok(DmaBuf::new(layout, planes)?)
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

    fn open(errno: Errno) -> Error {
        let path = "/dev/dri/renderD128".into();
        Error::Device(device::Error::Open { path, errno })
    }

    fn backend(errno: Errno) -> Error {
        let device = "/dev/dri/renderD128".to_owned();
        Error::GbmDevice { device, errno }
    }

    fn create(errno: Errno) -> Error {
        Error::GbmCreate {
            device: "/dev/dri/renderD128".to_owned(),
            width: 64,
            height: 64,
            fourcc: Fourcc::XRGB8888,
            errno,
        }
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
    fn a_render_node_that_is_not_ours_to_open_is_a_refusal() {
        assert!(is_refusal(&open(Errno::EACCES)));
        assert!(is_refusal(&open(Errno::ENOENT)));
    }
}
