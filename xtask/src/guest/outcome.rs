//! How a run ended: the guest's report, and the exit status that follows from it.

use anyhow::{Context, Result, bail};

/// The run took too long.
pub(crate) const TIMED_OUT: u8 = 124;
/// The guest itself failed, or its kernel complained.
pub(crate) const GUEST_FAILED: u8 = 125;
/// The program is there and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
pub(crate) const NOT_FOUND: u8 = 127;

/// How the program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Exited(u8),
    Signaled(u8),
    NotFound,
    NotExecutable(String),
    /// The guest could not be set up for it.
    Failed(String),
}

/// What the guest reports when everything else is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) end: End,
    /// How many bytes the program wrote to standard output and standard error.
    pub(crate) written: [u64; 2],
    /// The kernel's own record of what went wrong in it (`/proc/sys/kernel/tainted`); 0 is nothing.
    pub(crate) taint: u64,
}

impl Report {
    /// As text for the file.
    pub(crate) fn encode(&self) -> String {
        let [output, error] = self.written;
        let end = match &self.end {
            End::Exited(status) => format!("exited {status}"),
            End::Signaled(signal) => format!("signaled {signal}"),
            End::NotFound => "not-found".to_owned(),
            End::NotExecutable(reason) => format!("not-executable {reason}"),
            End::Failed(reason) => format!("failed {reason}"),
        };
        // The last line proves that the rest is complete.
        format!("{output} {error} {}\n{end}\nend\n", self.taint)
    }

    /// From the text of the file.
    pub(crate) fn decode(text: &str) -> Result<Self> {
        let body = text.strip_suffix("\nend\n").context("no complete report")?;
        let (numbers, end) = body.split_once('\n').context("a report without an end")?;
        let numbers: Vec<u64> = numbers
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [output, error, taint] = numbers[..] else {
            bail!("a report without its numbers")
        };
        let (kind, detail) = end.split_once(' ').unwrap_or((end, ""));
        let end = match kind {
            "exited" => End::Exited(detail.parse()?),
            "signaled" => End::Signaled(detail.parse()?),
            "not-found" => End::NotFound,
            "not-executable" => End::NotExecutable(detail.to_owned()),
            "failed" => End::Failed(detail.to_owned()),
            _ => bail!("an unknown report: {end}"),
        };
        Ok(Report {
            end,
            written: [output, error],
            taint,
        })
    }
}

impl End {
    /// The exit status, as shells have it.
    pub(crate) fn status(&self) -> u8 {
        match self {
            End::Exited(status) => *status,
            End::Signaled(signal) => signal.saturating_add(128),
            End::NotFound => NOT_FOUND,
            End::NotExecutable(_) => NOT_EXECUTABLE,
            End::Failed(_) => GUEST_FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() -> Result<()> {
        let ends = [
            End::Exited(7),
            End::Signaled(11),
            End::NotFound,
            End::NotExecutable("wrong format".to_owned()),
            End::Failed("two\nlines".to_owned()),
        ];
        for end in ends {
            let report = Report {
                end,
                written: [1, 1 << 40],
                taint: 512,
            };
            assert_eq!(Report::decode(&report.encode())?, report);
        }
        Ok(())
    }

    #[test]
    fn what_is_cut_short_is_no_report() {
        let text = Report {
            end: End::Exited(0),
            written: [0, 0],
            taint: 0,
        }
        .encode();
        for length in 0..text.len() {
            assert!(
                Report::decode(&text[..length]).is_err(),
                "{:?}",
                &text[..length]
            );
        }
    }

    #[test]
    fn status_is_the_shells() {
        assert_eq!(End::Exited(0).status(), 0);
        assert_eq!(End::Signaled(11).status(), 139);
        assert_eq!(End::NotFound.status(), 127);
    }
}
