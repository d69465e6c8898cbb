//! The first process of the guest: sets it up, runs the one program, reports how it ended, switches off.

use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::MsFlags;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::Pid;

use super::job::Job;
use super::kind::Kind;
use super::outcome::{End, Report};
use super::{clock, left, serial, tree, vkms};

/// The environment variable with the path of the job file; the kernel hands it on from its command line.
pub(crate) const JOB: &str = "PRIMESHARE_JOB";
/// Names beside the job file.
pub(crate) const REPORT: &str = "report";
/// The mount point for the guest's tree, beside the job file.
pub(crate) const TREE: &str = "tree";

/// Whether this process is a guest's first.
pub(crate) fn is_wanted() -> bool {
    std::process::id() == 1 && std::env::var_os(JOB).is_some()
}

/// Does all of it.
pub(crate) fn main() -> ! {
    let job = PathBuf::from(std::env::var_os(JOB).unwrap_or_default());
    match live(&job) {
        Ok(kind) if kind.in_qemu() => loop {
            // QEMU may still hold output, which would be lost at power-off. So the host ends QEMU once it has all output.
            nix::unistd::pause();
        },
        Ok(_) => {}
        // On the console, which the host shows when it finds no report.
        Err(error) => eprintln!("guest init: {error:#}"),
    }
    // Only fails without the privilege, which the first process has.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    std::process::exit(1)
}

fn live(job: &Path) -> Result<Kind> {
    let scratch = job.parent().context("the job has no directory")?;
    let job = Job::decode(&fs::read(job).context("cannot read the job")?)?;
    tree::mount_host(job.guest, scratch, scratch, MsFlags::empty())?;
    // Opened now: once the guest has its own tree, the host's is out of reach.
    let mut report_file = File::create(scratch.join(REPORT)).context("cannot create the report")?;
    let here = File::open(scratch)?;
    let report = set_up(&job, &scratch.join(TREE))
        .and_then(|()| run_and_keep(&job, &here))
        .unwrap_or_else(|error| Report {
            end: End::Failed(format!("{error:#}")),
            written: [0, 0],
            taint: 0,
        });
    // The report says that all is done.
    nix::unistd::sync();
    report_file.write_all(report.encode().as_bytes())?;
    report_file.sync_all().context("cannot write the report")?;
    Ok(job.guest)
}

fn set_up(job: &Job, at: &Path) -> Result<()> {
    tree::build(job, at)?;
    if job.guest.has_second_vkms() {
        vkms::add(at, "second")?;
    }
    tree::enter(at)?;
    // As distributions have it: programs that need more descriptors may raise their own limit.
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 524_288)?;
    Ok(())
}

fn run_and_keep(job: &Job, scratch: &File) -> Result<Report> {
    let copies = left::Copies::before(job)?;
    let report = run(job)?;
    left::collect(job, &copies, scratch)?;
    Ok(report)
}

fn run(job: &Job) -> Result<Report> {
    let (output, output_end) = std::io::pipe()?;
    let (error, error_end) = std::io::pipe()?;
    let mut command = Command::new(&job.program);
    command
        .args(&job.arguments)
        .env_clear()
        .envs(job.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(&job.directory).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(output_end)
        .stderr(error_end);
    let [output_line, error_line] = job.guest.lines();
    let pumps = [pump(output, output_line)?, pump(error, error_line)?];
    clock::tell(serial::open(Path::new(job.guest.clock_line()))?);

    std::env::set_current_dir(&job.directory).with_context(|| {
        format!(
            "the working directory {} is not there: the guest has its own file system",
            job.directory.display()
        )
    })?;
    let end = match command.spawn() {
        Ok(child) => wait_for(Pid::from_raw(child.id().try_into()?))?,
        Err(error) if error.kind() == ErrorKind::NotFound => End::NotFound,
        Err(error) => End::NotExecutable(error.to_string()),
    };
    // The command holds the writing ends of the pipes.
    drop(command);
    end_everyone_else()?;
    let taint = fs::read_to_string("/proc/sys/kernel/tainted")
        .context("cannot ask the kernel how it is")?;
    let [output, error] = pumps.map(|pump| match pump.join() {
        Ok(count) => count.context("cannot pass on the program's output"),
        Err(_) => Err(anyhow!("the pump for the program's output panicked")),
    });
    Ok(Report {
        end,
        written: [output?, error?],
        taint: taint.trim().parse()?,
    })
}

fn pump(from: PipeReader, line: &str) -> Result<thread::JoinHandle<Result<u64>>> {
    let line = serial::open(Path::new(line))?;
    Ok(thread::spawn(move || serial::pump(from, line)))
}

/// Waits for the program, and meanwhile reaps every orphan, as a first process has to.
fn wait_for(program: Pid) -> Result<End> {
    loop {
        match wait()? {
            WaitStatus::Exited(pid, status) if pid == program => {
                return Ok(End::Exited(status.try_into()?));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == program => {
                return Ok(End::Signaled((signal as i32).try_into()?));
            }
            _ => {}
        }
    }
}

/// Ends processes that the program has left behind: they hold the pipes open, and nothing outlives the program here.
fn end_everyone_else() -> Result<()> {
    if kill(Pid::from_raw(-1), Signal::SIGKILL).is_ok() {
        while waitpid(None, None).is_ok() {}
    }
    Ok(())
}
