//! Whether the guest's clock keeps time with the host's.
//!
//! An emulated kernel measures its processor's counter against an emulated timer. On a busy host that went wrong, and
//! the guest's clock ran seven to nine times too fast: every time-out in it came too early. The kernel does not need to
//! measure any more ([`counter_rate`]). If a clock runs away for another reason, the guest is ended with an error.
//!
//! The guest's first process writes what its clock says to a line of its own, once a second; the host compares.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How often the guest tells its time.
const BEAT: Duration = Duration::from_secs(1);
/// A clock this many times faster than the host's is wrong.
const FACTOR: u32 = 2;
/// How far it may be ahead besides, since a short time says little.
const SLACK: Duration = Duration::from_secs(20);

/// In the guest: tells what its clock says, until the guest ends.
pub(super) fn tell(mut line: File) {
    let start = Instant::now();
    thread::spawn(move || {
        // Ends if nobody listens any more.
        while writeln!(line, "{}", start.elapsed().as_millis()).is_ok() {
            thread::sleep(BEAT);
        }
    });
}

/// On the host: listens to what the guest's clock says.
pub(super) struct Listener {
    found: Arc<Mutex<Option<String>>>,
    /// Ends with the guest.
    _thread: JoinHandle<()>,
}

impl Listener {
    /// Listens until the guest's end. To be made before the guest is started: a beat that is late, because the host
    /// is busy or this program was stopped, then makes no clock look fast.
    pub(super) fn start(beats: PipeReader) -> Self {
        let found = Arc::new(Mutex::new(None));
        let finding = Arc::clone(&found);
        let start = host_time();
        let thread = thread::spawn(move || {
            for line in BufReader::new(beats).lines().map_while(Result::ok) {
                let Ok(guest) = line.trim().parse() else {
                    continue;
                };
                let host = host_time().saturating_sub(start);
                if let Some(complaint) = complaint(Duration::from_millis(guest), host) {
                    *finding.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint);
                    return;
                }
            }
        });
        Listener {
            found,
            _thread: thread,
        }
    }

    /// What is wrong with the clock, if it is.
    pub(super) fn complaint(&self) -> Option<String> {
        let found = self.found.lock();
        found.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The host's clock, which goes on while the host is suspended, as the counter does that an emulated guest goes by.
fn host_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// What is wrong if this much time has passed by the guest's clock, and by the host's clock since before the guest began.
fn complaint(guest: Duration, host: Duration) -> Option<String> {
    if guest <= host * FACTOR + SLACK {
        return None;
    }
    let [guest, host] = [guest, host].map(|passed| passed.as_secs_f64());
    Some(format!(
        "the guest's clock is too fast: {guest:.1} s passed by it, {host:.1} s on the host"
    ))
}

/// How fast the processor's time stamp counter counts, in kHz, measured against the system's clock.
#[cfg(target_arch = "x86_64")]
pub(super) fn counter_rate() -> u64 {
    /// How long to measure. The longer, the more exact: the error is some 0.1 us at each end.
    const LONG: Duration = Duration::from_millis(20);
    let (start, counter) = reading();
    thread::sleep(LONG);
    let (end, counted) = reading();
    let passed = (end - start).as_nanos().max(1);
    let rate = u128::from(counted.wrapping_sub(counter)) * 1_000_000 / passed;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Clock and counter at the same moment. Of several pairs the one that was read most quickly, since the others may have
/// been interrupted in between.
#[cfg(target_arch = "x86_64")]
fn reading() -> (Instant, u64) {
    // SAFETY: every x86-64 processor has the instruction.
    let counter = || unsafe { std::arch::x86_64::_rdtsc() };
    let one = || {
        let (before, now, after) = (counter(), Instant::now(), counter());
        let took = after.wrapping_sub(before);
        (took, (now, before.wrapping_add(took / 2)))
    };
    let quickest = (0..32).map(|_| one()).min_by_key(|(took, _)| *took);
    quickest.unwrap_or_else(one).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(guest: u64, host: u64) -> Option<String> {
        complaint(Duration::from_secs(guest), Duration::from_secs(host))
    }

    #[test]
    fn a_clock_that_runs_away_is_found_and_a_late_beat_is_none() {
        for fine in [(0, 0), (1000, 1000), (1010, 1000), (0, 1000), (19, 0)] {
            assert_eq!(seconds(fine.0, fine.1), None, "{fine:?}");
        }
        // Seven times too fast is found after four seconds.
        assert!(seconds(29, 4).is_some_and(|text| text.contains("too fast: 29.0 s")));
    }

    fn heard(beats: &str) -> anyhow::Result<Option<String>> {
        let (reader, mut writer) = std::io::pipe()?;
        let listener = Listener::start(reader);
        writer.write_all(beats.as_bytes())?;
        drop(writer);
        while !listener._thread.is_finished() {
            thread::yield_now();
        }
        Ok(listener.complaint())
    }

    #[test]
    fn what_a_guest_tells_is_listened_to() -> anyhow::Result<()> {
        assert_eq!(heard("1000\nno number\n2000\n")?, None);
        // A year.
        assert!(heard("1000\n31536000000\n")?.is_some());
        Ok(())
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_of_the_counter_agree() {
        let (one, other) = (counter_rate(), counter_rate());
        assert!(
            one > 100_000 && one.abs_diff(other) < one / 100,
            "{one} and {other}"
        );
    }
}
