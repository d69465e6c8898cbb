//! Properties of connectors, CRTCs and planes.

use std::os::fd::AsFd;

use super::{Card, Error, Operation};
use crate::sys;

/// The properties of an object, with the values that they had when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Vec<Property>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property {
    /// Its number, which is the same for all objects of the device that have it.
    pub id: u32,
    /// Its name, such as `IN_FORMATS`.
    pub name: String,
    /// Its value then.
    pub value: u64,
    /// Whether nobody can set it (`DRM_MODE_PROP_IMMUTABLE`).
    pub is_immutable: bool,
    /// Of a range, the smallest and the largest value.
    pub range: Option<(u64, u64)>,
    /// Of an enumeration or a bit mask, the values by name.
    pub values: Vec<(String, u64)>,
}

impl Properties {
    pub(super) fn read(card: &Card, object: u32, kind: u32) -> Result<Self, Error> {
        let failed = super::failed(card.device(), Operation::GetProperties);
        let known = sys::kms::properties(card.as_fd(), object, kind).map_err(&failed)?;
        let property = |(id, value)| {
            let said = sys::kms::property(card.as_fd(), id).map_err(&failed)?;
            let is = |flag| said.flags & flag != 0;
            let range = match said.values[..] {
                [min, max] if is(drm_ffi::DRM_MODE_PROP_RANGE) => Some((min, max)),
                _ => None,
            };
            Ok(Property {
                id,
                value,
                is_immutable: is(drm_ffi::DRM_MODE_PROP_IMMUTABLE),
                range,
                name: said.name,
                values: said.enums,
            })
        };
        known
            .into_iter()
            .map(property)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The property with this name.
    pub fn get(&self, name: &str) -> Option<&Property> {
        self.0.iter().find(|property| property.name == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Property> {
        self.0.iter()
    }

    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.get(name).map(|property| property.id)
    }

    pub(super) fn value(&self, name: &str) -> Option<u64> {
        self.get(name).map(|property| property.value)
    }
}
