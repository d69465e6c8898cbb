//! Whether a run that came to its end was a success.

use std::ffi::OsString;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::console;
use super::outcome::{End, GUEST_FAILED, Report};

/// `TAINT_SOFTLOCKUP`, which the kernel sets when sw_sync, a device for tests, makes a fence: a program could
/// deadlock it with those (`drivers/dma-buf/sw_sync.c`). A real soft lockup has a message too.
const SW_SYNC: u64 = 1 << 14;

/// The exit status for a guest that came to its end.
pub(crate) fn judge(
    report: &Report,
    passed: [u64; 2],
    messages: &str,
    program: &OsString,
) -> Result<u8> {
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
        let taint = report.taint & !SW_SYNC;
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let tainted = |taint| Report {
            end: End::Exited(0),
            written: [5, 0],
            taint,
        };
        assert_eq!(judge(&tainted(SW_SYNC), [5, 0], "fine\n", &program)?, 0);
        assert_eq!(
            judge(&tainted(SW_SYNC | 512), [5, 0], "fine\n", &program)?,
            GUEST_FAILED
        );
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
