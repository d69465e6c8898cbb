//! `primeshare matrix`: every strategy for every ordered pair of DRM devices.
//!
//! The JSON report is an interface for scripts: add fields, and rename none.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use comfy_table::CellAlignment;
use primeshare::blit::{Attempt, BlitInfo, Options, Outcome, Strategy, Verdict};
use primeshare::{DmaBuf, Fourcc, Request, gem};
use serde::Serialize;

use crate::machine::{self, Machine, Member, NotAllocated, PATIENCE};
use crate::print;

/// What the pictures are.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Width and height in pixels.
    #[arg(long, default_value = "1920x1080", value_parser = machine::size)]
    size: (u32, u32),
    /// Pixel format, by its name (XRGB8888) or its four characters (XR24).
    #[arg(long, default_value = "XR24")]
    format: Fourcc,
    /// Leave out Vulkan devices that compute on the CPU.
    #[arg(long)]
    no_software: bool,
}

#[derive(Serialize)]
struct Report {
    width: u32,
    height: u32,
    format: String,
    pairs: Vec<Pair>,
    /// What could not be opened or asked.
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Pair {
    source: String,
    destination: String,
    /// Short names of both, for the table.
    #[serde(skip)]
    labels: [String; 2],
    /// Whether the destination's driver imports the source's memory (PRIME_FD_TO_HANDLE).
    import: Option<bool>,
    /// Why it does not: an errno, mostly.
    import_error: Option<String>,
    /// Why there was nothing to try.
    error: Option<String>,
    chosen: Option<&'static str>,
    strategies: BTreeMap<&'static str, Line>,
}

#[derive(Serialize)]
struct Line {
    works: bool,
    /// Whether what arrived was compared with what was sent.
    verified: bool,
    bytes_per_second: Option<f64>,
    reason: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let Machine { members, failed } = Machine::open(arguments.no_software)?;
    let (width, height) = arguments.size;
    let request = Request::new(width, height, arguments.format);
    let allocate = |member: &Member| member.allocate(&request).map(|(_, buffer)| buffer);
    let buffers: Vec<_> = members.iter().map(allocate).collect();
    let progress = machine::progress(members.len() * members.len());
    let mut pairs = Vec::new();
    for (source, buffer) in members.iter().zip(&buffers) {
        for destination in &members {
            progress.set_message(format!("{} to {}", source.device, destination.device));
            pairs.push(pair([source, destination], buffer, &request)?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let report = Report {
        width,
        height,
        format: arguments.format.to_string(),
        pairs,
        failed,
    };
    if json {
        return print::json(&report);
    }
    show(&report)
}

fn pair(
    [source, destination]: [&Member; 2],
    buffer: &Result<DmaBuf, NotAllocated>,
    request: &Request,
) -> Result<Pair> {
    let mut pair = Pair {
        source: source.device.to_string(),
        destination: destination.device.to_string(),
        labels: [source, destination].map(|member| member.label.clone()),
        import: None,
        import_error: None,
        error: None,
        chosen: None,
        strategies: BTreeMap::new(),
    };
    // A buffer of its own at the destination: within one device, too, something is to be copied.
    let buffers = buffer.clone().and_then(|from| {
        let (_, to) = destination.allocate(request)?;
        Ok((from, to))
    });
    let (from, to) = match buffers {
        Ok(buffers) => buffers,
        Err(why) => {
            pair.error = Some(why.to_string());
            return Ok(pair);
        }
    };
    let blitter = source.blitter_to(destination, &Options::default())?;
    let info = BlitInfo::default();
    let mut verdict = blitter.settle_wait(&from, &to, &info, PATIENCE)?;
    let made = blitter.blit(&from, &to, &info)?.wait(PATIENCE);
    pair.error = made.err().map(|failure| failure.to_string());
    verdict.imports = blitter.ask_drivers(&from, &to);
    pair.chosen = verdict.chosen.map(Strategy::name);
    pair.strategies = lines(&verdict);
    let [import, _] = verdict.imports;
    pair.import = import.as_ref().map(Result::is_ok);
    pair.import_error = import.and_then(Result::err).map(|error| match error {
        gem::Error::Import { errno, .. } => format!("{errno:?}"),
        other => other.to_string(),
    });
    Ok(pair)
}

fn lines(verdict: &Verdict) -> BTreeMap<&'static str, Line> {
    let line = |attempt: &Attempt| match &attempt.outcome {
        Outcome::Works {
            verified,
            bytes_per_second,
        } => Line {
            works: true,
            verified: *verified,
            bytes_per_second: *bytes_per_second,
            reason: attempt.held_back.map(|why| why.to_string()),
        },
        other => Line {
            works: false,
            verified: false,
            bytes_per_second: None,
            reason: Some(other.to_string()),
        },
    };
    let attempts = verdict.attempts.iter();
    attempts.map(|a| (a.strategy.name(), line(a))).collect()
}

fn show(report: &Report) -> Result<()> {
    print::line(&format!(
        "{}x{} {}, LINEAR: MiB/s by each strategy, * the one in use, [n] why not, also if it is faster (below)",
        report.width, report.height, report.format
    ))?;
    print::line(
        "import: whether the destination's driver takes the source's memory, or its errno",
    )?;
    print::line("")?;
    // In two lines, to be narrow.
    let strategies = Strategy::ALL
        .iter()
        .copied()
        .map(|strategy| strategy.name().replacen('-', "-\n", 1));
    let head = ["from", "to", "import"].map(str::to_owned).into_iter();
    let mut table = print::table(&head.chain(strategies).collect::<Vec<_>>());
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // Reasons are long, and mostly the same: they are numbered, and told below.
    let mut reasons: Vec<String> = Vec::new();
    let mut number = |reason: &str| {
        let known = reasons.iter().position(|known| known == reason);
        let at = known.unwrap_or_else(|| {
            reasons.push(reason.to_owned());
            reasons.len() - 1
        });
        format!("[{}]", at + 1)
    };
    for pair in &report.pairs {
        let mut row = pair.labels.to_vec();
        row.push(match (pair.import, pair.import_error.as_deref()) {
            (Some(true), _) => "yes".to_owned(),
            (_, Some(errno)) if !errno.contains(' ') => errno.to_owned(),
            (_, Some(why)) => number(why),
            (_, None) => "-".to_owned(),
        });
        for &strategy in Strategy::ALL {
            let mark = match pair.chosen == Some(strategy.name()) {
                true => "*",
                false => "",
            };
            row.push(match pair.strategies.get(strategy.name()) {
                Some(line) if line.works => {
                    let rate = line.bytes_per_second;
                    let rate = rate.map_or("works".to_owned(), mebibytes);
                    match &line.reason {
                        Some(why) => format!("{mark}{rate} {}", number(why)),
                        None => format!("{mark}{rate}"),
                    }
                }
                Some(line) => number(line.reason.as_deref().unwrap_or("no reason")),
                None => number(pair.error.as_deref().unwrap_or("no reason")),
            });
        }
        table.add_row(row);
    }
    print::show(&table)?;
    if !reasons.is_empty() {
        print::line("")?;
    }
    for (index, reason) in reasons.iter().enumerate() {
        print::line(&format!("[{}] {reason}", index + 1))?;
    }
    for failed in &report.failed {
        print::line(failed)?;
    }
    Ok(())
}

/// In one unit, so that the eye can compare; three digits at least, so that small ones show.
fn mebibytes(bytes_per_second: f64) -> String {
    let rate = bytes_per_second / f64::from(1 << 20);
    let digits = rate.max(1e-6).log10().floor();
    format!("{rate:.0$}", (2.0 - digits).max(0.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::mebibytes;

    #[test]
    fn rates_of_tiny_pictures_show_something() {
        let mebibyte = f64::from(1 << 20);
        assert_eq!(mebibytes(12_345.6 * mebibyte), "12346");
        assert_eq!(mebibytes(12.345 * mebibyte), "12.3");
        assert_eq!(mebibytes(0.004_562 * mebibyte), "0.00456");
    }
}
