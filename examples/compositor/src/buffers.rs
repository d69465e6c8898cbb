//! Clients' buffers: wl_shm, linux-dmabuf, and the points of linux-drm-syncobj.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use primeshare::buffer::{LinuxDmabufAnswer, PlaneFd};
use primeshare::sync::{Syncobj, SyncobjSupport};
use primeshare::wayland::{
    FeedbackEvent, FeedbackEvents, Params, PointsError, ShmBuffer, ShmFormat, ShmPool, SurfacePoints,
};
use primeshare::{Device, DmaBuf, Fourcc, Modifier};
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_buffer_params_v1 as params;
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_feedback_v1 as feedback;
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_v1 as dmabuf;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_manager_v1 as manager;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_surface_v1 as points;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_timeline_v1 as timeline;
use wayland_server::protocol::{wl_buffer, wl_shm, wl_shm_pool, wl_surface::WlSurface};
use wayland_server::{Resource, WEnum, Weak};

use crate::gpu::FORMATS;
use crate::limits::Lease;
use crate::objects::Call;

/// The content of a `wl_buffer`.
pub(crate) enum ClientBuffer {
    DmaBuf(DmaBuf, #[expect(dead_code, reason = "counts until it is dropped")] Vec<Arc<Lease>>),
    Shm(ShmBuffer, #[expect(dead_code, reason = "counts until it is dropped")] Arc<Lease>),
}

global!(wl_shm::WlShm, (), |_, new, init, _| {
    let shm = init.init(new, ());
    let numbers = FORMATS.map(|fourcc| wl_shm::Format::try_from(ShmFormat::from(fourcc).0));
    numbers.into_iter().flatten().for_each(|format| shm.format(format));
});

/// A pool, and the lease of its fd, which its buffers keep.
type Pool = (Mutex<ShmPool>, Arc<Lease>);

requests!(wl_shm::WlShm, (), |state, Call { client, object: shm, request, display, init, .. }| {
    if let wl_shm::Request::CreatePool { id, fd, size } = request {
        let Some(lease) = state.limits.lease(client, display) else {
            return;
        };
        match ShmPool::new(fd, size) {
            Ok(pool) => drop(init.init(id, (Mutex::new(pool), lease))),
            Err(error) => shm.post_error(error.code(), error.to_string()),
        }
    }
});

requests!(wl_shm_pool::WlShmPool, Pool, |_, Call { object: resource, request, data: (pool, lease), init, .. }| {
    let mut pool = pool.lock().unwrap();
    let answer = match request {
        wl_shm_pool::Request::CreateBuffer { id, offset, width, height, stride, format } => {
            let format = match format {
                WEnum::Value(format) => format.into(),
                WEnum::Unknown(number) => number,
            };
            pool.buffer(offset, (width, height), stride, ShmFormat(format), |fourcc| FORMATS.contains(&fourcc)).map(
                |buffer| {
                    init.init(id, Arc::new(ClientBuffer::Shm(buffer, lease.clone())));
                },
            )
        }
        wl_shm_pool::Request::Resize { size } => pool.resize(size),
        _ => Ok(()),
    };
    if let Err(error) = answer {
        resource.post_error(error.code(), error.to_string());
    }
});

requests!(wl_buffer::WlBuffer, Arc<ClientBuffer>);

global!(dmabuf::ZwpLinuxDmabufV1, (), |state, new, init, _| {
    let global = init.init(new, ());
    for &(fourcc, Modifier(modifier)) in state.feedback.pairs() {
        match global.version() {
            1 | 2 => global.format(fourcc.0),
            3 => global.modifier(fourcc.0, (modifier >> 32) as u32, modifier as u32),
            _ => break,
        }
    }
});

pub(crate) fn send_feedback(to: &feedback::ZwpLinuxDmabufFeedbackV1, events: &FeedbackEvents) {
    for event in events.events(to.version()) {
        match event {
            FeedbackEvent::FormatTable(fd, size) => to.format_table(fd, size),
            FeedbackEvent::MainDevice(device) => to.main_device(device.to_vec()),
            FeedbackEvent::TrancheTargetDevice(device) => to.tranche_target_device(device.to_vec()),
            FeedbackEvent::TrancheFlags(flags) => {
                to.tranche_flags(feedback::TrancheFlags::from_bits_retain(flags));
            }
            FeedbackEvent::TrancheFormats(indices) => to.tranche_formats(indices.to_vec()),
            FeedbackEvent::TrancheDone => to.tranche_done(),
            FeedbackEvent::Done => to.done(),
            _ => {}
        }
    }
}

requests!(dmabuf::ZwpLinuxDmabufV1, (), |state, Call { request, init, .. }| {
    match request {
        dmabuf::Request::CreateParams { params_id } => {
            init.init(params_id, Mutex::default());
        }
        dmabuf::Request::GetDefaultFeedback { id } => {
            send_feedback(&init.init(id, ()), &state.feedback);
        }
        dmabuf::Request::GetSurfaceFeedback { id, surface } => {
            let object = init.init(id, ());
            send_feedback(&object, state.feedback_of(&surface));
            if let Some(surface) = state.surfaces.get_mut(&surface.id()) {
                // Those that are gone are left out before the list grows.
                if surface.feedback_objects.len() == surface.feedback_objects.capacity() {
                    surface.feedback_objects.retain(Resource::is_alive);
                }
                surface.feedback_objects.push(object);
            }
        }
        _ => {}
    }
});

requests!(feedback::ZwpLinuxDmabufFeedbackV1, ());

/// What was sent so far, and the leases of its fds.
type Planes = Mutex<(Params, Vec<Arc<Lease>>)>;

requests!(params::ZwpLinuxBufferParamsV1, Planes, |state,
                                                   Call {
                                                       client,
                                                       object: resource,
                                                       request,
                                                       data: params,
                                                       display,
                                                       init,
                                                       ..
                                                   }| {
    let (params, leases) = &mut *params.lock().unwrap();
    if let params::Request::Add { .. } = request {
        leases.extend(state.limits.lease(client, display));
    }
    let is_offered = |fourcc, modifier| state.samples.contains(fourcc, modifier);
    let answer = || match request {
        params::Request::Add { fd, plane_idx, offset, stride, modifier_hi, modifier_lo } => {
            let modifier = match Modifier(u64::from(modifier_hi) << 32 | u64::from(modifier_lo)) {
                Modifier::INVALID if state.gpu.is_linear => Modifier::LINEAR,
                modifier => modifier,
            };
            params.add(plane_idx, PlaneFd { fd, offset, stride }, modifier)
        }
        params::Request::Create { width, height, format, flags } => {
            match params.create((width, height), Fourcc(format), flags.into(), is_offered) {
                Ok(buffer) => {
                    let buffer = Arc::new(ClientBuffer::DmaBuf(buffer, std::mem::take(leases)));
                    let made = client.create_resource::<wl_buffer::WlBuffer, _, Self>(display, 1, buffer);
                    // If it fails, the client is gone.
                    let _ = made.map(|made| resource.created(&made));
                }
                Err(error) if error.answer() == LinuxDmabufAnswer::Failed => resource.failed(),
                Err(error) => return Err(error),
            }
            Ok(())
        }
        params::Request::CreateImmed { buffer_id, width, height, format, flags } => {
            let buffer = params.create((width, height), Fourcc(format), flags.into(), is_offered)?;
            init.init(buffer_id, Arc::new(ClientBuffer::DmaBuf(buffer, std::mem::take(leases))));
            Ok(())
        }
        params::Request::SetSamplingDevice { device } => params.set_sampling_device(&device),
        _ => Ok(()),
    };
    if let Err(error) = answer() {
        let code = match error.answer() {
            LinuxDmabufAnswer::ProtocolError(code) => code,
            _ => LinuxDmabufAnswer::INVALID_WL_BUFFER,
        };
        resource.post_error(code, error.to_string());
    }
});

/// Whether clients can be offered explicit synchronization by timelines of this device.
pub(crate) fn has_timelines(device: &Device) -> bool {
    let timeline = Syncobj::support(device).is_ok_and(|has| has == SyncobjSupport::Timeline);
    let notifies = || Syncobj::new(device).and_then(|one| one.eventfd(1, primeshare::sync::Stage::Submitted));
    timeline && notifies().is_ok()
}

global!(manager::WpLinuxDrmSyncobjManagerV1);

requests!(manager::WpLinuxDrmSyncobjManagerV1, (), |state, Call { object: resource, request, init, .. }| {
    match request {
        manager::Request::GetSurface { id, surface } => {
            let points = init.init(id, surface.downgrade());
            match state.surfaces.get_mut(&surface.id()) {
                Some(surface) if surface.points.is_none() => surface.points = Some((SurfacePoints::new(), points)),
                _ => resource.post_error(manager::Error::SurfaceExists, "it has one already"),
            }
        }
        manager::Request::ImportTimeline { id, fd } => match Syncobj::import(&state.gpu.device, fd.as_fd()) {
            Ok(imported) => drop(init.init(id, imported)),
            Err(error) => resource.post_error(PointsError::INVALID_TIMELINE, error.to_string()),
        },
        _ => {}
    }
});

requests!(timeline::WpLinuxDrmSyncobjTimelineV1, Syncobj);

requests!(
    points::WpLinuxDrmSyncobjSurfaceV1,
    Weak<WlSurface>,
    |state, Call { object: resource, request, data: surface, .. }| {
        let surface = state.surfaces.get_mut(&surface.id());
        if let points::Request::Destroy = request {
            surface.into_iter().for_each(|surface| surface.points = None);
            return;
        }
        let Some((points, _)) = surface.and_then(|surface| surface.points.as_mut()) else {
            resource.post_error(points::Error::NoSurface, "the surface is gone");
            return;
        };
        match request {
            points::Request::SetAcquirePoint { timeline, point_hi, point_lo } => {
                let timeline = timeline.data::<Syncobj>().cloned();
                points.set_acquire(timeline.expect("made with it"), point_hi, point_lo);
            }
            points::Request::SetReleasePoint { timeline, point_hi, point_lo } => {
                let timeline = timeline.data::<Syncobj>().cloned();
                points.set_release(timeline.expect("made with it"), point_hi, point_lo);
            }
            _ => {}
        }
    }
);
