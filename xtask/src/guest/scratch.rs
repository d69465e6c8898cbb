//! The temporary directory of a run, and room for the guest's memory.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::cache;

const PREFIX: &str = "primeshare-guest-";

/// A directory that the drop removes. If the process is killed, a later run removes it.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Scratch {
    /// A new, empty directory.
    pub(crate) fn new() -> Result<Self> {
        let base = base();
        sweep(&base);
        for number in 0..1000 {
            let path = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let lock = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
                    let lock = lock
                        .map_err(|(_, error)| error)
                        .context("cannot lock the temporary directory")?;
                    return Ok(Scratch { path, _lock: lock });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create {}", path.display()));
                }
            }
        }
        bail!(
            "no free name for a temporary directory in {}",
            base.display()
        )
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An error does no harm: the next run tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The kernel's command line and its control socket take short paths without spaces only.
fn base() -> PathBuf {
    let preferred = std::env::temp_dir();
    let plain = |path: &Path| {
        path.to_str().is_some_and(|text| {
            text.len() < 40 && !text.contains(|c: char| c.is_whitespace() || c == '"')
        })
    };
    if preferred.is_absolute() && preferred.is_dir() && plain(&preferred) {
        preferred
    } else {
        "/tmp".into()
    }
}

/// Removes what killed runs left: nobody holds their locks.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|metadata| {
                metadata.uid() == nix::unistd::geteuid().as_raw() && is_old(&metadata)
            });
        if ours
            && let Ok(directory) = File::open(entry.path())
            && let Ok(_lock) = Flock::lock(directory, FlockArg::LockExclusiveNonblock)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a directory is old enough to be removed: the owner of a younger one may be about to lock it.
fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata
        .modified()
        .ok()
        .and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age > Duration::from_secs(60))
}

/// A directory with room for the guest's memory, which is a file of `size` bytes that the guest also executes from.
pub(crate) fn memory_directory(size: u64) -> Result<PathBuf> {
    let mut candidates = vec![
        PathBuf::from("/dev/shm"),
        std::env::temp_dir(),
        "/tmp".into(),
        "/var/tmp".into(),
    ];
    candidates.extend(cache::directory());
    let fits = |path: &PathBuf| {
        statvfs(path).is_ok_and(|stat| {
            let free = stat.blocks_available() * stat.fragment_size();
            free >= size
                && !stat
                    .flags()
                    .intersects(FsFlags::ST_NOEXEC | FsFlags::ST_RDONLY)
        }) && nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok()
    };
    let found = candidates.iter().find(|path| fits(path));
    found.cloned().with_context(|| {
        let places: Vec<_> = candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let size = size >> 20;
        format!(
            "no room for the guest's memory of {size} MiB (PRIMESHARE_GUEST_MEM) in any of {}",
            places.join(", ")
        )
    })
}
