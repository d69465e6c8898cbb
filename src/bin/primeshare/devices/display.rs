//! What a device shows pictures with.

use std::collections::BTreeSet;

use primeshare::device::NodeKind;
use primeshare::kms::{self, Card, Connector, Plane, PlaneKind, Status};
use primeshare::{Device, Errno, Modifier};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Display {
    /// Whether it has atomic commits.
    atomic: bool,
    crtcs: usize,
    connectors: Vec<ConnectorReport>,
    planes: Vec<PlaneReport>,
}

#[derive(Serialize)]
struct ConnectorReport {
    name: String,
    /// `connected`, `disconnected`, `unknown`: what the kernel knew last.
    status: &'static str,
    preferred_mode: Option<String>,
    /// Width and height of the screen, if it says.
    millimetres: Option<(u32, u32)>,
    /// It writes pictures into memory, and has no screen.
    writeback: bool,
}

#[derive(Serialize)]
struct PlaneReport {
    id: u32,
    #[serde(flatten)]
    does: Does,
}

/// What planes have in common.
#[derive(PartialEq, Serialize)]
struct Does {
    kind: &'static str,
    formats: usize,
    /// By name; none if the driver knows implicit layouts only.
    modifiers: Vec<String>,
    /// Formats of flips that do not wait for the vertical blank, if the driver says so.
    async_formats: Option<usize>,
}

impl Display {
    /// What the kernel knows of the device's screens; `None` if the device has no modes. Asks no screen and becomes
    /// nobody's master.
    pub(super) fn of(device: &Device) -> Result<Option<Self>, kms::Error> {
        if device.node().kind != NodeKind::Primary {
            return Ok(None);
        }
        // Of its own, since it gets client capabilities.
        let card = match Card::new(device.reopen()?) {
            // `drm_setclientcap`, of a driver without DRIVER_MODESET.
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => return Ok(None),
            card => card?,
        };
        if let Err(error) = card.show_writeback() {
            log::debug!("{error}");
        }
        let screens = card.screens(false)?;
        Ok(Some(Self {
            atomic: card.is_atomic(),
            crtcs: screens.crtcs.len(),
            connectors: screens.connectors.iter().map(connector).collect(),
            planes: screens.planes.iter().map(plane).collect(),
        }))
    }

    pub(super) fn summary(&self) -> String {
        let commits = match self.atomic {
            true => "atomic commits",
            false => "no atomic commits",
        };
        format!("{}, {commits}", count(self.crtcs, "CRTC"))
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.connectors.iter().map(ConnectorReport::line).collect();
        // Devices have dozens of planes of few kinds.
        let mut kinds: Vec<(&Does, usize)> = Vec::new();
        for PlaneReport { does, .. } in &self.planes {
            match kinds.iter_mut().find(|(known, _)| *known == does) {
                Some((_, number)) => *number += 1,
                None => kinds.push((does, 1)),
            }
        }
        lines.extend(kinds.into_iter().map(|(does, number)| does.line(number)));
        lines
    }
}

fn connector(connector: &Connector) -> ConnectorReport {
    ConnectorReport {
        name: connector.name.clone(),
        status: match connector.status {
            Status::Connected => "connected",
            Status::Disconnected => "disconnected",
            Status::Unknown => "unknown",
        },
        preferred_mode: connector.preferred_mode().map(ToString::to_string),
        millimetres: Some(connector.millimetres).filter(|size| *size != (0, 0)),
        writeback: connector.is_writeback,
    }
}

fn plane(plane: &Plane) -> PlaneReport {
    let formats = |pairs: &[_]| {
        pairs
            .iter()
            .map(|(format, _)| format)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let modifiers: BTreeSet<Modifier> = plane
        .formats
        .iter()
        .map(|(_, modifier)| *modifier)
        .collect();
    let explicit = modifiers
        .into_iter()
        .filter(|modifier| *modifier != Modifier::INVALID);
    PlaneReport {
        id: plane.id.0,
        does: Does {
            kind: match plane.kind {
                PlaneKind::Primary => "primary",
                PlaneKind::Overlay => "overlay",
                PlaneKind::Cursor => "cursor",
            },
            formats: formats(&plane.formats),
            modifiers: explicit.map(|modifier| modifier.to_string()).collect(),
            async_formats: plane.async_formats.as_deref().map(formats),
        },
    }
}

impl ConnectorReport {
    fn line(&self) -> String {
        if self.writeback {
            return format!("{}: writes pictures into memory", self.name);
        }
        let mut line = format!("{}: {}", self.name, self.status);
        if let Some(mode) = &self.preferred_mode {
            line += &format!(", prefers {mode}");
        }
        if let Some((width, height)) = self.millimetres {
            line += &format!(", {width}x{height} mm");
        }
        line
    }
}

impl Does {
    fn line(&self, number: usize) -> String {
        let planes = count(number, &format!("{} plane", self.kind));
        let modifiers = match self.modifiers.is_empty() {
            true => "implicit layouts".to_owned(),
            false => self.modifiers.join(" "),
        };
        let mut line = format!("{planes}: {}, {modifiers}", count(self.formats, "format"));
        if let Some(formats) = self.async_formats {
            line += &format!(", {} in flips that may tear", count(formats, "format"));
        }
        line
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}
