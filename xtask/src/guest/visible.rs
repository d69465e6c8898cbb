//! What a program sees in the guest: directories, files and environment of the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::job::Job;
use super::kind::{self, Kind};
use super::tree::{self, belongs_to_guest, share};
use super::{clients, compositors, gbm, named, swiftshader};
use crate::repository;

/// Variables that speak of the host: the guest has its own, or nothing that they could name.
const NOT_PASSED: &[&str] = &[
    "HOME",
    "PATH",
    "TMPDIR",
    "TMP",
    "TEMP",
    "SHELL",
    "USER",
    "LOGNAME",
    "MAIL",
    "LANG",
    "LANGUAGE",
    "OLDPWD",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "LD_PRELOAD",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "DRI_PRIME",
    "MESA_LOADER_DRIVER_OVERRIDE",
    "LIBGL_DRIVERS_PATH",
    "GBM_BACKENDS_PATH",
    "LIBVA_DRIVERS_PATH",
];

/// The same, by how they begin.
const NOT_PASSED_PREFIXES: &[&str] = &["XDG_", "LC_", "DBUS_", "SSH_", "PRIMESHARE_GUEST"];

const OWN: &[(&str, &str)] = &[
    ("HOME", "/tmp"),
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("TMPDIR", "/tmp"),
    ("SHELL", "/bin/sh"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("LANG", "C.UTF-8"),
    ("XDG_RUNTIME_DIR", "/run"),
];

/// The job for a program, which is a bare name (looked for in the guest) or a path; `asked` are directories to share.
pub(crate) fn job(
    kind: Kind,
    program: OsString,
    arguments: Vec<OsString>,
    environment: &[OsString],
    asked: &[PathBuf],
) -> Result<Job> {
    let directory = std::env::current_dir().context("the working directory is gone")?;
    let mut job = Job {
        guest: kind,
        program,
        arguments,
        directory,
        ..Job::default()
    };
    share(&mut job.shared, &repository::root());
    share(&mut job.shared, &job.directory);
    share(&mut job.shared, &workspace(&job.directory));
    named::add_asked(&mut job, asked)?;
    if tree::own(&job.directory) == Some(&job.directory) {
        job.kept.push(job.directory.clone());
    }
    if job.program.as_bytes().contains(&b'/') {
        add_program(&mut job)?;
    }
    for text in job.arguments.clone().iter().chain(environment) {
        named::add(&mut job, text);
    }
    job.environment = merged(std::env::vars_os(), kind, environment)?;
    if kind == Kind::Current
        && let Some(directory) = swiftshader::entry()?.get()
    {
        let description = swiftshader::description(&directory);
        job.environment
            .push((swiftshader::VARIABLE.into(), description.into()));
        share(&mut job.shared, &directory);
    }
    if let Some(directory) = gbm::entry()?.get() {
        job.environment
            .push((gbm::VARIABLE.into(), directory.clone().into()));
        share(&mut job.shared, &directory);
    }
    if let Some(directory) = compositors::entry()?.get() {
        job.environment
            .push((compositors::VARIABLE.into(), directory.clone().into()));
        share(&mut job.shared, &directory);
    }
    if let Some(directory) = clients::entry()?.get() {
        job.environment
            .push((clients::VARIABLE.into(), directory.clone().into()));
        share(&mut job.shared, &directory);
    }
    if is_documentation_test(Path::new(&job.program)) {
        // By this, a binary with many documentation tests runs each in a process of its own. rustdoc says it only to
        // binaries that it starts without a runner.
        job.environment
            .push(("RUSTDOC_DOCTEST_BIN_PATH".into(), job.program.clone()));
    }
    Ok(job)
}

fn is_documentation_test(program: &Path) -> bool {
    program
        .components()
        .any(|part| part.as_os_str().as_bytes().starts_with(b"rustdoctest"))
}

fn add_program(job: &mut Job) -> Result<()> {
    let path = std::path::absolute(&job.program)?;
    job.program = path.clone().into_os_string();
    let Some(path) = named::add_way(job, &path).filter(|path| path.exists()) else {
        return Ok(());
    };
    let directory = path.parent().unwrap_or(&path);
    if !belongs_to_guest(directory) {
        share(&mut job.shared, &build_directory(directory));
    } else if !is_system(directory) {
        job.copies.push(path);
    }
    Ok(())
}

/// The whole of the cargo workspace that a directory is in, or the directory: tests read their neighbours' files.
fn workspace(directory: &Path) -> PathBuf {
    let mut above = directory.ancestors();
    above
        .find(|path| path.join("Cargo.lock").is_file())
        .unwrap_or(directory)
        .to_path_buf()
}

/// Programs of the guest's own file system win over the host's of the same path.
fn is_system(directory: &Path) -> bool {
    [
        "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/sys",
    ]
    .iter()
    .any(|own| directory.starts_with(own))
}

/// The whole of cargo's target directory if that is where the program is: tests look for their neighbours.
fn build_directory(directory: &Path) -> PathBuf {
    let mut above = directory.ancestors().filter(|path| !belongs_to_guest(path));
    above
        .find(|path| path.join("CACHEDIR.TAG").is_file())
        .unwrap_or(directory)
        .to_path_buf()
}

fn is_passed(name: &OsStr) -> bool {
    !NOT_PASSED.iter().any(|other| name == *other)
        && !NOT_PASSED_PREFIXES
            .iter()
            .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

/// The caller's variables, then the guest's own, then those asked for by name.
fn merged(
    caller: impl Iterator<Item = (OsString, OsString)>,
    kind: Kind,
    asked: &[OsString],
) -> Result<Vec<(OsString, OsString)>> {
    let mut merged: Vec<(OsString, OsString)> =
        caller.filter(|(name, _)| is_passed(name)).collect();
    let own = OWN.iter().chain(kind.environment());
    merged.extend(own.map(|(name, value)| (name.into(), value.into())));
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        merged.push((name.into(), kind.vulkan().into()));
    }
    if let Some(driver) = kind.mesa_driver() {
        merged.push(("MESA_LOADER_DRIVER_OVERRIDE".into(), driver.into()));
    }
    let machine = if kind.in_qemu() { "qemu" } else { "uml" };
    merged.push(("PRIMESHARE_GUEST".into(), machine.into()));
    merged.push((kind::VARIABLE.into(), kind.name().into()));
    for pair in asked {
        let bytes = pair.as_bytes();
        let Some(at) = bytes
            .iter()
            .position(|&byte| byte == b'=')
            .filter(|&at| at > 0)
        else {
            bail!("--env takes NAME=VALUE, not {pair:?}");
        };
        let (name, value) = (
            OsStr::from_bytes(&bytes[..at]),
            OsStr::from_bytes(&bytes[at + 1..]),
        );
        merged.retain(|(other, _)| other != name);
        merged.push((name.to_owned(), value.to_owned()));
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(merged: &[(OsString, OsString)], name: &str) -> Option<String> {
        let found: Vec<_> = merged.iter().filter(|(other, _)| other == name).collect();
        assert!(found.len() <= 1, "{name} twice");
        found
            .first()
            .map(|(_, value)| value.to_string_lossy().into_owned())
    }

    #[test]
    fn environment_is_the_callers_save_what_speaks_of_the_host() -> Result<()> {
        let caller = [
            ("HOME", "/home/x"),
            ("XDG_DATA_HOME", "/x"),
            ("RUST_LOG", "debug"),
            ("A", "1"),
            (kind::VARIABLE, "asked of the runner"),
        ];
        let caller = caller
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let merged = merged(caller, Kind::Compat, &["A=2=3".into(), "LANG=".into()])?;
        assert_eq!(value(&merged, "HOME").as_deref(), Some("/tmp"));
        assert_eq!(value(&merged, "XDG_DATA_HOME"), None);
        assert_eq!(value(&merged, "RUST_LOG").as_deref(), Some("debug"));
        assert_eq!(value(&merged, "A").as_deref(), Some("2=3"));
        assert_eq!(value(&merged, "LANG").as_deref(), Some(""));
        assert_eq!(value(&merged, kind::VARIABLE).as_deref(), Some("compat"));
        Ok(())
    }

    #[test]
    fn environment_needs_a_name() {
        for wrong in ["", "A", "=x"] {
            assert!(
                merged(std::iter::empty(), Kind::Current, &[wrong.into()]).is_err(),
                "{wrong:?}"
            );
        }
    }
}
