//! What a program leaves in the guest's own directories: some of it is handed over to the host, the rest is gone with
//! the guest, which is said.
//!
//! The guest puts what is handed over into the run's temporary directory, as numbered files, with a list of records.

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
/// How many of the files that are gone are named.
const NAMED: usize = 5;

/// By what a file shows that it was written: place, size, and the times.
type Mark = (u64, u64, i64, i64);

/// What the files were like that are there as copies.
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

/// In the guest, after the program's end: puts what is kept into `scratch`, the host's temporary directory.
pub(super) fn hand_over(job: &Job, copies: &Copies, scratch: &File) -> Result<()> {
    // By its path it is out of reach.
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
                copied.with_context(|| format!("cannot pass on {}", path.display()))?;
                count += 1;
            } else if !is_worth_a_word(own, &path, &metadata) {
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

/// Where people write, and not what is there for the time being only: locks, sockets, shared memory.
fn is_worth_a_word(own: &Path, path: &Path, metadata: &fs::Metadata) -> bool {
    !own.starts_with("/run")
        && !own.starts_with("/dev")
        && metadata.len() > 0
        && !is_hidden(own, path)
}

/// On the host: brings home what is kept, and says what is gone.
pub(super) fn receive(job: &Job, scratch: &Path) -> Result<()> {
    let list = fs::read(scratch.join(LIST)).context("the guest did not say what it has left")?;
    let (mut gone, mut failed, mut count) = (Vec::new(), Vec::new(), 0);
    for record in list.split(|&byte| byte == 0) {
        let Some((kind, path)) = record.split_first() else {
            continue;
        };
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        if *kind == b'l' {
            gone.push(path);
            continue;
        }
        let from = scratch.join(DIRECTORY).join(count.to_string());
        count += 1;
        if let Err(error) = bring_home(&from, &path) {
            failed.push(format!("{}: {error}", path.display()));
        }
    }
    if !gone.is_empty() {
        say_gone(job, &gone);
    }
    if !failed.is_empty() {
        bail!(
            "the guest's files cannot be written here: {}",
            failed.join(", ")
        );
    }
    Ok(())
}

fn bring_home(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(from, to).map(|_| ())
}

fn say_gone(job: &Job, gone: &[PathBuf]) {
    let mut names: Vec<_> = gone
        .iter()
        .take(NAMED)
        .map(|path| path.display().to_string())
        .collect();
    if let Some(more) = gone.len().checked_sub(NAMED).filter(|&more| more > 0) {
        names.push(format!("{more} more"));
    }
    eprintln!(
        "xtask: {}: gone with the guest: {} (kept are the working directory, what the command names, and directories \
         given by --share or {})",
        job.program.display(),
        names.join(", "),
        super::named::SHARE,
    );
}

/// Of a run without an end.
pub(super) fn say_lost(job: &Job) {
    if !job.kept.is_empty() {
        let names: Vec<_> = job
            .kept
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        eprintln!(
            "xtask: {}: what it may have written there is gone with the guest: {}",
            job.program.display(),
            names.join(", ")
        );
    }
}
