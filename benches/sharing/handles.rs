//! Imports against the system calls they spare or cannot spare.

use std::collections::HashMap;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use primeshare::alloc::Dumb;
use primeshare::buffer::BufferId;
use primeshare::import::Imported;
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

use crate::measure::{interleaved, median};
use crate::table::Table;

/// Calls timed together.
const CALLS: u32 = 2000;
const ROUNDS: usize = 31;
/// Buffers alive beside the one that is imported.
const FEW: usize = 10;
const MANY: usize = 100_000;

pub(crate) fn run(source: &Device, destination: &Device) -> Result<()> {
    let mut table = Table::new(["call", "median ns", "baseline", "median ns", "ratio"]);
    known(&mut table, source, destination)?;
    cold(&mut table, source, destination)?;
    let bytes = many(&mut table, source, destination)?;
    print!("{table}");
    println!("{bytes:.0} bytes of this process's memory per live, imported buffer");
    threads(source, destination)?;
    Ok(())
}

fn row(table: &mut Table<5>, what: &str, ours: f64, baseline: &str, bare: f64) {
    table.row([
        what.to_owned(),
        format!("{:.0}", ours * 1e9),
        baseline.to_owned(),
        format!("{:.0}", bare * 1e9),
        format!("{:.3}", ours / bare),
    ]);
}

fn buffer_on(device: &Device) -> Result<DmaBuf> {
    Ok(Dumb::new(device).allocate(&Request::new(16, 16, Fourcc::XRGB8888))?)
}

/// A buffer that is in use here already.
fn known(table: &mut Table<5>, source: &Device, destination: &Device) -> Result<()> {
    let buffer = buffer_on(source)?;
    let held = destination.import(&buffer)?;
    let fd = buffer.plane_fd(0).context("no plane")?;
    // The least that any cache does: find, count up, count down.
    let plain: HashMap<BufferId, Arc<()>> = HashMap::from([(buffer.id(), Arc::new(()))]);
    let ioctls = destination.stats().imports;
    let times = interleaved(
        ROUNDS,
        CALLS,
        &mut [
            &mut || {
                black_box(destination.import(&buffer)?);
                Ok(())
            },
            &mut || {
                // The handle is known, so the kernel answers from its own table, and there is nothing
                // to close: the baseline at its cheapest.
                black_box(drm_ffi::gem::fd_to_handle(destination.as_fd(), fd)?);
                Ok(())
            },
            &mut || {
                black_box(plain.get(&black_box(&buffer).id()).cloned());
                Ok(())
            },
            &mut || {
                black_box(destination.import_fd(fd)?);
                Ok(())
            },
            &mut || {
                black_box(nix::sys::stat::fstat(fd)?);
                Ok(())
            },
        ],
    )?;
    ensure!(
        destination.stats().imports == ioctls,
        "an import asked the kernel"
    );
    drop(held);
    let [known, ioctl, lookup, unknown, fstat] = [0, 1, 2, 3, 4].map(|i| median(&times[i]));
    row(
        table,
        "import, known buffer",
        known,
        "PRIME_FD_TO_HANDLE",
        ioctl,
    );
    row(
        table,
        "import, known buffer",
        known,
        "hash lookup and Arc clone",
        lookup,
    );
    row(table, "import, unknown fd of it", unknown, "fstat", fstat);
    Ok(())
}

/// A buffer that nobody has here, and its close.
fn cold(table: &mut Table<5>, source: &Device, destination: &Device) -> Result<()> {
    let buffer = buffer_on(source)?;
    let fd = buffer.plane_fd(0).context("no plane")?;
    let times = interleaved(
        ROUNDS,
        CALLS / 4,
        &mut [
            &mut || {
                black_box(destination.import(&buffer)?);
                Ok(())
            },
            &mut || {
                let handle = drm_ffi::gem::fd_to_handle(destination.as_fd(), fd)?.handle;
                drm_ffi::gem::close(destination.as_fd(), handle)?;
                Ok(())
            },
        ],
    )?;
    let (ours, bare) = (median(&times[0]), median(&times[1]));
    row(
        table,
        "import and close, cold",
        ours,
        "both bare ioctls",
        bare,
    );
    Ok(())
}

/// A known buffer among many; and what each of them takes.
fn many(table: &mut Table<5>, source: &Device, destination: &Device) -> Result<f64> {
    let buffer = buffer_on(source)?;
    let _held = destination.import(&buffer)?;
    let alone = || -> Result<f64> {
        let times = interleaved(
            ROUNDS,
            CALLS,
            &mut [&mut || {
                black_box(destination.import(&buffer)?);
                Ok(())
            }],
        )?;
        Ok(median(&times[0]))
    };
    let _few = crowd_of(FEW, source, destination)?;
    let few = alone()?;
    let before = resident_bytes()?;
    let crowd = crowd_of(MANY, source, destination)?;
    let each = (resident_bytes()? - before) / MANY as f64;
    let among = alone()?;
    let what = format!("import, among {MANY} others");
    row(table, &what, among, &format!("among {FEW} others"), few);
    drop(crowd);
    Ok(each)
}

fn crowd_of(
    buffers: usize,
    source: &Device,
    destination: &Device,
) -> Result<Vec<(DmaBuf, Imported)>> {
    let one = |_| {
        let buffer = buffer_on(source)?;
        let imported = destination.import(&buffer)?;
        Ok((buffer, imported))
    };
    (0..buffers).map(one).collect()
}

/// Two threads that import a known buffer each, against one; beside what two threads gain that
/// share nothing at all, since not every guest runs them at the same time.
fn threads(source: &Device, destination: &Device) -> Result<()> {
    let buffers = [buffer_on(source)?, buffer_on(source)?];
    let _held = [
        destination.import(&buffers[0])?,
        destination.import(&buffers[1])?,
    ];
    let import = |thread: usize| {
        for _ in 0..50 * CALLS {
            black_box(destination.import(&buffers[thread]).ok());
        }
    };
    let alone = |_| {
        let (mut sum, count) = (0_u64, AtomicU64::new(0));
        for _ in 0..50 * CALLS {
            sum = sum.wrapping_mul(31) + count.fetch_add(1, Ordering::Relaxed);
        }
        black_box(sum);
    };
    println!(
        "two threads on different buffers do {:.2} times the imports of one (two that share \
         nothing: {:.2} times)",
        gain(import)?,
        gain(alone)?
    );
    Ok(())
}

/// How much more two threads do in a time than one.
fn gain(work: impl Fn(usize) + Sync) -> Result<f64> {
    let times = interleaved(
        ROUNDS,
        1,
        &mut [
            &mut || {
                work(0);
                Ok(())
            },
            &mut || {
                thread::scope(|scope| {
                    scope.spawn(|| work(1));
                    work(0);
                });
                Ok(())
            },
        ],
    )?;
    Ok(2.0 * median(&times[0]) / median(&times[1]))
}

fn resident_bytes() -> Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).context("no statm")?.parse()?;
    Ok(pages * 4096.0)
}
