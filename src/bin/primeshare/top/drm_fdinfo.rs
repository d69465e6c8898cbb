//! What the kernel's text says of a client of a GPU: `Documentation/gpu/drm-usage-stats.rst`. Pure: reads no file.

use std::collections::BTreeMap;

use serde::Serialize;

use super::dma_buf::{printable, value};

/// An open file description of a GPU, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) id: ClientId,
    /// For each kind of memory, by the driver's name of it.
    pub(super) memory: BTreeMap<String, Memory>,
}

/// What tells clients apart. The number alone need not be unique: it is so within a device, if the device is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId {
    pub(super) gpu: GpuId,
    pub(super) number: u64,
}

/// A GPU, as drivers name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GpuId {
    pub(super) driver: String,
    /// The PCI device, if it is one.
    pub(super) pci: Option<String>,
}

/// Bytes. What the driver does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    /// Of all buffers, also of those that are not in memory.
    #[serde(rename = "total_bytes")]
    pub(super) total: Option<u64>,
    /// Of buffers that others have a handle of, too.
    #[serde(rename = "shared_bytes")]
    pub(super) shared: Option<u64>,
    /// Of buffers that are in memory.
    #[serde(rename = "resident_bytes")]
    pub(super) resident: Option<u64>,
}

impl Memory {
    /// Sums of what is known.
    pub(super) fn add(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        self.total = sum(self.total, other.total);
        self.shared = sum(self.shared, other.shared);
        self.resident = sum(self.resident, other.resident);
    }
}

/// `None` if the driver gives no figures, as most drivers without a GPU do not.
pub(super) fn client(text: &str) -> Option<Client> {
    let id = ClientId {
        gpu: GpuId {
            driver: printable(value(text, "drm-driver")?),
            pci: value(text, "drm-pdev").map(printable),
        },
        number: value(text, "drm-client-id")?.parse().ok()?,
    };
    let mut memory: BTreeMap<String, Memory> = BTreeMap::new();
    let mut old: BTreeMap<String, u64> = BTreeMap::new();
    for line in text.lines() {
        let Some((key, bytes)) = line.split_once(':') else {
            continue;
        };
        let kinds = ["drm-total-", "drm-shared-", "drm-resident-", "drm-memory-"];
        let found = kinds
            .into_iter()
            .find_map(|kind| Some((kind, key.strip_prefix(kind)?)));
        let (Some((kind, region)), Some(bytes)) = (found, bytes_of(bytes)) else {
            continue;
        };
        let region = printable(region);
        if kind == "drm-memory-" {
            old.entry(region).or_insert(bytes);
            continue;
        }
        let memory = memory.entry(region).or_default();
        let field = match kind {
            "drm-total-" => &mut memory.total,
            "drm-shared-" => &mut memory.shared,
            _ => &mut memory.resident,
        };
        field.get_or_insert(bytes);
    }
    // The older name of drm-resident-.
    for (region, bytes) in old {
        let memory = memory.entry(region).or_default();
        memory.resident.get_or_insert(bytes);
    }
    Some(Client { id, memory })
}

/// A number and a unit: `KiB`, `MiB`, or none for bytes.
fn bytes_of(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let unit = match words.next() {
        None => 1,
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        Some(_) => return None,
    };
    number.checked_mul(unit).filter(|_| words.next().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) const AMDGPU: &str = "pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\ndrm-client-id:\t12\n\
        drm-pdev:\t0000:03:00.0\ndrm-client-name:\tmpv\npasid:\t32771\ndrm-total-cpu:\t0\n\
        drm-total-gtt:\t2 MiB\ndrm-resident-gtt:\t1024 KiB\ndrm-shared-vram:\t4096\n\
        drm-total-vram:\t12288 KiB\ndrm-memory-vram:\t11264 KiB\ndrm-engine-gfx:\t123 ns\n";

    #[test]
    fn figures_of_a_client_are_in_bytes() {
        let client = client(AMDGPU).unwrap();
        assert_eq!(client.id.number, 12);
        assert_eq!(client.id.gpu.pci.as_deref(), Some("0000:03:00.0"));
        let memory = |total, shared, resident| Memory {
            total,
            shared,
            resident,
        };
        assert_eq!(client.memory.len(), 3);
        assert_eq!(client.memory["cpu"], memory(Some(0), None, None));
        let gtt = memory(Some(2 << 20), None, Some(1 << 20));
        assert_eq!(client.memory["gtt"], gtt);
        let vram = memory(Some(12 << 20), Some(4096), Some(11 << 20));
        assert_eq!(client.memory["vram"], vram);
    }

    #[test]
    fn the_newer_name_goes_before_the_older_one() {
        let text = "drm-driver: xe\ndrm-client-id: 1\ndrm-memory-vram: 1\ndrm-resident-vram: 2\n";
        let client = client(text).unwrap();
        assert_eq!(client.memory["vram"].resident, Some(2));
    }

    #[test]
    fn units_are_those_of_the_kernel() {
        assert_eq!(bytes_of("\t7"), Some(7));
        assert_eq!(bytes_of(" 7 KiB "), Some(7168));
        assert_eq!(bytes_of("7 MiB"), Some(7 << 20));
        for wrong in [
            "",
            "KiB",
            "7 GiB",
            "7 kB",
            "7KiB",
            "-7",
            "7 KiB more",
            "18446744073709551615 KiB",
        ] {
            assert_eq!(bytes_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_client_is_none() {
        assert_eq!(client(""), None);
        assert_eq!(client("drm-driver:\tvgem\n"), None);
        assert_eq!(client("drm-driver:\tvgem\ndrm-client-id:\tx\n"), None);
        // Cut off in the middle of a figure.
        let cut = client(&AMDGPU[..AMDGPU.find("vram").unwrap()]).unwrap();
        assert_eq!(cut.memory.len(), 2);
    }

    #[test]
    fn sums_keep_what_nobody_said_apart_from_nothing() {
        let mut sum = Memory::default();
        sum.add(&Memory {
            total: Some(u64::MAX),
            ..Memory::default()
        });
        sum.add(&Memory {
            total: Some(1),
            ..Memory::default()
        });
        assert_eq!((sum.total, sum.shared), (Some(u64::MAX), None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\t\n\u{1b}é]{0,200}", at in 0..AMDGPU.len()) {
            let _ = (client(&text), client(&format!("{}{text}", &AMDGPU[..at])), bytes_of(&text));
        }
    }
}
