//! Starts a guest, passes on what its program prints, and sees to it that nothing stays behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, killpg, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, setsid};

use super::job::Job;
use super::outcome::{End, GUEST_FAILED, Report, TIMED_OUT};
use super::scratch::{self, Scratch};
use super::{Guest, console, init};
use crate::progress::last_lines;

/// How large a guest is and how long it may take.
pub(crate) struct Limits {
    timeout: Option<Duration>,
    memory: u64,
    processors: u32,
}

impl Limits {
    /// From the environment; a time-out given by option wins.
    pub(crate) fn new(timeout: Option<u64>) -> Result<Self> {
        let timeout = match timeout {
            Some(seconds) => Some(seconds),
            None => number("PRIMESHARE_GUEST_TIMEOUT")?,
        };
        let processors = number("PRIMESHARE_GUEST_CPUS")?.unwrap_or(2);
        Ok(Limits {
            timeout: timeout.map(Duration::from_secs),
            memory: memory(
                &std::env::var("PRIMESHARE_GUEST_MEM").unwrap_or_else(|_| "2G".to_owned()),
            )?,
            processors: u32::try_from(processors)
                .ok()
                .filter(|count| (1..=16).contains(count))
                .with_context(|| {
                    format!("PRIMESHARE_GUEST_CPUS must be 1 to 16, not {processors}")
                })?,
        })
    }
}

fn number(name: &str) -> Result<Option<u64>> {
    let Some(text) = std::env::var_os(name) else {
        return Ok(None);
    };
    let value = text.to_str().and_then(|text| text.parse().ok());
    value
        .map(Some)
        .with_context(|| format!("{name} must be a number, not {text:?}"))
}

/// "2G", "512M": bytes.
fn memory(text: &str) -> Result<u64> {
    let wrong = || {
        anyhow!("PRIMESHARE_GUEST_MEM must be a size like 2G or 512M, at least 256M, not {text:?}")
    };
    let (digits, shift) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 30),
        None => (text.strip_suffix(['M', 'm']).ok_or_else(wrong)?, 20),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift));
    bytes
        .filter(|&bytes| (256 << 20..=64 << 30).contains(&bytes))
        .ok_or_else(wrong)
}

/// Why the wait for the guest ended.
enum Waited {
    Ended,
    TimedOut,
    Interrupted(Signal),
}

/// Runs the job in a new guest; the exit status.
pub(crate) fn run(guest: &Guest, mut job: Job, limits: &Limits, verbose: bool) -> Result<u8> {
    job.root = guest.root.clone();
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
    let mut child = start(guest, directory, limits, [&output_end, &error_end])?;
    drop((output_end, error_end));
    let pumps = [
        pump(output, std::io::stdout()),
        pump(error, std::io::stderr()),
    ];
    let waited = wait(&mut child, &signals, limits.timeout, &pumps);
    end(&mut child);
    let passed = pumps.map(|pump| {
        pump.join()
            .unwrap_or_else(|_| Err(std::io::Error::other("a pump panicked")))
    });
    let waited = waited?;

    let messages = String::from_utf8_lossy(&fs::read(directory.join("console"))?).into_owned();
    if verbose {
        eprint!("{messages}");
    }
    let say = |text: &str| eprintln!("xtask: {}: {text}", job.program.display());
    match waited {
        Waited::Ended => {}
        Waited::TimedOut => {
            say(&format!(
                "timed out after {} s",
                limits.timeout.unwrap_or_default().as_secs()
            ));
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
        return Ok(128 + Signal::SIGPIPE as u8);
    }
    let [output, error] =
        passed.map(|passed| passed.context("cannot pass on the program's output"));
    let passed = [output?, error?];

    let report = fs::read_to_string(directory.join(init::REPORT)).ok();
    let report = match report
        .context("no report")
        .and_then(|text| Report::decode(&text))
    {
        Ok(report) => report,
        Err(_) => {
            say("the guest died before the program's end; its last messages:");
            eprint!("{}", last_lines(&directory.join("console"), 40));
            return Ok(GUEST_FAILED);
        }
    };
    judge(&report, passed, &messages, &job.program)
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

/// The exit status for a guest that came to its end.
fn judge(report: &Report, passed: [u64; 2], messages: &str, program: &OsString) -> Result<u8> {
    let say = |text: &str| eprintln!("xtask: {}: {text}", program.display());
    match &report.end {
        End::Exited(_) => {}
        End::Signaled(number) => {
            let name =
                Signal::try_from(i32::from(*number)).map_or("an unknown signal", Signal::as_str);
            say(&format!("killed by {name} (signal {number})"));
        }
        End::NotFound => say("not found in the guest"),
        End::NotExecutable(reason) => say(&format!("cannot be executed: {reason}")),
        End::Failed(reason) => say(&format!("the guest could not be set up: {reason}")),
    }
    if !matches!(report.end, End::Failed(_)) && passed != report.written {
        say(&format!(
            "output got lost: the program wrote {:?} bytes, {passed:?} arrived",
            report.written
        ));
        return Ok(GUEST_FAILED);
    }
    let complaint = console::complaint(messages).or_else(|| {
        let taint = report.taint;
        (taint != 0).then(|| format!("    /proc/sys/kernel/tainted is {taint}\n"))
    });
    if let Some(complaint) = complaint
        && std::env::var_os("PRIMESHARE_GUEST_ALLOW_SPLAT").is_none_or(|value| value != "1")
    {
        say("the guest's kernel complained (PRIMESHARE_GUEST_ALLOW_SPLAT=1 to let it pass):");
        eprint!("{complaint}");
        if report.end == End::Exited(0) {
            return Ok(GUEST_FAILED);
        }
    }
    Ok(report.end.status())
}

/// What ends a run from outside, and the end of the child.
fn watched() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]
    .into_iter()
    .collect()
}

fn start(
    guest: &Guest,
    directory: &Path,
    limits: &Limits,
    output: [&PipeWriter; 2],
) -> Result<Child> {
    let console = File::create(directory.join("console"))?;
    let lines = output.map(|end| end.as_raw_fd());
    let mut command = Command::new(&guest.kernel);
    command.args([
        format!("mem={}M", limits.memory >> 20),
        format!("ncpus={}", limits.processors),
        "seccomp=auto".to_owned(),
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
        format!("ssl0=null,fd:{}", lines[0]),
        format!("ssl1=null,fd:{}", lines[1]),
        "oops=panic".to_owned(),
        "hostname=guest".to_owned(),
        "udmabuf.size_limit_mb=1024".to_owned(),
    ]);
    command
        .env_clear()
        .env("HOME", directory)
        .env("TMPDIR", scratch::memory_directory(limits.memory)?);
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
        .with_context(|| format!("cannot start the guest's kernel {}", guest.kernel.display()))
}

/// In the child, before it becomes the guest.
fn prepare(lines: [RawFd; 2], parent: Pid) -> std::io::Result<()> {
    // Its own session: it gets no signal from the terminal, and all its processes can be ended by group.
    setsid()?;
    // If this program is killed, nobody is left to end the guest: the kernel does it.
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

/// Passes everything on at once, to the end; the number of bytes.
fn pump(
    mut from: PipeReader,
    mut to: impl Write + Send + 'static,
) -> JoinHandle<std::io::Result<u64>> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            to.write_all(&buffer[..count])?;
            to.flush()?;
            total += count as u64;
        }
    })
}

fn wait(
    child: &mut Child,
    signals: &SigSet,
    timeout: Option<Duration>,
    pumps: &[JoinHandle<std::io::Result<u64>>],
) -> Result<Waited> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        if child.try_wait()?.is_some() {
            return Ok(Waited::Ended);
        }
        if pumps.iter().any(JoinHandle::is_finished) {
            // A pump ends with the guest, or because its output cannot be written any more.
            return Ok(Waited::Ended);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Waited::TimedOut);
        }
        let pause = left
            .unwrap_or(Duration::MAX)
            .min(Duration::from_millis(500));
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

/// Ends the guest with all its processes; it may have ended long since.
fn end(child: &mut Child) {
    // Fails if nobody of the group is left, which is what is wanted.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() -> Result<()> {
        assert_eq!(memory("2G")?, 2 << 30);
        assert_eq!(memory("512m")?, 512 << 20);
        for wrong in ["", "G", "2", "-1G", "100M", "999999999999G", "2GB"] {
            assert!(memory(wrong).is_err(), "{wrong:?}");
        }
        Ok(())
    }

    #[test]
    fn lost_output_and_complaints_are_no_success() -> Result<()> {
        let program = OsString::from("x");
        let good = Report {
            end: End::Exited(0),
            written: [5, 0],
            taint: 0,
        };
        assert_eq!(judge(&good, [5, 0], "fine\n", &program)?, 0);
        assert_eq!(judge(&good, [4, 0], "fine\n", &program)?, GUEST_FAILED);
        assert_eq!(
            judge(&good, [5, 0], "[ 1.0] WARNING: CPU: 0\n", &program)?,
            GUEST_FAILED
        );
        let bad = Report {
            end: End::Exited(7),
            written: [0, 0],
            taint: 0,
        };
        assert_eq!(
            judge(&bad, [0, 0], "[ 1.0] WARNING: CPU: 0\n", &program)?,
            7
        );
        Ok(())
    }
}
