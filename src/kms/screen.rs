//! What a device has to show pictures with: connectors, CRTCs and planes.

use std::fmt;
use std::os::fd::AsFd;

use super::{Card, Error, Operation, Properties, failed};
use crate::buffer::{Fourcc, Modifier};
use crate::negotiate::{Endpoint, FormatSet, parse_in_formats};
use crate::sys::kms::{self, drm_mode_modeinfo};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A connector: where a screen is plugged in.
    ConnectorId,
    /// A CRTC: what reads planes, line by line, and feeds connectors.
    CrtcId,
    /// A plane: where a framebuffer lies in a CRTC's picture.
    PlaneId
}

/// A display mode: size, rate and timings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub(super) drm_mode_modeinfo);

impl Mode {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.0.hdisplay.into(), self.0.vdisplay.into())
    }

    /// Frames in a thousand seconds.
    pub fn millihertz(&self) -> u32 {
        let pixels = u64::from(self.0.htotal) * u64::from(self.0.vtotal);
        let fields = match self.0.flags & drm_ffi::DRM_MODE_FLAG_INTERLACE {
            0 => 1,
            _ => 2,
        };
        match pixels {
            0 => self.0.vrefresh * 1000,
            // The clock is in kHz.
            pixels => (u64::from(self.0.clock) * 1_000_000 * fields / pixels) as u32,
        }
    }

    /// The kernel's name for it, such as `1920x1080`.
    pub fn name(&self) -> String {
        kms::text(&self.0.name)
    }

    /// Whether the screen likes it best.
    pub fn is_preferred(&self) -> bool {
        self.0.type_ & drm_ffi::DRM_MODE_TYPE_PREFERRED != 0
    }

    /// As `struct drm_mode_modeinfo`, in the host's order.
    pub(super) fn bytes(&self) -> [u8; size_of::<drm_mode_modeinfo>()] {
        // SAFETY: the structure is plain numbers without padding, as the kernel's ABI asks.
        unsafe { std::mem::transmute(self.0) }
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((width, height), rate) = (self.size(), self.millihertz());
        write!(f, "{width}x{height}@{}.{:03}", rate / 1000, rate % 1000)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether a screen is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// One is.
    Connected,
    /// None is.
    Disconnected,
    /// The connector cannot tell.
    Unknown,
}

/// A connector as it was when it was asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connector {
    /// Its number.
    pub id: ConnectorId,
    /// Its name, as in sysfs: `HDMI-A-1`.
    pub name: String,
    /// Whether it has a screen.
    pub status: Status,
    /// The screen's modes, the preferred ones first.
    pub modes: Vec<Mode>,
    /// Width and height of the screen in millimetres, 0 if it does not say.
    pub millimetres: (u32, u32),
    /// CRTCs that can feed it, a bit for the [index](Crtc::index) of each.
    pub possible_crtcs: u32,
    /// It has no screen, but writes the picture into memory (`DRM_MODE_CONNECTOR_WRITEBACK`).
    pub is_writeback: bool,
    /// Its properties.
    pub properties: Properties,
}

/// A CRTC.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crtc {
    /// Its number.
    pub id: CrtcId,
    /// Its place among the device's CRTCs.
    pub index: usize,
    /// Its properties.
    pub properties: Properties,
}

/// What a plane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlaneKind {
    /// The picture of the CRTC's size that drivers expect there to be.
    Primary,
    /// On top of it, or below.
    Overlay,
    /// Small, on top of all.
    Cursor,
}

/// A plane.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plane {
    /// Its number.
    pub id: PlaneId,
    /// What it is for.
    pub kind: PlaneKind,
    /// CRTCs that can show it, a bit for the [index](Crtc::index) of each.
    pub possible_crtcs: u32,
    /// What it takes: `IN_FORMATS`, or implicit layouts of its formats if the driver has no modifiers.
    pub formats: Vec<(Fourcc, Modifier)>,
    /// What it takes in flips that do not wait for the vertical blank (`IN_FORMATS_ASYNC`, Linux 6.16), if the driver
    /// says so.
    pub async_formats: Option<Vec<(Fourcc, Modifier)>>,
    /// Its properties.
    pub properties: Properties,
}

/// All that a device has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Screens {
    /// Where screens are plugged in.
    pub connectors: Vec<Connector>,
    /// What feeds them.
    pub crtcs: Vec<Crtc>,
    /// What it is fed with.
    pub planes: Vec<Plane>,
}

impl Connector {
    /// The mode that the screen prefers, else its first.
    pub fn preferred_mode(&self) -> Option<&Mode> {
        let preferred = self.modes.iter().find(|mode| mode.is_preferred());
        preferred.or(self.modes.first())
    }

    /// `probe`: the screen is asked again, which may take a second and blanks nothing; needs DRM master. Else the
    /// kernel says what it knows.
    pub(super) fn read(card: &Card, id: u32, probe: bool) -> Result<Self, Error> {
        let device = card.device();
        let said = kms::connector(card.as_fd(), id, probe);
        let said = said.map_err(failed(device, Operation::GetConnector))?;
        let mut possible_crtcs = 0;
        for encoder in &said.encoders {
            let crtcs = kms::possible_crtcs(card.as_fd(), *encoder);
            possible_crtcs |= crtcs.map_err(failed(device, Operation::GetEncoder))?;
        }
        let mut modes: Vec<Mode> = said.modes.into_iter().map(Mode).collect();
        modes.sort_by_key(|mode| !mode.is_preferred());
        Ok(Self {
            id: ConnectorId(id),
            name: format!(
                "{}-{}",
                type_name(said.info.connector_type),
                said.info.connector_type_id
            ),
            status: match said.info.connection {
                1 => Status::Connected,
                2 => Status::Disconnected,
                _ => Status::Unknown,
            },
            modes,
            millimetres: (said.info.mm_width, said.info.mm_height),
            possible_crtcs,
            is_writeback: said.info.connector_type == drm_ffi::DRM_MODE_CONNECTOR_WRITEBACK,
            properties: Properties::read(card, id, kms::CONNECTOR)?,
        })
    }
}

impl Plane {
    fn read(card: &Card, id: u32) -> Result<Self, Error> {
        let device = card.device();
        let said = kms::plane(card.as_fd(), id).map_err(failed(device, Operation::GetPlane))?;
        let properties = Properties::read(card, id, kms::PLANE)?;
        // Of a driver whose blob makes no sense, what GETPLANE lists is still true.
        let listed = |name| -> Result<Option<Vec<_>>, Error> {
            let Some(blob) = properties.value(name).filter(|blob| *blob != 0) else {
                return Ok(None);
            };
            let blob = kms::blob(card.as_fd(), blob as u32);
            let blob = blob.map_err(failed(device, Operation::GetProperties))?;
            let pairs = parse_in_formats(&blob);
            let bad = |error| log::warn!("{device}: plane {id}: {name}: {error}");
            Ok(pairs.map_err(bad).ok())
        };
        let implicit = || {
            let formats = said.formats.iter();
            formats
                .map(|&format| (Fourcc(format), Modifier::INVALID))
                .collect()
        };
        let kind = match properties.value("type") {
            Some(1) => PlaneKind::Primary,
            Some(2) => PlaneKind::Cursor,
            _ => PlaneKind::Overlay,
        };
        Ok(Self {
            id: PlaneId(id),
            kind,
            possible_crtcs: said.possible_crtcs,
            formats: listed("IN_FORMATS")?.unwrap_or_else(implicit),
            async_formats: listed("IN_FORMATS_ASYNC")?,
            properties,
        })
    }

    /// Whether it takes buffers of this format and modifier. LINEAR buffers are taken where the driver has no
    /// modifiers, since its implicit layout is LINEAR for memory of other devices.
    pub fn takes(&self, fourcc: Fourcc, modifier: Modifier) -> bool {
        let is_implicit =
            |known: Modifier| known == Modifier::INVALID && modifier == Modifier::LINEAR;
        let mut pairs = self.formats.iter();
        pairs.any(|&(format, known)| format == fourcc && (known == modifier || is_implicit(known)))
    }

    /// As a party of a negotiation ([`negotiate`](mod@crate::negotiate)): it shows buffers on this device.
    ///
    /// What allocates for it should know whether its memory is contiguous, where that is
    /// [needed](Endpoint::needs_contiguous).
    pub fn endpoint(&self, card: &Card) -> Result<Endpoint, Error> {
        let device = card.device();
        let key = device.key().map_err(Error::Device)?;
        let name = format!("plane {} of {device}", self.id);
        let pairs = self.formats.iter().map(|&pair| {
            let (fourcc, modifier) = pair;
            // Without modifiers, what any device draws in rows is what the controller reads.
            [(fourcc, modifier)]
                .into_iter()
                .chain((modifier == Modifier::INVALID).then_some((fourcc, Modifier::LINEAR)))
        });
        let formats: FormatSet = pairs.flatten().collect();
        let mut endpoint = Endpoint::plane(name, key, formats);
        endpoint.needs_contiguous = card.needs_contiguous()?;
        Ok(endpoint)
    }
}

impl Screens {
    /// Reads all of a device. The screens are asked if `probe`, else the kernel says what it knows of them.
    ///
    /// A connector that goes while the device is asked is left out.
    pub(super) fn read(card: &Card, probe: bool) -> Result<Self, Error> {
        let (device, fd) = (card.device(), card.as_fd());
        let known = kms::resources(fd).map_err(failed(device, Operation::GetResources))?;
        let connector = |&id: &u32| match Connector::read(card, id, probe) {
            Err(Error::Kernel { errno, .. }) if errno == crate::Errno::ENOENT => None,
            read => Some(read),
        };
        let crtc = |(index, &id): (usize, &u32)| {
            Ok::<_, Error>(Crtc {
                id: CrtcId(id),
                index,
                properties: Properties::read(card, id, kms::CRTC)?,
            })
        };
        let planes = kms::planes(fd).map_err(failed(device, Operation::GetPlane))?;
        Ok(Self {
            connectors: known
                .connectors
                .iter()
                .filter_map(connector)
                .collect::<Result<_, _>>()?,
            crtcs: known
                .crtcs
                .iter()
                .enumerate()
                .map(crtc)
                .collect::<Result<_, _>>()?,
            planes: planes
                .into_iter()
                .map(|id| Plane::read(card, id))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The connector with this name or number.
    pub fn connector(&self, id: ConnectorId) -> Option<&Connector> {
        self.connectors.iter().find(|connector| connector.id == id)
    }

    /// The CRTC with this number.
    pub fn crtc(&self, id: CrtcId) -> Option<&Crtc> {
        self.crtcs.iter().find(|crtc| crtc.id == id)
    }

    /// The plane with this number.
    pub fn plane(&self, id: PlaneId) -> Option<&Plane> {
        self.planes.iter().find(|plane| plane.id == id)
    }

    /// The planes that a CRTC can show.
    pub fn planes_of(&self, crtc: &Crtc) -> impl Iterator<Item = &Plane> {
        let bit = 1 << crtc.index;
        self.planes
            .iter()
            .filter(move |plane| plane.possible_crtcs & bit != 0)
    }
}

/// As the kernel names it in sysfs (`drm_connector_enum_list`).
fn type_name(kind: u32) -> &'static str {
    const NAMES: [&str; 21] = [
        "Unknown",
        "VGA",
        "DVI-I",
        "DVI-D",
        "DVI-A",
        "Composite",
        "SVIDEO",
        "LVDS",
        "Component",
        "DIN",
        "DP",
        "HDMI-A",
        "HDMI-B",
        "TV",
        "eDP",
        "Virtual",
        "DSI",
        "DPI",
        "Writeback",
        "SPI",
        "USB",
    ];
    NAMES.get(kind as usize).copied().unwrap_or("Unknown")
}
