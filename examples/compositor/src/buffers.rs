//! Clients' buffers: wl_shm, linux-dmabuf, and the points of linux-drm-syncobj.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock};

use primeshare::buffer::{LinuxDmabufAnswer, PlaneFd};
use primeshare::sync::{Syncobj, SyncobjSupport};
use primeshare::wayland::{
    FeedbackEvent, FeedbackEvents, Params, PointsError, ShmBuffer, ShmFormat, ShmPool,
    SurfacePoints,
};
use primeshare::{Device, DmaBuf, Fourcc, Modifier};
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_buffer_params_v1 as params;
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_feedback_v1 as feedback;
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_v1 as dmabuf;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_manager_v1 as manager;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_surface_v1 as points;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_timeline_v1 as timeline;
use wayland_server::protocol::{wl_buffer, wl_shm, wl_shm_pool, wl_surface::WlSurface};
use wayland_server::{
    Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, WEnum, Weak,
};

use crate::Compositor;
use crate::gpu::{FORMATS, Source};

/// A client's buffer, and what the GPU has made of it: kept for as long as the client keeps the buffer, so that nothing
/// is imported for each frame.
pub(crate) enum ClientBuffer {
    DmaBuf(DmaBuf, OnceLock<Source>),
    Shm(ShmBuffer, OnceLock<Option<Source>>),
}

impl ClientBuffer {
    pub(crate) fn dma_buf(buffer: DmaBuf) -> Arc<Self> {
        Arc::new(Self::DmaBuf(buffer, OnceLock::new()))
    }
}

impl GlobalDispatch<wl_shm::WlShm, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<wl_shm::WlShm>, (): &(), init: &mut DataInit<'_, Self>) {
        let shm = init.init(new, ());
        for ShmFormat(number) in FORMATS.map(ShmFormat::from) {
            shm.send_event_raw(number);
        }
    }
}

/// The crate's enum has all numbers of `wl_shm.format`.
trait SendRaw {
    fn send_event_raw(&self, number: u32);
}

impl SendRaw for wl_shm::WlShm {
    fn send_event_raw(&self, number: u32) {
        if let Ok(format) = wl_shm::Format::try_from(number) {
            self.format(format);
        }
    }
}

impl Dispatch<wl_shm::WlShm, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, shm: &wl_shm::WlShm, request: wl_shm::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        if let wl_shm::Request::CreatePool { id, fd, size } = request {
            match ShmPool::new(fd, size) {
                Ok(pool) => drop(init.init(id, Mutex::new(pool))),
                Err(error) => shm.post_error(error.code(), error.to_string()),
            }
        }
    }
}

impl Dispatch<wl_shm_pool::WlShmPool, Mutex<ShmPool>> for Compositor {
    fn request(_: &mut Self, _: &Client, resource: &wl_shm_pool::WlShmPool, request: wl_shm_pool::Request, pool: &Mutex<ShmPool>, _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        let mut pool = pool.lock().unwrap();
        let answer = match request {
            wl_shm_pool::Request::CreateBuffer { id, offset, width, height, stride, format } => {
                let format = match format {
                    WEnum::Value(format) => format.into(),
                    WEnum::Unknown(number) => number,
                };
                pool.buffer(offset, (width, height), stride, ShmFormat(format)).map(|buffer| {
                    init.init(id, Arc::new(ClientBuffer::Shm(buffer, OnceLock::new())));
                })
            }
            wl_shm_pool::Request::Resize { size } => pool.resize(size),
            _ => Ok(()),
        };
        if let Err(error) = answer {
            resource.post_error(error.code(), error.to_string());
        }
    }
}

impl Dispatch<wl_buffer::WlBuffer, Arc<ClientBuffer>> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &wl_buffer::WlBuffer, _: wl_buffer::Request, _: &Arc<ClientBuffer>, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
    }
}

impl GlobalDispatch<dmabuf::ZwpLinuxDmabufV1, ()> for Compositor {
    fn bind(state: &mut Self, _: &DisplayHandle, _: &Client, new: New<dmabuf::ZwpLinuxDmabufV1>, (): &(), init: &mut DataInit<'_, Self>) {
        let global = init.init(new, ());
        for &(fourcc, Modifier(modifier)) in state.feedback.pairs() {
            match global.version() {
                1 | 2 => global.format(fourcc.0),
                3 => global.modifier(fourcc.0, (modifier >> 32) as u32, modifier as u32),
                _ => break,
            }
        }
    }
}

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

impl Dispatch<dmabuf::ZwpLinuxDmabufV1, ()> for Compositor {
    fn request(state: &mut Self, _: &Client, _: &dmabuf::ZwpLinuxDmabufV1, request: dmabuf::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
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
                    surface.feedback_objects.push(object);
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<feedback::ZwpLinuxDmabufFeedbackV1, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &feedback::ZwpLinuxDmabufFeedbackV1, _: feedback::Request, (): &(), _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
    }
}

impl Dispatch<params::ZwpLinuxBufferParamsV1, Mutex<Params>> for Compositor {
    fn request(state: &mut Self, client: &Client, resource: &params::ZwpLinuxBufferParamsV1, request: params::Request, params: &Mutex<Params>, display: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        let mut params = params.lock().unwrap();
        let is_offered = |fourcc, modifier| state.samples.contains(fourcc, modifier);
        let answer = || match request {
            params::Request::Add { fd, plane_idx, offset, stride, modifier_hi, modifier_lo } => {
                let modifier = Modifier(u64::from(modifier_hi) << 32 | u64::from(modifier_lo));
                params.add(plane_idx, PlaneFd { fd, offset, stride }, modifier)
            }
            params::Request::Create { width, height, format, flags } => {
                match params.create((width, height), Fourcc(format), flags.into(), is_offered) {
                    Ok(buffer) => {
                        let buffer = ClientBuffer::dma_buf(buffer);
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
                init.init(buffer_id, ClientBuffer::dma_buf(buffer));
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
    }
}

/// Whether clients can be offered explicit synchronization by timelines of this device.
pub(crate) fn has_timelines(device: &Device) -> bool {
    let timeline = Syncobj::support(device).is_ok_and(|has| has == SyncobjSupport::Timeline);
    let notifies = || Syncobj::new(device).and_then(|one| one.eventfd(1, primeshare::sync::Stage::Submitted));
    timeline && notifies().is_ok()
}

impl GlobalDispatch<manager::WpLinuxDrmSyncobjManagerV1, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<manager::WpLinuxDrmSyncobjManagerV1>, (): &(), init: &mut DataInit<'_, Self>) {
        init.init(new, ());
    }
}

impl Dispatch<manager::WpLinuxDrmSyncobjManagerV1, ()> for Compositor {
    fn request(state: &mut Self, _: &Client, resource: &manager::WpLinuxDrmSyncobjManagerV1, request: manager::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        match request {
            manager::Request::GetSurface { id, surface } => {
                let points = init.init(id, surface.downgrade());
                match state.surfaces.get_mut(&surface.id()) {
                    Some(surface) if surface.points.is_none() => surface.points = Some((SurfacePoints::new(), points)),
                    _ => resource.post_error(manager::Error::SurfaceExists, "it has one already"),
                }
            }
            manager::Request::ImportTimeline { id, fd } => {
                match Syncobj::import(&state.gpu.device, fd.as_fd()) {
                    Ok(imported) => drop(init.init(id, imported)),
                    Err(error) => resource.post_error(PointsError::INVALID_TIMELINE, error.to_string()),
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<timeline::WpLinuxDrmSyncobjTimelineV1, Syncobj> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &timeline::WpLinuxDrmSyncobjTimelineV1, _: timeline::Request, _: &Syncobj, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
    }
}

impl Dispatch<points::WpLinuxDrmSyncobjSurfaceV1, Weak<WlSurface>> for Compositor {
    fn request(state: &mut Self, _: &Client, resource: &points::WpLinuxDrmSyncobjSurfaceV1, request: points::Request, surface: &Weak<WlSurface>, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
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
}
