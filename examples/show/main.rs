//! Shows a picture of one device on a screen of another, with a square that moves over it, and writes down what the
//! screen showed.
//!
//! Runs where nothing else shows anything: on a free virtual terminal, or in a guest. Frames are drawn by the CPU into
//! buffers of the first device that is not the screen's; a `Presenter` has the screen show these buffers, or copies
//! them if the screen does not take them.

#[path = "../cross_gpu_blit/picture.rs"]
#[allow(
    dead_code,
    reason = "of the other example; this one only loads, reads and saves"
)]
mod picture;
mod screen;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{self, BlitDevice, Blitter};
use primeshare::buffer::{Damage, DamageBox};
use primeshare::gbm::Gbm;
use primeshare::kms::{self, Card, Dropped, Event, PresentInfo, Presenter, Swapchain, Way};
use primeshare::sync::{Access, BufferMapping};
use primeshare::vk::{Instance, Select, Validation};
use primeshare::{Device, DmaBuf, Fourcc, Request, device};

use picture::Picture;
use screen::Screen;

const FORMAT: Fourcc = Fourcc::XRGB8888;
/// Longer than any frame takes, also on a busy machine in software.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows a picture of one device on a screen of another, and writes what the screen showed.
#[derive(Parser)]
#[command(name = "show", version)]
struct Options {
    /// A PNG file.
    picture: PathBuf,
    /// Where what the screen showed is written.
    #[arg(long, value_name = "FILE", default_value = "show.png")]
    out: PathBuf,
    /// Frames to show; the last one is the picture alone.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..))]
    frames: u32,
}

fn main() -> ExitCode {
    env_logger::init();
    let Err(error) = run(&Options::parse()) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    let is_refused = |error: &kms::Error| matches!(error, kms::Error::NotMaster { .. });
    if error.downcast_ref().is_some_and(is_refused) {
        eprintln!(
            "a compositor runs on this device: switch to a free VT (Ctrl+Alt+F3), and run this there"
        );
    }
    ExitCode::FAILURE
}

fn run(options: &Options) -> Result<()> {
    let picture = Picture::load(&options.picture)?;
    let (devices, failed) = device::open_all()?;
    failed.iter().for_each(|error| log::info!("{error}"));
    let screen = Screen::find(&devices)?;
    println!(
        "screen     {}, {}, {}",
        screen.card,
        screen.output.connector().name,
        screen.output.mode()
    );
    let request = Request::new(picture.width(), picture.height(), FORMAT);
    let (source, by, buffers) = frames_of(&devices, screen.card.device(), &request)?;
    println!(
        "frames     {source}, allocated by {by}, {}x{}",
        request.width, request.height
    );

    let instance = Instance::new(Validation::Off);
    let gpu = |device: &Device| {
        let instance = instance.as_ref().ok()?;
        let own = instance.select(&Select::Drm(device));
        own.or_else(|_| instance.select(&Select::Software)).ok()
    };
    let side = |device: &Device| BlitDevice::new(device, gpu(device).as_ref());
    let sides = (side(&source), side(screen.card.device()));
    let blitter = Blitter::new(sides.0, sides.1, &blit::Options::default())?;
    let dumb = Dumb::new(screen.card.device());
    let makes = dumb.endpoint([FORMAT])?;
    let swapchain =
        Swapchain::negotiated(dumb, &makes, &screen.output, &screen.screens, [FORMAT], 3)?;
    let mut player = Player {
        presenter: Presenter::new(screen.output, blitter, swapchain)?,
        card: screen.card.clone(),
        shown: 0,
        times: Vec::new(),
        ways: BTreeMap::new(),
    };
    play(&mut player, &picture, &buffers, options.frames)?;
    player.report();

    let output = player.presenter.output();
    let (seen, by) = screen::capture(&screen.card, &screen.screens, output)?;
    seen.save(&options.out)?;
    println!("written    {}, by {by}", options.out.display());
    let (output, ..) = player.presenter.into_parts();
    Ok(output.restore_wait()?)
}

/// Three buffers of the first device that is not the screen's, or else of that; and by which allocator.
fn frames_of(
    devices: &[Device],
    screen: &Device,
    request: &Request,
) -> Result<(Device, &'static str, Vec<DmaBuf>)> {
    let others = devices
        .iter()
        .filter(|device| !device.is_same_device(screen));
    let mut last = None;
    for device in others.chain([screen]) {
        let by_gbm = Gbm::new(device).map(|gbm| Box::new(gbm) as Box<dyn Allocator>);
        for allocator in by_gbm
            .ok()
            .into_iter()
            .chain([Box::new(Dumb::new(device)) as _])
        {
            let buffers = (0..3).map(|_| allocator.allocate(request));
            match buffers.collect() {
                Ok(buffers) => return Ok((device.clone(), allocator.name(), buffers)),
                Err(error) => last = Some(error),
            }
        }
    }
    Err(last.context("no device allocates")?.into())
}

/// The program's loop.
struct Player {
    presenter: Presenter,
    card: Card,
    /// Frames that were on the screen.
    shown: u64,
    /// Since when each was.
    times: Vec<Duration>,
    /// How they got there, and how many.
    ways: BTreeMap<String, u32>,
}

impl Player {
    /// Goes on until this frame was on the screen, and another one can be presented.
    fn wait_until_shown(&mut self, frame: u64) -> Result<()> {
        while self.shown < frame || !self.presenter.is_ready() {
            let fds = [self.card.as_fd(), self.presenter.as_fd()];
            let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let ready = poll(&mut fds, PollTimeout::try_from(PATIENCE)?)?;
            ensure!(
                ready > 0,
                "nothing came of frame {} for a minute",
                self.shown + 1
            );
            for flip in self.card.read_events()? {
                self.presenter.page_flip(&flip);
            }
            let events: Vec<_> = self.presenter.dispatch().collect();
            for event in events {
                self.note(event)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Shown { frame, flip, way } => {
                self.shown = frame;
                self.times.push(flip.time);
                let way = match way {
                    Way::Copied(why) => {
                        format!("copied, since the screen did not take them: {why}")
                    }
                    _ => "direct: the screen's device reads the buffers of the frames".to_owned(),
                };
                *self.ways.entry(way).or_default() += 1;
                Ok(())
            }
            Event::Dropped {
                why: Dropped::Screen(error),
                ..
            } => Err(error.into()),
            Event::Dropped { frame, why } => bail!("frame {frame} was dropped: {why}"),
            _ => Ok(()),
        }
    }

    fn report(&self) {
        for (way, frames) in &self.ways {
            println!("shown      {frames} frames {way}");
        }
        for of in &self.presenter.blitter().statistics().strategies {
            println!("copied by  {}, {} frames", of.strategy, of.frames);
        }
        if let [first, .., last] = self.times[..] {
            let rate = (self.times.len() - 1) as f64 / (last - first).as_secs_f64();
            println!("speed      {rate:.1} frames per second");
        }
    }
}

/// Presents the frames: the picture with a square that moves, and in the end without.
fn play(player: &mut Player, picture: &Picture, buffers: &[DmaBuf], frames: u32) -> Result<()> {
    let size = (picture.width(), picture.height());
    let maps = buffers.iter().map(BufferMapping::new);
    let mut maps = maps.collect::<Result<Vec<_>, _>>()?;
    for map in &mut maps {
        let whole = DamageBox {
            x1: 0,
            y1: 0,
            x2: size.0 as i32,
            y2: size.1 as i32,
        };
        draw(map, picture, whole, None)?;
    }
    for frame in 0..frames {
        // The buffer was shown three frames ago, and is free when the frame after that is on the screen.
        player.wait_until_shown(u64::from(frame.saturating_sub(1)))?;
        let at = |frame: Option<u32>| {
            frame
                .filter(|frame| frame + 1 < frames)
                .map(|frame| square(frame, size))
        };
        let (now, before) = (at(Some(frame)), at(frame.checked_sub(1)));
        let map = &mut maps[frame as usize % 3];
        let old = at(frame.checked_sub(3)).unwrap_or(square(0, size));
        draw(map, picture, old, now)?;
        let changed: Vec<_> = before.into_iter().chain(now).collect();
        let damage = match frame {
            0 => Damage::Full,
            _ => Damage::Boxes(&changed),
        };
        let info = PresentInfo::default().damage(damage);
        player
            .presenter
            .present(&buffers[frame as usize % 3], &info)?;
    }
    player.wait_until_shown(frames.into())
}

/// Draws a part of the picture, and then the square.
fn draw(
    map: &mut BufferMapping,
    picture: &Picture,
    part: DamageBox,
    square: Option<DamageBox>,
) -> Result<()> {
    let mut access = map.begin_wait(Access::Write, PATIENCE)?;
    let mut plane = access.plane_mut(0)?;
    for (part, is_square) in [(Some(part), false), (square, true)] {
        let Some(DamageBox { x1, y1, x2, y2 }) = part else {
            continue;
        };
        for y in y1..y2 {
            let from = 4 * (y as usize * picture.width() as usize + x1 as usize);
            let pixels = match is_square {
                true => [0, 128, 255, 255].repeat((x2 - x1) as usize),
                false => picture.bytes()[from..from + 4 * (x2 - x1) as usize].to_vec(),
            };
            let mut row = plane.row(y as usize).context("past the last row")?;
            row.write(4 * x1 as usize, &pixels)?;
        }
    }
    Ok(access.end()?)
}

/// Where the square is: it moves on a line, and turns at the edges.
fn square(frame: u32, (width, height): (u32, u32)) -> DamageBox {
    let side = (width.min(height) / 6).max(1);
    let place = |distance: u32, room: u32| match distance % (2 * room).max(1) {
        there if there <= room => there as i32,
        back => (2 * room - back) as i32,
    };
    let (x1, y1) = (
        place(frame * 7, width - side),
        place(frame * 5, height - side),
    );
    DamageBox {
        x1,
        y1,
        x2: x1 + side as i32,
        y2: y1 + side as i32,
    }
}
