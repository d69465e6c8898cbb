//! `primeshare top`, beside processes that hold known dma-bufs.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use primeshare::DmaBuf;
use primeshare::sync::BufferMapping;
use serde_json::Value;

use super::run;
use crate::support::{buffer_on, can_run, in_guest};

/// A process that holds a dma-buf as its standard input; ended on drop.
struct Holder(std::process::Child);

impl Holder {
    fn of(buffer: &DmaBuf) -> Self {
        let fd = buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap();
        let mut command = Command::new("sleep");
        let held = command.arg("600").stdin(Stdio::from(fd));
        Self(held.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn look() -> Value {
    serde_json::from_str(&run(&["top", "--once", "--json"])).unwrap()
}

fn of_pid(report: &Value, pid: u32) -> &Value {
    let processes = report["processes"].as_array().unwrap();
    let found = processes.iter().find(|process| process["pid"] == pid);
    found.unwrap_or_else(|| panic!("{report:#}"))
}

/// What a process holds; 0 if it is not listed.
fn bytes_of(report: &Value, pid: u32) -> u64 {
    let mut processes = report["processes"].as_array().unwrap().iter();
    let found = processes.find(|process| process["pid"] == pid);
    found.map_or(0, |process| process["bytes"].as_u64().unwrap())
}

fn of_buffer<'a>(list: &'a Value, buffer: &DmaBuf) -> &'a Value {
    of_inode(list, buffer.id().inode())
}

fn of_inode(list: &Value, inode: u64) -> &Value {
    let mut listed = list.as_array().unwrap().iter();
    let found = listed.find(|listed| listed["inode"] == inode);
    found.unwrap_or_else(|| panic!("{list:#}"))
}

#[test]
fn a_dma_buf_is_listed_once_with_all_processes_that_hold_it() {
    in_guest(|guest| {
        let [vgem, vkms, _] = guest.devices();
        // Other tests leave memory behind that the library keeps.
        let before = look();
        let buffer = buffer_on(&vgem);
        let alone = buffer_on(&vkms);
        let imported = vkms.import(&buffer).unwrap();
        let mapping = BufferMapping::new(&buffer).unwrap();
        let holder = Holder::of(&buffer);
        let (here, there) = (std::process::id(), holder.0.id());
        let report = look();
        let size = buffer.objects()[0].size();

        let listed = of_buffer(&report["dma_bufs"], &buffer);
        assert_eq!(listed["size"], size, "{listed:#}");
        assert_eq!(listed["exporter"], "drm");
        assert_eq!(listed["mappings"], 1);
        let mut pids = vec![here, there];
        pids.sort_unstable();
        assert_eq!(listed["processes"], Value::from(pids));
        // One here, one there, and the mapping has a dup.
        assert_eq!(listed["fds"], 3, "{listed:#}");
        assert_eq!(listed["devices"].as_array().unwrap().len(), 1, "{listed:#}");
        assert_eq!(
            of_buffer(&report["dma_bufs"], &alone)["processes"],
            Value::from(vec![here])
        );

        let other = of_pid(&report, there);
        assert_eq!(other["name"], "sleep");
        assert_eq!(
            (&other["bytes"], &other["shared_bytes"]),
            (&Value::from(size), &Value::from(size))
        );
        assert_eq!(of_buffer(&other["dma_bufs"], &buffer)["fds"], 1);
        let this = of_pid(&report, here);
        let own = alone.objects()[0].size();
        let new = bytes_of(&report, here) - bytes_of(&before, here);
        assert_eq!(new, size + own, "each once: {this:#}");
        assert_eq!(this["shared_bytes"], size);
        let total = &report["total"];
        let new = |what: &str| {
            let [now, before] =
                [total, &before["total"]].map(|total| total[what].as_u64().unwrap());
            now - before
        };
        assert_eq!((new("dma_bufs"), new("bytes")), (2, size + own));
        assert_eq!(new("shared_bytes"), size);
        assert_eq!(report["unread"], Value::Array(Vec::new()));
        assert_eq!(report["debugfs_error"], Value::Null);

        let text = run(&["top", "--once"]);
        let row = text.lines().find(|line| line.contains(" sleep ")).unwrap();
        assert!(row.trim_start().starts_with(&there.to_string()), "{text}");
        let dma_bufs = total["dma_bufs"].as_u64().unwrap();
        let counted = format!("in {dma_bufs} dma-bufs, each counted once");
        assert!(text.contains(&counted), "{text}");
        drop((imported, mapping));

        drop(holder);
        let report = look();
        let listed = of_buffer(&report["dma_bufs"], &buffer);
        assert_eq!(listed["processes"], Value::from(vec![here]));
        assert_eq!(
            (&listed["fds"], &listed["mappings"]),
            (&Value::from(1), &Value::from(0))
        );
        assert_eq!(listed["devices"], Value::Array(Vec::new()));
    });
}

#[test]
fn a_dma_buf_without_an_fd_is_listed_by_its_mapping() {
    in_guest(|guest| {
        let before = look();
        let buffer = buffer_on(&guest.vgem());
        let (inode, size) = (buffer.id().inode(), buffer.objects()[0].size());
        let length = std::num::NonZeroUsize::new(size as usize).unwrap();
        let read = nix::sys::mman::ProtFlags::PROT_READ;
        let shared = nix::sys::mman::MapFlags::MAP_SHARED;
        // SAFETY: a new mapping disturbs no other.
        let mapped =
            unsafe { nix::sys::mman::mmap(None, length, read, shared, &buffer.objects()[0], 0) };
        let mapped = mapped.unwrap();
        drop(buffer);
        let report = look();
        // SAFETY: it was mapped above, and nothing refers to it.
        unsafe { nix::sys::mman::munmap(mapped, size as usize) }.unwrap();
        let here = std::process::id();
        let new = bytes_of(&report, here) - bytes_of(&before, here);
        assert_eq!(new, size, "{report:#}");
        let held = of_inode(&of_pid(&report, here)["dma_bufs"], inode);
        assert_eq!(
            (&held["mappings"], &held["fds"]),
            (&Value::from(1), &Value::from(0))
        );
    });
}

#[test]
fn each_look_is_a_line_of_json_until_the_reader_has_had_enough() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let mut command = Command::new(env!("CARGO_BIN_EXE_primeshare"));
        let command = command.args(["top", "--json", "--interval", "0.1"]);
        let mut tool = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(tool.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let report = lines.next().unwrap().unwrap();
            let report: Value = serde_json::from_str(&report).unwrap();
            of_buffer(&report["dma_bufs"], &buffer);
        }
        // It ends with its output.
        drop(lines);
        assert!(tool.wait().unwrap().success());
    });
}

/// The count itself is tested by the tool's own tests, on text of other drivers.
#[test]
fn a_client_of_a_gpu_is_counted_once_however_many_fds_it_has() {
    in_guest(|guest| {
        let device = guest.vkms();
        let number = std::os::fd::AsRawFd::as_raw_fd(&device.as_fd());
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let has_it = info.contains("drm-client-id:");
        if !can_run(has_it, "a driver that describes its clients in fdinfo") {
            return;
        }
        let clients = |report: &Value| {
            let gpus = &of_pid(report, std::process::id())["gpus"];
            gpus[0]["clients"].as_u64().unwrap()
        };
        let before = clients(&look());
        let _dup = device.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(clients(&look()), before);
    });
}
