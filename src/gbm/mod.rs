//! Allocation through Mesa's gbm.
//!
//! Mesa keeps a handle table of its own on the file description it is given, and closes handles
//! as *it* counts them. So gbm gets a file description that no [`gem`] table shares,
//! and its handles are neither counted nor closed here: the buffer is exported and the `gbm_bo`
//! destroyed, since from then on the dma-buf keeps the memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use arrayvec::ArrayVec;
use gbm::{BufferObject, BufferObjectFlags};

use crate::alloc::{Allocator, Error, Request, Usage};
use crate::buffer::{DmaBuf, Layout, MAX_PLANES, Modifier, PlaneFd};
use crate::device::{self, Device};
use crate::{export, gem, sys};

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
    /// An allocator for the device's node, on a file description of its own.
    pub fn new(device: &Device) -> Result<Self, Error> {
        Self::open(&device.node().path)
    }

    /// An allocator for the node at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let device = path.display().to_string();
        let file = device::open_node(path)?;
        let gbm = gbm::Device::new(file).map_err(|error| Error::GbmDevice {
            device: device.clone(),
            errno: sys::errno(error),
        })?;
        Ok(Self {
            device,
            gbm: Mutex::new(gbm),
        })
    }

    /// Mesa's name for the backend: `drm` for its own drivers, `nvidia` …
    pub fn backend(&self) -> String {
        self.lock().backend_name().to_owned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, gbm::Device<OwnedFd>> {
        self.gbm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(
        &self,
        gbm: &gbm::Device<OwnedFd>,
        request: &Request,
    ) -> Result<BufferObject<()>, Error> {
        // The crate's format is a closed enum, to be met at this edge only.
        let format = gbm::Format::try_from(request.fourcc.0).map_err(|_| Error::Format {
            allocator: "gbm",
            fourcc: request.fourcc,
        })?;
        let mut flags = BufferObjectFlags::empty();
        if request.usage.contains(Usage::RENDER) {
            flags |= BufferObjectFlags::RENDERING;
        }
        if request.usage.contains(Usage::SCANOUT) {
            flags |= BufferObjectFlags::SCANOUT;
        }
        let failed = |error: std::io::Error| Error::GbmCreate {
            device: self.device.clone(),
            width: request.width,
            height: request.height,
            fourcc: request.fourcc,
            // Mesa does not always set errno; success would be a strange reason.
            errno: match sys::errno(error) {
                nix::errno::Errno::UnknownErrno => nix::errno::Errno::EINVAL,
                errno => errno,
            },
        };
        let explicit: Vec<_> = request
            .modifiers
            .iter()
            .filter(|modifier| modifier.is_explicit())
            .map(|modifier| gbm::Modifier::from(modifier.0))
            .collect();
        let (width, height) = (request.width, request.height);
        if explicit.is_empty() {
            if !request.modifiers.contains(&Modifier::INVALID) {
                return Err(Error::Modifiers {
                    allocator: "gbm",
                    modifiers: request.modifiers.clone(),
                });
            }
            return gbm
                .create_buffer_object(width, height, format, flags)
                .map_err(failed);
        }
        gbm.create_buffer_object_with_modifiers2(width, height, format, explicit.into_iter(), flags)
            .or_else(|error| {
                // Backends without modifiers still know LINEAR, as a flag.
                if !request.modifiers.contains(&Modifier::LINEAR) {
                    return Err(error);
                }
                let flags = flags | BufferObjectFlags::LINEAR;
                gbm.create_buffer_object(width, height, format, flags)
            })
            .map_err(failed)
    }
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
        let bo = self.create(&gbm, request)?;
        let planes = export_planes(gbm.as_fd(), &bo)?;
        let layout = Layout {
            width: request.width,
            height: request.height,
            fourcc: request.fourcc,
            modifier: modifier_of(&bo, request),
        };
        Ok(DmaBuf::new(layout, planes)?)
    }
}

/// Mesa 25.0 reports INVALID for a buffer it was told to make LINEAR; where nothing else was
/// allowed, LINEAR is what it is.
fn modifier_of(bo: &BufferObject<()>, request: &Request) -> Modifier {
    match Modifier(bo.modifier().into()) {
        Modifier::INVALID if request.modifiers == [Modifier::LINEAR] => Modifier::LINEAR,
        modifier => modifier,
    }
}

/// Exports every plane by its handle and not with `gbm_bo_get_fd`, whose first call makes the
/// dma-buf read-only for good on Mesa 25.0's software drivers.
fn export_planes(
    file: BorrowedFd<'_>,
    bo: &BufferObject<()>,
) -> Result<ArrayVec<PlaneFd, MAX_PLANES>, Error> {
    let count = bo.plane_count();
    if count == 0 || count as usize > MAX_PLANES {
        return Err(Error::GbmPlanes(count));
    }
    (0..count as i32)
        .map(|plane| {
            // SAFETY: every member of the union is plain data of the same eight bytes, and drm
            // backends fill in the 32-bit one.
            let handle = unsafe { bo.handle_for_plane(plane).u32_ };
            let fd = gem::export_unowned(file, handle).map_err(export::Error::from)?;
            Ok(PlaneFd {
                fd,
                offset: bo.offset(plane),
                stride: bo.stride_for_plane(plane),
            })
        })
        .collect()
}

impl std::fmt::Debug for Gbm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gbm").field("device", &self.device).finish()
    }
}
