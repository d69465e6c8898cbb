//! What a screen shows, for screenshots and tests.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::{Card, Connector, Crtc, CrtcId, Error, FramebufferOptions, Operation, PlaneId, failed};
use crate::Errno;
use crate::buffer::{BufferDesc, BufferFlags, DmaBuf, Fourcc, MAX_PLANES, Modifier, Plane};
use crate::sync::SyncFile;
use crate::sys::kms::{self, Atomic};

/// The buffer that is on a plane at this moment; `None` if there is none.
///
/// Whoever drew it may draw into it again at any time: copy it soon. The kernel tells handles only to the device's
/// master and to root ([`Error::NotMaster`]). The handles that GETFB2 makes are closed again; the [`DmaBuf`] has fds.
pub fn on_plane(card: &Card, plane: PlaneId) -> Result<Option<DmaBuf>, Error> {
    // Not the property FB_ID, which clients of atomic commits alone can see.
    let known = kms::plane(card.as_fd(), plane.0);
    let known = known.map_err(failed(card.device(), Operation::GetPlane))?;
    match known.framebuffer {
        0 => Ok(None),
        framebuffer => of_framebuffer(card, framebuffer).map(Some),
    }
}

/// The buffer of a framebuffer, whoever made it. For the device's master and root only, as [`on_plane`]. The [`DmaBuf`]
/// lives on if the framebuffer is removed.
pub fn of_framebuffer(card: &Card, framebuffer: u32) -> Result<DmaBuf, Error> {
    let device = card.device();
    let known = kms::get_fb2(device.as_fd(), framebuffer);
    let known = known.map_err(failed(device, Operation::GetFramebuffer))?;
    let (mut objects, mut planes) = (ArrayVec::<_, MAX_PLANES>::new(), Vec::new());
    for (plane, &handle) in known
        .handles
        .iter()
        .enumerate()
        .filter(|plane| *plane.1 != 0)
    {
        // Each is a new handle, but for planes in one object: GETFB2 gives them the same.
        let seen = objects.iter().position(|(seen, _)| *seen == handle);
        let object = match seen {
            Some(seen) => seen,
            None => {
                objects.push((handle, device.adopt(handle)?));
                objects.len() - 1
            }
        };
        planes.push(Plane {
            object,
            offset: known.offsets[plane],
            stride: known.pitches[plane],
        });
    }
    if planes.is_empty() {
        // What the kernel answers to who is not the master.
        return Err(Error::NotMaster {
            device: device.to_string(),
            operation: Operation::GetFramebuffer,
        });
    }
    let fds = objects.iter().map(|(_, object)| Ok(object.export()?.0));
    let fds: Vec<OwnedFd> = fds.collect::<Result<_, crate::gem::Error>>()?;
    let modifier = match known.flags & kms::FB_MODIFIERS {
        0 => Modifier::INVALID,
        _ => Modifier(known.modifier[0]),
    };
    let flags = match known.flags & kms::FB_INTERLACED {
        0 => BufferFlags::empty(),
        _ => BufferFlags::INTERLACED,
    };
    let desc = BufferDesc::new(
        known.width,
        known.height,
        Fourcc(known.pixel_format),
        modifier,
    );
    Ok(DmaBuf::from_objects(desc.with_flags(flags), fds, &planes)?)
}

/// A writeback connector: it writes what a CRTC shows into a buffer, once for each request.
///
/// It shares the CRTC with the screen whose picture is wanted, so the driver must allow both at once, or it has a CRTC
/// of its own. The program calls [`Card::show_writeback`] before it asks for the [`Screens`](super::Screens).
#[derive(Debug)]
pub struct Writeback {
    card: Card,
    connector: u32,
    crtc: CrtcId,
    formats: Vec<Fourcc>,
    crtc_of_connector: u32,
    framebuffer: u32,
    out_fence: u32,
    is_connected: bool,
    request: Atomic,
}

impl Writeback {
    /// For a connector with [`is_writeback`](Connector::is_writeback) and a CRTC that feeds a screen. If the driver cannot
    /// do both at once (as vkms of Linux 6.12.107), [`write`](Self::write) is refused with EINVAL.
    pub fn new(card: &Card, connector: &Connector, crtc: &Crtc) -> Result<Self, Error> {
        let id = |name: &'static str| {
            let found = connector.properties.get(name).map(|property| property.id);
            found.ok_or_else(|| Error::NoProperty {
                device: card.to_string(),
                object: connector.id.0,
                name,
            })
        };
        if connector.possible_crtcs & 1 << crtc.index == 0 {
            return Err(Error::NoneFree {
                connector: connector.name.clone(),
                what: "CRTC",
            });
        }
        let formats = connector.properties.get("WRITEBACK_PIXEL_FORMATS");
        let formats = match formats.map_or(0, |formats| formats.value) {
            0 => Vec::new(),
            blob => {
                let bytes = kms::blob(card.as_fd(), blob as u32);
                let bytes = bytes.map_err(failed(card.device(), Operation::GetProperties))?;
                let (codes, _) = bytes.as_chunks::<4>();
                codes
                    .iter()
                    .map(|code| Fourcc(u32::from_ne_bytes(*code)))
                    .collect()
            }
        };
        Ok(Self {
            card: card.clone(),
            connector: connector.id.0,
            crtc: crtc.id,
            formats,
            crtc_of_connector: id("CRTC_ID")?,
            framebuffer: id("WRITEBACK_FB_ID")?,
            out_fence: id("WRITEBACK_OUT_FENCE_PTR")?,
            is_connected: false,
            request: Atomic::default(),
        })
    }

    /// The formats that it can write.
    pub fn formats(&self) -> &[Fourcc] {
        &self.formats
    }

    /// Has the CRTC's next picture written into a buffer of the mode's size. The sync file is signalled when it is
    /// there; the buffer must live until then. Returns at once, except for the first time, which waits for the vertical
    /// blank.
    ///
    /// [`Error::Pending`] while a frame is about to be shown, or one is being written.
    pub fn write(&mut self, buffer: &DmaBuf) -> Result<SyncFile, Error> {
        let options = FramebufferOptions::default();
        let framebuffer = self.card.framebuffers().get(buffer, options);
        let framebuffer = framebuffer.map_err(Arc::unwrap_or_clone)?;
        let mut fence = -1;
        self.request.clear();
        self.request.object(self.connector);
        self.request.set(self.crtc_of_connector, self.crtc.0.into());
        self.request.set(self.framebuffer, framebuffer.id().into());
        self.request
            .set(self.out_fence, std::ptr::from_mut(&mut fence) as u64);
        let flags = match self.is_connected {
            true => kms::NONBLOCK,
            false => kms::ALLOW_MODESET,
        };
        let written = self.request.commit(self.card.as_fd(), flags, 0);
        written.map_err(|errno| match errno {
            Errno::EBUSY => Error::Pending,
            errno => failed(self.card.device(), Operation::Commit)(errno),
        })?;
        self.is_connected = true;
        super::output::out_fence(&self.card, fence)?.ok_or_else(|| Error::Events {
            device: self.card.to_string(),
            errno: Errno::EBADF,
        })
    }

    /// Disconnects it from the CRTC. Drop does the same.
    fn disconnect(&mut self) -> Result<(), Errno> {
        self.request.clear();
        self.request.object(self.connector);
        self.request.set(self.crtc_of_connector, 0);
        self.request
            .commit(self.card.as_fd(), kms::ALLOW_MODESET, 0)
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        if self.is_connected
            && let Err(errno) = self.disconnect()
        {
            log::debug!("{}: writeback: {errno}", self.card);
        }
    }
}
