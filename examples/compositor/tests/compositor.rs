//! The compositor, started and ended; and programs of Debian.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

const PATIENCE: Duration = Duration::from_secs(60);

/// A compositor that runs, until it is dropped.
pub(crate) struct Compositor {
    process: Child,
    runtime: PathBuf,
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
        let mut compositor = Self { process, runtime };
        wait_until("the compositor's socket", || {
            let ended = compositor.process.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended: {ended:?}\n{}", compositor.log());
            compositor.socket().exists()
        });
        compositor
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
        panic!("{fds} fds are open, and {most} were: {:?}", self.kinds_of_fds());
    }

    /// Starts a program of Debian, if the machine has those.
    pub(crate) fn run(&self, program: &[&str]) -> Option<Program> {
        let Some(root) = std::env::var_os("PRIMESHARE_CLIENTS").map(PathBuf::from) else {
            eprintln!("test left out: needs clients of Debian, as cargo xtask compositor brings them");
            return None;
        };
        for directory in ["dev", "proc", "sys", "tmp"] {
            bind(&Path::new("/").join(directory), &root.join(directory));
        }
        let mut command = Command::new(Path::new("/usr/bin").join(program[0]));
        command.args(&program[1..]);
        command.env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
        command.env("XDG_RUNTIME_DIR", &self.runtime).env("WAYLAND_DISPLAY", "wayland-0");
        // Vkms and vgem are on a bus that this libdrm does not know.
        command.env("LD_PRELOAD", "/faux.so");
        let log = File::create(self.runtime.join("client")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let enter = move || {
            rustix::process::chroot(&root)?;
            Ok(rustix::process::chdir("/")?)
        };
        // SAFETY: both are system calls, and nothing allocates.
        let command = unsafe { command.pre_exec(enter) };
        Some(Program { process: command.spawn().unwrap(), log: self.runtime.join("client") })
    }
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
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
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
