//! Measures a way of showing frames: the system calls of a warm frame, one by one, and its allocations.

#[path = "../blit/allocations.rs"]
mod allocations;
#[path = "../blit/calls.rs"]
mod calls;

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Shows frame after frame: `show` hands one over, `shown` says whether it is on the screen.
pub(crate) trait Way {
    fn show(&mut self, frame: usize) -> Result<()>;
    fn shown(&mut self) -> Result<bool>;
    fn fds(&self) -> Vec<BorrowedFd<'_>>;
}

/// Waits until the frame is on the screen; `look` looks whether it is.
fn wait(way: &mut dyn Way, mut look: impl FnMut(&mut dyn Way) -> Result<bool>) -> Result<()> {
    loop {
        let fds = way.fds();
        let mut fds: Vec<_> = fds
            .iter()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        if poll(&mut fds, PollTimeout::from(10_000_u16))? == 0 {
            bail!("no frame for ten seconds");
        }
        drop(fds);
        if look(way)? {
            return Ok(());
        }
    }
}

const WARM: usize = 40;

/// Shows frames by one that `make` makes, and prints what they cost.
pub(crate) fn report(name: &str, make: impl Fn() -> Result<Box<dyn Way>>) -> Result<()> {
    let frames = calls::of_frames(|| {
        let mut way = make()?;
        for frame in 0..WARM {
            calls::marked(|| way.show(frame % 3))?;
            wait(&mut *way, |way| calls::marked(|| way.shown()))?;
        }
        Ok(())
    })?;
    println!("{name}:");
    let last = frames.len().checked_sub(2).context("no frame was traced")?;
    for (part, frame) in ["frame", "event"].iter().zip(&frames[last..]) {
        for (whose, counts) in [("", &frame.caller), (", other threads", &frame.others)] {
            for (call, count) in counts {
                println!("  {part}{whose}: {count} {call}");
            }
        }
    }
    let mut way = make()?;
    let (mut of_frames, mut all) = (0, 0);
    for frame in 0..2 * WARM {
        let before = allocations::count();
        way.show(frame % 3)?;
        let shown = allocations::count();
        // What `wait` itself allocates is no cost of the way's.
        wait(&mut *way, |way| {
            let before_event = allocations::count();
            let is_shown = way.shown()?;
            if frame >= WARM {
                all += allocations::count() - before_event;
            }
            Ok(is_shown)
        })?;
        if frame >= WARM {
            of_frames += shown - before;
        }
    }
    let each = |count: u64| count as f64 / WARM as f64;
    println!(
        "  allocations: {} for the frame, {} for its event",
        each(of_frames),
        each(all)
    );
    Ok(())
}
