//! Steps that take a while: a spinner on a terminal, plain lines elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// How often a step without a terminal says that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// How many lines of a log are worth showing when a command failed.
const TAIL: usize = 20;

/// One step of the work, from `start` to `done`; dropped without `done`, it counts as failed.
pub(crate) struct Step {
    label: String,
    started: Instant,
    note: Arc<Mutex<String>>,
    display: Option<Display>,
}

enum Display {
    Terminal(ProgressBar),
    Plain {
        stop: Sender<()>,
        teller: JoinHandle<()>,
    },
}

impl Step {
    /// Announces the step.
    pub(crate) fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let started = Instant::now();
        let note = Arc::new(Mutex::new(String::new()));
        let display = if is_terminal() {
            terminal(&label)
        } else {
            plain(&label, started, Arc::clone(&note))
        };
        Step {
            label,
            started,
            note,
            display: Some(display),
        }
    }

    /// Says what the step is at.
    pub(crate) fn note(&self, note: String) {
        if let Some(Display::Terminal(bar)) = &self.display {
            bar.set_message(note);
        } else {
            *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
        }
    }

    /// The step is through.
    pub(crate) fn done(mut self) {
        self.end("done");
    }

    fn end(&mut self, how: &str) {
        match self.display.take() {
            None => return,
            Some(Display::Terminal(bar)) => bar.finish_and_clear(),
            Some(Display::Plain { stop, teller }) => {
                drop(stop);
                // A teller that panicked has only failed to tell.
                let _ = teller.join();
            }
        }
        eprintln!(
            "{}: {how} ({})",
            self.label,
            seconds(self.started.elapsed())
        );
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end("failed");
    }
}

/// A duration as it is shown.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// `TERM=dumb` is how a terminal says that it takes no escape codes.
fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn terminal(label: &str) -> Display {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    Display::Terminal(bar)
}

fn plain(label: &str, started: Instant, note: Arc<Mutex<String>>) -> Display {
    eprintln!("{label} ...");
    let (stop, stopped) = mpsc::channel::<()>();
    let label = label.to_owned();
    let teller = std::thread::spawn(move || {
        while stopped.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
            let note = note.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let elapsed = started.elapsed().as_secs();
            eprintln!("{label} ... {elapsed} s {note}");
        }
    });
    Display::Plain { stop, teller }
}

/// A file that takes everything commands print, to be shown when one fails.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Starts an empty log.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path);
        let file = file.with_context(|| format!("cannot write the log {}", path.display()))?;
        Ok(Log { path, file })
    }

    /// Runs a command to its end (or to this program's, if that is killed): everything it prints goes into the log, and every line to `on_line`.
    pub(crate) fn run(
        &mut self,
        command: &mut Command,
        mut on_line: impl FnMut(&str),
    ) -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        writeln!(self.file, "+ {command:?}")?;
        let (reader, writer) = std::io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        // A group of its own, because mmdebstrap passes a signal on to all of its group; in exchange it has to be told
        // when this program ends.
        command.process_group(0);
        // SAFETY: between fork and exec the closure only makes a system call.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?)) };
        let child = command.spawn();
        // The command holds the writing ends: without this the reader below would never see the end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.with_context(|| format!("cannot start {name}"))?;
        let mut lines = BufReader::new(reader);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? != 0 {
            self.file.write_all(&line)?;
            on_line(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("{name} failed ({status})\n{}", self.tail());
        }
        Ok(())
    }

    /// The last lines, and where the rest is.
    pub(crate) fn tail(&self) -> String {
        format!(
            "{}full log: {}",
            last_lines(&self.path, TAIL),
            self.path.display()
        )
    }
}

/// The last `count` lines of a file, indented; empty if it cannot be read.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let content = std::fs::read(path).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let lines: Vec<&str> = content.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("    {}\n", line.trim_end()))
        .collect()
}
