//! `primeshare top`: which processes hold which dma-bufs, and how much memory of which GPU.

mod dma_buf;
mod drm_fdinfo;
mod process;
mod report;
mod table;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::print;
use report::Report;

/// How often to look.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Look once. This is the default if standard output is no terminal.
    #[arg(long, conflicts_with = "interval")]
    once: bool,
    /// Look again every so many seconds, until Ctrl-C. The default on a terminal is 2.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    interval: Option<Duration>,
}

const INTERVAL: Duration = Duration::from_secs(2);

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok();
    let interval = parsed.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    interval
        .filter(|interval| *interval >= Duration::from_millis(100))
        .ok_or_else(|| "not a number of seconds, or less than 0.1".to_owned())
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let interval = match (arguments.once, arguments.interval) {
        (true, _) => None,
        (false, None) => is_terminal.then_some(INTERVAL),
        (false, interval) => interval,
    };
    loop {
        let report = look()?;
        let Some(interval) = interval else {
            return match json {
                true => print::json(&report),
                false => print::text(&table::text(&report)),
            };
        };
        match (json, is_terminal) {
            (true, _) => print::line(&serde_json::to_string(&report)?)?,
            (false, true) => redraw(&table::text(&report))?,
            (false, false) => print::text(&format!("{}\n", table::text(&report)))?,
        }
        io::stdout().flush()?;
        std::thread::sleep(interval);
    }
}

fn look() -> Result<Report> {
    let reading = process::read(Path::new("/proc"), Path::new("/sys/kernel/debug"));
    Ok(Report::of(reading.context("cannot list /proc")?))
}

/// Over what is on the terminal, as much as it has room for.
fn redraw(text: &str) -> Result<()> {
    // Some terminals do not know their size, and say 0.
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let size = size.map(|size| (size.ws_row.into(), size.ws_col.into()));
    let known = size.filter(|&(rows, columns)| rows > 0 && columns > 0);
    let screen = screen(text, known.unwrap_or((24, 80)));
    Ok(io::stdout().write_all(screen.as_bytes())?)
}

/// Text from the top left of a terminal of so many rows and columns; each line, and then the rest of the terminal, is
/// cleared behind it.
fn screen(text: &str, (rows, columns): (usize, usize)) -> String {
    let mut screen = "\x1b[H".to_owned();
    let lines = text.lines().count();
    // The last row stays free, so that the terminal does not scroll.
    let shown = match lines < rows {
        true => lines,
        false => rows.saturating_sub(2),
    };
    for line in text.lines().take(shown) {
        screen.extend(line.chars().take(columns));
        screen.push_str("\x1b[K\r\n");
    }
    if shown < lines {
        screen.push_str(&format!("{} more lines: --once\x1b[K", lines - shown));
    }
    screen.push_str("\x1b[J");
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_scrolled() {
        let text = "first line\nsecond\nthird\n";
        let all = "\x1b[Hfirst \x1b[K\r\nsecond\x1b[K\r\nthird\x1b[K\r\n\x1b[J";
        assert_eq!(screen(text, (4, 6)), all);
        let cut = "\x1b[Hfirst line\x1b[K\r\n2 more lines: --once\x1b[K\x1b[J";
        assert_eq!(screen(text, (3, 80)), cut);
        assert_eq!(screen("", (1, 1)), "\x1b[H\x1b[J");
    }

    #[test]
    fn intervals_are_at_least_a_tenth_of_a_second() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "1e300", "two"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
