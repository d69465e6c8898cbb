//! How long a copy by one strategy takes: a fixed time, and a time for each byte.

use std::time::Duration;

use arrayvec::ArrayVec;

/// How many samples are kept of each class of sizes. A new one replaces the oldest, so that changes are
/// learnt.
const KEPT: usize = 5;

/// A class of sizes spans this power of two: sizes in it differ by less than a factor of four.
const CLASS_BITS: u32 = 2;

/// Samples whose sizes differ by less than this factor say nothing reliable about other sizes.
const SPREAD: f64 = 8.0;

/// Samples of how long copies took, and the line through them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::blit) struct Cost {
    /// By size, smallest first.
    classes: Vec<Class>,
}

#[derive(Clone, Debug, PartialEq)]
struct Class {
    size: u32,
    /// The oldest first.
    samples: ArrayVec<Sample, KEPT>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    bytes: f64,
    seconds: f64,
}

impl Cost {
    /// Adds the time that a copy took.
    pub(in crate::blit) fn add(&mut self, bytes: u64, took: Duration) {
        let sample = Sample {
            bytes: bytes.max(1) as f64,
            seconds: took.as_secs_f64().max(1e-9),
        };
        let size = class_of(bytes);
        let place = self.classes.binary_search_by_key(&size, |class| class.size);
        let class = match place {
            Ok(place) => &mut self.classes[place],
            Err(place) => {
                let samples = ArrayVec::new();
                self.classes.insert(place, Class { size, samples });
                &mut self.classes[place]
            }
        };
        if class.samples.is_full() {
            class.samples.remove(0);
        }
        class.samples.push(sample);
    }

    /// Bytes per second of the largest copies that are known.
    pub(super) fn rate(&self) -> Option<f64> {
        let middle = self.classes.last()?.middle();
        Some(middle.bytes / middle.seconds)
    }

    /// How many seconds a copy of this size will take. `None` if nothing was measured.
    ///
    /// If the measured sizes differ enough, the line through the middles of all classes says so. Else the
    /// nearest class does: a smaller copy takes at most as long as that, and at least the part of its time
    /// that the bytes are of its bytes. For a larger copy both bounds change places. The estimate is in
    /// the middle between the two bounds.
    pub(in crate::blit) fn estimate(&self, bytes: u64) -> Option<f64> {
        let bytes = bytes.max(1) as f64;
        let (first, last) = (
            self.classes.first()?.middle(),
            self.classes.last()?.middle(),
        );
        if last.bytes >= first.bytes * SPREAD {
            let line = fit(self.classes.iter().map(Class::middle));
            return Some(line.fixed + bytes * line.per_byte);
        }
        let nearest = match bytes < last.bytes {
            true => first,
            false => last,
        };
        let share = nearest.seconds * bytes / nearest.bytes;
        Some(f64::midpoint(share, nearest.seconds))
    }

    /// All samples, to be saved for the next start of the program: bytes and nanoseconds, oldest first.
    pub(super) fn samples(&self) -> impl Iterator<Item = (u64, u64)> {
        let all = self.classes.iter().flat_map(|class| &class.samples);
        all.map(|sample| (sample.bytes as u64, (sample.seconds * 1e9) as u64))
    }
}

impl Class {
    /// The sample with the median rate, so that a single disturbed or lucky copy does not count.
    fn middle(&self) -> Sample {
        let mut samples = self.samples.clone();
        let rate = |sample: &Sample| sample.bytes / sample.seconds;
        samples.sort_unstable_by(|a, b| rate(a).total_cmp(&rate(b)));
        samples[samples.len() / 2]
    }
}

/// The class of sizes that this number of bytes belongs to.
pub(super) fn class_of(bytes: u64) -> u32 {
    bytes.max(1).ilog2() / CLASS_BITS
}

/// Seconds = fixed + bytes * per_byte.
struct Line {
    fixed: f64,
    per_byte: f64,
}

/// The line with the least squares of relative errors. Neither of its parts is negative.
fn fit(samples: impl Iterator<Item = Sample>) -> Line {
    // Each sample divided by its time: 1 = fixed * u + per_byte * v.
    let (mut uu, mut uv, mut vv, mut u1, mut v1) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for Sample { bytes, seconds } in samples {
        let (u, v) = (1.0 / seconds, bytes / seconds);
        uu += u * u;
        uv += u * v;
        vv += v * v;
        u1 += u;
        v1 += v;
    }
    let determinant = uu * vv - uv * uv;
    let fixed = (u1 * vv - v1 * uv) / determinant;
    let per_byte = (v1 * uu - u1 * uv) / determinant;
    if fixed <= 0.0 {
        let per_byte = v1 / vv;
        return Line {
            fixed: 0.0,
            per_byte,
        };
    }
    if per_byte <= 0.0 {
        let fixed = u1 / uu;
        return Line {
            fixed,
            per_byte: 0.0,
        };
    }
    Line { fixed, per_byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(cost: &Cost, bytes: u64) -> f64 {
        cost.estimate(bytes).unwrap()
    }

    fn near(value: f64, expected: f64) {
        assert!(
            (value / expected - 1.0).abs() < 1e-6,
            "{value}, not {expected}"
        );
    }

    #[test]
    fn two_sizes_tell_the_fixed_part_from_that_of_the_bytes() {
        let mut cost = Cost::default();
        assert_eq!(cost.estimate(MIB), None);
        for bytes in [MIB, 32 * MIB] {
            // 1 ms, and 1 ms a MiB.
            cost.add(bytes, Duration::from_millis(1 + bytes / MIB));
        }
        for mebibytes in [2, 8, 64] {
            near(at(&cost, mebibytes * MIB), 1e-3 * (1 + mebibytes) as f64);
        }
        near(cost.rate().unwrap(), 32.0 * MIB as f64 / 33e-3);
    }

    #[test]
    fn one_size_says_something_of_the_others() {
        let mut cost = Cost::default();
        cost.add(4 * MIB, Duration::from_millis(8));
        near(at(&cost, MIB), 5e-3);
        near(at(&cost, 4 * MIB), 8e-3);
        near(at(&cost, 16 * MIB), 20e-3);
    }

    #[test]
    fn one_disturbed_copy_changes_nothing_and_a_lasting_change_is_learnt() {
        let mut cost = Cost::default();
        for milliseconds in [10, 10, 500, 10, 10] {
            cost.add(MIB, Duration::from_millis(milliseconds));
        }
        near(at(&cost, MIB), 10e-3);
        for _ in 0..3 {
            cost.add(MIB, Duration::from_millis(30));
        }
        near(at(&cost, MIB), 30e-3);
        assert_eq!(cost.samples().count(), KEPT);
    }

    #[test]
    fn no_part_is_negative() {
        // Noise that would make the fixed part negative.
        let mut cost = Cost::default();
        cost.add(MIB, Duration::from_millis(1));
        cost.add(16 * MIB, Duration::from_millis(30));
        assert!(at(&cost, 1024) > 0.0);
        // And the part of the bytes: the larger copy was the faster one.
        let mut cost = Cost::default();
        cost.add(MIB, Duration::from_millis(3));
        cost.add(16 * MIB, Duration::from_millis(2));
        let (small, large) = (at(&cost, MIB), at(&cost, 64 * MIB));
        assert!(small > 0.0 && large >= small);
    }
}
