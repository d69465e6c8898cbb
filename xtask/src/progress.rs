//! Steps that take a while, and how much of them is done: a bar on a terminal, plain lines elsewhere.
//!
//! Several may be under way at once.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Write};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// How often a step prints a line if there is no terminal, so that one sees that it still runs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// How many lines of a log are worth showing when a command failed.
const TAIL: usize = 20;

/// All bars, which share the terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

const WITHOUT_SHARE: &str = "{spinner} {prefix} [{elapsed}] {wide_msg}";
const WITH_SHARE: &str = "{spinner} {prefix} [{elapsed}] {bar:20} {percent:>3} % {wide_msg}";

/// One step of the work, from `start` to `done`. If it is dropped without `done`, it counts as failed.
pub(crate) struct Step {
    label: String,
    started: Instant,
    state: Arc<Mutex<State>>,
    display: Option<Display>,
}

/// What a step is at.
#[derive(Default)]
struct State {
    share: Share,
    note: String,
}

/// How much of a step is done, from 0 to 1. `None` if that is not known yet.
#[derive(Debug, Default, Clone, Copy)]
struct Share(Option<f64>);

impl Share {
    /// Raises the share, but never lowers it: shares are estimates, so a later one can be smaller.
    fn raise(&mut self, to: f64) {
        let most = self.0.unwrap_or(0.0).max(to.clamp(0.0, 1.0));
        self.0 = Some(most);
    }

    /// In whole percent, rounded down, so that 100 % means all of it.
    fn percent(self) -> Option<u64> {
        self.0.map(|share| (share * 100.0) as u64)
    }
}

/// A part of a step, whose share of the step is known.
pub(crate) struct Part<'a> {
    step: &'a Step,
    range: Range<f64>,
}

impl Part<'_> {
    /// Says how much of the part is done, from 0 to 1, and what it is at.
    pub(crate) fn at(&self, share: f64, note: &str) {
        let Range { start, end } = self.range;
        self.step
            .show(Some(start + share.clamp(0.0, 1.0) * (end - start)), note);
    }

    /// A part of this part.
    pub(crate) fn part(&self, range: Range<f64>) -> Part<'_> {
        let Range { start, end } = self.range;
        let of_step = |share: f64| start + share * (end - start);
        Part {
            step: self.step,
            range: of_step(range.start)..of_step(range.end),
        }
    }
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
        let state = Arc::new(Mutex::new(State::default()));
        let display = if is_terminal() {
            terminal(&label)
        } else {
            plain(&label, started, Arc::clone(&state))
        };
        Step {
            label,
            started,
            state,
            display: Some(display),
        }
    }

    /// Says what the step is at.
    pub(crate) fn note(&self, note: String) {
        self.show(None, &note);
    }

    /// A part of the step, given by the shares of the step at which it begins and ends.
    pub(crate) fn part(&self, range: Range<f64>) -> Part<'_> {
        Part { step: self, range }
    }

    fn show(&self, share: Option<f64>, note: &str) {
        let mut state = lock(&self.state);
        if let Some(share) = share {
            state.share.raise(share);
        }
        note.clone_into(&mut state.note);
        if let Some(Display::Terminal(bar)) = &self.display {
            if let Some(percent) = state.share.percent() {
                if bar.length().is_none() {
                    bar.set_length(100);
                    bar.set_style(style(WITH_SHARE));
                }
                bar.set_position(percent);
            }
            bar.set_message(note.to_owned());
        }
    }

    /// The step is through.
    pub(crate) fn done(mut self) {
        self.end("done");
    }

    fn end(&mut self, how: &str) {
        match self.display.take() {
            None => return,
            Some(Display::Terminal(bar)) => {
                bar.finish_and_clear();
                BARS.remove(&bar);
            }
            Some(Display::Plain { stop, teller }) => {
                drop(stop);
                // A teller that panicked has only failed to tell.
                let _ = teller.join();
            }
        }
        let took = seconds(self.started.elapsed());
        say(&format!("{}: {how} ({took})", self.label));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end("failed");
    }
}

/// Prints a line above the bars that there may be.
pub(crate) fn say(line: &str) {
    BARS.suspend(|| eprintln!("{line}"));
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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
    let bar = BARS.add(ProgressBar::no_length());
    bar.set_style(style(WITHOUT_SHARE));
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    Display::Terminal(bar)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn plain(label: &str, started: Instant, state: Arc<Mutex<State>>) -> Display {
    eprintln!("{label} ...");
    let (stop, stopped) = mpsc::channel::<()>();
    let label = label.to_owned();
    let teller = std::thread::spawn(move || {
        while stopped.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
            let elapsed = started.elapsed().as_secs();
            eprintln!("{}", sign_of_life(&label, elapsed, &lock(&state)));
        }
    });
    Display::Plain { stop, teller }
}

fn sign_of_life(label: &str, elapsed: u64, state: &State) -> String {
    let mut line = format!("{label} ... {elapsed} s");
    if let Some(percent) = state.share.percent() {
        line += &format!(", {percent} %");
    }
    if !state.note.is_empty() {
        line += &format!(", {}", state.note);
    }
    line
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

    /// Runs a command to its end (or to this program's, if that is killed): everything it prints goes into the log, and
    /// every line to `on_line`.
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
        let mut output = BufReader::new(reader);
        let mut line = Vec::new();
        while read_line(&mut output, &mut line)? {
            self.file.write_all(&line)?;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            if !text.is_empty() {
                on_line(text);
            }
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

/// Reads a line with its end, which on a terminal may also be that the next is written over it; false if there is none.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    loop {
        let available = match from.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            available => available?,
        };
        let end = available.iter().position(|byte| b"\r\n".contains(byte));
        let taken = end.map_or(available.len(), |end| end + 1);
        line.extend_from_slice(&available[..taken]);
        from.consume(taken);
        if end.is_some() || taken == 0 {
            return Ok(!line.is_empty());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_neither_goes_back_nor_beyond_the_end() {
        let mut share = Share::default();
        assert_eq!(share.percent(), None);
        for (to, shown) in [
            (0.0, 0),
            (0.379, 37),
            (0.2, 37),
            (-1.0, 37),
            (f64::NAN, 37),
            (0.999, 99),
            (7.0, 100),
            (0.5, 100),
        ] {
            share.raise(to);
            assert_eq!(share.percent(), Some(shown), "{to}");
        }
    }

    #[test]
    fn parts_fill_a_step() {
        let step = Step::start("test");
        let percent = || lock(&step.state).share.percent();
        let (first, rest) = (step.part(0.0..0.25), step.part(0.25..1.0));
        first.at(0.5, "");
        assert_eq!(percent(), Some(12));
        // More than there is.
        first.at(2.0, "");
        assert_eq!(percent(), Some(25));
        rest.part(0.0..0.5).at(1.0, "");
        assert_eq!(percent(), Some(62));
        rest.at(1.0, "");
        assert_eq!(percent(), Some(100));
    }

    #[test]
    fn sign_of_life_has_what_is_known() {
        let mut state = State::default();
        assert_eq!(sign_of_life("Test", 30, &state), "Test ... 30 s");
        state.note = "at work".to_owned();
        assert_eq!(sign_of_life("Test", 30, &state), "Test ... 30 s, at work");
        state.share.raise(0.5);
        assert_eq!(
            sign_of_life("Test", 60, &state),
            "Test ... 60 s, 50 %, at work"
        );
    }

    #[test]
    fn lines_end_also_where_they_are_written_over() -> Result<()> {
        let path = std::env::temp_dir().join(format!("xtask-log-{}", std::process::id()));
        let mut log = Log::create(path.clone())?;
        let mut lines = Vec::new();
        let mut print = Command::new("printf");
        let went = log.run(print.arg(r"one\r\ntwo\rthree\n\nfour"), |line| {
            lines.push(line.to_owned());
        });
        std::fs::remove_file(&path)?;
        went?;
        assert_eq!(lines, ["one", "two", "three", "four"]);
        Ok(())
    }
}
