//! Whether the guest's clock keeps time with the host's.
//!
//! An emulated kernel measures its processor's counter against an emulated timer. On a busy host that went wrong, and
//! the guest's clock ran seven to nine times too fast: every time-out in it came too early. The measurement is not
//! needed any more ([`counter_rate`]); should a clock run away for another reason, the guest is ended and says why.
//!
//! The guest's first process writes what its clock says to a line of its own, once a second; the host compares.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the guest tells its time.
const BEAT: Duration = Duration::from_secs(1);
/// A clock that is so many times as fast as the host's, or as slow, is no clock.
const FACTOR: u32 = 2;
/// What a busy host may add to the way of a beat: that must not pass for a clock that is fast or slow.
const SLACK: Duration = Duration::from_secs(20);

/// In the guest: tells what its clock says, until the guest ends.
pub(super) fn tell(mut line: File) {
    let start = Instant::now();
    thread::spawn(move || {
        // Without a listener there is nobody to tell.
        while writeln!(line, "{}", start.elapsed().as_millis()).is_ok() {
            thread::sleep(BEAT);
        }
    });
}

/// On the host: listens to what the guest's clock says.
pub(super) struct Listener(Arc<Mutex<Option<String>>>);

impl Listener {
    /// Listens until the guest's end.
    pub(super) fn start(beats: PipeReader) -> Self {
        let found = Arc::new(Mutex::new(None));
        let finding = Arc::clone(&found);
        thread::spawn(move || {
            let mut first = None;
            for line in BufReader::new(beats).lines().map_while(Result::ok) {
                let Ok(guest) = line.trim().parse() else {
                    continue;
                };
                let now = (Duration::from_millis(guest), Instant::now());
                let (guest, host) = *first.get_or_insert(now);
                let passed = (now.0.saturating_sub(guest), now.1 - host);
                if let Some(complaint) = complaint(passed.0, passed.1) {
                    *finding.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint);
                    return;
                }
            }
        });
        Listener(found)
    }

    /// What is wrong with the clock, if it is.
    pub(super) fn complaint(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What is wrong where so much time has passed by the guest's clock and by the host's.
fn complaint(guest: Duration, host: Duration) -> Option<String> {
    let how = if guest > host * FACTOR + SLACK {
        "fast"
    } else if host > guest * FACTOR + SLACK {
        "slow"
    } else {
        return None;
    };
    let [guest, host] = [guest, host].map(|passed| passed.as_secs_f64());
    Some(format!(
        "the guest's clock is too {how}: {guest:.1} s passed by it, {host:.1} s on the host"
    ))
}

/// How fast the processor's time stamp counter counts, in kHz, measured against the system's clock.
#[cfg(target_arch = "x86_64")]
pub(super) fn counter_rate() -> u64 {
    /// The longer, the more exact: what is in doubt is some 0.1 us at each end.
    const LONG: Duration = Duration::from_millis(20);
    let (start, counter) = reading();
    thread::sleep(LONG);
    let (end, counted) = reading();
    let passed = (end - start).as_nanos().max(1);
    let rate = u128::from(counted.wrapping_sub(counter)) * 1_000_000 / passed;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Clock and counter at the same moment: the pair, of some, that was read the quickest, since any other may have been
/// interrupted in between.
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
    fn a_clock_that_runs_away_is_found_and_a_busy_host_is_none() {
        for fine in [
            (0, 0),
            (1000, 1000),
            (1010, 1000),
            (1000, 1010),
            (19, 0),
            (0, 19),
        ] {
            assert_eq!(seconds(fine.0, fine.1), None, "{fine:?}");
        }
        // Seven times too fast is found after four seconds.
        assert!(seconds(29, 4).is_some_and(|text| text.contains("too fast: 29.0 s")));
        assert!(seconds(4, 29).is_some_and(|text| text.contains("too slow")));
    }

    #[test]
    fn what_a_guest_tells_is_listened_to() -> anyhow::Result<()> {
        let (reader, mut writer) = std::io::pipe()?;
        let listener = Listener::start(reader);
        writeln!(writer, "1000\nno number\n2000\n")?;
        assert_eq!(listener.complaint(), None);
        writeln!(writer, "900000000")?;
        while listener.complaint().is_none() {
            thread::yield_now();
        }
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
