//! A server of `zwp_linux_dmabuf_v1`, versions 1 to 6, by the crate `wayland-server`.
//!
//! This file has the global and its feedback, whose bytes are [`Feedback::encode`]'s. [`params`] makes a [`DmaBuf`] of
//! what a client sends. A `wl_buffer` has its [`DmaBuf`] as user data (`Resource::data`); the memory goes when the client
//! has destroyed it and the server has dropped its own clones.

pub mod params;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use primeshare::buffer::WeakDmaBuf;
use primeshare::negotiate::{Encoded, Feedback, FormatTable};
use primeshare::{Device, DmaBuf, Fourcc, Modifier};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wayland_protocols::wp::linux_dmabuf::zv1::server as zv1;
use wayland_server::backend::GlobalId;
use wayland_server::protocol::wl_buffer::{self, WlBuffer};
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource};
use zv1::zwp_linux_dmabuf_feedback_v1::{TrancheFlags, ZwpLinuxDmabufFeedbackV1};
use zv1::zwp_linux_dmabuf_v1::{Request, ZwpLinuxDmabufV1};

use params::Params;

/// The state of the server: as much of it as linux-dmabuf needs.
#[derive(Debug)]
pub struct Server {
    device: Device,
    offered: Vec<(Fourcc, Modifier)>,
    /// For clients before version 6, and for the others.
    encoded: [Encoded; 2],
    table: File,
    /// What clients have made, and may have destroyed since.
    pub buffers: Vec<WeakDmaBuf>,
}

impl Server {
    /// A server that imports on `device` and offers what `feedback` lists.
    pub fn new(device: Device, feedback: &Feedback) -> io::Result<Self> {
        let encoded = [feedback.encode(5)?, feedback.encode(6)?];
        let bytes = &encoded[0].table;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut table = File::from(memfd_create("format table", flags)?);
        table.write_all(bytes)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        fcntl_add_seals(&table, seals)?;
        Ok(Self {
            device,
            offered: FormatTable::parse(bytes)?.pairs().to_vec(),
            encoded,
            table,
            buffers: Vec::new(),
        })
    }

    /// Announces the global.
    pub fn create_global(display: &DisplayHandle) -> GlobalId {
        display.create_global::<Self, ZwpLinuxDmabufV1, _>(6, ())
    }

    fn send_feedback(&self, to: &ZwpLinuxDmabufFeedbackV1) {
        let encoded = &self.encoded[usize::from(to.version() >= 6)];
        to.format_table(self.table.as_fd(), encoded.table.len() as u32);
        if let Some(device) = encoded.main_device {
            to.main_device(device.to_vec());
        }
        for tranche in &encoded.tranches {
            to.tranche_target_device(tranche.target_device.to_vec());
            to.tranche_flags(TrancheFlags::from_bits_retain(tranche.flags));
            for indices in tranche.events() {
                to.tranche_formats(indices.to_vec());
            }
            to.tranche_done();
        }
        to.done();
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
        for &(fourcc, Modifier(modifier)) in &state.offered {
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
                init.init(params_id, Params::default());
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
