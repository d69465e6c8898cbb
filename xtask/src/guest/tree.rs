//! The guest's file system tree, as its first process puts it together.
//!
//! A tmpfs holds the mount points. The cached root's directories are mounted on it read-only, the shared directories
//! of the host writable. File operations on both are passed on to the host, by hostfs or by 9p.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::job::Job;
use super::kind::Kind;

/// Directories that are the guest's own: (path, mode).
const OWN: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("root", 0o700),
    ("var/tmp", 0o1777),
];

/// File systems on them, in this order: (type, path, options).
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "proc", ""),
    ("sysfs", "sys", ""),
    ("debugfs", "sys/kernel/debug", ""),
    ("configfs", "sys/kernel/config", ""),
    ("devtmpfs", "dev", ""),
    ("devpts", "dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "dev/shm", "mode=1777"),
    ("tmpfs", "run", "mode=755"),
    ("tmpfs", "tmp", "mode=1777"),
    ("tmpfs", "root", "mode=700"),
    ("tmpfs", "var/tmp", "mode=1777"),
];

/// The directories of these in which programs may write, until the guest's end.
pub(super) const WRITABLE: &[&str] = &["/tmp", "/root", "/var/tmp", "/run", "/dev/shm"];

/// The writable one in which a path is.
pub(super) fn own(path: &Path) -> Option<&'static Path> {
    let mut all = WRITABLE.iter().map(Path::new);
    all.find(|own| path.starts_with(own))
}

/// Whether a directory of this path is the guest's own or its root file system's, so that the host's stays hidden.
pub(crate) fn belongs_to_guest(path: &Path) -> bool {
    let taken = [
        "/dev", "/proc", "/sys", "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64",
    ];
    let exact = ["/", "/run", "/tmp", "/root", "/var", "/var/tmp"];
    // The root file system has nothing there, and people put their sources there, above all in containers.
    let sources = ["/usr/src", "/usr/local/src"];
    let is_source = |path: &Path| {
        let mut above = path.ancestors().skip(1);
        above.any(|path| sources.iter().any(|sources| path == Path::new(sources)))
    };
    exact.iter().any(|own| path == Path::new(own))
        || taken.iter().any(|prefix| path.starts_with(prefix)) && !is_source(path)
}

/// Adds a directory of the host to those that the guest shares, unless it is inside one of them or the guest's own.
pub(super) fn share(shared: &mut Vec<PathBuf>, directory: &Path) {
    if !belongs_to_guest(directory) && !shared.iter().any(|other| directory.starts_with(other)) {
        shared.retain(|other| !other.starts_with(directory));
        shared.push(directory.to_path_buf());
    }
}

/// Builds the tree at `at` for the job.
pub(crate) fn build(job: &Job, at: &Path) -> Result<()> {
    mount_at("tmpfs", "tmpfs", at, MsFlags::empty(), "mode=755")?;
    let mut inside: Vec<PathBuf> = OWN
        .iter()
        .map(|(path, _)| Path::new("/").join(path))
        .collect();
    inside.extend(job.shared.iter().chain(&job.entered).cloned());
    inside.extend(job.links.iter().map(|(at, _)| at.clone()));
    fill(job, at, Path::new("/"), &inside)?;
    for (path, mode) in OWN {
        let path = at.join(path);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    for (kind, path, options) in MOUNTS {
        let path = at.join(path);
        if !path.exists() {
            // devtmpfs has no pts and no shm.
            fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        mount_at(kind, kind, &path, MsFlags::empty(), options)?;
    }
    let mut shared = job.shared.clone();
    // Outer directories first: a mount hides what was mounted below it before.
    shared.sort();
    for directory in &shared {
        let path = within(at, directory);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        mount_host(job.guest, directory, &path, MsFlags::empty())?;
    }
    add_named(job, at)?;
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(to, at.join("dev").join(name))?;
    }
    Ok(())
}

/// Adds the files, links and directories that the command names outside of shared directories.
fn add_named(job: &Job, at: &Path) -> Result<()> {
    let own_directory = Some(&job.directory).filter(|directory| own(directory).is_some());
    for directory in job.entered.iter().chain(own_directory) {
        let path = within(at, directory);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    for (link, target) in &job.links {
        let path = within(at, link);
        if path.is_symlink() {
            continue;
        }
        fs::create_dir_all(parent(&path))
            .and_then(|()| symlink(target, &path))
            .with_context(|| format!("cannot create {}", path.display()))?;
    }
    for file in &job.copies {
        copy(file, &within(at, file)).with_context(|| {
            let (file, own) = (file.display(), parent(file).display());
            format!("cannot copy {file}, as the guest has its own {own} (directories in it can be shared)")
        })?;
    }
    Ok(())
}

/// Copies a file with its time of modification, so that it can be seen whether the program has written it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(parent(to))?;
    fs::copy(from, to)?;
    let modified = fs::metadata(from)?.modified()?;
    fs::OpenOptions::new()
        .write(true)
        .open(to)?
        .set_modified(modified)?;
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Makes `at` the root of the file system.
pub(crate) fn enter(at: &Path) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .context("cannot make the root read-only")?;
    std::env::set_current_dir(at)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("cannot move the root")?;
    nix::unistd::chroot(".").context("cannot enter the root")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Mounts a directory of the host.
pub(crate) fn mount_host(kind: Kind, host: &Path, at: &Path, flags: MsFlags) -> Result<()> {
    let mounted = if kind.in_qemu() {
        bind(host, at, flags)
    } else {
        mount(Some("hostfs"), at, Some("hostfs"), flags, Some(host))
    };
    mounted.with_context(|| {
        format!(
            "cannot mount the host's {} on {}",
            host.display(),
            at.display()
        )
    })
}

/// Mounts a directory of the host in a guest whose first process has the host's file system as its writable root.
fn bind(host: &Path, at: &Path, flags: MsFlags) -> nix::Result<()> {
    let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
    mount(Some(host), at, none, bind, none)?;
    if flags.is_empty() {
        return Ok(());
    }
    // Flags are for a mount that is there.
    mount(none, at, none, bind | MsFlags::MS_REMOUNT | flags, none)
}

fn mount_at(source: &str, kind: &str, at: &Path, flags: MsFlags, options: &str) -> Result<()> {
    let mounted = mount(Some(source), at, Some(kind), flags, Some(options));
    mounted.with_context(|| format!("cannot mount {kind} on {}", at.display()))
}

/// Fills the directory `path` of the tree at `at` from the same directory of the root file system.
///
/// A directory in which something else is to be mounted (`inside`) is made here and filled in turn, because nothing
/// can be created in a read-only mount; any other is mounted whole.
fn fill(job: &Job, at: &Path, path: &Path, inside: &[PathBuf]) -> Result<()> {
    for entry in fs::read_dir(within(&job.root, path))? {
        let entry = entry?;
        let name = path.join(entry.file_name());
        let target = within(at, &name);
        let kind = entry.file_type()?;
        if job.links.iter().any(|(at, _)| *at == name) {
            // The host's, to come.
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            if inside.contains(&name) {
                // Something is mounted right on it.
            } else if inside.iter().any(|other| other.starts_with(&name)) {
                fill(job, at, &name, inside)?;
            } else {
                mount_host(job.guest, &entry.path(), &target, MsFlags::MS_RDONLY)?;
            }
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The absolute `path`, below another root.
fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_directories_are_the_guests() {
        for path in ["/", "/tmp", "/usr/bin", "/dev/shm", "/root", "/usr/src"] {
            assert!(belongs_to_guest(Path::new(path)), "{path}");
        }
        for path in [
            "/tmp/rustdoctest1",
            "/home/user/project",
            "/root/project",
            "/var/lib/builder",
            "/project",
            "/home",
            "/mnt",
            "/usr/src/project",
        ] {
            assert!(!belongs_to_guest(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn inner_directories_are_not_shared_twice() {
        let mut shared = Vec::new();
        for path in ["/project/a", "/project/a/target", "/tmp", "/project/ab"] {
            share(&mut shared, Path::new(path));
        }
        assert_eq!(shared, [Path::new("/project/a"), Path::new("/project/ab")]);
        share(&mut shared, Path::new("/project"));
        assert_eq!(shared, [Path::new("/project")]);
    }
}
