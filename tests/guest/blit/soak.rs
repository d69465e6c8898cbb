//! Very many frames by every strategy: `cargo xtask soak` makes more than 200,000 by each, `cargo test` a
//! few. After the last window of frames there are no more memory, fds, dma-bufs and threads in use than after
//! the first one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use primeshare::alloc::Dumb;
use primeshare::blit::{BlitInfo, Blitter, Completion, Damage, DamageBox, Strategy};
use primeshare::vk::{self, Instance, Select, Validation};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

use super::{PATIENCE, assert_shows, blit, blitter_by, forced, settle, write};
use crate::drivers;
use crate::support::{Held, in_guest, scale};

/// After this many frames, all is as it was at the start of the period.
const PERIOD: usize = 60;
const IN_FLIGHT: usize = 3;
const SMALL: (u32, u32) = (64, 64);
const LARGE: (u32, u32) = (1024, 512);
/// What the memory in use may still grow by after the first window, in KiB: a fourth of a byte for
/// each frame of a long run.
const SLACK: u64 = 512;

const DAMAGE: [DamageBox; 2] = [
    DamageBox {
        x1: 1,
        y1: 1,
        x2: 4,
        y2: 6,
    },
    DamageBox {
        x1: 20,
        y1: 30,
        x2: 36,
        y2: 32,
    },
];

/// What is copied between.
struct Buffers {
    devices: [Device; 2],
    small: [(DmaBuf, DmaBuf); 4],
    large: (DmaBuf, DmaBuf),
}

fn pair(devices: &[Device; 2], (width, height): (u32, u32)) -> (DmaBuf, DmaBuf) {
    let request = Request::new(width, height, Fourcc::XRGB8888);
    let on = |device| Dumb::new(device).allocate(&request).unwrap();
    (on(&devices[0]), on(&devices[1]))
}

impl Buffers {
    fn new(devices: [Device; 2]) -> Self {
        Self {
            small: [(); 4].map(|()| pair(&devices, SMALL)),
            large: pair(&devices, LARGE),
            devices,
        }
    }
}

/// The copies by one strategy.
struct Traffic {
    strategy: Strategy,
    blitter: Blitter,
    in_flight: VecDeque<Completion>,
    frames: usize,
    spent: Duration,
}

impl Traffic {
    fn new(strategy: Strategy, devices: &[Device; 2], gpus: &[vk::PhysicalDevice; 2]) -> Self {
        let options = forced(strategy).in_flight(IN_FLIGHT);
        Self {
            strategy,
            blitter: blitter_by(gpus, &devices[0], &devices[1], &options),
            in_flight: VecDeque::new(),
            frames: 0,
            spent: Duration::ZERO,
        }
    }

    /// One period after the other, with as many copies under way as may be. Two pairs of buffers
    /// make room for fresh ones in each, whose pictures are looked at.
    fn run(&mut self, buffers: &mut Buffers, periods: usize) {
        let begun = Instant::now();
        for number in 0..periods * PERIOD {
            self.frames += 1;
            let index = number % buffers.small.len();
            if number % (PERIOD / 2) == PERIOD / 2 - 1 {
                buffers.small[index] = pair(&buffers.devices, SMALL);
                self.check(&buffers.small[index], number as u8);
                continue;
            }
            let (source, destination) = match number % 20 {
                10 => &buffers.large,
                _ => &buffers.small[index],
            };
            let damage = match number % 3 {
                0 => Damage::Boxes(&DAMAGE),
                _ => Damage::Full,
            };
            let info = BlitInfo::default().damage(damage);
            if self.in_flight.len() == IN_FLIGHT {
                self.wait_for_oldest();
            }
            let started = self.blitter.blit(source, destination, &info);
            self.in_flight.push_back(started.unwrap());
        }
        self.wait_for_all();
        self.spent += begun.elapsed();
    }

    fn check(&mut self, (source, destination): &(DmaBuf, DmaBuf), seed: u8) {
        self.wait_for_all();
        write(source, seed);
        blit(&self.blitter, source, destination, &[], &[]).unwrap();
        assert_shows(destination, seed, self.strategy.name());
    }

    fn wait_for_oldest(&mut self) {
        if let Some(oldest) = self.in_flight.pop_front() {
            oldest.wait(PATIENCE).unwrap();
        }
    }

    fn wait_for_all(&mut self) {
        while !self.in_flight.is_empty() {
            self.wait_for_oldest();
        }
    }
}

/// Without the validation layer, which remembers more and more by itself.
fn two_gpus() -> [vk::PhysicalDevice; 2] {
    let instance = Instance::new(Validation::Off).unwrap();
    let gpu = instance.select(&Select::Driver(drivers::chosen())).unwrap();
    [gpu.clone(), gpu]
}

/// Memory of the process in KiB. Resident memory is not looked at: llvmpipe touches the memory that it has
/// allocated little by little.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// Allocated.
    heap: u64,
    /// Mapped privately and writable, the heap's own memory included.
    mapped: u64,
}

impl Memory {
    fn now() -> Self {
        // SAFETY: no preconditions.
        let heap = unsafe { libc::mallinfo2() };
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').nth(5).unwrap().parse().unwrap();
        Self {
            heap: (heap.uordblks + heap.hblkhd) as u64 >> 10,
            mapped: pages * 4,
        }
    }

    fn assert_no_more(self, then: Self, when: &str) {
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        let most = grown(self.heap, then.heap).max(grown(self.mapped, then.mapped));
        assert!(most <= SLACK, "{when}: {self:?}, after the first {then:?}");
    }
}

#[test]
fn nothing_grows_while_every_strategy_copies_frame_after_frame() {
    in_guest(|guest| {
        let devices = [guest.vgem(), guest.vkms()];
        let gpus = two_gpus();
        let start = |strategy| Traffic::new(strategy, &devices, &gpus);
        let mut traffic: Vec<_> = Strategy::ALL.iter().copied().map(start).collect();
        let mut buffers = Buffers::new(devices.clone());
        let begun = Instant::now();
        let mut first: Option<(Held, Memory)> = None;
        for window in 0..scale(2, 10) {
            for traffic in &mut traffic {
                traffic.run(&mut buffers, scale(1, 334));
            }
            // Trials, which are made again where copies take another time, have memory of their own.
            for traffic in &traffic {
                let (from, to) = &buffers.small[0];
                let info = BlitInfo::default();
                let verdict = traffic.blitter.settle_wait(from, to, &info, PATIENCE);
                assert!(verdict.unwrap().settled);
            }
            let (held, memory) = (Held::settled(), Memory::now());
            let seconds = begun.elapsed().as_secs();
            println!("window {window}, after {seconds} s: {held:?}, {memory:?}");
            match &first {
                None => first = Some((held, memory)),
                Some((held, then)) => {
                    let when = format!("after window {window}");
                    held.assert_no_more(&when);
                    memory.assert_no_more(*then, &when);
                }
            }
        }
        for traffic in &traffic {
            let Traffic {
                strategy, frames, ..
            } = traffic;
            let each = traffic.spent / *frames as u32;
            println!("{strategy:<18} {frames} frames, {each:.1?} each");
        }
        let all: usize = traffic.iter().map(|traffic| traffic.frames).sum();
        println!("{all} frames in {} s", begun.elapsed().as_secs());
    });
}

#[test]
fn a_blitter_that_has_gone_leaves_nothing() {
    in_guest(|guest| {
        let devices = [guest.vgem(), guest.vkms()];
        let gpus = two_gpus();
        let (source, destination) = pair(&devices, SMALL);
        let before = Held::settled();
        for _ in 0..scale(3, 80) {
            let blitter = blitter_by(&gpus, &devices[0], &devices[1], &forced(Strategy::Pull));
            settle(&blitter, &source, &destination);
        }
        before.assert_no_more("after some blitters");
    });
}
