//! Cargo as this program calls it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::repository;

/// Mesa says this each time it meets a device that is on no bus it knows, as all of the guest's are.
const NOISE: &[u8] = b"MESA-LOADER: failed to retrieve device information\n";

/// Cargo in the repository, without what an outer cargo said about xtask.
pub(crate) fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(repository::root());
    command
}

/// Builds something, in full view: it can take a while.
pub(crate) fn build(arguments: &[&str]) -> Result<()> {
    let status = command()
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a command without input, and passes on its errors less Mesa's noise.
pub(crate) fn run(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    if let Some(errors) = child.stderr.take() {
        let mut errors = BufReader::new(errors);
        let mut line = Vec::new();
        while errors.read_until(b'\n', &mut line)? != 0 {
            if line != NOISE {
                std::io::stderr().write_all(&line)?;
            }
            line.clear();
        }
    }
    Ok(child.wait()?)
}

/// The exit status of a command as a shell has it.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}
