//! `zwp_linux_buffer_params_v1`: what a client sends becomes a [`DmaBuf`], or the answer that the protocol asks for.
//!
//! The protocol's own rules are here: planes that are given twice, formats that were not offered. What a buffer may be
//! is the library's matter: [`DmaBuf::from_borrowed`] checks it, and
//! [`linux_dmabuf_answer`](buffer::Error::linux_dmabuf_answer) says what the client is told.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use primeshare::buffer::{self, BufferFlags, LinuxDmabufAnswer, MAX_PLANES, PlaneFd, PlaneRef};
use primeshare::negotiate::FormatTable;
use primeshare::{BufferDesc, DmaBuf, Fourcc, Modifier, import};
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_buffer_params_v1::{
    Error, Request, ZwpLinuxBufferParamsV1,
};
use wayland_server::protocol::wl_buffer::WlBuffer;
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, Resource};

use super::Server;

type Planes = [Option<(PlaneFd, Modifier)>; MAX_PLANES];

/// The planes that have come. `None`: a buffer was asked for, and nothing is legal but `destroy`.
#[derive(Debug)]
pub struct Params(Mutex<Option<Planes>>);

impl Default for Params {
    fn default() -> Self {
        Self(Mutex::new(Some(Planes::default())))
    }
}

/// What a client is told instead of being given a buffer, and why.
struct Refused(LinuxDmabufAnswer, String);

fn refused(code: Error, why: impl ToString) -> Refused {
    Refused(
        LinuxDmabufAnswer::ProtocolError(code.into()),
        why.to_string(),
    )
}

impl From<buffer::Error> for Refused {
    fn from(error: buffer::Error) -> Self {
        Self(error.linux_dmabuf_answer(), error.to_string())
    }
}

impl From<import::Error> for Refused {
    fn from(error: import::Error) -> Self {
        Self(error.linux_dmabuf_answer(), error.to_string())
    }
}

impl Params {
    fn add(&self, index: u32, plane: PlaneFd, modifier: Modifier) -> Result<(), Refused> {
        let mut planes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let planes = planes.as_mut();
        let planes = planes.ok_or_else(|| refused(Error::AlreadyUsed, "add after create"))?;
        let place = planes.get_mut(index as usize);
        let place = place.ok_or_else(|| refused(Error::PlaneIdx, index))?;
        match place.replace((plane, modifier)) {
            None => Ok(()),
            Some(_) => Err(refused(Error::PlaneSet, index)),
        }
    }

    /// The fds that have come are closed here: the buffer has its own.
    fn create(
        &self,
        server: &mut Server,
        size: (i32, i32),
        fourcc: Fourcc,
        flags: u32,
    ) -> Result<DmaBuf, Refused> {
        let mut planes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let planes = planes.take();
        let planes = planes.ok_or_else(|| refused(Error::AlreadyUsed, "create after create"))?;
        let count = planes.iter().flatten().count();
        let planes: Vec<_> = planes.into_iter().map_while(|plane| plane).collect();
        if planes.is_empty() || planes.len() < count {
            return Err(refused(Error::Incomplete, "a plane is missing"));
        }
        let modifier = planes[0].1;
        let is_one = planes.iter().all(|plane| plane.1 == modifier);
        if !is_one || !server.offered.contains(&(fourcc, modifier)) {
            return Err(refused(Error::InvalidFormat, "it was not offered"));
        }
        let desc = BufferDesc::from_signed(size.0, size.1, fourcc, modifier)?
            .with_flags(BufferFlags::from_bits_retain(flags));
        let planes = planes.iter().map(|(plane, _)| PlaneRef {
            fd: plane.fd.as_fd(),
            offset: plane.offset,
            stride: plane.stride,
        });
        let buffer = DmaBuf::from_borrowed(desc, planes)?;
        // A server that shows buffers keeps what it makes of the import, in a `PerBuffer`.
        server.device.import(&buffer)?;
        server.buffers.retain(|known| !known.is_gone());
        server.buffers.push(buffer.downgrade());
        Ok(buffer)
    }
}

impl Dispatch<ZwpLinuxBufferParamsV1, Params> for Server {
    #[rustfmt::skip]
    fn request(
        server: &mut Self,
        client: &Client,
        resource: &ZwpLinuxBufferParamsV1,
        request: Request,
        params: &Params,
        display: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        let mut create = |size, format, flags| params.create(server, size, Fourcc(format), flags);
        let answer = || -> Result<(), Refused> {
            match request {
                Request::Add { fd, plane_idx, offset, stride, modifier_hi, modifier_lo } => {
                    let modifier = Modifier(u64::from(modifier_hi) << 32 | u64::from(modifier_lo));
                    params.add(plane_idx, PlaneFd { fd, offset, stride }, modifier)?;
                }
                Request::Create { width, height, format, flags } => {
                    match create((width, height), format, flags.into()) {
                        Ok(buffer) => {
                            let made = client.create_resource::<WlBuffer, _, Self>(display, 1, buffer);
                            // If it fails, the client is gone.
                            let _ = made.map(|made| resource.created(&made));
                        }
                        Err(Refused(LinuxDmabufAnswer::Failed, _)) => resource.failed(),
                        Err(refused) => return Err(refused),
                    }
                }
                Request::CreateImmed { buffer_id, width, height, format, flags } => {
                    let buffer = create((width, height), format, flags.into())?;
                    init.init(buffer_id, buffer);
                }
                Request::SetSamplingDevice { device } => {
                    FormatTable::device(&device).map_err(|error| refused(Error::InvalidDevTSize, error))?;
                }
                _ => {}
            }
            Ok(())
        };
        if let Err(Refused(answer, why)) = answer() {
            let code = match answer {
                LinuxDmabufAnswer::ProtocolError(code) => code,
                _ => LinuxDmabufAnswer::INVALID_WL_BUFFER,
            };
            resource.post_error(code, why);
        }
    }
}
