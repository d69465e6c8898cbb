//! Whether a display controller takes a buffer. Nothing that a screen shows is changed.
//!
//! A framebuffer needs no DRM master. A test of a commit does: it is made if the kernel makes this program the master
//! when it opens the device, which it does only if nobody is (`drm_master_open`). The program stays the master for
//! that one test. Only the master has the kernel look for screens, too.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;

use primeshare::buffer::Rect;
use primeshare::device::NodeKind;
use primeshare::kms::{
    self, Card, Connector, FramebufferOptions, Layer, Output, OutputConfig, PlaneKind, Screens,
    Status,
};
use primeshare::{Device, DmaBuf, Errno, Fourcc};

use super::step::Reason;

/// What a display controller says of a buffer.
pub(super) enum Answer {
    /// The device has none.
    NoScreens(String),
    Refused(Reason),
    Takes(String),
}

/// A device with a display controller, by a file description of its own that is not the master.
struct Display {
    card: Card,
    screens: Screens,
}

impl Display {
    fn of(device: &Device) -> Result<Result<Self, String>, kms::Error> {
        if device.node().kind != NodeKind::Primary {
            return Ok(Err("a render node has no screens".to_owned()));
        }
        let card = match Card::new(device.reopen()?) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                return Ok(Err(error.to_string()));
            }
            card => card?,
        };
        let screens = card.screens(false)?;
        if screens.crtcs.is_empty() {
            return Ok(Err(format!("{device} has no CRTC")));
        }
        Ok(Ok(Self { card, screens }))
    }

    /// Has the kernel look for screens, if nobody has since it was started. It looks for the DRM master only: nothing
    /// changes if another program is.
    fn probe(&mut self) {
        let is_unknown =
            |connector: &Connector| !connector.is_writeback && connector.status == Status::Unknown;
        if !self.screens.connectors.iter().any(is_unknown) {
            return;
        }
        let probed = master(self.card.device()).map_err(|error| error.to_string());
        let probed = probed.and_then(|file| {
            let screens = Card::new(&file).and_then(|card| card.screens(true));
            screens.map_err(|error| error.to_string())
        });
        match probed {
            Ok(screens) => self.screens = screens,
            Err(error) => log::debug!("{}: {error}", self.card),
        }
    }

    fn connected(&self) -> Option<&Connector> {
        let is_screen = |connector: &&Connector| {
            !connector.is_writeback
                && connector.status == Status::Connected
                && connector.preferred_mode().is_some()
        };
        self.screens.connectors.iter().find(is_screen)
    }

    /// The modifiers that primary planes take for a format.
    fn modifiers(&self, fourcc: Fourcc) -> Vec<String> {
        let primary = |plane: &&kms::Plane| plane.kind == PlaneKind::Primary;
        let planes = self.screens.planes.iter().filter(primary);
        let pairs = planes.flat_map(|plane| &plane.formats);
        let modifiers: BTreeSet<_> = pairs
            .filter(|(format, _)| *format == fourcc)
            .map(|(_, modifier)| *modifier)
            .collect();
        modifiers.iter().map(ToString::to_string).collect()
    }
}

/// The size of the screen that is plugged in.
pub(super) fn preferred_size(device: &Device) -> Option<(u32, u32)> {
    let mut display = Display::of(device).ok()?.ok()?;
    display.probe();
    let size = display.connected()?.preferred_mode()?.size();
    Some(size)
}

/// A framebuffer of the buffer, and a test of a commit that shows it.
pub(super) fn ask(device: &Device, buffer: &DmaBuf) -> Answer {
    let refused = |error: &kms::Error| Reason::new(error, error.errno());
    let mut display = match Display::of(device) {
        Ok(Ok(display)) => display,
        Ok(Err(why)) => return Answer::NoScreens(why),
        Err(error) => return Answer::Refused(refused(&error)),
    };
    let framebuffers = display.card.framebuffers();
    let framebuffer = framebuffers.get(buffer, FramebufferOptions::default());
    let id = match framebuffer {
        Ok(framebuffer) => framebuffer.id(),
        Err(error) => {
            let offered = display.modifiers(buffer.fourcc());
            return Answer::Refused(refused(&error).offered(Some(offered)));
        }
    };
    display.probe();
    let Some(connector) = display.connected() else {
        return Answer::Takes(format!(
            "framebuffer {id}; no screen is plugged in, so that no commit was tested"
        ));
    };
    match test(device, connector, buffer) {
        Ok(Tested::Accepted(what)) => Answer::Takes(format!("framebuffer {id}; {what}")),
        Ok(Tested::NotTested(why)) => {
            Answer::Takes(format!("framebuffer {id}; no commit was tested: {why}"))
        }
        Err(error) => {
            let offered = display.modifiers(buffer.fourcc());
            Answer::Refused(refused(&error).offered(Some(offered)))
        }
    }
}

/// A file description that is the device's master if nobody else is. Those of the library never are.
fn master(device: &Device) -> io::Result<File> {
    let path = &device.node().path;
    OpenOptions::new().read(true).write(true).open(path)
}

enum Tested {
    Accepted(String),
    NotTested(String),
}

/// TEST_ONLY: the screen goes on showing what it shows.
fn test(device: &Device, connector: &Connector, buffer: &DmaBuf) -> Result<Tested, kms::Error> {
    let file = match master(device) {
        Ok(file) => file,
        Err(error) => return Ok(Tested::NotTested(format!("{device}: {error}"))),
    };
    let card = Card::new(&file)?;
    if !card.is_atomic() {
        let why = "the device has no atomic commits";
        return Ok(Tested::NotTested(why.to_owned()));
    }
    let screens = card.screens(false)?;
    let mut output = match Output::new(&card, &screens, &OutputConfig::new(connector.id)) {
        // Another program has the CRTCs or the planes.
        Err(error @ kms::Error::NoneFree { .. }) => {
            return Ok(Tested::NotTested(error.to_string()));
        }
        output => output?,
    };
    let (columns, rows) = output.mode().size();
    let shown = Rect::whole(buffer.width().min(columns), buffer.height().min(rows));
    let tested = output.test(&[Layer::new(buffer).source(shown)]);
    output.leave();
    match tested {
        Ok(()) => Ok(Tested::Accepted(format!(
            "{} takes it at {columns}x{rows} (TEST_ONLY)",
            connector.name
        ))),
        Err(kms::Error::NotMaster { .. }) => Ok(Tested::NotTested(
            "another program is the DRM master".to_owned(),
        )),
        // Many drivers want a primary plane that covers all of the screen: this says nothing of the buffer.
        Err(_) if shown.width < columns || shown.height < rows => Ok(Tested::NotTested(format!(
            "the picture does not cover the screen of {columns}x{rows}"
        ))),
        Err(error) => Err(error),
    }
}
