//! How the program's output leaves the guest, byte for byte: by lines that are terminals on User-Mode Linux, and
//! ports of a virtio device in QEMU.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::libc::O_NOCTTY;
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

/// Opens a line and makes it pass on bytes as they are.
pub(crate) fn open(path: &Path) -> Result<File> {
    let line = OpenOptions::new()
        .write(true)
        .read(true)
        .custom_flags(O_NOCTTY)
        .open(path);
    let line = line.with_context(|| format!("cannot open {}", path.display()))?;
    if !line.is_terminal() {
        return Ok(line);
    }
    let mut settings = tcgetattr(&line)?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    Ok(line)
}

/// Copies everything from a pipe to a line until the pipe's end; the number of bytes.
pub(crate) fn pump(mut from: impl Read, mut line: File) -> Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        line.write_all(&buffer[..count])?;
        total += count as u64;
    }
    if line.is_terminal() {
        // What the kernel still holds would be lost at power-off. (Where it is no terminal, the host waits.)
        tcdrain(&line)?;
    }
    Ok(total)
}
