//! Files that a program wrote in the guest's own directories: those that are kept are copied back to the host, the
//! others are lost with the guest, which is reported.
//!
//! At the program's end the guest copies what is kept into the run's temporary directory, as numbered files, with a list
//! of all paths (`k` kept, `l` lost). The host copies from there.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::job::Job;
use super::tree;

/// The directory for it, beside the job file.
const DIRECTORY: &str = "left";
const LIST: &str = "left/list";
/// How many of the files that are lost are named.
const NAMED: usize = 5;

/// Changes when a file is written: inode, size, time of the last change.
type Mark = (u64, u64, i64, i64);

/// The marks of the files that were copied into the guest: unchanged ones stay out of it.
pub(super) struct Copies(HashMap<PathBuf, Mark>);

impl Copies {
    /// In the guest, before the program runs.
    pub(super) fn before(job: &Job) -> Result<Self> {
        let marks = job
            .copies
            .iter()
            .map(|path| Ok((path.clone(), mark(&fs::metadata(path)?))));
        marks.collect::<Result<_>>().map(Copies)
    }
}

fn mark(metadata: &fs::Metadata) -> Mark {
    (
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// In the guest, after the program's end. `scratch` is the run's temporary directory on the host.
pub(super) fn collect(job: &Job, copies: &Copies, scratch: &File) -> Result<()> {
    // Its path leads nowhere in the guest's tree.
    nix::unistd::fchdir(scratch)?;
    fs::create_dir(DIRECTORY)?;
    let (mut list, mut count) = (Vec::new(), 0);
    for own in tree::WRITABLE.iter().map(Path::new) {
        for path in files(own)? {
            let metadata = fs::metadata(&path)?;
            if copies.0.get(&path) == Some(&mark(&metadata)) {
                continue;
            }
            let is_kept = job
                .kept
                .iter()
                .any(|kept| path.starts_with(kept) && (kept != own || !is_hidden(own, &path)));
            if is_kept {
                let number = format!("{DIRECTORY}/{count}");
                let copied = fs::copy(&path, &number).and_then(|_| File::open(&number)?.sync_all());
                copied
                    .with_context(|| format!("cannot copy {} out of the guest", path.display()))?;
                count += 1;
            } else if !is_worth_reporting(own, &path, &metadata) {
                continue;
            }
            list.push(if is_kept { b'k' } else { b'l' });
            list.extend_from_slice(path.as_os_str().as_bytes());
            list.push(0);
        }
    }
    fs::write(LIST, list)?;
    Ok(())
}

/// All regular files below a directory, on its own file system.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let device = fs::metadata(directory)?.dev();
    let (mut found, mut left) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(directory) = left.pop() {
        let mut entries: Vec<DirEntry> = fs::read_dir(&directory)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                found.push(entry.path());
            } else if metadata.is_dir() && metadata.dev() == device {
                left.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Caches and settings, as Mesa has them: the guest's home is `/tmp`.
fn is_hidden(own: &Path, path: &Path) -> bool {
    let inner = path.strip_prefix(own).unwrap_or(path);
    inner.as_os_str().as_bytes().starts_with(b".")
}

/// Whether the loss of a file is worth a message. Not for locks, shared memory, and what programs keep in `/run`.
fn is_worth_reporting(own: &Path, path: &Path, metadata: &fs::Metadata) -> bool {
    !own.starts_with("/run")
        && !own.starts_with("/dev")
        && metadata.len() > 0
        && !is_hidden(own, path)
}

/// On the host, after the guest's end: copies what is kept to its place, and reports what is lost.
pub(super) fn receive(job: &Job, scratch: &Path) -> Result<()> {
    let list = fs::read(scratch.join(LIST)).context("the guest did not say what it has left")?;
    let (mut lost, mut failed, mut count) = (Vec::new(), Vec::new(), 0);
    for record in list.split(|&byte| byte == 0) {
        let Some((kind, path)) = record.split_first() else {
            continue;
        };
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        if *kind == b'l' {
            lost.push(path);
            continue;
        }
        let from = scratch.join(DIRECTORY).join(count.to_string());
        count += 1;
        if let Err(error) = copy_back(&from, &path) {
            failed.push(format!("{}: {error}", path.display()));
        }
    }
    if !lost.is_empty() {
        say_lost(job, &lost);
    }
    if !failed.is_empty() {
        bail!("cannot copy back from the guest: {}", failed.join(", "));
    }
    Ok(())
}

fn copy_back(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(from, to).map(|_| ())
}

fn say_lost(job: &Job, lost: &[PathBuf]) {
    let mut names: Vec<_> = lost
        .iter()
        .take(NAMED)
        .map(|path| path.display().to_string())
        .collect();
    if let Some(more) = lost.len().checked_sub(NAMED).filter(|&more| more > 0) {
        names.push(format!("{more} more"));
    }
    eprintln!(
        "xtask: {}: wrote files that are lost with the guest: {} (to keep files, name them in the command, or write \
         them to the working directory or one given by --share or {})",
        job.program.display(),
        names.join(", "),
        super::named::SHARE,
    );
}

/// On the host, of a guest that was ended before its program had come to an end.
pub(super) fn say_not_copied(job: &Job) {
    if !job.kept.is_empty() {
        let names: Vec<_> = job
            .kept
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        eprintln!(
            "xtask: {}: ended early, so nothing was copied back from the guest to {}",
            job.program.display(),
            names.join(", ")
        );
    }
}
