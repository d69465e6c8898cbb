//! A process that ends a guest whose `xtask` was killed.
//!
//! The kernel then ends the guest's first process (see `launch`), but the helpers of User-Mode Linux only once each of
//! them has asked for that: one that was just being made stays behind for good. So another process watches, and ends
//! the whole process group.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What the watcher is told at the proper end, when there is nothing for it to do.
const DISMISSED: &str = "done";

/// The watcher, as long as it is not dismissed.
pub(crate) struct Watcher(ChildStdin);

impl Watcher {
    /// Starts it; it has nobody to watch yet.
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("watch")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals for our group, such as the terminal's, are not meant for the watcher.
            .process_group(0);
        let mut child = command.spawn().context("cannot start the watcher")?;
        // The child itself is reaped with the guest's processes.
        child.stdin.take().map(Self).context("no pipe")
    }

    /// Tells it the guest's process group.
    pub(crate) fn watch(&mut self, group: u32) -> Result<()> {
        writeln!(self.0, "{group}").context("the watcher has gone")
    }

    /// Sends it away: the guest has been ended.
    pub(crate) fn dismiss(mut self) {
        // If it is gone, so much the better.
        let _ = writeln!(self.0, "{DISMISSED}");
    }
}

/// What the watcher does: waits for the end of its input, which comes with the end of whoever started it.
pub(crate) fn main() -> Result<u8> {
    let mut told = String::new();
    std::io::stdin().read_to_string(&mut told)?;
    let mut lines = told.lines();
    let group = lines.next().and_then(|group| group.parse().ok());
    if let (Some(group), None) = (group, lines.next()) {
        end(Pid::from_raw(group));
    }
    Ok(0)
}

/// Kills all processes of a group, several times, since one of them may just be starting another.
fn end(group: Pid) {
    for _ in 0..1000 {
        if killpg(group, Signal::SIGKILL).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
