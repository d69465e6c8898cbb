//! What the tests of the guest have in common.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal};

/// How long to wait for what has to come: so long that no busy machine is too slow. What passes waits for an event and
/// not for this; what fails does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What chooses the compatibility guest.
pub(crate) const COMPAT: (&str, &str) = ("PRIMESHARE_GUEST_KIND", "compat");

/// What chooses the guest in QEMU.
pub(crate) const QEMU: (&str, &str) = ("PRIMESHARE_GUEST_KIND", "qemu");

/// What chooses the one with a GPU.
pub(crate) const GPU: (&str, &str) = ("PRIMESHARE_GUEST_KIND", "gpu");

/// What else a user may have chosen, of which the tests know nothing.
pub(crate) const CHOICES: [&str; 9] = [
    "PRIMESHARE_GUEST_KIND",
    "PRIMESHARE_GUEST_TIMEOUT",
    "PRIMESHARE_GUEST_ALLOW_SPLAT",
    "PRIMESHARE_GUEST_SHARE",
    "PRIMESHARE_GUEST_ACCEL",
    "PRIMESHARE_GUEST_CPUS",
    "PRIMESHARE_GUEST_MEM",
    "PRIMESHARE_GUEST_PARAMETERS",
    "PRIMESHARE_RUN",
];

/// Ends a guest after so many seconds.
pub(crate) const TIMEOUT: &str = "PRIMESHARE_GUEST_TIMEOUT";

/// The root of the repository, where all the tests' programs run.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// `guest run -- COMMAND...`; without a command, options can still be added.
pub(crate) fn guest(command: &[&str]) -> Command {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask
        .args(["guest", "run"])
        .current_dir(repository())
        .stdin(Stdio::null());
    for name in CHOICES {
        xtask.env_remove(name);
    }
    // So that a guest that does not end fails its test, and does not keep it for ever.
    xtask.env(TIMEOUT, PATIENCE.as_secs().to_string());
    if !command.is_empty() {
        xtask.arg("--").args(command);
    }
    // Whatever the tests were started by, such as a shell without job control, which ignores interrupts.
    // SAFETY: sigaction may be called between fork and exec, and the default action runs no code of ours.
    unsafe {
        xtask.pre_exec(|| {
            for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
                nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
            }
            Ok(())
        });
    }
    xtask
}

/// Runs a shell script in the guest.
pub(crate) fn shell(script: &str) -> Output {
    guest(&["sh", "-c", script]).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends a signal to one process.
pub(crate) fn send(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

pub(crate) fn write_script(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The guest's processes: its kernel starts a session, and all its helpers stay in it.
#[derive(Debug)]
pub(crate) struct Session(u32);

impl Session {
    /// The session of the guest that `xtask` has started, or is about to start.
    pub(crate) fn of(xtask: &Child) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = processes()
                .into_iter()
                .find(|process| process.parent == xtask.id() && process.id == process.session);
            if let Some(kernel) = found {
                return Session(kernel.id);
            }
            assert!(Instant::now() < deadline, "no guest came up");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn processes(&self) -> Vec<Process> {
        processes()
            .into_iter()
            .filter(|process| process.session == self.0)
            .collect()
    }

    /// Kills the guest's kernel.
    pub(crate) fn kill(&self) {
        assert!(
            Command::new("kill")
                .args(["-KILL", &self.0.to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// A process that was killed together with its parent takes a moment to vanish.
    pub(crate) fn assert_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.processes().is_empty() {
            assert!(
                Instant::now() < deadline,
                "left behind: {:?}",
                self.processes()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    parent: u32,
    session: u32,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// None for zombies: they run no more, and who is to reap them is not the guest's business.
fn process(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    (fields.first() != Some(&"Z")).then_some(Process {
        id,
        parent: number(1)?,
        session: number(3)?,
    })
}

/// A directory that goes when this value goes.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "primeshare-xtask-dir-{}-{number}",
            std::process::id()
        ));
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
