//! Finding a screen, and looking at it.

use std::fs::OpenOptions;

use anyhow::{Context, Result, bail};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::device::NodeKind;
use primeshare::kms::capture::{self, Writeback};
use primeshare::kms::{Card, Connector, Layer, Output, OutputConfig, Screens, Status};
use primeshare::sync::{Access, Mapping};
use primeshare::{Device, DmaBuf, Errno, Request};

use crate::picture::Picture;
use crate::{FORMAT, PATIENCE};

/// A screen of which this program is the master.
pub(crate) struct Screen {
    pub(crate) card: Card,
    pub(crate) screens: Screens,
    pub(crate) output: Output,
}

impl Screen {
    /// The first that is plugged in and free.
    pub(crate) fn find(devices: &[Device]) -> Result<Self> {
        let (mut refused, mut without) = (None, Vec::new());
        for device in devices
            .iter()
            .filter(|device| device.node().kind == NodeKind::Primary)
        {
            match Self::of(device) {
                Ok(Some(screen)) => return Ok(screen),
                Ok(None) => without.push(device.to_string()),
                Err(error) => {
                    log::info!("{device}: {error:#}");
                    refused.get_or_insert(error);
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if without.is_empty() => {
                bail!("there is no DRM device that can be opened (/dev/dri)")
            }
            None => bail!("no screen is connected; looked at {}", without.join(", ")),
        }
    }

    /// The first of this device; `None` if it has none.
    fn of(device: &Device) -> Result<Option<Self>> {
        // Who opens a device that has no master becomes its master.
        let path = &device.node().path;
        let master = OpenOptions::new().read(true).write(true).open(path);
        let master = master.with_context(|| path.display().to_string())?;
        let card = match Card::new(master) {
            // It has no modes, as a GPU without outputs.
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => return Ok(None),
            card => card?,
        };
        if let Err(error) = card.show_writeback() {
            log::info!("{error}");
        }
        let screens = card.screens(true)?;
        let mut connectors = screens.connectors.iter();
        let is_screen = |connector: &&Connector| {
            !connector.is_writeback && connector.status == Status::Connected
        };
        let Some(connector) = connectors.find(is_screen) else {
            return Ok(None);
        };
        let mut output = Output::new(&card, &screens, &OutputConfig::new(connector.id))?;
        // Whether the screen is ours to take.
        let (width, height) = output.mode().size();
        let own = Dumb::new(card.device()).allocate(&Request::new(width, height, FORMAT))?;
        output.test(&[Layer::new(&own)])?;
        Ok(Some(Self {
            card,
            screens,
            output,
        }))
    }
}

/// What the screen shows, and how it was found out.
pub(crate) fn capture(
    card: &Card,
    screens: &Screens,
    output: &Output,
) -> Result<(Picture, &'static str)> {
    let crtc = screens.crtc(output.crtc()).context("the CRTC has gone")?;
    let writeback = screens
        .connectors
        .iter()
        .find(|connector| connector.is_writeback);
    let writeback = writeback.map(|connector| Writeback::new(card, connector, crtc));
    if let Some(Ok(mut writeback)) = writeback
        && writeback.formats().contains(&FORMAT)
    {
        let (width, height) = output.mode().size();
        let buffer = Dumb::new(card.device()).allocate(&Request::new(width, height, FORMAT))?;
        match writeback.write(&buffer) {
            Ok(written) => {
                written.wait(PATIENCE)?;
                return Ok((read(&buffer)?, "the writeback connector"));
            }
            // Not every driver writes back what a screen shows at the same time.
            Err(error) => log::info!("{error}"),
        }
    }
    let buffer = capture::on_plane(card, output.primary())?;
    let buffer = buffer.context("the screen shows nothing")?;
    Ok((read(&buffer)?, "reading the buffer on the primary plane"))
}

fn read(buffer: &DmaBuf) -> Result<Picture> {
    let plane = buffer.planes()[0];
    let mut mapping = Mapping::new(&buffer.objects()[0])?;
    let access = mapping.begin_wait(Access::Read, PATIENCE)?;
    let read = |offset, row: &mut [u8]| Ok(access.read(offset, row)?);
    let place = (plane.offset as usize, plane.stride as usize);
    Picture::read((buffer.width(), buffer.height()), place, read)
}
