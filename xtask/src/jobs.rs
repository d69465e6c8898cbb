//! Commands that do not need each other, a few at a time.

use std::collections::VecDeque;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::progress::seconds;

/// A command with a name for people.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) command: Command,
}

impl Job {
    pub(crate) fn new(name: impl Into<String>, command: Command) -> Self {
        let name = name.into();
        Job { name, command }
    }
}

/// How a job went.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
}

/// Runs jobs in their order, `at_once` of them beside each other. What each prints is shown in one piece when it ends.
/// After one that fails none begins any more; those under way are waited for.
pub(crate) fn run(jobs: Vec<Job>, at_once: usize) -> Result<Vec<Ended>> {
    let jobs = Mutex::new(VecDeque::from(jobs));
    let ended = Mutex::new(Vec::new());
    let next = || lock(&jobs).pop_front();
    let work = || -> Result<()> {
        while let Some(job) = next() {
            let went = one(job);
            if went.as_ref().is_ok_and(|ended| ended.status.success()) {
                lock(&ended).extend(went);
                continue;
            }
            lock(&jobs).clear();
            lock(&ended).push(went?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(went) => went?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
    .map(|()| ended.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Does both beside each other, and waits for both whatever happens; the error of the first, if both have one.
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

fn one(Job { name, mut command }: Job) -> Result<Ended> {
    eprintln!("{name} ...");
    let start = Instant::now();
    let (mut reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn();
    // The command holds the writing ends: without this the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start {command:?}"))?;
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let status = child.wait()?;
    let took = start.elapsed();
    let output = String::from_utf8_lossy(&output);
    eprintln!("\n== {name}, {}\n{output}", seconds(took));
    Ok(Ended { name, status, took })
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
    fn all_are_run() -> Result<()> {
        let jobs = (0..5).map(|number| job(&number.to_string(), "true"));
        let ended = run(jobs.collect(), 2)?;
        let mut names: Vec<_> = ended.iter().map(|ended| &*ended.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["0", "1", "2", "3", "4"]);
        assert!(ended.iter().all(|ended| ended.status.success()));
        Ok(())
    }

    #[test]
    fn none_begins_after_a_failure() -> Result<()> {
        let jobs = vec![
            job("good", "true"),
            job("bad", "exit 3"),
            job("late", "true"),
        ];
        let ended = run(jobs, 1)?;
        let codes: Vec<_> = ended.iter().map(|ended| ended.status.code()).collect();
        assert_eq!(codes, [Some(0), Some(3)]);
        Ok(())
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

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let missing = Job::new("missing", Command::new("/does/not/exist"));
        assert!(run(vec![missing], 2).is_err());
    }
}
