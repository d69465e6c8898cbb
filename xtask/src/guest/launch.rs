//! Starts a guest, passes on what its program prints, and sees to it that nothing stays behind.

use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, killpg, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, setsid};

use super::job::Job;
use super::judge::judge;
use super::limits::Limits;
use super::mappings::Mappings;
use super::outcome::{End, GUEST_FAILED, Report, TIMED_OUT};
use super::scratch::Scratch;
use super::watch::Watcher;
use super::{Guest, clock, init, left, named, qemu, uml};
use crate::progress::last_lines;

/// How often to look for events that come without a signal.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the wait for the guest ended.
enum Waited {
    Ended,
    TimedOut,
    /// Its clock runs away.
    LostTime(String),
    /// One of its processes has reached the limit of mappings, and stands still.
    Exhausted,
    Interrupted(Signal),
}

/// Runs the job in a new guest; the exit status.
pub(crate) fn run(guest: &Guest, mut job: Job, limits: &Limits, verbose: bool) -> Result<u8> {
    job.root = guest.root.clone();
    named::say(&job);
    let scratch = Scratch::new()?;
    let directory = scratch.path();
    fs::write(directory.join("job"), job.encode()?)?;
    fs::create_dir(directory.join(init::TREE))?;
    provide_init(&directory.join("init"))?;

    // Orphans of the guest come here instead of to a first process that may never look after them.
    nix::sys::prctl::set_child_subreaper(true)?;
    // Blocked from here on, so that none gets lost between two looks; threads started below inherit it.
    let signals = watched();
    signals.thread_block()?;
    let (output, output_end) = std::io::pipe()?;
    let (error, error_end) = std::io::pipe()?;
    let (clock, clock_end) = std::io::pipe()?;
    let clock = clock::Listener::start(clock);
    let mut watcher = Watcher::start()?;
    let mut child = start(
        guest,
        &job,
        directory,
        limits,
        [&output_end, &error_end, &clock_end],
    )?;
    let watched = watcher.watch(child.id());
    drop((output_end, error_end, clock_end));
    let pumps = [
        Pump::start(output, std::io::stdout()),
        Pump::start(error, std::io::stderr()),
    ];
    let is_done = || job.guest.in_qemu() && has_arrived(directory, &pumps);
    let waited = wait(
        &mut child,
        &signals,
        limits.timeout,
        &pumps,
        &clock,
        is_done,
    );
    end(&mut child, watcher);
    watched?;
    let passed = pumps.map(Pump::join);
    let waited = waited?;

    let messages = String::from_utf8_lossy(&fs::read(directory.join("console"))?).into_owned();
    if verbose {
        eprint!("{messages}");
    }
    let say = |text: &str| eprintln!("xtask: {}: {text}", job.program.display());
    let report = report(directory);
    let received = match report.as_ref().map(|report| &report.end) {
        Some(End::Failed(_)) => Ok(()),
        Some(_) => left::receive(&job, directory),
        None => {
            left::say_not_copied(&job);
            Ok(())
        }
    };
    match waited {
        Waited::Ended => {}
        Waited::TimedOut => {
            say(&format!(
                "timed out after {} s",
                limits.timeout.unwrap_or_default().as_secs()
            ));
            return Ok(TIMED_OUT);
        }
        Waited::LostTime(complaint) => {
            say(&complaint);
            return Ok(GUEST_FAILED);
        }
        Waited::Exhausted => {
            say("stands still at the host's limit of mappings: ended");
            return Ok(TIMED_OUT);
        }
        Waited::Interrupted(signal) => {
            drop(scratch);
            return die_of(signal);
        }
    }
    if passed
        .iter()
        .flat_map(|passed| passed.as_ref().err())
        .any(|error| error.kind() == ErrorKind::BrokenPipe)
    {
        // Whoever read the output has gone, as with `| head`: no reason for a message.
        return received.map(|()| 128 + Signal::SIGPIPE as u8);
    }
    let [output, error] =
        passed.map(|passed| passed.context("cannot pass on the program's output"));
    let passed = [output?, error?];

    let Some(report) = report else {
        say("the guest died before the program's end; its last messages:");
        eprint!("{}", last_lines(&directory.join("console"), 40));
        return Ok(GUEST_FAILED);
    };
    let status = judge(&report, passed, &messages, &job.program)?;
    received.map(|()| status)
}

/// The guest's report, if it has ended properly.
fn report(directory: &Path) -> Option<Report> {
    let text = fs::read_to_string(directory.join(init::REPORT)).ok()?;
    Report::decode(&text).ok()
}

/// Whether the guest has come to its end and all that its program printed is here.
fn has_arrived(directory: &Path, pumps: &[Pump; 2]) -> bool {
    report(directory).is_some_and(|report| {
        let mut both = pumps.iter().zip(report.written);
        both.all(|(pump, written)| pump.passed.load(Ordering::Relaxed) >= written)
    })
}

/// This binary is the guest's first process too.
fn provide_init(at: &Path) -> Result<()> {
    let binary = std::env::current_exe()?;
    if binary.is_file() {
        std::os::unix::fs::symlink(binary, at)?;
    } else {
        // Built anew while it runs, so the file is gone; what runs can still be had.
        fs::copy("/proc/self/exe", at)?;
    }
    Ok(())
}

/// The signals by which a run is ended from outside, and the one for the end of the child. Without those that are set to
/// be ignored, as `nohup` and shells without job control do: if they were blocked here, they would be seen after all.
fn watched() -> SigSet {
    let ends = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ];
    let heeded = ends.into_iter().filter(|signal| !is_ignored(*signal));
    heeded.chain([Signal::SIGCHLD]).collect()
}

fn is_ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<nix::libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills in `now`, and it does so when it succeeds.
    unsafe {
        nix::libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == nix::libc::SIG_IGN
    }
}

fn start(
    guest: &Guest,
    job: &Job,
    directory: &Path,
    limits: &Limits,
    output: [&PipeWriter; 3],
) -> Result<Child> {
    let console = File::create(directory.join("console"))?;
    let mut command = match &guest.emulator {
        Some(emulator) => qemu::command(guest, emulator, job, directory, limits, &output)?,
        None => uml::command(guest, job.guest, directory, limits, &output)?,
    };
    let lines = output.map(|end| end.as_raw_fd());
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    let parent = Pid::this();
    // SAFETY: between fork and exec, `prepare` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || prepare(lines, parent)) };
    command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// In the child, before it becomes the guest.
fn prepare(lines: [RawFd; 3], parent: Pid) -> std::io::Result<()> {
    // Its own session: it gets no signal from the terminal, and all its processes can be ended by group.
    setsid()?;
    // If this program is killed, the kernel ends the guest's first process at once; the watcher ends the others.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(ErrorKind::BrokenPipe.into());
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    SigSet::all().thread_unblock()?;
    for line in lines {
        // SAFETY: the descriptor is open: the parent holds it until after the spawn.
        let line = unsafe { std::os::fd::BorrowedFd::borrow_raw(line) };
        fcntl(line, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// Passes on one of the guest's lines.
struct Pump {
    thread: JoinHandle<std::io::Result<()>>,
    /// The number of bytes.
    passed: Arc<AtomicU64>,
}

impl Pump {
    /// Passes everything on at once, to the end.
    fn start(mut from: PipeReader, mut to: impl Write + Send + 'static) -> Self {
        let passed = Arc::new(AtomicU64::new(0));
        let count_up = Arc::clone(&passed);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = match from.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                to.write_all(&buffer[..count])?;
                to.flush()?;
                count_up.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        Pump { thread, passed }
    }

    /// Waits for the end; the number of bytes.
    fn join(self) -> std::io::Result<u64> {
        match self.thread.join() {
            Ok(ended) => ended.map(|()| self.passed.load(Ordering::Relaxed)),
            Err(_) => Err(std::io::Error::other("a pump panicked")),
        }
    }
}

fn wait(
    child: &mut Child,
    signals: &SigSet,
    timeout: Option<Duration>,
    pumps: &[Pump],
    clock: &clock::Listener,
    is_done: impl Fn() -> bool,
) -> Result<Waited> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut mappings = Mappings::of(child.id());
    loop {
        if mappings.are_exhausted() {
            return Ok(Waited::Exhausted);
        }
        if let Some(complaint) = clock.complaint() {
            return Ok(Waited::LostTime(complaint));
        }
        if child.try_wait()?.is_some() {
            return Ok(Waited::Ended);
        }
        if pumps.iter().any(|pump| pump.thread.is_finished()) {
            // A pump ends with the guest, or because its output cannot be written any more.
            return Ok(Waited::Ended);
        }
        if is_done() {
            return Ok(Waited::Ended);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Waited::TimedOut);
        }
        let pause = left.unwrap_or(Duration::MAX).min(PAUSE);
        match next_signal(signals, pause)? {
            None | Some(Signal::SIGCHLD) => {}
            Some(signal) => return Ok(Waited::Interrupted(signal)),
        }
    }
}

/// The next of the blocked signals, if one comes in time.
fn next_signal(signals: &SigSet, pause: Duration) -> Result<Option<Signal>> {
    let pause = nix::sys::time::TimeSpec::from_duration(pause);
    // SAFETY: both pointers are to live values of the types the function takes; it may do without the siginfo.
    let number =
        unsafe { nix::libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), pause.as_ref()) };
    if number < 0 {
        return match nix::errno::Errno::last() {
            nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR => Ok(None),
            error => bail!("cannot wait for signals: {error}"),
        };
    }
    Ok(Some(Signal::try_from(number)?))
}

/// Ends the guest with all its processes. It may have ended already.
fn end(child: &mut Child, watcher: Watcher) {
    // Fails if no process of the group is left, which is fine.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    watcher.dismiss();
    let _ = child.wait();
    // The guest's helpers die with it and become this process's children (see `run`). A bound, because one that
    // hangs in the host's kernel must not hang this program too.
    for _ in 0..1000 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(2)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Ends this process as the signal would have, so that the caller sees why.
fn die_of(signal: Signal) -> Result<u8> {
    let mut only = SigSet::empty();
    only.add(signal);
    only.thread_unblock()?;
    raise(signal)?;
    Ok(128 + signal as u8)
}
