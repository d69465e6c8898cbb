//! Whether a copy by the CPU is made by one thread or by several.
//!
//! How much several threads gain depends on the memory and on what else runs, so it is measured on
//! the copies themselves.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::blit::damage::{Rect, Rects};

/// Kinds of copies, which differ in what a byte costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Bytes of cached memory are copied or rearranged.
    Plain,
    /// Bytes of uncached memory are copied or rearranged.
    Uncached,
    /// Pixels are decoded and encoded.
    Pixels,
}

impl Work {
    /// The least bytes for which several threads are considered: starting them takes about as long as such
    /// a copy.
    fn least_bytes(self) -> u64 {
        match self {
            Self::Plain => 4 << 20,
            // These are about ten times as slow.
            Self::Uncached | Self::Pixels => 512 << 10,
        }
    }
}

/// The most threads of one copy. Fewer are enough to use up a memory bus.
pub(super) const MOST: usize = 8;

/// One thing for each thread of a copy.
pub(super) type OfThreads<T> = ArrayVec<T, MOST>;

/// How many copies by one thread, and how many by several, are measured before the better way is kept.
const TRIALS: u32 = 3;

/// The other way is measured again after the first number of copies. Each time that it is still worse, the
/// number doubles, up to the second one.
const AGAIN: (u32, u32) = (32, 1024);

/// How many classes of sizes there are. Each begins at twice the bytes of the class before.
const CLASSES: usize = 6;

/// Whether one thread or several are better, by kind of work and class of size.
#[derive(Debug)]
pub(super) struct Threads {
    most: usize,
    learned: [[Learned; CLASSES]; 3],
}

/// How a copy is to be made. [`Threads::learn`] takes it back, with the time that the copy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Team {
    /// How many threads.
    pub(super) threads: usize,
    class: Option<(Work, usize)>,
    bytes: u64,
}

impl Threads {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with(cores.min(MOST))
    }

    fn with(most: usize) -> Self {
        Self {
            most,
            learned: Default::default(),
        }
    }

    pub(super) fn choose(&self, work: Work, bytes: u64) -> Team {
        let least = work.least_bytes();
        if self.most < 2 || bytes < least {
            return Team {
                threads: 1,
                class: None,
                bytes,
            };
        }
        let class = (bytes / least).ilog2() as usize;
        let class = class.min(CLASSES - 1);
        let several = self.learned[work as usize][class].is_for_several();
        Team {
            threads: if several { self.most } else { 1 },
            class: Some((work, class)),
            bytes,
        }
    }

    /// Notes how long `team` has taken for a copy.
    pub(super) fn learn(&mut self, team: Team, took: Duration) {
        if let Some((work, class)) = team.class {
            // By the byte, since sizes within a class differ by up to two times.
            let each = took.as_secs_f64() / team.bytes as f64;
            self.learned[work as usize][class].learn(team.threads > 1, each);
        }
    }
}

/// What was measured in one class: seconds a byte by one thread and by several.
#[derive(Clone, Copy, Debug, Default)]
struct Learned {
    one: Mean,
    several: Mean,
    /// How many copies were made since the worse way was measured, and after how many it is measured again.
    since: u32,
    again: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    seconds: f64,
    count: u32,
}

impl Mean {
    /// Adds a measurement. Of the trials the best counts, since the first copies may have to wait for memory
    /// to be mapped. After the trials it is a mean that forgets old measurements.
    fn add(&mut self, seconds: f64) {
        self.seconds = match self.count {
            0 => seconds,
            count if count < TRIALS => self.seconds.min(seconds),
            _ => self.seconds * 0.75 + seconds * 0.25,
        };
        self.count = self.count.saturating_add(1);
    }
}

impl Learned {
    fn is_for_several(&self) -> bool {
        if self.one.count < TRIALS || self.several.count < TRIALS {
            // Both ways in turns, since a processor gets faster during the first copies.
            return self.several.count < self.one.count;
        }
        let is_due = self.since >= self.again.max(AGAIN.0);
        self.several_is_better() != is_due
    }

    /// Several threads have to be clearly faster, since other programs could use these processors.
    fn several_is_better(&self) -> bool {
        self.several.seconds < self.one.seconds * 0.9
    }

    fn learn(&mut self, several: bool, seconds: f64) {
        let was_better = self.several_is_better();
        match several {
            true => self.several.add(seconds),
            false => self.one.add(seconds),
        }
        match several == was_better {
            true => self.since = self.since.saturating_add(1),
            false => {
                self.since = 0;
                let changed = self.several_is_better() != was_better;
                self.again = match changed {
                    true => AGAIN.0,
                    false => (self.again.max(AGAIN.0) * 2).min(AGAIN.1),
                };
            }
        }
    }
}

/// Divides rectangles into bands of rows, from top to bottom, with about the same number of pixels each.
/// There are never more than `count` bands nor than [`MOST`], and none without pixels. Bands begin at multiples
/// of `step` rows.
pub(super) fn bands(rects: &[Rect], count: usize, step: u32) -> OfThreads<Rects> {
    let count = count.min(MOST);
    let bottom = |rect: &Rect| rect.y.saturating_add(rect.height);
    let Some(end) = rects.iter().map(bottom).max() else {
        return OfThreads::new();
    };
    let start = rects.iter().map(|rect| rect.y).min().unwrap_or(0);
    let above = |row: u32| -> u64 {
        let part = |rect: &Rect| {
            let rows = row.min(bottom(rect)).saturating_sub(rect.y);
            u64::from(rows) * u64::from(rect.width)
        };
        rects.iter().map(part).sum()
    };
    let all = above(end);
    let mut cuts = ArrayVec::<u32, { MOST + 1 }>::from_iter([start]);
    for band in 1..count as u64 {
        let wanted = all * band / count as u64;
        // Finds the first row above which there are that many pixels.
        let (mut low, mut high) = (start, end);
        while low < high {
            let middle = low + (high - low) / 2;
            match above(middle) >= wanted {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        let cut = low.checked_next_multiple_of(step.max(1)).unwrap_or(end);
        cuts.push(cut.min(end));
    }
    cuts.push(end);
    let band = |rows: &[u32]| -> Rects {
        let part = |rect: &Rect| {
            let (top, low) = (rect.y.max(rows[0]), bottom(rect).min(rows[1]));
            let part = Rect {
                y: top,
                height: low.saturating_sub(top),
                ..*rect
            };
            (part.area() > 0).then_some(part)
        };
        rects.iter().filter_map(part).collect()
    };
    let bands = cuts.windows(2).map(band);
    bands.filter(|band| !band.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: u64 = 33 << 20;

    /// Makes copies that take these times by one thread and by several. Says by how many threads each was
    /// made.
    fn run(threads: &mut Threads, copies: u32, (one, several): (u64, u64)) -> Vec<usize> {
        let copy = |_| {
            let team = threads.choose(Work::Plain, BIG);
            let took = if team.threads > 1 { several } else { one };
            threads.learn(team, Duration::from_micros(took));
            team.threads
        };
        (0..copies).map(copy).collect()
    }

    #[test]
    fn both_are_measured_and_the_better_is_kept() {
        let mut threads = Threads::with(4);
        let first = run(&mut threads, 6, (9000, 3000));
        assert_eq!(first, [1, 4, 1, 4, 1, 4]);
        assert_eq!(run(&mut threads, 20, (9000, 3000)), [4; 20]);
        let mut threads = Threads::with(4);
        run(&mut threads, 6, (3000, 3000));
        // Several threads that are only as fast as one are not better.
        assert_eq!(run(&mut threads, 20, (3000, 3000)), [1; 20]);
    }

    #[test]
    fn the_worse_is_measured_again_ever_more_rarely() {
        let mut threads = Threads::with(2);
        let copies = run(&mut threads, 4000, (1000, 2000));
        let several = copies.iter().filter(|&&threads| threads == 2).count();
        assert!((6..12).contains(&several), "{several}");
    }

    #[test]
    fn what_has_become_better_is_used() {
        let mut threads = Threads::with(2);
        run(&mut threads, 10, (1000, 2000));
        // Now several threads have become faster, and one thread slower.
        let copies = run(&mut threads, 400, (9000, 500));
        // One of the last copies may measure the other way again.
        let last = &copies[copies.len() - 20..];
        assert!(last.iter().filter(|&&threads| threads == 2).count() >= 19);
    }

    #[test]
    fn small_copies_are_made_by_one_thread() {
        let mut threads = Threads::with(4);
        for _ in 0..9 {
            let team = threads.choose(Work::Plain, 1 << 20);
            assert_eq!(team.threads, 1);
            threads.learn(team, Duration::from_micros(1));
        }
        // Uncached memory is slow enough to gain.
        threads.learn(threads.choose(Work::Uncached, 1 << 20), Duration::ZERO);
        assert_eq!(threads.choose(Work::Uncached, 1 << 20).threads, 4);
        assert_eq!(Threads::with(1).choose(Work::Pixels, BIG).threads, 1);
    }

    #[test]
    fn bands_have_every_pixel_once_and_about_as_many_each() {
        let rect = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        for rects in [
            &[rect(0, 0, 64, 64)][..],
            &[rect(4, 8, 8, 90), rect(40, 20, 20, 12)],
            &[rect(0, 3, 5, 1)],
            &[rect(0, 0, 100, 8), rect(0, 60, 100, 8)],
        ] {
            for count in 1..6 {
                let bands = bands(rects, count, 4);
                assert!(bands.len() <= count && bands.iter().all(|band| !band.is_empty()));
                let pixels = |rects: &[Rect]| rects.iter().map(Rect::area).sum::<u64>();
                let all: u64 = bands.iter().map(|band| pixels(band)).sum();
                assert_eq!(all, pixels(rects));
                let mut end = 0;
                for band in &bands {
                    let top = band.iter().map(|rect| rect.y).min().unwrap();
                    assert!(top >= end && (end == 0 || top % 4 == 0 || rects.len() > 1));
                    end = band.iter().map(|rect| rect.y + rect.height).max().unwrap();
                    let widths: u64 = rects.iter().map(|rect| u64::from(rect.width)).sum();
                    assert!(pixels(band) <= all / count as u64 + 5 * widths);
                }
            }
        }
        assert!(bands(&[], 3, 4).is_empty());
    }
}
