//! Reads what processes hold from `/proc`, and what the kernel knows of dma-bufs from debugfs.
//!
//! A process may end, and an fd be closed, while they are read: what is gone is left out. What may not be read is noted.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::dma_buf::{self, FdInfo, Mapping, Object};
use super::drm_fdinfo::{self, Client};

/// Everything that was read.
pub(super) struct Reading {
    pub(super) processes: Vec<Process>,
    pub(super) unread: Vec<Unread>,
    /// Why debugfs could not be read.
    pub(super) objects: Result<Vec<Object>, String>,
}

/// A process that holds something.
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) fds: Vec<(u64, FdInfo)>,
    pub(super) mappings: Vec<Mapping>,
    /// One for each fd of a GPU, so that clients come several times.
    pub(super) clients: Vec<Client>,
}

/// Something of a process that could not be read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Unread {
    pub(super) pid: u32,
    pub(super) name: String,
    /// `fd` or `maps`: the part of `/proc/PID`.
    pub(super) part: &'static str,
    pub(super) error: String,
}

/// `proc` and `debugfs` are where the file systems are mounted.
pub(super) fn read(proc: &Path, debugfs: &Path) -> io::Result<Reading> {
    let mut reading = Reading {
        processes: Vec::new(),
        unread: Vec::new(),
        objects: objects(debugfs),
    };
    for entry in fs::read_dir(proc)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        reading.process(&proc.join(name), pid);
    }
    reading.processes.sort_by_key(|process| process.pid);
    reading.keep_dma_bufs();
    Ok(reading)
}

fn objects(debugfs: &Path) -> Result<Vec<Object>, String> {
    let path = debugfs.join("dma_buf/bufinfo");
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(dma_buf::objects(&String::from_utf8_lossy(&text)))
}

impl Reading {
    fn process(&mut self, path: &Path, pid: u32) {
        let mut process = Process {
            pid,
            name: String::new(),
            fds: Vec::new(),
            mappings: Vec::new(),
            clients: Vec::new(),
        };
        let read = [
            ("fd", process.read_fds(path)),
            ("maps", process.read_maps(path)),
        ];
        let mut errors = Vec::new();
        for (part, read) in read {
            match read {
                Err(error) if !is_gone(&error) => errors.push((part, error)),
                _ => {}
            }
        }
        // Nothing of a kernel thread can be read without privileges, and there is nothing to read.
        if !errors.is_empty() && has_no_memory(path) {
            return;
        }
        let is_of_interest = !process.fds.is_empty()
            || !process.mappings.is_empty()
            || !process.clients.is_empty()
            || !errors.is_empty();
        if !is_of_interest {
            return;
        }
        let name = fs::read(path.join("comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name);
        process.name = dma_buf::printable(name.strip_suffix('\n').unwrap_or(&name));
        let unread = errors.into_iter().map(|(part, error)| Unread {
            pid,
            name: process.name.clone(),
            part,
            error: error.to_string(),
        });
        self.unread.extend(unread);
        self.processes.push(process);
    }

    /// Leaves out mappings of other files with such a name, if it is known which file system dma-bufs are on.
    fn keep_dma_bufs(&mut self) {
        let fds = self.processes.iter().flat_map(|process| &process.fds);
        let known: Option<u64> = fds.map(|(file_system, _)| *file_system).next();
        let Some(known) = known else { return };
        let known = (libc::major(known), libc::minor(known));
        for process in &mut self.processes {
            let is_one = |mapping: &Mapping| mapping.file_system == known;
            process.mappings.retain(is_one);
        }
    }
}

impl Process {
    fn read_fds(&mut self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path.join("fd"))? {
            let entry = entry?;
            let read = self.read_fd(path, &entry);
            match read {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_fd(&mut self, path: &Path, entry: &fs::DirEntry) -> io::Result<()> {
        let target = fs::read_link(entry.path())?;
        let Some(target) = target.to_str() else {
            return Ok(());
        };
        let is_gpu = target.starts_with("/dev/dri/");
        if !is_gpu && !dma_buf::is_link(target) {
            return Ok(());
        }
        let text = fs::read(path.join("fdinfo").join(entry.file_name()))?;
        let text = String::from_utf8_lossy(&text);
        if is_gpu {
            self.clients.extend(drm_fdinfo::client(&text));
        } else if let Some(mut info) = dma_buf::fd_info(&text) {
            let stat = fs::metadata(entry.path())?;
            // The fd's number may be another dma-buf's by now.
            info.inode.get_or_insert(stat.ino());
            self.fds.push((stat.dev(), info));
        }
        Ok(())
    }

    fn read_maps(&mut self, path: &Path) -> io::Result<()> {
        let text = fs::read(path.join("maps"))?;
        let lines = text.split(|byte| *byte == b'\n');
        let mappings = lines.filter_map(|line| dma_buf::mapping(&String::from_utf8_lossy(line)));
        self.mappings.extend(mappings);
        Ok(())
    }
}

/// The process has ended, or the fd is closed.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether this is a kernel thread or has ended and waits for its parent.
fn has_no_memory(path: &Path) -> bool {
    let stat = fs::read(path.join("stat")).unwrap_or_default();
    is_without_memory(&String::from_utf8_lossy(&stat))
}

/// By the state and the flags in `/proc/PID/stat`; `PF_KTHREAD` of `include/linux/sched.h`.
fn is_without_memory(stat: &str) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    // The name, in parentheses, may have spaces and parentheses.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        // It has ended.
        return true;
    };
    let mut fields = fields.split_whitespace();
    let is_dead = matches!(fields.next(), None | Some("Z" | "X"));
    let flags: Option<u32> = fields.nth(5).and_then(|flags| flags.parse().ok());
    is_dead || flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A directory like `/proc`; removed on drop.
    pub(in super::super) struct Proc(pub(in super::super) PathBuf);

    impl Proc {
        pub(in super::super) fn new(name: &str) -> Self {
            let name = format!("primeshare-top-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A process with these fds: target of the link, and fdinfo.
        pub(in super::super) fn process(&self, pid: u32, fds: &[(&str, &str)]) {
            let path = self.0.join(pid.to_string());
            for part in ["fd", "fdinfo"] {
                fs::create_dir_all(path.join(part)).unwrap();
            }
            fs::write(path.join("comm"), format!("program {pid}\n")).unwrap();
            fs::write(path.join("maps"), "").unwrap();
            for (number, (target, info)) in fds.iter().enumerate() {
                symlink(target, path.join("fd").join(number.to_string())).unwrap();
                fs::write(path.join("fdinfo").join(number.to_string()), info).unwrap();
            }
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_has_gone_is_left_out() {
        let proc = Proc::new("gone");
        proc.process(
            1,
            &[("/dev/dri/card0", "drm-driver: x\ndrm-client-id: 1\n")],
        );
        proc.process(2, &[("/dev/dri/card0", "")]);
        fs::remove_file(proc.0.join("2/fdinfo/0")).unwrap();
        fs::remove_file(proc.0.join("2/maps")).unwrap();
        fs::create_dir(proc.0.join("3")).unwrap();
        let reading = read(&proc.0, Path::new("/nowhere")).unwrap();
        assert_eq!(reading.processes.len(), 1);
        assert_eq!(reading.processes[0].name, "program 1");
        assert_eq!(reading.unread.len(), 0);
        assert!(reading.objects.is_err());
    }

    #[test]
    fn kernel_threads_have_nothing_to_read() {
        let line = |state: &str, flags: u32| format!("2 (a) b) {state} 0 0 0 0 -1 {flags} 0 0");
        assert!(is_without_memory(&line("S", 0x0020_8040)));
        assert!(is_without_memory(&line("Z", 0)));
        assert!(!is_without_memory(&line("S", 0x0040_0000)));
        assert!(is_without_memory(""));
        assert!(!is_without_memory("1 (x) R"));
    }
}
