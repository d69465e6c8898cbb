//! `zwp_linux_dmabuf_feedback_v1` of Wayland's linux-dmabuf, versions 4 to 6: the bytes of its format
//! table and tranches, to be read by clients and written by compositors. (The text of version 6 is in
//! wayland-protocols since the release that the crate has as 0.32.13.) Bytes are in the host's
//! order. What opens and maps the table's fd is not here.

use rustc_hash::FxHashMap;

use super::{DeviceKey, Endpoint, Error, Usage};
use crate::buffer::{Fourcc, Modifier};

/// Format (u32), padding (u32), modifier (u64).
const ENTRY_SIZE: usize = 16;
/// What indices of 16 bits can name.
const MAX_ENTRIES: usize = 1 << 16;

/// What a compositor tells a client: which formats and modifiers it takes, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feedback {
    /// Device number (`dev_t`) of the device that the compositor uses; for versions 4 and 5. From version 6
    /// on the tranches with [`TrancheFlags::SAMPLING`] say as much.
    pub main_device: Option<u64>,
    /// Best first.
    pub tranches: Vec<Tranche>,
}

bitflags::bitflags! {
    /// What a compositor does with buffers of a tranche
    /// (`zwp_linux_dmabuf_feedback_v1.tranche_flags`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct TrancheFlags: u32 {
        /// A display controller of the target device may show them as they are.
        const SCANOUT = 1;
        /// The target device samples them efficiently. Since version 6; before, it is so in every tranche
        /// without [`Self::SCANOUT`].
        const SAMPLING = 2;
    }
}

/// Formats and modifiers that are liked equally well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tranche {
    /// Device number (`dev_t`) of the device that will use buffers of this tranche. One device has several
    /// numbers: compare by [`key_of`](crate::device::key_of).
    pub target_device: u64,
    /// What it does with them; at least one flag from version 6 on.
    pub flags: TrancheFlags,
    /// The formats and modifiers. [`Modifier::INVALID`]: buffers without a modifier.
    pub pairs: Vec<(Fourcc, Modifier)>,
}

/// The bytes of a [`Feedback`], as its events carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// `format_table`: the contents of the fd.
    pub table: Vec<u8>,
    /// `main_device`, to be sent before version 6.
    pub main_device: Option<[u8; 8]>,
    /// The events of each tranche.
    pub tranches: Vec<EncodedTranche>,
}

/// The bytes of a [`Tranche`], as its events carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedTranche {
    /// `tranche_target_device`
    pub target_device: [u8; 8],
    /// `tranche_flags`
    pub flags: u32,
    /// The indices of all pairs, as bytes: what [`Self::events`] sends in pieces.
    pub formats: Vec<u8>,
}

impl EncodedTranche {
    /// The arrays of the `tranche_formats` events, at least one. A message of Wayland has at most 4096 bytes
    /// (libwayland's `WL_MAX_MESSAGE_SIZE`), so that a tranche of more than 2000 pairs takes several.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        const BYTES: usize = 4000;
        let first = &self.formats[..self.formats.len().min(BYTES)];
        std::iter::once(first).chain(self.formats[first.len()..].chunks(BYTES))
    }
}

/// The version from which on tranches have flags for sampling, and there is no main device.
const SAMPLING: u32 = 6;

impl Feedback {
    /// Tranches, best first, without a main device.
    pub fn new(tranches: impl IntoIterator<Item = Tranche>) -> Self {
        Self {
            main_device: None,
            tranches: tranches.into_iter().collect(),
        }
    }

    /// With this main device (`dev_t`).
    #[must_use]
    pub fn main_device(mut self, device: u64) -> Self {
        self.main_device = Some(device);
        self
    }

    /// The tranches as endpoints, best first: alternatives for
    /// [`negotiate_one_of`](super::negotiate_one_of). Each imports what it lists, on its own target
    /// device, to show it there, to sample it, or both, as its flags say; without flags to sample it.
    ///
    /// `key` says which device a number (`dev_t`) is of, such as
    /// `|number| key_of(number).ok()` ([`key_of`](crate::device::key_of)). An endpoint whose device is
    /// not known is never given an implicit layout ([`Modifier::INVALID`]).
    pub fn endpoints(
        &self,
        name: &str,
        mut key: impl FnMut(u64) -> Option<DeviceKey>,
    ) -> Vec<Endpoint> {
        let of = |(index, tranche): (usize, &Tranche)| Endpoint {
            device: key(tranche.target_device),
            usage: tranche.usage(),
            ..Endpoint::new(
                format!("{name}, tranche {index}"),
                tranche.pairs.iter().copied().collect(),
            )
        };
        self.tranches.iter().enumerate().map(of).collect()
    }

    /// Writes it for a client that has bound this version of `zwp_linux_dmabuf_v1`, each pair once in
    /// the table.
    ///
    /// Refused: more than 65536 pairs; before version 6, no main device; from then on, a tranche without
    /// flags, and no tranche for sampling.
    pub fn encode(&self, version: u32) -> Result<Encoded, Error> {
        let (main_device, known) = match version < SAMPLING {
            true => (
                Some(self.main_device.ok_or(Error::NoMainDevice(version))?),
                TrancheFlags::SCANOUT,
            ),
            false => (None, TrancheFlags::all()),
        };
        if version >= SAMPLING {
            let without = self.tranches.iter().position(|t| t.flags.is_empty());
            if let Some(tranche) = without {
                return Err(Error::NoFlags(tranche));
            }
            let samples = |tranche: &Tranche| tranche.flags.contains(TrancheFlags::SAMPLING);
            if !self.tranches.iter().any(samples) {
                return Err(Error::NoSampling);
            }
        }
        let mut table = Vec::new();
        let mut places = FxHashMap::default();
        let mut tranches = Vec::with_capacity(self.tranches.len());
        for tranche in &self.tranches {
            let mut indices = Vec::with_capacity(tranche.pairs.len() * 2);
            for &(fourcc, modifier) in &tranche.pairs {
                let next = places.len();
                let place = *places.entry((fourcc, modifier)).or_insert_with(|| {
                    table.extend(fourcc.0.to_ne_bytes());
                    table.extend([0; 4]);
                    table.extend(modifier.0.to_ne_bytes());
                    next
                });
                // The number of entries is found where they are too many: the first is enough.
                let place = u16::try_from(place).map_err(|_| Error::TableTooLong(place + 1))?;
                indices.extend(place.to_ne_bytes());
            }
            tranches.push(EncodedTranche {
                target_device: tranche.target_device.to_ne_bytes(),
                flags: (tranche.flags & known).bits(),
                formats: indices,
            });
        }
        Ok(Encoded {
            table,
            main_device: main_device.map(u64::to_ne_bytes),
            tranches,
        })
    }
}

impl Tranche {
    /// What a device (`dev_t`) does with buffers of these formats and modifiers.
    pub fn new(
        target_device: u64,
        flags: TrancheFlags,
        pairs: impl IntoIterator<Item = (Fourcc, Modifier)>,
    ) -> Self {
        Self {
            target_device,
            flags,
            pairs: pairs.into_iter().collect(),
        }
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage::empty();
        usage.set(Usage::SCANOUT, self.flags.contains(TrancheFlags::SCANOUT));
        let samples = self.flags.is_empty() || self.flags.contains(TrancheFlags::SAMPLING);
        usage.set(Usage::SAMPLE, samples);
        usage
    }
}

/// A format table as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatTable {
    entries: Vec<(Fourcc, Modifier)>,
}

impl FormatTable {
    /// Reads the contents of a `format_table`'s fd: copy them first, where the file could change.
    /// Padding is not looked at, as the protocol asks.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.len().is_multiple_of(ENTRY_SIZE) {
            return Err(Error::TableSize(bytes.len()));
        }
        let (entries, _) = bytes.as_chunks::<ENTRY_SIZE>();
        if entries.len() > MAX_ENTRIES {
            return Err(Error::TableTooLong(entries.len()));
        }
        let entries = entries.iter().map(|entry| {
            let [a, b, c, d, _, _, _, _, modifier @ ..] = *entry;
            (
                Fourcc(u32::from_ne_bytes([a, b, c, d])),
                Modifier(u64::from_ne_bytes(modifier)),
            )
        });
        Ok(Self {
            entries: entries.collect(),
        })
    }

    /// All entries, in the table's order.
    pub fn pairs(&self) -> &[(Fourcc, Modifier)] {
        &self.entries
    }

    /// Reads the indices of a `tranche_formats` event.
    pub fn tranche(&self, indices: &[u8]) -> Result<Vec<(Fourcc, Modifier)>, Error> {
        if !indices.len().is_multiple_of(2) {
            return Err(Error::IndicesSize(indices.len()));
        }
        let (indices, _) = indices.as_chunks::<2>();
        let pairs = indices.iter().map(|bytes| {
            let index = u16::from_ne_bytes(*bytes);
            let entry = self.entries.get(usize::from(index));
            entry.copied().ok_or(Error::Index {
                index,
                entries: self.entries.len(),
            })
        });
        pairs.collect()
    }

    /// Reads the device number of a `main_device` or `tranche_target_device` event.
    pub fn device(bytes: &[u8]) -> Result<u64, Error> {
        let device = bytes.try_into().map_err(|_| Error::DeviceSize(bytes.len()));
        device.map(u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TILED: Modifier = Modifier(0x0200_0000_0000_0901);

    #[test]
    fn an_entry_is_sixteen_bytes_and_listed_once() {
        let feedback = Feedback {
            main_device: Some(0xe280),
            tranches: vec![
                Tranche {
                    target_device: 0xe201,
                    flags: TrancheFlags::SCANOUT,
                    pairs: vec![(Fourcc::XRGB8888, TILED)],
                },
                Tranche {
                    target_device: 0xe280,
                    flags: TrancheFlags::SAMPLING,
                    pairs: vec![(Fourcc::NV12, Modifier::LINEAR), (Fourcc::XRGB8888, TILED)],
                },
            ],
        };
        let encoded = feedback.encode(6).unwrap();
        let mut table = Vec::new();
        for (fourcc, modifier) in [(Fourcc::XRGB8888, TILED), (Fourcc::NV12, Modifier::LINEAR)] {
            table.extend(fourcc.0.to_ne_bytes());
            table.extend([0; 4]);
            table.extend(modifier.0.to_ne_bytes());
        }
        assert_eq!(encoded.table, table);
        let indices = |list: &[u16]| -> Vec<u8> {
            list.iter().flat_map(|index| index.to_ne_bytes()).collect()
        };
        let of = |device: u64, flags, list: &[u16]| EncodedTranche {
            target_device: device.to_ne_bytes(),
            flags,
            formats: indices(list),
        };
        let tranches = [of(0xe201, 1, &[0]), of(0xe280, 2, &[1, 0])];
        assert_eq!(encoded.tranches, tranches);
        assert_eq!(encoded.main_device, None);
    }

    #[test]
    fn older_clients_get_a_main_device_and_no_flag_that_they_do_not_know() {
        let tranche = |flags| Tranche {
            target_device: 0xe280,
            flags,
            pairs: vec![(Fourcc::XRGB8888, TILED)],
        };
        let both = tranche(TrancheFlags::all());
        let mut feedback = Feedback {
            main_device: Some(0xe280),
            tranches: vec![both, tranche(TrancheFlags::SAMPLING)],
        };
        let encoded = feedback.encode(5).unwrap();
        assert_eq!(encoded.main_device, Some(0xe280u64.to_ne_bytes()));
        let flags: Vec<u32> = encoded.tranches.iter().map(|t| t.flags).collect();
        assert_eq!(flags, [1, 0]);
        let endpoints = feedback.endpoints("compositor", |_| None);
        assert_eq!(endpoints[0].usage, Usage::SCANOUT | Usage::SAMPLE);
        assert_eq!(endpoints[1].usage, Usage::SAMPLE);
        feedback.main_device = None;
        assert_eq!(feedback.encode(5), Err(Error::NoMainDevice(5)));
        assert!(feedback.encode(6).is_ok());
        feedback.tranches[1].flags = TrancheFlags::empty();
        assert_eq!(feedback.encode(6), Err(Error::NoFlags(1)));
        feedback.tranches = vec![tranche(TrancheFlags::SCANOUT)];
        assert_eq!(feedback.encode(6), Err(Error::NoSampling));
    }

    #[test]
    fn sizes_and_indices_that_do_not_fit_are_refused() {
        assert_eq!(FormatTable::parse(&[0; 17]), Err(Error::TableSize(17)));
        let long = vec![0; (MAX_ENTRIES + 1) * ENTRY_SIZE];
        assert_eq!(
            FormatTable::parse(&long),
            Err(Error::TableTooLong(MAX_ENTRIES + 1))
        );
        assert!(FormatTable::parse(&long[ENTRY_SIZE..]).is_ok());
        let table = FormatTable::parse(&[0; 32]).unwrap();
        assert_eq!(table.tranche(&[0; 3]), Err(Error::IndicesSize(3)));
        assert_eq!(
            table.tranche(&2u16.to_ne_bytes()),
            Err(Error::Index {
                index: 2,
                entries: 2
            })
        );
        assert_eq!(FormatTable::device(&[0; 4]), Err(Error::DeviceSize(4)));
        let pairs = (0..=MAX_ENTRIES as u32).map(|code| (Fourcc(code), Modifier::LINEAR));
        let feedback = |count| Feedback {
            main_device: Some(0),
            tranches: vec![Tranche {
                target_device: 0,
                flags: TrancheFlags::empty(),
                pairs: pairs.clone().take(count).collect(),
            }],
        };
        let encoded = feedback(MAX_ENTRIES).encode(4).unwrap();
        let events: Vec<_> = encoded.tranches[0].events().collect();
        assert!(events.iter().all(|event| event.len() <= 4000));
        assert_eq!(events.concat(), encoded.tranches[0].formats);
        let nothing = feedback(0).encode(4).unwrap();
        assert_eq!(nothing.tranches[0].events().count(), 1);
        assert_eq!(
            feedback(MAX_ENTRIES + 1).encode(4),
            Err(Error::TableTooLong(MAX_ENTRIES + 1))
        );
    }

    proptest! {
        #[test]
        fn what_a_compositor_writes_a_client_reads(
            main_device: u64,
            tranches in prop::collection::vec(
                (any::<u64>(), any::<bool>(), prop::collection::vec((0u32..9, 0u64..9), 0..20)),
                0..5,
            ),
        ) {
            let pair = |(fourcc, modifier)| (Fourcc(fourcc), Modifier(modifier));
            let tranche = |(target_device, scanout, pairs): (u64, bool, Vec<_>)| Tranche {
                target_device,
                flags: match scanout {
                    true => TrancheFlags::SCANOUT,
                    false => TrancheFlags::empty(),
                },
                pairs: pairs.into_iter().map(pair).collect(),
            };
            let feedback = Feedback {
                main_device: Some(main_device),
                tranches: tranches.into_iter().map(tranche).collect(),
            };
            let encoded = feedback.encode(4).unwrap();
            let table = FormatTable::parse(&encoded.table).unwrap();
            prop_assert_eq!(FormatTable::device(&encoded.main_device.unwrap()), Ok(main_device));
            for (tranche, encoded) in feedback.tranches.iter().zip(&encoded.tranches) {
                prop_assert_eq!(FormatTable::device(&encoded.target_device), Ok(tranche.target_device));
                prop_assert_eq!(&table.tranche(&encoded.formats).unwrap(), &tranche.pairs);
            }
        }

        #[test]
        fn no_bytes_panic(
            table in prop::collection::vec(any::<u8>(), 0..200),
            indices in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            if let Ok(table) = FormatTable::parse(&table) {
                let _ = table.tranche(&indices);
            }
        }
    }
}
