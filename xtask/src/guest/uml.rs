//! The command line of User-Mode Linux.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::kernel::source;
use super::kind::Kind;
use super::limits::Limits;
use super::{Guest, init, scratch};

/// The kernel as a process; the program's output goes to `lines`.
pub(super) fn command(
    guest: &Guest,
    kind: Kind,
    directory: &Path,
    limits: &Limits,
    lines: &[&impl AsRawFd],
) -> Result<Command> {
    let mut command = Command::new(source::file(&guest.kernel));
    command.args([
        format!("mem={}M", limits.memory >> 20),
        "rootfstype=hostfs".to_owned(),
        "rootflags=/".to_owned(),
        "ro".to_owned(),
        format!("init={}", directory.join("init").display()),
        format!("{}={}", init::JOB, directory.join("job").display()),
        format!("uml_dir={}/", directory.display()),
        "umid=uml".to_owned(),
        "con=null".to_owned(),
        "con0=null,fd:1".to_owned(),
        "ssl=null".to_owned(),
        "oops=panic".to_owned(),
        "hostname=guest".to_owned(),
        "udmabuf.size_limit_mb=1024".to_owned(),
    ]);
    for (number, line) in lines.iter().enumerate() {
        command.arg(format!("ssl{number}=null,fd:{}", line.as_raw_fd()));
    }
    command.args(limits.parameters.iter().flat_map(|asked| asked.split(' ')));
    if kind.has_several_cpus() {
        command.args([
            format!("ncpus={}", limits.processors),
            "seccomp=auto".to_owned(),
        ]);
    }
    command
        .env_clear()
        .env("HOME", directory)
        .env("TMPDIR", scratch::memory_directory(limits.memory)?);
    Ok(command)
}
