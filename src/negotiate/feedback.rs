//! `zwp_linux_dmabuf_feedback_v1` of Wayland's linux-dmabuf, version 4: the bytes of its format
//! table and tranches, to be read by clients and written by compositors. Bytes are in the host's
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
pub struct Feedback {
    /// Device number (`dev_t`) of the device that the compositor uses.
    pub main_device: u64,
    /// Best first.
    pub tranches: Vec<Tranche>,
}

/// Formats and modifiers that are liked equally well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tranche {
    /// Device number (`dev_t`) of the device that will use buffers of this tranche.
    pub target_device: u64,
    /// Whether such a buffer may be shown by a display controller as it is.
    pub scanout: bool,
    /// The formats and modifiers. [`Modifier::INVALID`]: buffers without a modifier.
    pub pairs: Vec<(Fourcc, Modifier)>,
}

/// The bytes of a [`Feedback`], as its events carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// `format_table`: the contents of the fd.
    pub table: Vec<u8>,
    /// `main_device`
    pub main_device: [u8; 8],
    /// `tranche_target_device` and `tranche_formats`, per tranche.
    pub tranches: Vec<([u8; 8], Vec<u8>)>,
}

impl Feedback {
    /// The tranches as endpoints, best first: alternatives for
    /// [`negotiate_one_of`](super::negotiate_one_of). Each imports what it lists, on its own target
    /// device, to show it there if it has the scanout flag and to sample it otherwise.
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
            usage: match tranche.scanout {
                true => Usage::SCANOUT,
                false => Usage::SAMPLE,
            },
            ..Endpoint::new(
                format!("{name}, tranche {index}"),
                tranche.pairs.iter().copied().collect(),
            )
        };
        self.tranches.iter().enumerate().map(of).collect()
    }

    /// Writes it, each pair once in the table. Refused where there are more than 65536.
    pub fn encode(&self) -> Result<Encoded, Error> {
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
            tranches.push((tranche.target_device.to_ne_bytes(), indices));
        }
        Ok(Encoded {
            table,
            main_device: self.main_device.to_ne_bytes(),
            tranches,
        })
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
            main_device: 0xe280,
            tranches: vec![
                Tranche {
                    target_device: 0xe201,
                    scanout: true,
                    pairs: vec![(Fourcc::XRGB8888, TILED)],
                },
                Tranche {
                    target_device: 0xe280,
                    scanout: false,
                    pairs: vec![(Fourcc::NV12, Modifier::LINEAR), (Fourcc::XRGB8888, TILED)],
                },
            ],
        };
        let encoded = feedback.encode().unwrap();
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
        assert_eq!(
            encoded.tranches,
            [
                (0xe201u64.to_ne_bytes(), indices(&[0])),
                (0xe280u64.to_ne_bytes(), indices(&[1, 0]))
            ]
        );
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
            main_device: 0,
            tranches: vec![Tranche {
                target_device: 0,
                scanout: false,
                pairs: pairs.clone().take(count).collect(),
            }],
        };
        assert!(feedback(MAX_ENTRIES).encode().is_ok());
        assert_eq!(
            feedback(MAX_ENTRIES + 1).encode(),
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
                scanout,
                pairs: pairs.into_iter().map(pair).collect(),
            };
            let feedback = Feedback {
                main_device,
                tranches: tranches.into_iter().map(tranche).collect(),
            };
            let encoded = feedback.encode().unwrap();
            let table = FormatTable::parse(&encoded.table).unwrap();
            prop_assert_eq!(FormatTable::device(&encoded.main_device), Ok(main_device));
            for (tranche, (device, indices)) in feedback.tranches.iter().zip(&encoded.tranches) {
                prop_assert_eq!(FormatTable::device(device), Ok(tranche.target_device));
                prop_assert_eq!(&table.tranche(indices).unwrap(), &tranche.pairs);
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
