//! Mode-setting ioctls of `include/uapi/drm/drm_mode.h`, repeated as libdrm repeats them, with errnos.
//!
//! Lists that can grow between two calls (connectors of a DisplayPort hub) are asked for again until they fit:
//! `drm-ffi` would read past its memory there.

use std::os::fd::{AsRawFd, BorrowedFd};

use drm_ffi::drm_sys;
use drm_ffi::mode;

use super::{errno, retry};
use crate::Errno;

pub(crate) use drm_sys::{drm_mode_fb_cmd2, drm_mode_modeinfo};

/// `DRM_CLIENT_CAP_*` of `include/uapi/drm/drm.h`.
pub(crate) const UNIVERSAL_PLANES: u64 = drm_sys::DRM_CLIENT_CAP_UNIVERSAL_PLANES as u64;
pub(crate) const ATOMIC: u64 = drm_sys::DRM_CLIENT_CAP_ATOMIC as u64;
pub(crate) const WRITEBACK_CONNECTORS: u64 = drm_sys::DRM_CLIENT_CAP_WRITEBACK_CONNECTORS as u64;

/// `DRM_CAP_*`.
pub(crate) const ADDFB2_MODIFIERS: u64 = drm_sys::DRM_CAP_ADDFB2_MODIFIERS as u64;

/// `DRM_MODE_OBJECT_*`.
pub(crate) const CRTC: u32 = drm_sys::DRM_MODE_OBJECT_CRTC;
pub(crate) const CONNECTOR: u32 = drm_sys::DRM_MODE_OBJECT_CONNECTOR;
pub(crate) const PLANE: u32 = drm_sys::DRM_MODE_OBJECT_PLANE;

/// `DRM_MODE_FB_*`.
pub(crate) const FB_INTERLACED: u32 = drm_sys::DRM_MODE_FB_INTERLACED;
pub(crate) const FB_MODIFIERS: u32 = drm_sys::DRM_MODE_FB_MODIFIERS;

/// `DRM_MODE_PAGE_FLIP_*`, `DRM_MODE_ATOMIC_*`.
pub(crate) const PAGE_FLIP_EVENT: u32 = drm_sys::DRM_MODE_PAGE_FLIP_EVENT;
pub(crate) const PAGE_FLIP_ASYNC: u32 = drm_sys::DRM_MODE_PAGE_FLIP_ASYNC;
pub(crate) const TEST_ONLY: u32 = drm_sys::DRM_MODE_ATOMIC_TEST_ONLY;
pub(crate) const NONBLOCK: u32 = drm_sys::DRM_MODE_ATOMIC_NONBLOCK;
pub(crate) const ALLOW_MODESET: u32 = drm_sys::DRM_MODE_ATOMIC_ALLOW_MODESET;

/// DRM_IOCTL_SET_CLIENT_CAP.
pub(crate) fn set_client_cap(device: BorrowedFd<'_>, cap: u64) -> Result<(), Errno> {
    retry(|| drm_ffi::set_capability(device, cap, true).map_err(errno)).map(drop)
}

/// DRM_IOCTL_GET_CAP; 0 if the device does not know the question.
pub(crate) fn cap(device: BorrowedFd<'_>, cap: u64) -> Result<u64, Errno> {
    match retry(|| drm_ffi::get_capability(device, cap).map_err(errno)) {
        Ok(answer) => Ok(answer.value),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(0),
        Err(errno) => Err(errno),
    }
}

/// What DRM_IOCTL_MODE_GETRESOURCES lists.
pub(crate) struct Resources {
    pub(crate) crtcs: Vec<u32>,
    pub(crate) connectors: Vec<u32>,
    pub(crate) min: (u32, u32),
    pub(crate) max: (u32, u32),
}

nix::ioctl_readwrite!(mode_getresources, b'd', 0xa0, drm_sys::drm_mode_card_res);
nix::ioctl_readwrite!(
    mode_getplaneresources,
    b'd',
    0xb5,
    drm_sys::drm_mode_get_plane_res
);
nix::ioctl_readwrite!(mode_closefb, b'd', 0xd0, drm_sys::drm_mode_closefb);
nix::ioctl_readwrite!(mode_atomic, b'd', 0xbc, drm_sys::drm_mode_atomic);

pub(crate) fn resources(device: BorrowedFd<'_>) -> Result<Resources, Errno> {
    let (mut crtcs, mut connectors) = (Vec::new(), Vec::new());
    loop {
        let mut asked = drm_sys::drm_mode_card_res {
            crtc_id_ptr: crtcs.as_mut_ptr() as u64,
            count_crtcs: crtcs.len() as u32,
            connector_id_ptr: connectors.as_mut_ptr() as u64,
            count_connectors: connectors.len() as u32,
            ..Default::default()
        };
        // SAFETY: the kernel writes at most as many numbers as the counts say there is room for.
        retry(|| unsafe { mode_getresources(device.as_raw_fd(), &mut asked) })?;
        let counts = (asked.count_crtcs as usize, asked.count_connectors as usize);
        let fits = counts.0 <= crtcs.len() && counts.1 <= connectors.len();
        crtcs.resize(counts.0, 0_u32);
        connectors.resize(counts.1, 0_u32);
        if fits {
            return Ok(Resources {
                crtcs,
                connectors,
                min: (asked.min_width, asked.min_height),
                max: (asked.max_width, asked.max_height),
            });
        }
    }
}

/// DRM_IOCTL_MODE_GETPLANERESOURCES.
pub(crate) fn planes(device: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut planes = Vec::new();
    loop {
        let mut asked = drm_sys::drm_mode_get_plane_res {
            plane_id_ptr: planes.as_mut_ptr() as u64,
            count_planes: planes.len() as u32,
        };
        // SAFETY: the kernel writes at most as many numbers as there is room for.
        retry(|| unsafe { mode_getplaneresources(device.as_raw_fd(), &mut asked) })?;
        let count = asked.count_planes as usize;
        let fits = count <= planes.len();
        planes.resize(count, 0_u32);
        if fits {
            return Ok(planes);
        }
    }
}

/// What DRM_IOCTL_MODE_GETPLANE says.
pub(crate) struct Plane {
    pub(crate) possible_crtcs: u32,
    pub(crate) formats: Vec<u32>,
    /// What is on it; 0 for nothing.
    pub(crate) framebuffer: u32,
}

pub(crate) fn plane(device: BorrowedFd<'_>, id: u32) -> Result<Plane, Errno> {
    // A plane's formats do not change.
    let mut formats = Vec::new();
    let plane = retry(|| mode::get_plane(device, id, Some(&mut formats)).map_err(errno))?;
    Ok(Plane {
        possible_crtcs: plane.possible_crtcs,
        formats,
        framebuffer: plane.fb_id,
    })
}

/// What DRM_IOCTL_MODE_GETCONNECTOR says.
pub(crate) struct Connector {
    pub(crate) info: drm_sys::drm_mode_get_connector,
    pub(crate) modes: Vec<drm_mode_modeinfo>,
    pub(crate) encoders: Vec<u32>,
}

/// `probe`: the screen is asked, which takes up to a second; else the kernel says what it knows.
pub(crate) fn connector(device: BorrowedFd<'_>, id: u32, probe: bool) -> Result<Connector, Errno> {
    // The kernel asks the screen for whoever has no room for a mode (`drm_mode_getconnector`), and `drm-ffi` makes
    // no room for the modes of a connector that has none.
    let mut modes = Vec::with_capacity(usize::from(!probe));
    let mut encoders = Vec::new();
    let info = retry(|| {
        let lists = (Some(&mut modes), Some(&mut encoders));
        mode::get_connector(device, id, None, None, lists.0, lists.1, probe).map_err(errno)
    })?;
    Ok(Connector {
        info,
        modes,
        encoders,
    })
}

/// DRM_IOCTL_MODE_GETENCODER: the CRTC that feeds it at the moment; 0 for none.
pub(crate) fn crtc_of_encoder(device: BorrowedFd<'_>, encoder: u32) -> Result<u32, Errno> {
    let info = retry(|| mode::get_encoder(device, encoder).map_err(errno))?;
    Ok(info.crtc_id)
}

/// DRM_IOCTL_MODE_GETENCODER: the CRTCs that it can be fed by, a bit for each index.
pub(crate) fn possible_crtcs(device: BorrowedFd<'_>, encoder: u32) -> Result<u32, Errno> {
    let info = retry(|| mode::get_encoder(device, encoder).map_err(errno))?;
    Ok(info.possible_crtcs)
}

/// DRM_IOCTL_MODE_OBJ_GETPROPERTIES: numbers and values.
pub(crate) fn properties(
    device: BorrowedFd<'_>,
    object: u32,
    kind: u32,
) -> Result<Vec<(u32, u64)>, Errno> {
    let (mut ids, mut values) = (Vec::new(), Vec::new());
    retry(|| {
        let lists = (Some(&mut ids), Some(&mut values));
        mode::get_properties(device, object, kind, lists.0, lists.1).map_err(errno)
    })?;
    Ok(ids.into_iter().zip(values).collect())
}

/// What DRM_IOCTL_MODE_GETPROPERTY says.
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) flags: u32,
    /// Of a range: the smallest and the largest value.
    pub(crate) values: Vec<u64>,
    /// Names with their values.
    pub(crate) enums: Vec<(String, u64)>,
}

pub(crate) fn property(device: BorrowedFd<'_>, id: u32) -> Result<Property, Errno> {
    let (mut values, mut enums) = (Vec::new(), Vec::new());
    let info = retry(|| {
        let lists = (Some(&mut values), Some(&mut enums));
        mode::get_property(device, id, lists.0, lists.1).map_err(errno)
    })?;
    Ok(Property {
        name: text(&info.name),
        flags: info.flags,
        values,
        enums: enums
            .iter()
            .map(|one| (text(&one.name), one.value))
            .collect(),
    })
}

/// A C string in an array of fixed size.
pub(crate) fn text(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .map(|&c| c as u8)
        .take_while(|&c| c != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// DRM_IOCTL_MODE_GETPROPBLOB.
pub(crate) fn blob(device: BorrowedFd<'_>, id: u32) -> Result<Vec<u8>, Errno> {
    // A blob never changes: another value is another blob.
    let mut bytes = Vec::new();
    retry(|| mode::get_property_blob(device, id, Some(&mut bytes)).map_err(errno))?;
    Ok(bytes)
}

/// DRM_IOCTL_MODE_CREATEPROPBLOB.
pub(crate) fn create_blob(device: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<u32, Errno> {
    let blob = retry(|| mode::create_property_blob(device, bytes).map_err(errno))?;
    Ok(blob.blob_id)
}

/// DRM_IOCTL_MODE_DESTROYPROPBLOB.
pub(crate) fn destroy_blob(device: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
    retry(|| mode::destroy_property_blob(device, id).map_err(errno)).map(drop)
}

/// DRM_IOCTL_MODE_ADDFB2.
pub(crate) fn add_fb2(device: BorrowedFd<'_>, fb: &drm_mode_fb_cmd2) -> Result<u32, Errno> {
    let added = retry(|| {
        let (size, planes) = (
            (fb.width, fb.height),
            (&fb.handles, &fb.pitches, &fb.offsets),
        );
        let format = (fb.pixel_format, &fb.modifier, fb.flags);
        let (handles, pitches, offsets) = planes;
        mode::add_fb2(
            device, size.0, size.1, format.0, handles, pitches, offsets, format.1, format.2,
        )
        .map_err(errno)
    })?;
    Ok(added.fb_id)
}

/// DRM_IOCTL_MODE_CLOSEFB (Linux 6.8): what shows the framebuffer goes on showing it. Older kernels get
/// DRM_IOCTL_MODE_RMFB, which turns off what shows it.
pub(crate) fn close_fb(device: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
    let mut closed = drm_sys::drm_mode_closefb { fb_id: id, pad: 0 };
    // SAFETY: `closed` is the ioctl's structure and outlives the call.
    match retry(|| unsafe { mode_closefb(device.as_raw_fd(), &mut closed) }) {
        // An unknown ioctl is EINVAL here (`drm_ioctl`), and an unknown framebuffer ENOENT.
        Err(Errno::EINVAL | Errno::ENOTTY) => retry(|| mode::rm_fb(device, id).map_err(errno)),
        closed => closed.map(drop),
    }
}

/// DRM_IOCTL_MODE_GETFB2. Its handles are new ones, also where planes share an object: the caller closes each.
pub(crate) fn get_fb2(device: BorrowedFd<'_>, id: u32) -> Result<drm_mode_fb_cmd2, Errno> {
    retry(|| mode::get_framebuffer2(device, id).map_err(errno))
}

/// An atomic commit as DRM_IOCTL_MODE_ATOMIC takes it: lists of objects, of how many properties each has, and of
/// those properties and their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Atomic {
    objects: Vec<u32>,
    counts: Vec<u32>,
    properties: Vec<u32>,
    values: Vec<u64>,
}

impl Atomic {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.objects.clear();
        self.counts.clear();
        self.properties.clear();
        self.values.clear();
    }

    /// What follows is of this object.
    pub(crate) fn object(&mut self, id: u32) {
        self.objects.push(id);
        self.counts.push(0);
    }

    /// Sets a property of the last object.
    pub(crate) fn set(&mut self, property: u32, value: u64) {
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
            self.properties.push(property);
            self.values.push(value);
        }
    }

    pub(crate) fn commit(
        &self,
        device: BorrowedFd<'_>,
        flags: u32,
        user_data: u64,
    ) -> Result<(), Errno> {
        let mut asked = drm_sys::drm_mode_atomic {
            flags,
            count_objs: self.objects.len() as u32,
            objs_ptr: self.objects.as_ptr() as u64,
            count_props_ptr: self.counts.as_ptr() as u64,
            props_ptr: self.properties.as_ptr() as u64,
            prop_values_ptr: self.values.as_ptr() as u64,
            reserved: 0,
            user_data,
        };
        // SAFETY: the kernel reads as much of each list as the counts say, and they are in step. It writes
        // fences where values of OUT_FENCE_PTR point, which is for who set them to keep alive.
        retry(|| unsafe { mode_atomic(device.as_raw_fd(), &mut asked) }).map(drop)
    }
}

/// DRM_IOCTL_MODE_SETCRTC, for devices without atomic commits.
pub(crate) fn set_crtc(
    device: BorrowedFd<'_>,
    crtc: u32,
    framebuffer: u32,
    connectors: &[u32],
    mode: Option<drm_mode_modeinfo>,
) -> Result<(), Errno> {
    let set = || mode::set_crtc(device, crtc, framebuffer, 0, 0, connectors, mode);
    retry(|| set().map_err(errno)).map(drop)
}

/// DRM_IOCTL_MODE_GETCRTC: the framebuffer and, if the CRTC is on, the mode.
pub(crate) fn crtc(
    device: BorrowedFd<'_>,
    crtc: u32,
) -> Result<(u32, Option<drm_mode_modeinfo>), Errno> {
    let info = retry(|| mode::get_crtc(device, crtc).map_err(errno))?;
    Ok((info.fb_id, (info.mode_valid != 0).then_some(info.mode)))
}

/// DRM_IOCTL_MODE_PAGE_FLIP, with an event whose user data is the CRTC.
pub(crate) fn page_flip(
    device: BorrowedFd<'_>,
    crtc: u32,
    framebuffer: u32,
    flags: u32,
) -> Result<(), Errno> {
    let flags = flags | PAGE_FLIP_EVENT;
    retry(|| mode::page_flip(device, crtc, framebuffer, flags, 0).map_err(errno))
}
