//! The compositor, started and ended; and programs of Debian.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, kill_process_group, setrlimit};

const PATIENCE: Duration = Duration::from_secs(60);

/// A compositor that runs, until it is dropped.
pub(crate) struct Compositor {
    process: Child,
    runtime: PathBuf,
    /// What runs beside a compositor of somebody else's.
    _beside: Vec<Program>,
}

/// A compositor of somebody else's.
#[derive(Clone, Copy)]
pub(crate) enum Foreign {
    /// On wlroots.
    Cage,
    Weston,
}

impl Compositor {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with_fds(arguments, None)
    }

    /// Starts it with so many fds at most.
    pub(crate) fn start_with_fds(arguments: &[&str], most: Option<u64>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let runtime = std::env::temp_dir().join(format!("wl-{}-{number}", std::process::id()));
        fs::create_dir_all(&runtime).unwrap();
        let log = File::create(runtime.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_compositor"));
        command.args(["--socket", "wayland-0"]).args(arguments);
        command.env("XDG_RUNTIME_DIR", &runtime);
        command.env("RUST_LOG", "info,compositor=debug,wgpu_hal=warn");
        command.env("RUST_BACKTRACE", "1");
        command.current_dir(&runtime);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(most) = most {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            // SAFETY: it is a system call, and nothing allocates.
            unsafe { command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?)) };
        }
        let process = command.spawn().unwrap();
        let mut compositor = Self { process, runtime, _beside: Vec::new() };
        wait_until("the compositor's socket", || {
            let ended = compositor.process.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended: {ended:?}\n{}", compositor.log());
            compositor.socket().exists()
        });
        compositor
    }

    /// Starts another compositor on this device, if the machine has it.
    pub(crate) fn start_foreign(which: Foreign, renderer: &str, card: &Path) -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let compositors = path("PRIMESHARE_COMPOSITORS")?;
        let runtime = std::env::temp_dir().join(format!("foreign-{}", std::process::id()));
        let _ = fs::remove_dir_all(&runtime);
        fs::create_dir_all(&runtime).unwrap();
        let log = File::create(runtime.join("log")).unwrap();
        let of_wlroots = |program: &Path| {
            let mut command = Command::new(program);
            command.env("LD_LIBRARY_PATH", compositors.join("lib"));
            command.env("LD_PRELOAD", compositors.join("faux.so"));
            command.stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
            command
        };
        let mut seatd = of_wlroots(&compositors.join("bin/seatd"));
        // There are no virtual terminals.
        seatd.env("SEATD_VTBOUND", "0").args(["-l", "error"]);
        let seatd = Program { process: seatd.spawn().unwrap(), log: runtime.join("log") };
        wait_until("seatd's socket", || Path::new("/run/seatd.sock").exists());
        let mut command = match which {
            Foreign::Cage => {
                let mut cage = of_wlroots(&compositors.join("bin/cage"));
                cage.env("WLR_RENDERER", renderer).env("WLR_RENDERER_ALLOW_SOFTWARE", "1");
                cage.env("WLR_LIBINPUT_NO_DEVICES", "1").env("WLR_DRM_DEVICES", card);
                cage.env("XKB_CONFIG_ROOT", compositors.join("xkb"));
                cage.args(["--", "sleep", "1000"]);
                cage
            }
            Foreign::Weston => {
                let root = path("PRIMESHARE_CLIENTS")?;
                let mut weston = in_root(&root, "weston");
                weston.env("LD_PRELOAD", "/faux.so");
                weston.args(["--backend=drm", "--shell=kiosk", "--socket=wayland-0", "--idle-time=0"]);
                weston.arg("--continue-without-input").arg(format!("--renderer={renderer}"));
                let name = card.file_name().unwrap().to_string_lossy();
                weston.arg(format!("--drm-device={name}"));
                weston.stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
                weston
            }
        };
        command.env("XDG_RUNTIME_DIR", &runtime).env("LIBSEAT_BACKEND", "seatd");
        command.process_group(0);
        let process = command.spawn().unwrap();
        let mut compositor = Self { process, runtime, _beside: vec![seatd] };
        let mut has_ended = false;
        wait_until("the compositor's socket", || {
            has_ended = compositor.process.try_wait().unwrap().is_some();
            has_ended || compositor.socket().exists()
        });
        if has_ended {
            eprintln!("it has ended:\n{}", compositor.log());
            return None;
        }
        Some(compositor)
    }

    /// The time that its process has spent. (User-Mode Linux does not tell the program's from the kernel's.)
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The name in brackets may have spaces; 14 and 15 of proc_pid_stat(5), in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let time = |field: &str| Duration::from_millis(10 * field.parse::<u64>().unwrap());
        time(fields[11]) + time(fields[12])
    }

    pub(crate) fn lets_clients_choose(&self) -> bool {
        false
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("wayland-0")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.runtime.join("log")).unwrap_or_default()
    }

    /// A file that goes with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Fds and resident pages. The pictures of the screens are left out: there are two or three for each, depending on
    /// whether frames have overlapped. Of lavapipe's, each is a memfd and three dma-bufs.
    pub(crate) fn use_of_memory(&self) -> (usize, u64) {
        let process = PathBuf::from(format!("/proc/{}", self.process.id()));
        let kinds = self.kinds_of_fds();
        let pictures = kinds.iter().filter(|(kind, _)| kind.contains("lp_dma_buf")).map(|(_, count)| count);
        let fds = kinds.values().sum::<usize>() - 4 * pictures.sum::<usize>();
        let pages = fs::read_to_string(process.join("statm")).unwrap();
        (fds, pages.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// What the fds are of, and how many.
    pub(crate) fn kinds_of_fds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap() {
            // It may have been closed meanwhile.
            let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
            let kind = target.to_string_lossy().into_owned();
            *kinds.entry(kind.split(":[").next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        kinds
    }

    /// The most bytes that were resident at a time.
    pub(crate) fn peak_of_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn wait_for_fds(&self, most: usize) {
        let mut fds = 0;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            fds = self.use_of_memory().0;
            if fds <= most {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{fds} fds are open, and {most} were: {:?}\n{}", self.kinds_of_fds(), self.log());
    }

    /// Starts a program of Debian, if the machine has those.
    pub(crate) fn run(&self, program: &[&str]) -> Option<Program> {
        let Some(root) = std::env::var_os("PRIMESHARE_CLIENTS").map(PathBuf::from) else {
            eprintln!("test left out: needs clients of Debian, as cargo xtask compositor brings them");
            return None;
        };
        let mut command = in_root(&root, program[0]);
        command.args(&program[1..]);
        command.env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
        command.env("XDG_RUNTIME_DIR", &self.runtime).env("WAYLAND_DISPLAY", "wayland-0");
        // Vkms and vgem are on a bus that this libdrm does not know.
        command.env("LD_PRELOAD", "/faux.so");
        let log = File::create(self.runtime.join("client")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Some(Program { process: command.spawn().unwrap(), log: self.runtime.join("client") })
    }
}

/// A program of another root.
fn in_root(root: &Path, program: &str) -> Command {
    for directory in ["dev", "proc", "run", "sys", "tmp"] {
        bind(&Path::new("/").join(directory), &root.join(directory));
    }
    let mut command = Command::new(Path::new("/usr/bin").join(program));
    let root = root.to_owned();
    let enter = move || {
        rustix::process::chroot(&root)?;
        Ok(rustix::process::chdir("/")?)
    };
    // SAFETY: both are system calls, and nothing allocates.
    unsafe { command.pre_exec(enter) };
    command
}

/// Mounts a directory at another place, once.
fn bind(from: &Path, to: &Path) {
    let is_mounted = |line: &str| line.split(' ').nth(4).map(OsStr::new) == Some(to.as_os_str());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !mounts.lines().any(is_mounted) {
        rustix::mount::mount_bind_recursive(from, to).unwrap();
    }
}

/// A program that runs, until it is dropped.
pub(crate) struct Program {
    process: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.process);
        // One of somebody else's leads a group: cage waits for its own client.
        // It may have ended by itself.
        let _ = match self._beside.is_empty() {
            true => kill_process(pid, Signal::TERM),
            false => kill_process_group(pid, Signal::TERM),
        };
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.runtime);
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
