//! Cargo's runner: where a program that cargo built runs.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::guest;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Guest,
    Host,
    Auto,
}

/// What cargo built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Tests, benches and documentation tests: they expect the guest's devices.
    Check,
    /// Examples and the command line: they are there to be tried on the machine's own devices.
    Program,
}

/// Runs the program where it belongs.
pub(crate) fn run(program: &Path, arguments: Vec<OsString>) -> Result<u8> {
    let choice = choice(std::env::var_os("PRIMESHARE_RUN").as_deref())?;
    let kind = kind(program);
    // Names of tests need no devices, and nextest asks every test binary for them before it starts.
    if choice == Choice::Auto
        && kind == Kind::Check
        && arguments.iter().any(|argument| argument == "--list")
        && let Some(status) = list(program, &arguments)?
    {
        return Ok(status);
    }
    if in_guest(choice, kind, has_usable_device) {
        return guest::run_program(program, arguments, kind == Kind::Check);
    }
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

fn choice(value: Option<&OsStr>) -> Result<Choice> {
    match value.map(|value| value.to_string_lossy()).as_deref() {
        None | Some("" | "auto") => Ok(Choice::Auto),
        Some("guest") => Ok(Choice::Guest),
        Some("host") => Ok(Choice::Host),
        Some(other) => bail!("PRIMESHARE_RUN must be guest, host or auto, not {other:?}"),
    }
}

fn kind(program: &Path) -> Kind {
    let directory = program.parent();
    let is_example = directory
        .and_then(Path::file_name)
        .is_some_and(|name| name == "examples");
    // Binaries lie right in the profile's directory, next to `deps` where the tests are.
    let is_binary = directory.is_some_and(|directory| directory.join("deps").is_dir());
    if is_example || is_binary {
        Kind::Program
    } else {
        Kind::Check
    }
}

fn in_guest(choice: Choice, kind: Kind, has_device: impl FnOnce() -> bool) -> bool {
    match (choice, kind) {
        (Choice::Guest, _) | (Choice::Auto, Kind::Check) => true,
        (Choice::Host, _) => false,
        (Choice::Auto, Kind::Program) => !has_device(),
    }
}

/// Whether the machine has a DRM device that this user may open.
pub(crate) fn has_usable_device() -> bool {
    let Ok(entries) = fs::read_dir("/dev/dri") else {
        return false;
    };
    let is_node = |name: &str| name.starts_with("card") || name.starts_with("renderD");
    entries.flatten().any(|entry| {
        is_node(&entry.file_name().to_string_lossy())
            && OpenOptions::new()
                .read(true)
                .write(true)
                .open(entry.path())
                .is_ok()
    })
}

/// Lists a program's tests on the host; none if it does not start here.
fn list(program: &Path, arguments: &[OsString]) -> Result<Option<u8>> {
    /// What the dynamic linker exits with when a library is missing.
    const NOT_STARTED: i32 = 127;
    let status = match Command::new(program).args(arguments).status() {
        Ok(status) => status,
        Err(_) => return Ok(None),
    };
    match (status.code(), status.signal()) {
        (Some(NOT_STARTED), _) => Ok(None),
        (Some(code), _) => Ok(Some(u8::try_from(code)?)),
        (None, signal) => Ok(Some(128 + u8::try_from(signal.unwrap_or(0))?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() -> Result<()> {
        assert_eq!(choice(None)?, Choice::Auto);
        assert_eq!(choice(Some(OsStr::new("host")))?, Choice::Host);
        assert!(choice(Some(OsStr::new("Guest"))).is_err());
        Ok(())
    }

    #[test]
    fn checks_run_in_the_guest_and_programs_on_devices() {
        assert!(in_guest(Choice::Auto, Kind::Check, || true));
        assert!(!in_guest(Choice::Auto, Kind::Program, || true));
        assert!(in_guest(Choice::Auto, Kind::Program, || false));
        assert!(in_guest(Choice::Guest, Kind::Program, || true));
        assert!(!in_guest(Choice::Host, Kind::Check, || false));
    }

    #[test]
    fn kinds() {
        assert_eq!(
            kind(Path::new("/r/target/release/examples/blit")),
            Kind::Program
        );
        assert_eq!(kind(Path::new("/r/target/debug/deps/it-0123")), Kind::Check);
        assert_eq!(kind(Path::new("/tmp/rustdoctestX/rust_out")), Kind::Check);
    }
}
