//! From a `gbm_bo` to dma-bufs: exported by us and by Mesa.
//!
//! Ours comes first and asks for `DRM_RDWR`: the first export of an object fixes the access mode of
//! its dma-buf (`drm_gem_prime_handle_to_dmabuf`), and Mesa does not ask for it in kms_swrast of
//! 25.0, etnaviv, lima, v3d and vc4.
//!
//! Mesa's tells the driver, which may keep the memory of destroyed buffers in a cache: panfrost
//! (`pan_bo.c`, PAN_BO_SHARED), etnaviv (`etnaviv_bo.c`, `reuse`), v3d and vc4 (`private`), lima
//! (`cacheable`), asahi. A driver that does not know of an export makes the next `gbm_bo` of that
//! memory.

use std::os::fd::{BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use gbm::BufferObject;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::Errno;
use crate::alloc;
use crate::buffer::{BufferId, MAX_PLANES, PlaneFd};
use crate::{gem, sys};

/// Exports every plane. `file` is the file description that gbm was given, and `device` its name
/// for errors.
///
/// After an error the driver may not have been told of the export, but no fd of it is left.
pub(super) fn planes(
    file: BorrowedFd<'_>,
    device: &str,
    bo: &BufferObject<()>,
) -> Result<ArrayVec<PlaneFd, MAX_PLANES>, alloc::Error> {
    let count = bo.plane_count();
    if count == 0 || count as usize > MAX_PLANES {
        return Err(super::Error::Planes(count).into());
    }
    let mut planes = ArrayVec::new();
    for plane in 0..count {
        let fd = export(file, device, bo, plane, &planes)?;
        planes.push(PlaneFd {
            fd,
            offset: bo.offset(plane as i32),
            stride: bo.stride_for_plane(plane as i32),
        });
    }
    Ok(planes)
}

/// Exports a plane in both ways and returns the fd to keep. `before` are the planes before it.
fn export(
    file: BorrowedFd<'_>,
    device: &str,
    bo: &BufferObject<()>,
    plane: u32,
    before: &[PlaneFd],
) -> Result<OwnedFd, alloc::Error> {
    let ours = by_us(file, device, bo, plane)?;
    match (ours, by_mesa(bo, plane)) {
        (Some(ours), Ok(mesas)) if is_same(&ours, &mesas) => Ok(ours),
        // The handle belongs to another file description. On ours, its number means nothing or another
        // object.
        (_, Ok(mesas)) => {
            fcntl(&mesas, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
                .map_err(|error| failed(file, device, plane, Some(sys::errno(error))))?;
            log::debug!("gbm on {device}: plane {plane} is on another file description");
            Ok(mesas)
        }
        // Not every backend exports planes after the first. This plane is in an object that Mesa has exported
        // already, so the driver knows.
        (Some(ours), Err(_)) if before.iter().any(|plane| is_same(&plane.fd, &ours)) => Ok(ours),
        (_, Err(errno)) => Err(failed(file, device, plane, errno)),
    }
}

/// Our export. `None` if it is refused, which leaves Mesa's: the handle need not be open on gbm's
/// file description. One screen of Mesa's may serve all file descriptions of a node (nouveau,
/// panfrost, lima, freedreno, etnaviv, asahi, v3d, vc4, radeon), and its handles belong to the one
/// that came first. On display nodes of kmsro the handle is -1 without SCANOUT.
fn by_us(
    file: BorrowedFd<'_>,
    device: &str,
    bo: &BufferObject<()>,
    plane: u32,
) -> Result<Option<OwnedFd>, alloc::Error> {
    // SAFETY: every member of the union is plain data of the same eight bytes, and drm backends
    // fill in the 32-bit one.
    let handle = unsafe { bo.handle_for_plane(plane as i32).u32_ };
    match gem::export_unowned(file, device, handle) {
        Ok(fd) => Ok(Some(fd)),
        // After a transient error it must not go on: Mesa's export would be the first one, and might make the
        // dma-buf read-only for good.
        Err(gem::Error::Export { errno, .. }) if !sys::is_transient(errno) => {
            log::debug!("gbm on {device}: export of handle {handle}: {errno}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Mesa's export, by which the driver learns that the buffer is shared.
fn by_mesa(bo: &BufferObject<()>, plane: u32) -> Result<OwnedFd, Option<Errno>> {
    // Mesa does not always set errno, so one that is left of an earlier call must not be taken for its own.
    sys::clear_errno();
    bo.fd_for_plane(plane as i32).map_err(|_| sys::last_errno())
}

fn is_same(a: &OwnedFd, b: &OwnedFd) -> bool {
    BufferId::of(a).is_ok_and(|id| BufferId::of(b) == Ok(id))
}

fn failed(file: BorrowedFd<'_>, device: &str, plane: u32, errno: Option<Errno>) -> alloc::Error {
    let device = device.to_owned();
    if gem::is_lost(file) {
        return gem::Error::Lost { device }.into();
    }
    super::Error::Export {
        device,
        plane,
        errno,
    }
    .into()
}
