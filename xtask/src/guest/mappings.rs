//! Notices if a guest comes near the host's limit of mappings. Without that, a guest at the limit just seems to hang.
//!
//! User-Mode Linux has a process of the host's for each of the guest's, with a mapping for every run of pages that lie
//! together in its memory. Once there are as many as the host allows, page faults in the guest never end (Linux 7.2), or
//! the process dies of SIGSEGV (6.12).

use std::fs;
use std::time::{Duration, Instant};

/// How often to look.
const PAUSE: Duration = Duration::from_secs(1);
/// A process that always has all but this many of the mappings that it may have stands still.
const NEAR: usize = 16;
const LOOKS: u32 = 5;

/// The mappings of a guest's processes.
pub(super) struct Mappings {
    group: u32,
    most: Option<usize>,
    next: Instant,
    warned: bool,
    /// How often in a row a process was at the limit.
    full: u32,
}

impl Mappings {
    /// The mappings of this process group.
    pub(super) fn of(group: u32) -> Self {
        let most = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        Mappings {
            group,
            most: most.and_then(|most| most.trim().parse().ok()),
            next: Instant::now() + PAUSE,
            warned: false,
            full: 0,
        }
    }

    /// Whether one of the processes is at the limit, and stays there. Prints a message, once, when one comes near.
    pub(super) fn are_exhausted(&mut self) -> bool {
        let Some(most) = self.most.filter(|_| Instant::now() >= self.next) else {
            return false;
        };
        self.next = Instant::now() + PAUSE;
        let has = count(self.group);
        if has > most / 10 * 9 && !self.warned {
            self.warned = true;
            eprintln!(
                "xtask: a process of the guest has {has} mappings on the host, which allows {most}: at the limit \
                 its page faults never end, or it dies of SIGSEGV. Run fewer tests in one process, or raise the limit: \
                 sudo sysctl vm.max_map_count={}",
                most * 4
            );
        }
        self.full = match has + NEAR >= most {
            true => self.full + 1,
            false => 0,
        };
        self.full >= LOOKS
    }
}

/// Mappings of the process of this group that has most.
fn count(group: u32) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_group = processes.filter(|process| {
        // `pid (name) state ppid pgrp`, and the name may be anything.
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let pgrp = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(2));
        pgrp.and_then(|pgrp| pgrp.parse().ok()) == Some(group)
    });
    let maps = of_group.filter_map(|process| fs::read(process.path().join("maps")).ok());
    let counts = maps.map(|maps| maps.iter().filter(|byte| **byte == b'\n').count());
    counts.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_limit(most: usize) -> Mappings {
        Mappings {
            most: Some(most),
            next: Instant::now(),
            ..Mappings::of(nix::unistd::getpgrp().as_raw() as u32)
        }
    }

    /// The results of several looks, without pauses between them.
    fn looks(mut mappings: Mappings) -> Vec<bool> {
        let mut look = || {
            mappings.next = Instant::now();
            mappings.are_exhausted()
        };
        (0..LOOKS).map(|_| look()).collect()
    }

    #[test]
    fn only_who_stays_at_the_limit_is_found_there() {
        let mut expected = vec![false; LOOKS as usize];
        assert_eq!(looks(with_limit(usize::MAX / 2)), expected);
        expected[LOOKS as usize - 1] = true;
        assert_eq!(looks(with_limit(NEAR)), expected);
    }

    #[test]
    fn own_mappings_are_counted() {
        let group = nix::unistd::getpgrp().as_raw() as u32;
        assert!(count(group) > 10);
        assert_eq!(count(u32::MAX), 0);
    }
}
