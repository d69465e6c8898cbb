//! How much longer copies take by the strategies that are chosen than by the best, on machines of all
//! kinds. `cargo test --lib regret -- --nocapture` prints it.

use std::time::Duration;

use super::cost::{self, Cost};
use super::pick::{CPU_COUNTS, Candidate, pick};
use crate::blit::strategy::StagingSource;
use crate::blit::strategy::Strategy::{self, Cpu, HostMemory, Pull, PullBytes, Push, PushBytes};

const FRAMES: usize = 600;
/// After this many frames the costs have to be learnt, and the time counts.
const LEARNT: usize = 60;
/// The most that the time spent may be, as a multiple of the time of the best strategies.
const LIMIT: f64 = 1.1;

/// A strategy that works: its microseconds for each copy, its GiB/s, and whether the CPU copies.
type Way = (Strategy, f64, f64, bool);

const UDMABUF: Strategy = Strategy::Staged(StagingSource::Udmabuf);
const LINEAR: Strategy = Strategy::Staged(StagingSource::Destination);

const MACHINES: &[(&str, &[Way])] = &[
    (
        "one integrated GPU",
        &[
            (Pull, 40.0, 20.0, false),
            (PullBytes, 38.0, 17.0, false),
            (Cpu, 4.0, 6.0, true),
            (HostMemory, 120.0, 4.0, true),
        ],
    ),
    (
        "discrete, PCIe 3 x4",
        &[
            (Pull, 60.0, 2.8, false),
            (Push, 60.0, 3.1, false),
            (PullBytes, 55.0, 2.9, false),
            (PushBytes, 55.0, 3.1, false),
            (LINEAR, 120.0, 2.4, false),
            (UDMABUF, 120.0, 1.6, false),
            // Reads of video memory are not cached.
            (Cpu, 3.0, 0.1, true),
            (HostMemory, 140.0, 1.4, true),
        ],
    ),
    (
        "discrete, PCIe 3 x16",
        &[
            (Pull, 60.0, 10.5, false),
            (Push, 60.0, 12.0, false),
            (PullBytes, 55.0, 11.0, false),
            (PushBytes, 55.0, 12.0, false),
            (UDMABUF, 120.0, 6.0, false),
            (Cpu, 3.0, 0.12, true),
            (HostMemory, 150.0, 4.0, true),
        ],
    ),
    (
        "NVIDIA and Intel",
        &[
            (PushBytes, 80.0, 9.0, false),
            (UDMABUF, 160.0, 5.0, false),
            (Cpu, 3.0, 5.0, true),
            (HostMemory, 180.0, 3.0, true),
        ],
    ),
    (
        "SoC, display and GPU apart",
        &[
            (Pull, 150.0, 2.5, false),
            (Push, 140.0, 2.4, false),
            (Cpu, 4.0, 0.9, true),
        ],
    ),
    (
        "USB display",
        &[(Cpu, 4.0, 3.0, true), (HostMemory, 220.0, 2.0, true)],
    ),
    (
        "virtual machine",
        &[
            (PushBytes, 600.0, 2.0, false),
            (Cpu, 12.0, 4.0, true),
            (HostMemory, 900.0, 1.5, true),
        ],
    ),
    (
        "llvmpipe",
        &[
            (Pull, 700.0, 3.0, true),
            (PullBytes, 650.0, 3.2, true),
            (UDMABUF, 1400.0, 1.6, true),
            (Cpu, 5.0, 5.0, true),
            (HostMemory, 1300.0, 1.7, true),
        ],
    ),
];

const TRAFFIC: &[&str] = &["cursor", "a fifth", "full", "mixed", "bursts"];
const SIZES: &[(&str, u64)] = &[("720p", 1280 * 720 * 4), ("4K", 3840 * 2160 * 4)];

/// Bytes of a frame.
fn bytes_of(traffic: &str, frame: usize, full: u64, random: &mut Random) -> u64 {
    const CURSOR: u64 = 64 * 64 * 4;
    match traffic {
        "cursor" => CURSOR,
        "a fifth" => full / 5,
        "full" => full,
        "bursts" if frame % 120 < 90 => CURSOR,
        "bursts" => full,
        _ => match random.below(10) {
            0 => full,
            1 | 2 => full / 5,
            _ => CURSOR,
        },
    }
}

/// Xorshift: the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// By how much the time of a copy differs from what it should be, as a factor.
    fn noise(&mut self) -> f64 {
        let spread = 0.92 + 0.16 * self.below(1000) as f64 / 1000.0;
        match self.below(100) {
            0 => spread * 5.0,
            _ => spread,
        }
    }
}

fn seconds(&(_, fixed, rate, _): &Way, bytes: u64) -> f64 {
    fixed * 1e-6 + bytes as f64 / (rate * f64::from(1 << 30))
}

/// The CPU's time counts for more.
fn counted(way: &Way, bytes: u64) -> f64 {
    let factor = match way.3 {
        true => CPU_COUNTS,
        false => 1.0,
    };
    seconds(way, bytes) * factor
}

/// Bytes of the trials.
const TRIALS: [u64; 2] = [1 << 16, 1 << 22];

/// The time spent, as a multiple of the time of the best strategies that may be used. Push may be used if
/// `freely`.
fn regret(ways: &[Way], traffic: &str, full: u64, freely: bool) -> f64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut known = vec![Cost::default(); ways.len()];
    for (way, cost) in ways.iter().zip(&mut known) {
        for bytes in TRIALS.into_iter().flat_map(|bytes| [bytes; 5]) {
            let took = seconds(way, bytes) * random.noise();
            cost.add(bytes, Duration::from_secs_f64(took));
        }
    }
    let is_last_resort = |way: &Way| way.0.is_push() && !freely;
    let mut last = rustc_hash::FxHashMap::default();
    let (mut spent, mut best) = (0.0, 0.0);
    for frame in 0..FRAMES {
        let bytes = bytes_of(traffic, frame, full, &mut random);
        let of_size = last.entry(cost::class_of(bytes)).or_insert(None);
        let candidates = ways.iter().zip(&known).map(|(way, cost)| Candidate {
            strategy: way.0,
            on_cpu: way.3,
            is_last_resort: is_last_resort(way),
            cost,
        });
        *of_size = pick(candidates, bytes, *of_size);
        let place = ways.iter().position(|way| Some(way.0) == *of_size).unwrap();
        let took = seconds(&ways[place], bytes) * random.noise();
        known[place].add(bytes, Duration::from_secs_f64(took));
        if frame >= LEARNT {
            spent += counted(&ways[place], bytes);
            let all = ways.iter().filter(|way| !is_last_resort(way));
            let all = all.map(|way| counted(way, bytes));
            best += all.fold(f64::INFINITY, f64::min);
        }
    }
    spent / best
}

/// Both sizes, with and without push among the others.
fn cells() -> impl Iterator<Item = ((&'static str, u64), bool)> {
    let each = |freely| SIZES.iter().map(move |size| (*size, freely));
    [false, true].into_iter().flat_map(each)
}

#[test]
fn regret_is_small_on_every_machine_with_every_traffic() {
    let mut worst: f64 = 1.0;
    for ((size, full), freely) in cells() {
        let push = match freely {
            true => "push as others",
            false => "push last",
        };
        print!("{:>28}", format!("{size}, {push}"));
        TRAFFIC.iter().for_each(|traffic| print!(" {traffic:>8}"));
        println!();
        for (machine, ways) in MACHINES {
            print!("{machine:>28}");
            for traffic in TRAFFIC {
                let regret = regret(ways, traffic, full, freely);
                print!(" {regret:>8.3}");
                worst = worst.max(regret);
            }
            println!();
        }
    }
    assert!(worst <= LIMIT, "{worst:.3} times the time of the best");
}
