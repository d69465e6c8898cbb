//! Commands that are all run, even if some of them fail.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::progress::seconds;
use crate::{cargo, libtest, shell};

/// A command with a name for people.
pub(crate) struct Job {
    pub(crate) name: String,
    command: Command,
    /// The names of jobs that have to succeed before this one.
    pub(crate) needs: Vec<String>,
    /// Whether the job is only run with `--all`: it is slow, and seldom fails if the others succeed.
    pub(crate) is_extra: bool,
    /// What the job needs and this machine lacks.
    pub(crate) lacks: Option<&'static str>,
}

impl Job {
    pub(crate) fn new(name: impl Into<String>, command: Command) -> Self {
        Job {
            name: name.into(),
            command,
            needs: Vec::new(),
            is_extra: false,
            lacks: None,
        }
    }

    /// Adds a job that has to succeed before this one.
    pub(crate) fn needs(mut self, job: impl Into<String>) -> Self {
        self.needs.push(job.into());
        self
    }

    /// Adds arguments to its command.
    pub(crate) fn with(mut self, arguments: &[OsString]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Says what the job needs and this machine lacks, if anything: it is left out then.
    pub(crate) fn lacks(mut self, what: Option<&'static str>) -> Self {
        self.lacks = what;
        self
    }

    /// Makes this a job that is only run with `--all`.
    pub(crate) fn extra(mut self) -> Self {
        self.is_extra = true;
        self
    }
}

/// Sets a time limit for the guest, so that one that hangs is ended, unless the user has set a limit. With a load of
/// eight on two cores, a job of four minutes may take twenty, so the limit is an hour.
pub(crate) fn limit(command: &mut Command) {
    const VARIABLE: &str = "PRIMESHARE_GUEST_TIMEOUT";
    if std::env::var_os(VARIABLE).is_none() {
        command.env(VARIABLE, "3600");
    }
}

/// How a job went.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// What its tests left out, in words. Empty for a job that was run in full view, whose output is not kept.
    pub(crate) left_out: Vec<String>,
    pub(crate) failure: Option<Failure>,
}

/// Why a job failed, and how to run it again.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status. Never 0, even if the command could not be started.
    pub(crate) code: u8,
    /// What is known of the end of the command, and of the guest that it ran in.
    pub(crate) reasons: Vec<String>,
    /// A line for a shell that runs the job alone.
    pub(crate) again: String,
    /// The tests that failed, and a line that runs only them.
    pub(crate) tests: Vec<String>,
    pub(crate) only_tests: Option<String>,
}

/// Runs a job whose output is shown while it runs.
pub(crate) fn show(
    Job {
        name, mut command, ..
    }: Job,
) -> Ended {
    eprintln!("\n== {name}");
    let start = Instant::now();
    let status = cargo::run(&mut command);
    let took = start.elapsed();
    let failure = failure(&command, status, "");
    Ended {
        name,
        took,
        left_out: Vec::new(),
        failure,
    }
}

/// Runs jobs in their order, `at_once` of them at a time. The output of each is shown when it ends.
pub(crate) fn run(jobs: Vec<Job>, at_once: usize) -> Vec<Ended> {
    let jobs = Mutex::new(VecDeque::from(jobs));
    let ended = Mutex::new(Vec::new());
    let next = || lock(&jobs).pop_front();
    let work = || {
        while let Some(job) = next() {
            let went = one(job);
            lock(&ended).push(went);
        }
    };
    std::thread::scope(|scope| {
        (0..at_once).for_each(|_| drop(scope.spawn(work)));
    });
    ended.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Does both at the same time, and waits for both. If both fail, gives the error of the first.
pub(crate) fn both<A: Send, B>(
    first: impl FnOnce() -> Result<A> + Send,
    second: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        match first.join() {
            Ok(first) => Ok((first?, second?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one(
    Job {
        name, mut command, ..
    }: Job,
) -> Ended {
    eprintln!("{name} ...");
    let start = Instant::now();
    let mut output = Vec::new();
    let status = run_into(&mut output, &mut command);
    let took = start.elapsed();
    let output = String::from_utf8_lossy(&output);
    eprintln!("\n== {name}, {}\n{output}", seconds(took));
    let left_out = libtest::left_out(&output).into_iter();
    let left_out = left_out.map(|(what, tests)| match tests {
        1 => format!("1 test of {name} (needs {what})"),
        _ => format!("{tests} tests of {name} (need {what})"),
    });
    Ended {
        took,
        left_out: left_out.collect(),
        failure: failure(&command, status, &output),
        name,
    }
}

/// Runs a command without input to its end and keeps what it prints.
fn run_into(output: &mut Vec<u8>, command: &mut Command) -> Result<ExitStatus> {
    let (mut reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn();
    // `command` still holds the writing ends of the pipe. The reader sees the end only once they are closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start {command:?}"))?;
    reader.read_to_end(output)?;
    Ok(child.wait()?)
}

fn failure(command: &Command, status: Result<ExitStatus>, output: &str) -> Option<Failure> {
    let (code, reason) = match status {
        Ok(status) if status.success() => return None,
        Ok(status) => (cargo::code(status).max(1), status.to_string()),
        Err(error) => (1, format!("{error:#}")),
    };
    // Messages of cargo's runner, which is this program, about the guest. They may come in the line of a test.
    let is_of_guest = |line: &&str| {
        line.starts_with("xtask: ") || line.starts_with("test ") && line.contains(" ... xtask: ")
    };
    let of_guest = output.lines().filter(is_of_guest);
    let tests = libtest::failed(output);
    let only = libtest::only(command, &tests);
    Some(Failure {
        code,
        reasons: [reason.as_str()]
            .into_iter()
            .chain(of_guest)
            .map(str::to_owned)
            .collect(),
        again: shell::line(command),
        only_tests: (!tests.is_empty()).then(|| shell::line(&only)),
        tests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, script: &str) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Job::new(name, command)
    }

    #[test]
    fn all_are_run() {
        let jobs = (0..5).map(|number| job(&number.to_string(), "true"));
        let ended = run(jobs.collect(), 2);
        let mut names: Vec<_> = ended.iter().map(|ended| &*ended.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["0", "1", "2", "3", "4"]);
        assert!(ended.iter().all(|ended| ended.failure.is_none()));
    }

    #[test]
    fn those_after_a_failure_are_run_too() {
        let jobs = vec![
            job("bad", "exit 3"),
            Job::new("missing", Command::new("/does/not/exist")),
            job("killed", "kill -9 $$"),
            job("good", "true"),
        ];
        let ended = run(jobs, 1);
        let codes = ended
            .iter()
            .map(|ended| ended.failure.as_ref().map(|failure| failure.code));
        assert!(codes.eq([Some(3), Some(1), Some(137), None]));
    }

    #[test]
    fn a_failure_says_which_tests_and_what_became_of_the_guest() {
        let said = [
            "xtask: /x: timed out after 2 s",
            "test a::c ... xtask: /x: the guest died",
        ];
        let script = format!(
            "printf '{}\\nfine\\n{}\\nfailures:\\n    a::b\\n'; exit 124",
            said[0], said[1]
        );
        let failure = run(vec![job("tests", &script)], 1).remove(0).failure;
        let failure = failure.expect("it failed");
        assert_eq!(failure.reasons, ["exit status: 124", said[0], said[1]]);
        assert_eq!(failure.tests, ["a::b"]);
        assert!(failure.again.starts_with("sh -c 'printf "), "{failure:?}");
        assert!(
            failure
                .only_tests
                .is_some_and(|line| line.ends_with("-- --exact a::b"))
        );
    }

    #[test]
    fn what_tests_leave_out_is_said() {
        let script = "printf 'left out: a: needs luck\\nleft out: b: needs luck\\n'";
        let ended = run(vec![job("tests", script)], 1).remove(0);
        assert_eq!(ended.left_out, ["2 tests of tests (need luck)"]);
    }

    #[test]
    fn both_are_waited_for() -> Result<()> {
        let done = Mutex::new(false);
        let failing = || -> Result<()> { anyhow::bail!("no luck") };
        let lasting = || {
            std::thread::sleep(Duration::from_millis(10));
            *lock(&done) = true;
            Ok(())
        };
        let error = both(failing, lasting).unwrap_err();
        assert_eq!(error.to_string(), "no luck");
        assert!(*lock(&done));
        assert_eq!(both(|| Ok(1), || Ok("two"))?, (1, "two"));
        Ok(())
    }
}
