//! Cargo as this program calls it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::repository;

/// Cargo in the repository, without the variables that an outer cargo has set for xtask.
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
    let status = run(command().args(arguments))?;
    if !status.success() {
        bail!("cargo {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a command without input.
pub(crate) fn run(command: &mut Command) -> Result<ExitStatus> {
    let status = command.stdin(Stdio::null()).status();
    status.with_context(|| format!("cannot start {command:?}"))
}

/// The exit status of a command as a shell has it.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}
