//! seatd, and cage or tinywl, started and ended.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the machine has.
pub(crate) struct Setup {
    compositors: PathBuf,
    preload: PathBuf,
    tinywl: PathBuf,
}

impl Setup {
    pub(crate) fn from_environment() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self {
            compositors: path("PRIMESHARE_COMPOSITORS")?,
            preload: path("PRIMESHARE_WLROOTS")?,
            tinywl: path("PRIMESHARE_TINYWL")?,
        })
    }

    fn command(&self, program: &Path, runtime: &Path) -> Command {
        // A path of its own stays as it is.
        let mut command = Command::new(self.compositors.join("bin").join(program));
        command.env("LD_LIBRARY_PATH", self.compositors.join("lib"));
        command.env("XDG_RUNTIME_DIR", runtime);
        command.process_group(0);
        command
    }
}

/// A compositor that is to be started.
pub(crate) struct Start<'a> {
    setup: &'a Setup,
    devices: String,
    renderer: &'static str,
    preload: Vec<PathBuf>,
    /// Instead of cage.
    is_tinywl: bool,
}

impl Start<'_> {
    /// With the library.
    pub(crate) fn preloaded(mut self) -> Self {
        self.preload.push(self.setup.preload.clone());
        self
    }

    /// tinywl, with the library linked.
    pub(crate) fn tinywl(mut self) -> Self {
        self.is_tinywl = true;
        self
    }

    /// Drawn by OpenGL, and not by the CPU.
    pub(crate) fn by_opengl(mut self) -> Self {
        self.renderer = "gles2";
        self
    }

    /// Starts it, and waits for its socket.
    pub(crate) fn run(self) -> Compositor {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let runtime = std::env::temp_dir().join(format!("wlroots-{}-{number}", std::process::id()));
        fs::create_dir_all(&runtime).unwrap();
        let mut seatd = self.setup.command(Path::new("seatd"), &runtime);
        // There are no virtual terminals.
        seatd.env("SEATD_VTBOUND", "0").args(["-l", "error"]);
        let seatd = Process(seatd.spawn().unwrap());
        wait_until("seatd's socket", || Path::new("/run/seatd.sock").exists());
        let log = runtime.join("log");
        let program = match self.is_tinywl {
            true => &self.setup.tinywl,
            false => Path::new("cage"),
        };
        let mut command = self.setup.command(program, &runtime);
        command
            .env("LIBSEAT_BACKEND", "seatd")
            .env("WLR_RENDERER", self.renderer)
            .env("WLR_RENDERER_ALLOW_SOFTWARE", "1");
        command
            .env("WLR_LIBINPUT_NO_DEVICES", "1")
            .env("WLR_DRM_DEVICES", &self.devices);
        command.env("XKB_CONFIG_ROOT", self.setup.compositors.join("xkb"));
        let preload = self.preload.iter().map(|path| path.display().to_string());
        command.env("LD_PRELOAD", preload.collect::<Vec<_>>().join(":"));
        if !self.is_tinywl {
            // cage ends with its own client.
            command.args(["--", "sleep", "1000"]);
        }
        command.env("PRIMESHARE_WLROOTS_LOG", "1");
        command.stdout(File::create(&log).unwrap());
        command.stderr(File::options().append(true).open(&log).unwrap());
        let process = Process(command.spawn().unwrap());
        let socket = runtime.join("wayland-0");
        let mut compositor = Compositor {
            process,
            is_tinywl: self.is_tinywl,
            _seatd: seatd,
            socket,
            log,
        };
        wait_until("the compositor's socket", || {
            let ended = compositor.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "the compositor has ended: {ended:?}");
            compositor.socket.exists()
        });
        compositor
    }
}

/// A compositor that runs, until it is dropped.
pub(crate) struct Compositor {
    // Ended first.
    process: Process,
    is_tinywl: bool,
    _seatd: Process,
    socket: PathBuf,
    log: PathBuf,
}

impl Compositor {
    pub(crate) fn start<'a>(setup: &'a Setup, devices: &[&Path]) -> Start<'a> {
        let devices = devices.iter().map(|path| path.display().to_string());
        Start {
            setup,
            devices: devices.collect::<Vec<_>>().join(":"),
            renderer: "pixman",
            preload: vec![setup.compositors.join("faux.so")],
            is_tinywl: false,
        }
    }

    /// Whether windows have the size that their clients like.
    pub(crate) fn lets_clients_choose(&self) -> bool {
        self.is_tinywl
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The inode numbers of the buffers that the library has made for it.
    pub(crate) fn buffers(&self) -> BTreeSet<u64> {
        let log = fs::read_to_string(&self.log).unwrap();
        let buffers = log.lines().filter_map(|line| {
            let (_, rest) = line.split_once("primeshare: buffer ")?;
            rest.split(',').next()?.parse().ok()
        });
        buffers.collect()
    }

    /// How many fds the compositor has open.
    pub(crate) fn fds(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.process.0.id());
        fs::read_dir(directory).unwrap().count()
    }

    pub(crate) fn wait_for_fds(&self, fds: usize) {
        wait_until("the compositor's fds", || self.fds() <= fds);
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        // What is left of it goes with the guest.
        if let Some(runtime) = self.log.parent() {
            let _ = fs::remove_dir_all(runtime);
        }
    }
}

/// A process that leads a group: cage waits for its own client.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        // It may have ended by itself.
        let _ = kill_process_group(pid, Signal::TERM);
        let _ = self.0.wait();
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited for {what} in vain");
        // Nothing tells what another process has done: its socket, its fds, its screen.
        std::thread::sleep(Duration::from_millis(20));
    }
}
