//! A server of `zwp_linux_dmabuf_v1`, versions 1 to 6, by the crate `wayland-server`.
//!
//! The library's `primeshare::wayland` knows the protocol's rules; this file and [`params`] connect it with the crate. A `wl_buffer` has its [`DmaBuf`] as user data (`Resource::data`); the memory goes when the client
//! has destroyed it and the server has dropped its own clones.

pub mod params;

use std::io;
use std::sync::Mutex;

use primeshare::buffer::WeakDmaBuf;
use primeshare::negotiate::Feedback;
use primeshare::wayland::{FeedbackEvent, FeedbackEvents};
use primeshare::{Device, DmaBuf, Modifier};
use wayland_protocols::wp::linux_dmabuf::zv1::server as zv1;
use wayland_server::backend::GlobalId;
use wayland_server::protocol::wl_buffer::{self, WlBuffer};
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource};
use zv1::zwp_linux_dmabuf_feedback_v1::{TrancheFlags, ZwpLinuxDmabufFeedbackV1};
use zv1::zwp_linux_dmabuf_v1::{Request, ZwpLinuxDmabufV1};

/// The state of the server: as much of it as linux-dmabuf needs.
#[derive(Debug)]
pub struct Server {
    device: Device,
    feedback: FeedbackEvents,
    /// What clients have made, and may have destroyed since.
    pub buffers: Vec<WeakDmaBuf>,
}

impl Server {
    /// A server that imports on `device` and offers what `feedback` lists.
    pub fn new(device: Device, feedback: &Feedback) -> io::Result<Self> {
        Ok(Self {
            device,
            feedback: FeedbackEvents::new(feedback)?,
            buffers: Vec::new(),
        })
    }

    /// Announces the global.
    pub fn create_global(display: &DisplayHandle) -> GlobalId {
        display.create_global::<Self, ZwpLinuxDmabufV1, _>(6, ())
    }

    fn send_feedback(&self, to: &ZwpLinuxDmabufFeedbackV1) {
        for event in self.feedback.events(to.version()) {
            match event {
                FeedbackEvent::FormatTable(fd, size) => to.format_table(fd, size),
                FeedbackEvent::MainDevice(device) => to.main_device(device.to_vec()),
                FeedbackEvent::TrancheTargetDevice(device) => {
                    to.tranche_target_device(device.to_vec());
                }
                FeedbackEvent::TrancheFlags(flags) => {
                    to.tranche_flags(TrancheFlags::from_bits_retain(flags));
                }
                FeedbackEvent::TrancheFormats(indices) => to.tranche_formats(indices.to_vec()),
                FeedbackEvent::TrancheDone => to.tranche_done(),
                FeedbackEvent::Done => to.done(),
                _ => {}
            }
        }
    }
}

impl GlobalDispatch<ZwpLinuxDmabufV1, ()> for Server {
    fn bind(
        state: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<ZwpLinuxDmabufV1>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        let global = init.init(resource, ());
        for &(fourcc, Modifier(modifier)) in state.feedback.pairs() {
            match global.version() {
                1 | 2 => global.format(fourcc.0),
                3 => global.modifier(fourcc.0, (modifier >> 32) as u32, modifier as u32),
                _ => break,
            }
        }
    }
}

impl Dispatch<ZwpLinuxDmabufV1, ()> for Server {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &ZwpLinuxDmabufV1,
        request: Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            Request::CreateParams { params_id } => {
                init.init(params_id, Mutex::default());
            }
            // One feedback for all surfaces: a server with several screens would ask which one shows the surface.
            Request::GetDefaultFeedback { id } | Request::GetSurfaceFeedback { id, .. } => {
                state.send_feedback(&init.init(id, ()));
            }
            _ => {}
        }
    }
}

/// Its only request is `destroy`.
impl Dispatch<ZwpLinuxDmabufFeedbackV1, ()> for Server {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &ZwpLinuxDmabufFeedbackV1,
        _: <ZwpLinuxDmabufFeedbackV1 as Resource>::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
    }
}

/// As above, with the buffer as user data.
impl Dispatch<WlBuffer, DmaBuf> for Server {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &WlBuffer,
        _: wl_buffer::Request,
        _: &DmaBuf,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
    }
}
