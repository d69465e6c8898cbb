//! `zwp_linux_buffer_params_v1`, by [`Params`].

use std::sync::{Mutex, PoisonError};

use primeshare::buffer::{LinuxDmabufAnswer, PlaneFd};
use primeshare::wayland::{Params, ParamsError};
use primeshare::{DmaBuf, Fourcc, Modifier, import};
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_buffer_params_v1::{
    Request, ZwpLinuxBufferParamsV1,
};
use wayland_server::protocol::wl_buffer::WlBuffer;
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, Resource};

use super::Server;

/// What a client is told instead of being given a buffer, and why.
struct Refused(LinuxDmabufAnswer, String);

impl From<ParamsError> for Refused {
    fn from(error: ParamsError) -> Self {
        Self(error.answer(), error.to_string())
    }
}

impl From<import::Error> for Refused {
    fn from(error: import::Error) -> Self {
        Self(error.linux_dmabuf_answer(), error.to_string())
    }
}

/// A buffer that the server's device imports.
fn create(
    server: &mut Server,
    params: &mut Params,
    size: (i32, i32),
    format: u32,
    flags: u32,
) -> Result<DmaBuf, Refused> {
    let offered = server.feedback.pairs();
    let is_offered = |fourcc, modifier| offered.contains(&(fourcc, modifier));
    let buffer = params.create(size, Fourcc(format), flags, is_offered)?;
    // A server that shows buffers keeps what it makes of the import, in a `PerBuffer`.
    server.device.import(&buffer)?;
    server.buffers.retain(|known| !known.is_gone());
    server.buffers.push(buffer.downgrade());
    Ok(buffer)
}

impl Dispatch<ZwpLinuxBufferParamsV1, Mutex<Params>> for Server {
    #[rustfmt::skip]
    fn request(
        server: &mut Self,
        client: &Client,
        resource: &ZwpLinuxBufferParamsV1,
        request: Request,
        params: &Mutex<Params>,
        display: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        let mut params = params.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = || -> Result<(), Refused> {
            match request {
                Request::Add { fd, plane_idx, offset, stride, modifier_hi, modifier_lo } => {
                    let modifier = Modifier(u64::from(modifier_hi) << 32 | u64::from(modifier_lo));
                    params.add(plane_idx, PlaneFd { fd, offset, stride }, modifier)?;
                }
                Request::Create { width, height, format, flags } => {
                    match create(server, &mut params, (width, height), format, flags.into()) {
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
                    let buffer = create(server, &mut params, (width, height), format, flags.into())?;
                    init.init(buffer_id, buffer);
                }
                Request::SetSamplingDevice { device } => params.set_sampling_device(&device)?,
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
