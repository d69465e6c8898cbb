//! What a screen showed before the program.

use std::os::fd::AsFd;

use super::output::Blob;
use super::{Card, Connector, Crtc, Error, Operation, Plane, PlaneId, failed};
use crate::sys::kms::{self, Atomic, drm_mode_modeinfo};

/// The state of a connector, its CRTC and the CRTC's planes.
#[derive(Debug)]
pub(super) enum Saved {
    /// The screen was off.
    Off,
    Atomic {
        connector: (u32, Vec<(u32, u64)>),
        crtc: (u32, Vec<(u32, u64)>),
        /// The mode, and the property that it is set by.
        mode: (u32, Vec<u8>),
        planes: Vec<(PlaneId, Vec<(u32, u64)>)>,
    },
    Legacy {
        connector: u32,
        crtc: u32,
        framebuffer: u32,
        mode: Box<drm_mode_modeinfo>,
    },
}

/// Properties of a plane that make its picture.
const OF_PLANES: [&str; 12] = [
    "FB_ID", "CRTC_ID", "SRC_X", "SRC_Y", "SRC_W", "SRC_H", "CRTC_X", "CRTC_Y", "CRTC_W", "CRTC_H",
    "rotation", "alpha",
];

impl Saved {
    /// `planes`: those that show something on the CRTC.
    pub(super) fn of<'a>(
        card: &Card,
        connector: &Connector,
        crtc: &Crtc,
        planes: impl Iterator<Item = &'a Plane>,
    ) -> Result<Self, Error> {
        if !card.is_atomic() {
            let known = kms::crtc(card.as_fd(), crtc.id.0);
            let known = known.map_err(failed(card.device(), Operation::GetCrtc))?;
            return Ok(match known {
                (framebuffer, Some(mode)) if framebuffer != 0 => Self::Legacy {
                    connector: connector.id.0,
                    crtc: crtc.id.0,
                    framebuffer,
                    mode: Box::new(mode),
                },
                _ => Self::Off,
            });
        }
        let fed_by = connector.properties.value("CRTC_ID").unwrap_or(0);
        let mode = crtc.properties.get("MODE_ID");
        let mode = mode.filter(|mode| mode.value != 0);
        let is_on = crtc.properties.value("ACTIVE").unwrap_or(0) != 0;
        let Some(mode) = mode.filter(|_| is_on && fed_by == u64::from(crtc.id.0)) else {
            return Ok(Self::Off);
        };
        let bytes = kms::blob(card.as_fd(), mode.value as u32);
        let bytes = bytes.map_err(failed(card.device(), Operation::GetProperties))?;
        let of = |properties: &super::Properties, names: &[&str]| {
            let known = names.iter().filter_map(|name| properties.get(name));
            let known = known.filter(|property| !property.is_immutable);
            known
                .map(|property| (property.id, property.value))
                .collect::<Vec<_>>()
        };
        Ok(Self::Atomic {
            connector: (connector.id.0, of(&connector.properties, &["CRTC_ID"])),
            crtc: (crtc.id.0, of(&crtc.properties, &["ACTIVE", "VRR_ENABLED"])),
            mode: (mode.id, bytes),
            planes: planes
                .map(|plane| (plane.id, of(&plane.properties, &OF_PLANES)))
                .collect(),
        })
    }

    /// Shows it again; `false` if it was off, or if its framebuffers are gone.
    pub(super) fn shown_again(self, card: &Card) -> Result<bool, Error> {
        let restored = match self {
            Self::Off => return Ok(false),
            Self::Atomic {
                connector,
                crtc,
                mode: (mode, mut bytes),
                planes,
            } => {
                let blob = Blob::new(card, &mut bytes)?;
                let mut request = Atomic::default();
                let planes = planes.into_iter().map(|(plane, values)| (plane.0, values));
                for (object, values) in [connector, crtc.clone()].into_iter().chain(planes) {
                    request.object(object);
                    values
                        .iter()
                        .for_each(|(id, value)| request.set(*id, *value));
                }
                request.object(crtc.0);
                request.set(mode, blob.id.into());
                request.commit(card.as_fd(), kms::ALLOW_MODESET, 0)
            }
            Self::Legacy {
                connector,
                crtc,
                framebuffer,
                mode,
            } => kms::set_crtc(card.as_fd(), crtc, framebuffer, &[connector], Some(*mode)),
        };
        // Its program has ended, and its framebuffers with it.
        Ok(restored.is_ok())
    }
}
