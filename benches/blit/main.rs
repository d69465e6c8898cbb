//! What getting a picture across costs by each strategy, beside memcpy and the bare Vulkan call,
//! and what the blitter makes of it by itself.
//!
//! `cargo xtask bench blit` runs it in the guest. Everything is warm: pages have been touched before.

mod allocations;
#[path = "../sharing/bare.rs"]
mod bare;
mod calls;
#[path = "../sharing/measure.rs"]
mod measure;
mod reasons;
#[path = "../sharing/table.rs"]
mod table;

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primeshare::alloc::Dumb;
use primeshare::blit::{
    Blit, BlitDevice, BlitInfo, Blitter, Completion, Damage, DamageBox, Options, Statistics,
    Strategy, StrategyStatistics,
};
use primeshare::device::{self, NodeKind};
use primeshare::sync::{Access, BufferMapping};
use primeshare::vk::{self, Commands, Instance, Select, Validation};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

use measure::{interleaved, median};
use table::Table;

const IN_FLIGHT: usize = 4;
/// Frames timed together.
const FRAMES: u32 = 24;
const ROUNDS: usize = 9;
const PATIENCE: Duration = Duration::from_secs(120);

/// A pair of buffers and whoever copies between them.
struct Traffic<'a> {
    blitter: Blitter,
    from: &'a DmaBuf,
    to: &'a DmaBuf,
    damage: Option<DamageBox>,
    fences: VecDeque<Completion>,
}

impl<'a> Traffic<'a> {
    fn new(
        sides: &[BlitDevice; 2],
        strategies: Vec<Strategy>,
        from: &'a DmaBuf,
        to: &'a DmaBuf,
        damage: Option<DamageBox>,
    ) -> Result<Self> {
        // Of the blitter before this one: each page of freed memory counts as a mapping of User-Mode
        // Linux's on the host, which allows 65530 for a process.
        // SAFETY: no preconditions.
        unsafe { libc::malloc_trim(0) };
        let options = Options::default()
            .in_flight(IN_FLIGHT)
            .strategies(strategies);
        let mut traffic = Self {
            blitter: Blitter::new(sides[0].clone(), sides[1].clone(), &options)?,
            from,
            to,
            damage,
            fences: VecDeque::with_capacity(IN_FLIGHT),
        };
        traffic.run(1)?;
        let verdict = traffic
            .blitter
            .settle_wait(from, to, &traffic.info(), PATIENCE)?;
        ensure!(
            verdict.settled,
            "it is never settled how to copy from {from:?} to {to:?}"
        );
        // Once more, with as many in flight as will be.
        traffic.run(2 * IN_FLIGHT as u32)?;
        Ok(traffic)
    }

    fn info(&self) -> BlitInfo<'_> {
        BlitInfo::default().damage(match &self.damage {
            None => Damage::Full,
            Some(part) => Damage::Boxes(std::slice::from_ref(part)),
        })
    }

    fn run(&mut self, frames: u32) -> Result<()> {
        for _ in 0..frames {
            if self.fences.len() == IN_FLIGHT {
                self.oldest()?;
            }
            let fence = self.blitter.blit(self.from, self.to, &self.info())?;
            self.fences.push_back(fence);
        }
        while !self.fences.is_empty() {
            self.oldest()?;
        }
        Ok(())
    }

    fn oldest(&mut self) -> Result<()> {
        let oldest = self.fences.pop_front().context("none in flight")?;
        Ok(oldest.wait(PATIENCE)?)
    }
}

fn main() -> Result<()> {
    if is_wanted("calls") {
        // First: a traced process is forked, and this one has made no thread yet.
        system_calls()?;
    }
    if !["others", "overhead", "damage", "full"]
        .into_iter()
        .any(is_wanted)
    {
        return Ok(());
    }
    let (source, destination) = two_devices()?;
    let instance = Instance::new(Validation::Off)?;
    let gpu = |device: &Device| -> Result<vk::Device> {
        let physical = instance
            .select(&Select::Drm(device))
            .or_else(|_| instance.select(&Select::Software))?;
        Ok(vk::Device::new(&physical)?)
    };
    let gpus = [gpu(&source)?, gpu(&destination)?];
    let sides = [
        BlitDevice::new(&source, Some(gpus[0].physical())),
        BlitDevice::new(&destination, Some(gpus[1].physical())),
    ];
    println!("{source} to {destination}, {IN_FLIGHT} in flight, XR24, LINEAR");
    let on = |device: &Device, (width, height): (u32, u32)| {
        Dumb::new(device).allocate(&Request::new(width, height, Fourcc::XRGB8888))
    };
    let pair = |size| anyhow::Ok((on(&source, size)?, on(&destination, size)?));
    if is_wanted("others") {
        for size in [(1920, 1080), (3840, 2160)] {
            let (from, to) = pair(size)?;
            println!("{}", others(&sides, &gpus[1], &from, &to)?);
        }
    }
    if is_wanted("overhead") {
        println!("{}", overhead(&sides, &gpus[1], &pair((1, 1))?)?);
        println!("{}", allocations(&sides, &pair((256, 256))?)?);
    }
    if is_wanted("damage") {
        for size in [(1280, 720), (1920, 1080), (3840, 2160)] {
            let (from, to) = pair(size)?;
            println!("{}", damage(&sides, &from, &to)?);
        }
    }
    if is_wanted("full") {
        let mut table = Table::new(["size", "by", "GiB/s", "of memcpy", "of bare vkCmdCopyImage"]);
        for size in [(1280, 720), (1920, 1080), (3840, 2160)] {
            let (from, to) = pair(size)?;
            full(&mut table, &sides, &gpus[1], &from, &to)?;
        }
        print!("{table}");
    }
    Ok(())
}

/// All parts, or those that are named: calls, others, overhead, damage, full.
fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// Whole frames, by each strategy and by the blitter's own choice: each in turns with memcpy and
/// the bare call, and with nothing else in memory, of which User-Mode Linux maps little at a time.
fn full(
    table: &mut Table<5>,
    sides: &[BlitDevice; 2],
    gpu: &vk::Device,
    from: &DmaBuf,
    to: &DmaBuf,
) -> Result<()> {
    let own = ("own choice", Strategy::ALL.to_vec());
    let forced = Strategy::ALL
        .iter()
        .copied()
        .map(|strategy| (strategy.name(), vec![strategy]));
    let mut baselines = [Vec::new(), Vec::new()];
    let mut rows = Vec::new();
    for (name, strategies) in forced.into_iter().chain([own]) {
        // Anew for each, and so at other addresses, which decide over a tenth of the speed where
        // the processor is emulated.
        let mut bare = bare::Copies::new(gpu, from, to, IN_FLIGHT)?;
        let mut memory = bare::Memcpy::new(from, to)?;
        let mut traffic = Traffic::new(sides, strategies.clone(), from, to, None)?;
        let verdict = traffic.blitter.verdict(from, to, &traffic.info());
        let chosen = verdict.and_then(|verdict| verdict.chosen);
        let mut copy = || {
            (0..FRAMES).for_each(|_| memory.copy());
            Ok(())
        };
        let works: &mut [&mut dyn FnMut() -> Result<()>] =
            &mut [&mut copy, &mut || bare.run(FRAMES), &mut || {
                traffic.run(FRAMES)
            }];
        let times = interleaved(ROUNDS, 1, works)?;
        let name = match strategies.len() {
            1 => name.to_owned(),
            _ => format!("{name}: {}", chosen.map_or("nothing", Strategy::name)),
        };
        let [memcpy, call, own] = [0, 1, 2].map(|index| median(&times[index]));
        rows.push((name, own, [memcpy / own, call / own]));
        for (all, some) in baselines.iter_mut().zip(times) {
            all.extend(some);
        }
    }
    let [memcpy, call] = baselines.map(|times| median(&times));
    let bare = "bare vkCmdCopyImage".to_owned();
    rows.insert(0, (bare, call, [memcpy / call, 1.0]));
    let one = "memcpy, one thread".to_owned();
    rows.insert(0, (one, memcpy, [1.0, call / memcpy]));
    let size = format!("{}x{}", from.width(), from.height());
    for (name, time, ratios) in rows {
        let rate = bytes(from) * f64::from(FRAMES) / time / f64::from(1 << 30);
        let [of_memcpy, of_call] = ratios.map(|ratio| format!("{ratio:.2}"));
        table.row([size.clone(), name, format!("{rate:.2}"), of_memcpy, of_call]);
    }
    Ok(())
}

/// Parts of a frame, against all of it.
fn damage(sides: &[BlitDevice; 2], from: &DmaBuf, to: &DmaBuf) -> Result<String> {
    let part = |share: f64| {
        let side = share.sqrt();
        let of = |length: u32, part: f64| (f64::from(length) * part) as i32;
        DamageBox {
            x1: of(from.width(), 0.125),
            y1: of(from.height(), 0.125),
            x2: of(from.width(), 0.125 + side),
            y2: of(from.height(), 0.125 + side),
        }
    };
    let mut traffics = Vec::new();
    for damage in [None, Some(part(0.1)), Some(part(0.01))] {
        traffics.push(Traffic::new(
            sides,
            Strategy::ALL.to_vec(),
            from,
            to,
            damage,
        )?);
    }
    let mut works: Vec<Box<dyn FnMut() -> Result<()>>> = Vec::new();
    for traffic in &mut traffics {
        works.push(Box::new(|| traffic.run(FRAMES)));
    }
    let mut works: Vec<&mut dyn FnMut() -> Result<()>> =
        works.iter_mut().map(|work| work.as_mut() as _).collect();
    let times = interleaved(ROUNDS, 1, &mut works)?;
    let [all, tenth, hundredth] = [0, 1, 2].map(|i| median(&times[i]) / f64::from(FRAMES) * 1e6);
    Ok(format!(
        "{}x{}: all of it {all:.0} us, 10 % {tenth:.0} us ({:.3} of it), 1 % {hundredth:.0} us \
         ({:.3} of it)",
        from.width(),
        from.height(),
        tenth / all,
        hundredth / all
    ))
}

/// The system calls of a warm frame, from the call of `Blitter::blit` to its return and to the frame's end.
fn system_calls() -> Result<()> {
    for strategy in [Strategy::Pull, Strategy::Cpu] {
        for (what, size) in [("256x256", (256, 256)), ("1x1", (1, 1))] {
            let frames = calls::of_frames(|| {
                let (source, destination) = two_devices()?;
                let instance = Instance::new(Validation::Off)?;
                let physical = |device: &Device| {
                    let own = instance.select(&Select::Drm(device));
                    own.or_else(|_| instance.select(&Select::Software))
                };
                let sides = [
                    BlitDevice::new(&source, Some(&physical(&source)?)),
                    BlitDevice::new(&destination, Some(&physical(&destination)?)),
                ];
                let request = Request::new(size.0, size.1, Fourcc::XRGB8888);
                let from = Dumb::new(&source).allocate(&request)?;
                let to = Dumb::new(&destination).allocate(&request)?;
                let mut traffic = Traffic::new(&sides, vec![strategy], &from, &to, None)?;
                for _ in 0..5 {
                    let info = traffic.info();
                    let copy = calls::marked(|| traffic.blitter.blit(&from, &to, &info))?;
                    calls::marked(|| copy.wait(PATIENCE))?;
                    calls::marked(|| drop(copy));
                }
                traffic.fences.clear();
                Ok(())
            })?;
            println!("system calls of a warm frame of {what} by {strategy}:");
            let last = frames.len().checked_sub(3).context("no frame was traced")?;
            for (part, frame) in ["blit", "wait", "drop"].iter().zip(&frames[last..]) {
                for (whose, counts) in [("caller", &frame.caller), ("other threads", &frame.others)]
                {
                    for (call, count) in counts {
                        let reason = reasons::reason(call);
                        println!("  {part}, {whose}: {count} {call} ({reason})");
                    }
                }
            }
        }
    }
    Ok(())
}

/// Allocations of a warm frame.
fn allocations(sides: &[BlitDevice; 2], (from, to): &(DmaBuf, DmaBuf)) -> Result<String> {
    let mut lines = Vec::new();
    for &strategy in Strategy::ALL {
        let mut traffic = Traffic::new(sides, vec![strategy], from, to, None)?;
        let before = allocations::count();
        traffic.run(100)?;
        let each = (allocations::count() - before) as f64 / 100.0;
        lines.push(format!("{strategy} {each}"));
    }
    Ok(format!("allocations per warm frame: {}", lines.join(", ")))
}

/// What is around the copy: frames of one pixel, one after the other, beside a submission of nothing.
fn overhead(
    sides: &[BlitDevice; 2],
    gpu: &vk::Device,
    (from, to): &(DmaBuf, DmaBuf),
) -> Result<String> {
    let traffic = |strategy| Traffic::new(sides, vec![strategy], from, to, None);
    let (mut cpu, mut pull) = (traffic(Strategy::Cpu)?, traffic(Strategy::Pull)?);
    let mut commands = Commands::new(gpu)?;
    // SAFETY: nothing is recorded.
    unsafe { commands.record(|_, _| ())? };
    let frames = 10 * FRAMES;
    let one_by_one = |traffic: &mut Traffic<'_>| (0..frames).try_for_each(|_| traffic.run(1));
    let mut nothing = || {
        for _ in 0..frames {
            // SAFETY: it uses nothing.
            unsafe { commands.submit()? };
            commands.wait(PATIENCE)?;
        }
        Ok(())
    };
    let times = interleaved(ROUNDS, 1, &mut [&mut || one_by_one(&mut cpu), &mut nothing])?;
    let [by_cpu, empty] = [0, 1].map(|index| median(&times[index]) / f64::from(frames));
    let mut prepared = Blit::new(gpu, from, to, 1)?;
    let mut prepared = || {
        for _ in 0..frames {
            prepared.submit()?;
            prepared.wait(PATIENCE)?;
        }
        Ok(())
    };
    let times = interleaved(
        ROUNDS,
        1,
        &mut [&mut || one_by_one(&mut pull), &mut prepared],
    )?;
    let [by_pull, bare] = [0, 1].map(|index| median(&times[index]) / f64::from(frames));
    ensure!(by_cpu > 0.0 && empty > 0.0, "no time has passed");
    Ok(format!(
        "a frame of one pixel: by cpu {:.1} us, by pull {:.1} us; an empty submission {:.1} us \
         ({:.2} and {:.2} of it); by a prepared Blit {:.1} us",
        by_cpu * 1e6,
        by_pull * 1e6,
        empty * 1e6,
        by_cpu / empty,
        by_pull / empty,
        bare * 1e6,
    ))
}

/// The blitter beside a prepared [`Blit`], and beside what others do: a copy by the CPU through mappings
/// that are synchronised for each frame, and imports of both buffers for each frame, as with wgpu's
/// `texture_from_dmabuf_fd`.
fn others(sides: &[BlitDevice; 2], gpu: &vk::Device, from: &DmaBuf, to: &DmaBuf) -> Result<String> {
    let mut prepared = Blit::new(gpu, from, to, IN_FLIGHT)?;
    let mut prepared = || {
        for _ in 0..FRAMES {
            prepared.wait_for_slot(PATIENCE)?;
            prepared.submit()?;
        }
        Ok(prepared.wait(PATIENCE)?)
    };
    // One after the other beside the prepared one: User-Mode Linux maps little at a time.
    let mut against = |work: &mut dyn FnMut() -> Result<()>, rounds| -> Result<f64> {
        let times = interleaved(rounds, 1, &mut [&mut prepared, work])?;
        Ok(median(&times[0]) / median(&times[1]))
    };
    let (mut ratios, mut used) = (Vec::new(), String::new());
    {
        // Another one, on a device of its own as the blitter's is: what of a ratio is chance.
        let device = vk::Device::new(gpu.physical())?;
        let mut control = Blit::new(&device, from, to, IN_FLIGHT)?;
        let mut control = || {
            for _ in 0..FRAMES {
                control.wait_for_slot(PATIENCE)?;
                control.submit()?;
            }
            Ok(control.wait(PATIENCE)?)
        };
        ratios.push(against(&mut control, ROUNDS)?);
    }
    for strategies in [vec![Strategy::Pull], Strategy::ALL.to_vec()] {
        let mut traffic = Traffic::new(sides, strategies, from, to, None)?;
        let before = traffic.blitter.statistics();
        ratios.push(against(&mut || traffic.run(FRAMES), ROUNDS)?);
        used = frames_since(&before, &traffic.blitter.statistics());
    }
    let (mut read, mut write) = (BufferMapping::new(from)?, BufferMapping::new(to)?);
    let mut by_hand = || {
        for _ in 0..FRAMES {
            let source = read.begin_wait(Access::Read, PATIENCE)?;
            let mut destination = write.begin_wait(Access::Write, PATIENCE)?;
            let rows = source.plane(0)?;
            let into = destination.plane_mut(0)?.into_rows();
            for (row, mut into) in rows.rows().zip(into) {
                into.copy_from(0, row)?;
            }
            destination.end()?;
        }
        Ok(())
    };
    ratios.push(against(&mut by_hand, ROUNDS)?);
    drop((read, write));
    let mut import_each = || {
        for _ in 0..FRAMES {
            let mut each = Blit::new(gpu, from, to, 1)?;
            each.submit()?;
            each.wait(PATIENCE)?;
        }
        Ok(())
    };
    ratios.push(against(&mut import_each, 1)?);
    Ok(format!(
        "{}x{}: of a prepared Blit, another one reaches {:.2}, the blitter by pull {:.2}, by its own \
         choice {:.2} ({used}); a CPU copy through mappings {:.2}, imports for each frame {:.3}",
        from.width(),
        from.height(),
        ratios[0],
        ratios[1],
        ratios[2],
        ratios[3],
        ratios[4],
    ))
}

/// By which strategies frames were made.
fn frames_since(before: &Statistics, now: &Statistics) -> String {
    let frames = |of: &StrategyStatistics| {
        let known = before.strategies.iter().find(|b| b.strategy == of.strategy);
        of.frames - known.map_or(0, |known| known.frames)
    };
    let each = now.strategies.iter().map(|of| (of.strategy, frames(of)));
    let each = each.filter(|(_, frames)| *frames > 0);
    let each: Vec<_> = each.map(|(of, frames)| format!("{of} {frames}")).collect();
    each.join(", ")
}

/// Two devices of different drivers, where there are such.
fn two_devices() -> Result<(Device, Device)> {
    let primary = device::enumerate()?
        .into_iter()
        .filter(|node| node.kind == NodeKind::Primary);
    let devices: Vec<Device> = primary.flat_map(|node| Device::open(node.path)).collect();
    let source = devices.first().context("no DRM device")?;
    let other = devices.iter().find(|d| d.driver() != source.driver());
    let destination = other.or(devices.get(1)).unwrap_or(source).reopen()?;
    Ok((source.clone(), destination))
}

fn bytes(buffer: &DmaBuf) -> f64 {
    f64::from(buffer.planes()[0].stride) * f64::from(buffer.height())
}
