//! Who holds what, from what was read. Pure.
//!
//! The JSON report is an interface for scripts: add fields, and rename none.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::dma_buf::{Fence, Mapping, Object};
use super::drm_fdinfo::{Client, ClientId, GpuId, Memory};
use super::process::{self, Reading, Unread};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Those that hold something, by the bytes that they hold.
    pub(super) processes: Vec<Process>,
    /// By their size.
    pub(super) dma_bufs: Vec<DmaBuf>,
    /// Each client counted once.
    pub(super) gpus: Vec<Gpu>,
    pub(super) total: Total,
    /// Processes of which not everything could be read.
    pub(super) unread: Vec<Unread>,
    /// Why devices, fences and dma-bufs of the kernel are not known, if they are not.
    pub(super) debugfs_error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    /// Of its dma-bufs, each counted once.
    pub(super) bytes: u64,
    /// Of those that other processes hold, too.
    pub(super) shared_bytes: u64,
    pub(super) dma_bufs: Vec<Held>,
    pub(super) gpus: Vec<Gpu>,
}

/// A dma-buf of a process.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    pub(super) inode: u64,
    pub(super) fds: usize,
    pub(super) mappings: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct DmaBuf {
    pub(super) inode: u64,
    /// Not known of a dma-buf that is only mapped, if debugfs cannot be read.
    pub(super) size: Option<u64>,
    pub(super) exporter: Option<String>,
    pub(super) name: Option<String>,
    pub(super) processes: Vec<u32>,
    pub(super) fds: usize,
    pub(super) mappings: usize,
    /// All references, those of the kernel and of processes that could not be read among them.
    pub(super) references: Option<u64>,
    /// Devices that have it attached. Known by debugfs only.
    pub(super) devices: Option<Vec<String>>,
    /// Known by debugfs only.
    pub(super) fences: Option<Vec<Fence>>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Gpu {
    pub(super) driver: String,
    /// The PCI device, if it is one.
    pub(super) pci: Option<String>,
    /// Open file descriptions, however many fds they have.
    pub(super) clients: usize,
    /// Of all kinds of memory together.
    #[serde(flatten)]
    pub(super) memory: Memory,
    /// For each kind of memory, by the driver's name of it.
    pub(super) regions: BTreeMap<String, Memory>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Total {
    /// Of all dma-bufs, each counted once.
    pub(super) bytes: u64,
    pub(super) dma_bufs: usize,
    /// Of dma-bufs that two or more processes hold.
    pub(super) shared_bytes: u64,
    /// Of dma-bufs that no process holds that could be read: the kernel, or another process, does.
    pub(super) unheld_bytes: u64,
    pub(super) unheld_dma_bufs: usize,
    /// Dma-bufs whose size is not known.
    pub(super) without_size: usize,
}

impl Report {
    pub(super) fn of(reading: Reading) -> Self {
        let (objects, debugfs_error) = match reading.objects {
            Ok(objects) => (Some(objects), None),
            Err(error) => (None, Some(error)),
        };
        let mut dma_bufs = by_inode(&reading.processes, objects);
        let mut processes: Vec<Process> = reading
            .processes
            .iter()
            .map(|process| Process::of(process, &dma_bufs))
            .filter(|process| !process.dma_bufs.is_empty() || !process.gpus.is_empty())
            .collect();
        let memory = |process: &Process| -> u64 {
            let gpus = process.gpus.iter();
            gpus.fold(0, |sum, gpu| {
                sum.saturating_add(gpu.memory.total.or(gpu.memory.resident).unwrap_or(0))
            })
        };
        processes.sort_by_key(|process| {
            let bytes = (process.bytes, memory(process));
            (std::cmp::Reverse(bytes), process.pid)
        });
        let clients = reading.processes.iter().flat_map(|p| &p.clients);
        let gpus = gpus(clients);
        let mut total = Total {
            dma_bufs: dma_bufs.len(),
            ..Total::default()
        };
        for buffer in dma_bufs.values_mut() {
            let bytes = buffer.size.unwrap_or(0);
            let add = |sum: &mut u64| *sum = sum.saturating_add(bytes);
            add(&mut total.bytes);
            total.without_size += usize::from(buffer.size.is_none());
            match buffer.processes.len() {
                0 => {
                    add(&mut total.unheld_bytes);
                    total.unheld_dma_bufs += 1;
                }
                1 => {}
                _ => add(&mut total.shared_bytes),
            }
        }
        let mut dma_bufs: Vec<DmaBuf> = dma_bufs.into_values().collect();
        dma_bufs.sort_by_key(|buffer| (std::cmp::Reverse(buffer.size), buffer.inode));
        Self {
            processes,
            dma_bufs,
            gpus,
            total,
            unread: reading.unread,
            debugfs_error,
        }
    }
}

impl Process {
    fn of(process: &process::Process, dma_bufs: &BTreeMap<u64, DmaBuf>) -> Self {
        let mut held: BTreeMap<u64, Held> = BTreeMap::new();
        for inode in inodes_of_fds(process) {
            at(&mut held, inode).fds += 1;
        }
        for Mapping { inode, .. } in &process.mappings {
            at(&mut held, *inode).mappings += 1;
        }
        let size = |inode| dma_bufs.get(inode).and_then(|buffer| buffer.size);
        let is_shared = |inode: &&u64| {
            dma_bufs
                .get(inode)
                .is_some_and(|buffer| buffer.processes.len() > 1)
        };
        let sum = |sum: u64, bytes: u64| sum.saturating_add(bytes);
        Self {
            pid: process.pid,
            name: process.name.clone(),
            bytes: held.keys().filter_map(size).fold(0, sum),
            shared_bytes: held.keys().filter(is_shared).filter_map(size).fold(0, sum),
            dma_bufs: held.into_values().collect(),
            gpus: gpus(&process.clients),
        }
    }
}

fn inodes_of_fds(process: &process::Process) -> impl Iterator<Item = u64> {
    process.fds.iter().filter_map(|(_, info)| info.inode)
}

fn at(held: &mut BTreeMap<u64, Held>, inode: u64) -> &mut Held {
    held.entry(inode).or_insert(Held {
        inode,
        fds: 0,
        mappings: 0,
    })
}

/// All dma-bufs, those that only debugfs knows among them.
fn by_inode(processes: &[process::Process], objects: Option<Vec<Object>>) -> BTreeMap<u64, DmaBuf> {
    let new = |inode| DmaBuf {
        inode,
        size: None,
        exporter: None,
        name: None,
        processes: Vec::new(),
        fds: 0,
        mappings: 0,
        references: None,
        devices: None,
        fences: None,
    };
    let mut all: BTreeMap<u64, DmaBuf> = BTreeMap::new();
    for process in processes {
        let mut holds = BTreeSet::new();
        for (_, info) in &process.fds {
            let Some(inode) = info.inode else { continue };
            let buffer = all.entry(inode).or_insert_with(|| new(inode));
            buffer.fds += 1;
            buffer.size = buffer.size.or(info.size);
            buffer.references = buffer.references.or(info.references);
            buffer.exporter.get_or_insert_with(|| info.exporter.clone());
            buffer.name = buffer.name.take().or_else(|| info.name.clone());
            holds.insert(inode);
        }
        for Mapping { inode, .. } in &process.mappings {
            all.entry(*inode).or_insert_with(|| new(*inode)).mappings += 1;
            holds.insert(*inode);
        }
        for inode in holds {
            if let Some(buffer) = all.get_mut(&inode) {
                buffer.processes.push(process.pid);
            }
        }
    }
    for object in objects.into_iter().flatten() {
        let inode = object.inode;
        let buffer = all.entry(inode).or_insert_with(|| new(inode));
        buffer.size = buffer.size.or(Some(object.size));
        buffer.references = buffer.references.or(Some(object.references));
        buffer.exporter.get_or_insert(object.exporter);
        buffer.name = buffer.name.take().or(object.name);
        buffer.devices = Some(object.devices);
        buffer.fences = Some(object.fences);
    }
    all
}

/// Figures of each GPU; a client counts once, however many fds and processes have it.
fn gpus<'a>(clients: impl IntoIterator<Item = &'a Client>) -> Vec<Gpu> {
    let clients: BTreeMap<&ClientId, &Client> = clients.into_iter().map(|c| (&c.id, c)).collect();
    let mut gpus: BTreeMap<&GpuId, Gpu> = BTreeMap::new();
    for (id, client) in clients {
        let gpu = gpus.entry(&id.gpu).or_insert_with(|| Gpu {
            driver: id.gpu.driver.clone(),
            pci: id.gpu.pci.clone(),
            clients: 0,
            memory: Memory::default(),
            regions: BTreeMap::new(),
        });
        gpu.clients += 1;
        for (region, memory) in &client.memory {
            gpu.memory.add(memory);
            gpu.regions.entry(region.clone()).or_default().add(memory);
        }
    }
    gpus.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::dma_buf::FdInfo;
    use super::super::process::{self, tests::Proc};
    use super::*;

    fn fd(inode: u64, size: u64) -> (u64, FdInfo) {
        let info = FdInfo {
            inode: Some(inode),
            size: Some(size),
            references: Some(9),
            exporter: "drm".to_owned(),
            name: None,
        };
        (11, info)
    }

    fn mapped(inode: u64) -> Mapping {
        Mapping {
            inode,
            file_system: (0, 11),
            bytes: 4096,
        }
    }

    fn holder(pid: u32, fds: Vec<(u64, FdInfo)>, mappings: Vec<Mapping>) -> process::Process {
        process::Process {
            pid,
            name: format!("program {pid}"),
            fds,
            mappings,
            clients: Vec::new(),
        }
    }

    #[test]
    fn bytes_are_counted_once_for_each_inode() {
        let one = holder(1, vec![fd(7, 4096), fd(7, 4096)], vec![mapped(7)]);
        let two = holder(2, vec![fd(7, 4096), fd(8, 65536)], vec![mapped(9)]);
        let report = Report::of(Reading {
            processes: vec![one, two],
            unread: Vec::new(),
            objects: Err("no".to_owned()),
        });
        let pids: Vec<u32> = report.processes.iter().map(|p| p.pid).collect();
        assert_eq!(pids, [2, 1], "by bytes");
        let [two, one] = [&report.processes[0], &report.processes[1]];
        assert_eq!((one.bytes, one.shared_bytes), (4096, 4096));
        assert_eq!((two.bytes, two.shared_bytes), (69632, 4096));
        assert_eq!((one.dma_bufs[0].fds, one.dma_bufs[0].mappings), (2, 1));
        assert_eq!((report.total.bytes, report.total.dma_bufs), (69632, 3));
        assert_eq!(report.total.without_size, 1);
        let shared = report.dma_bufs.iter().find(|b| b.inode == 7).unwrap();
        assert_eq!((shared.fds, &shared.processes[..]), (3, &[1, 2][..]));
        assert_eq!(shared.devices, None);
    }

    #[test]
    fn dma_bufs_that_no_process_holds_come_from_debugfs() {
        let object = |inode| Object {
            inode,
            size: 4096,
            references: 2,
            exporter: "drm".to_owned(),
            name: None,
            devices: vec!["vkms".to_owned()],
            fences: Vec::new(),
        };
        let report = Report::of(Reading {
            processes: vec![holder(1, Vec::new(), vec![mapped(7)])],
            unread: Vec::new(),
            objects: Ok(vec![object(7), object(8)]),
        });
        assert_eq!(report.processes[0].bytes, 4096, "size by debugfs");
        let total = &report.total;
        assert_eq!(
            (total.bytes, total.unheld_bytes, total.unheld_dma_bufs),
            (8192, 4096, 1)
        );
        assert_eq!(
            report.dma_bufs[0].devices.as_deref(),
            Some(&["vkms".to_owned()][..])
        );
    }

    #[test]
    fn memory_of_a_client_is_counted_once_however_many_fds_it_has() {
        let info = |client| {
            format!(
                "drm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t0000:03:00.0\n\
                 drm-total-vram:\t8 MiB\ndrm-total-gtt:\t1 MiB\ndrm-resident-vram:\t4 MiB\n"
            )
        };
        let (first, second) = (info(1), info(2));
        let other = first.replace("amdgpu", "i915").replace("03:00", "00:02");
        let node = "/dev/dri/renderD128";
        let proc = Proc::new("clients");
        proc.process(10, &[(node, &first), (node, &first), (node, &second)]);
        // It got the first client's fd from the other process, and has one of another GPU with the same number.
        proc.process(11, &[(node, &first), ("/dev/dri/renderD129", &other)]);
        proc.process(12, &[("/tmp/file", &first)]);
        let report = Report::of(process::read(&proc.0, Path::new("/nowhere")).unwrap());
        let of = |pid| {
            let found = report.processes.iter().find(|p| p.pid == pid);
            &found.unwrap().gpus
        };
        assert_eq!(of(10).len(), 1);
        assert_eq!(of(10)[0].clients, 2);
        assert_eq!(of(10)[0].memory.total, Some(18 << 20));
        assert_eq!(of(10)[0].regions["vram"].resident, Some(8 << 20));
        assert_eq!(of(11).len(), 2);
        assert_eq!(report.processes.len(), 2, "a file is no GPU");
        let total: Vec<_> = report
            .gpus
            .iter()
            .map(|g| (&*g.driver, g.clients))
            .collect();
        assert_eq!(total, [("amdgpu", 2), ("i915", 1)]);
        assert_eq!(report.gpus[0].memory.total, Some(18 << 20));
    }
}
