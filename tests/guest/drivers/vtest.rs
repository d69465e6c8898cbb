//! venus by vtest: a server in the guest that executes, on lavapipe, what a driver without a device
//! sends it. It exports dma-bufs, imports none, has no fences by fd and names no DRM node.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::LAVAPIPE;

const PATIENCE: Duration = Duration::from_secs(120);

/// The server; ended on drop, with the processes it has made for its clients.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Returns when it can be asked.
    pub(crate) fn start() -> Self {
        let socket = std::env::temp_dir().join(format!("vtest-{}", std::process::id()));
        let child = Command::new("virgl_test_server")
            .args(["--venus", "--no-virgl", "--multi-clients", "--socket-path"])
            .arg(&socket)
            .env("VK_DRIVER_FILES", LAVAPIPE)
            .env_remove("VN_DEBUG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let server = Self { child, socket };
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(&server.socket).is_err() {
            assert!(Instant::now() < end, "the vtest server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// What makes venus its client.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("VN_DEBUG", "vtest".to_owned()),
            ("VTEST_SOCKET_NAME", self.socket.display().to_string()),
        ]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
