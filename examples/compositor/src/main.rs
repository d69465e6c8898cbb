//! A Wayland compositor that draws on one device and shows on any number of screens of any devices.
//!
//! Every window fills a screen. A window that covers its screen and is opaque is not drawn at all: its buffer goes to the
//! screen, as it is or copied. The chapter `compositor` of the library's guide walks through the files.

#[macro_use]
mod objects;

mod buffers;
mod gpu;
mod limits;
mod picture;
mod screens;
mod seat;
mod shell;
mod surface;
mod time;
mod viewers;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use primeshare::Modifier;
use primeshare::buffer::{Damage, FormatInfo};
use primeshare::negotiate::{Feedback, FormatSet, Tranche, TrancheFlags};
use primeshare::wayland::FeedbackEvents;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wayland_server::backend::{GlobalId, ObjectId};
use wayland_server::protocol::wl_surface::WlSurface;
use wayland_server::{Display, DisplayHandle, ListeningSocket, Resource};

use gpu::{Gpu, Quad};
use limits::Limits;
use screens::{Screen, Screens};
use shell::Window;
use surface::{Changed, Surface};
use viewers::Viewers;

/// A Wayland compositor that draws on one device and shows on the screens of all.
#[derive(Parser)]
#[command(name = "compositor", version)]
struct Options {
    /// The DRM node of the GPU that draws. Default: the first that shares its pictures.
    #[arg(long, value_name = "NODE")]
    gpu: Option<PathBuf>,
    /// Use the screens of this DRM node only; may be given several times. Default: the screens of all devices.
    #[arg(long, value_name = "NODE")]
    card: Vec<PathBuf>,
    /// The name of the socket. Default: the first free one of wayland-1, wayland-2 …
    #[arg(long)]
    socket: Option<String>,
    /// Write what each screen shows at the end: FILE, with the screen's name before its extension.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Write each of the first N frames that a screen shows: frame-1-SCREEN.png …
    #[arg(long, value_name = "N", default_value_t = 0)]
    record: u64,
    /// Send frames to viewers that connect to this socket.
    #[arg(long, value_name = "SOCKET")]
    share: Option<PathBuf>,
    /// End when so many frames have been on the screens.
    #[arg(long)]
    frames: Option<u64>,
    /// Copy what clients share also where the GPU could read it. For tests.
    #[arg(long)]
    copy: bool,
    /// A program to start, with its arguments. The compositor ends with it.
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
}

pub(crate) struct Compositor {
    display: DisplayHandle,
    gpu: Gpu,
    screens: Screens,
    limits: Limits,
    surfaces: HashMap<ObjectId, Surface>,
    /// From the bottom up.
    windows: Vec<Window>,
    /// What every surface is told; what a surface is told that could be on a screen as it is.
    feedback: FeedbackEvents,
    feedback_of_screens: HashMap<u32, FeedbackEvents>,
    samples: FormatSet,
    serial: u32,
    /// Outputs of screens that are gone, and since when.
    disabled: Vec<(Instant, GlobalId)>,
    /// Frames that were on screens: drawn, as they are, copied.
    shown: [u64; 3],
    record: u64,
    viewers: Option<Viewers>,
}

fn main() -> ExitCode {
    env_logger::init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let socket = match &options.socket {
        Some(name) => ListeningSocket::bind(name),
        None => ListeningSocket::bind_auto("wayland", 1..33),
    };
    let socket = socket.context("no socket in $XDG_RUNTIME_DIR")?;
    let name = socket.socket_name().unwrap_or_default().to_owned();
    println!("WAYLAND_DISPLAY={}", name.display());
    // Before this process allows itself more fds than other programs expect to have.
    let program = start(&options.command, &name)?;
    let mut display = Display::<Compositor>::new()?;
    let mut compositor = Compositor::new(&display.handle(), options)?;
    let is_done = |shown: u64| options.frames.is_some_and(|frames| shown >= frames);
    let ends = program.as_ref().map(Program::end).transpose()?;
    while !is_done(compositor.shown.iter().sum()) && !ends.as_ref().is_some_and(|ends| is_readable(ends.as_fd())) {
        compositor.draw();
        display.flush_clients()?;
        wait(&mut display, &socket, ends.as_ref(), &compositor)?;
        accept(&socket, &mut display);
        compositor.limits.turn = compositor.limits.turn.wrapping_add(1);
        display.dispatch_clients(&mut compositor)?;
        compositor.dispatch()?;
    }
    if let Some(path) = &options.png {
        for screen in &compositor.screens.lit {
            let mut name = path.file_stem().unwrap_or_default().to_owned();
            name.push(format!("-{}.png", screen.name()));
            screen.save(&path.with_file_name(name))?;
        }
    }
    let [drawn, direct, copied] = compositor.shown;
    println!("frames: {drawn} drawn, {direct} of clients as they are, {copied} of clients copied");
    Ok(())
}

/// A program that is ended with the compositor.
struct Program(Child);

impl Program {
    /// An fd that is readable when it has ended.
    fn end(&self) -> rustix::io::Result<OwnedFd> {
        pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes the clients that have come. If that fails, for lack of fds for example, those that are there go on.
fn accept(socket: &ListeningSocket, display: &mut Display<Compositor>) {
    loop {
        let stream = match socket.accept() {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(error) => return log::warn!("a client is not taken: {error}"),
        };
        if let Err(error) = display.handle().insert_client(stream, Arc::new(limits::Share::default())) {
            log::warn!("a client is not taken: {error}");
        }
    }
}

fn start(command: &[OsString], display: &std::ffi::OsStr) -> Result<Option<Program>> {
    let [program, arguments @ ..] = command else {
        return Ok(None);
    };
    let mut command = std::process::Command::new(program);
    let started = command.args(arguments).env("WAYLAND_DISPLAY", display).spawn();
    Ok(Some(Program(started.with_context(|| program.display().to_string())?)))
}

/// Waits until a client, a screen, a fence or a copy has something to tell, or the program has ended.
fn wait(
    display: &mut Display<Compositor>,
    socket: &ListeningSocket,
    ends: Option<&OwnedFd>,
    state: &Compositor,
) -> Result<()> {
    let clients = display.backend();
    let clients = clients.poll_fd();
    let viewers = state.viewers.iter().flat_map(Viewers::fds);
    let fences = state.surfaces.values().flat_map(Surface::fds);
    let fds = [clients, socket.as_fd()]
        .into_iter()
        .chain(ends.map(AsFd::as_fd))
        .chain(state.screens.fds())
        .chain(fences)
        .chain(viewers);
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let has_failed = state.screens.lit.iter().any(Screen::wants_frame);
    let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    match poll(&mut fds, has_failed.then_some(&moment)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

impl Compositor {
    fn new(display: &DisplayHandle, options: &Options) -> Result<Self> {
        let gpu = Gpu::open(options.gpu.as_deref(), options.copy)?;
        let samples = gpu.samples()?;
        let mut compositor = Self {
            display: display.clone(),
            feedback: feedback_for(&gpu, &samples, None)?,
            screens: Screens::new(&options.card)?,
            limits: Limits::new()?,
            surfaces: HashMap::new(),
            windows: Vec::new(),
            feedback_of_screens: HashMap::new(),
            samples,
            serial: 0,
            disabled: Vec::new(),
            shown: [0; 3],
            record: options.record,
            viewers: options.share.as_deref().map(Viewers::listen).transpose()?,
            gpu,
        };
        use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_v1::ZwpLinuxDmabufV1;
        use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_manager_v1 as syncobj;
        use wayland_protocols::wp::presentation_time::server::wp_presentation::WpPresentation;
        use wayland_protocols::xdg::shell::server::xdg_wm_base::XdgWmBase;
        use wayland_server::protocol as wl;
        display.create_global::<Self, wl::wl_compositor::WlCompositor, _>(5, ());
        display.create_global::<Self, wl::wl_subcompositor::WlSubcompositor, _>(1, ());
        display.create_global::<Self, wl::wl_shm::WlShm, _>(1, ());
        display.create_global::<Self, wl::wl_seat::WlSeat, _>(7, ());
        display.create_global::<Self, wl::wl_data_device_manager::WlDataDeviceManager, _>(3, ());
        display.create_global::<Self, XdgWmBase, _>(3, ());
        display.create_global::<Self, ZwpLinuxDmabufV1, _>(6, ());
        display.create_global::<Self, WpPresentation, _>(1, ());
        if buffers::has_timelines(&compositor.gpu.device) {
            display.create_global::<Self, syncobj::WpLinuxDrmSyncobjManagerV1, _>(1, ());
        }
        compositor.find_screens()?;
        if compositor.screens.lit.is_empty() {
            log::warn!("no screen that is free: switch to a free VT, or plug one in");
        }
        Ok(compositor)
    }

    fn find_screens(&mut self) -> Result<()> {
        let is_old = |(since, _): &mut (Instant, GlobalId)| since.elapsed() > Duration::from_secs(5);
        for (_, global) in self.disabled.extract_if(.., is_old) {
            self.display.remove_global::<Self>(global);
        }
        for gone in self.screens.find(&self.gpu)? {
            log::info!("{} is gone", gone.name());
            for surface in self.surfaces.values_mut() {
                if surface.scanout.forget(&gone.number) {
                    let objects = surface.feedback_objects.iter();
                    objects.for_each(|object| buffers::send_feedback(object, &self.feedback));
                }
            }
            self.feedback_of_screens.remove(&gone.number);
            if let Some(global) = &gone.global {
                // A client that is binding it at this moment has done nothing wrong: it is removed with a later change.
                self.display.disable_global::<Self>(global.clone());
                self.disabled.push((Instant::now(), global.clone()));
            }
            gone.end();
        }
        for screen in &mut self.screens.lit {
            if screen.global.is_none() {
                seat::announce(screen, &self.display);
                let device = screen.card.device().node().id.dev_t();
                let shows = Some((device, &screen.takes));
                let feedback = feedback_for(&self.gpu, &self.samples, shows)?;
                self.feedback_of_screens.insert(screen.number, feedback);
            }
        }
        self.place_windows();
        Ok(())
    }

    /// What has happened on screens.
    fn dispatch(&mut self) -> Result<()> {
        self.viewers.iter_mut().for_each(Viewers::dispatch);
        self.screens.read_events();
        if self.screens.have_changed() {
            self.find_screens()?;
        }
        for screen in &mut self.screens.lit {
            for shown in screen.shown() {
                let millihertz = screen.mode().millihertz();
                // Now, and not when the frame was drawn: a client with two buffers has one of them back.
                let now = time::milliseconds();
                shown.callbacks.into_iter().for_each(|callback| callback.done(now));
                for feedback in shown.feedback {
                    let is_direct = shown.by == screens::DIRECT;
                    feedback.presented(&shown.flip, millihertz, is_direct, &screen.bound);
                }
                self.shown[shown.by] += 1;
                let all: u64 = self.shown.iter().sum();
                if all <= self.record {
                    screen.save(format!("frame-{all}-{}.png", screen.name()).as_ref())?;
                }
            }
        }
        self.advance();
        Ok(())
    }

    /// Makes a frame for each screen that wants one.
    fn draw(&mut self) {
        for n in 0..self.screens.lit.len() {
            if self.screens.lit[n].wants_frame()
                && let Err(error) = self.draw_screen(n)
            {
                // It is tried again a moment later.
                log::warn!("{}: {error:#}", self.screens.lit[n].name());
            }
        }
    }

    fn draw_screen(&mut self, n: usize) -> Result<()> {
        let (number, size) = (self.screens.lit[n].number, self.screens.lit[n].size());
        let mut stack = self.stack(number, size);
        let picture = |id: &ObjectId| self.surfaces.get(id)?.picture.as_ref();
        stack.retain(|(id, _)| picture(id).is_some());
        // Nothing below is seen.
        let is_all = |(id, place): &(_, _)| *place == (0, 0) && picture(id).is_some_and(|one| one.covers(size));
        let first = stack.iter().rposition(is_all);
        stack.drain(..first.unwrap_or(0));
        let pictures: Vec<_> = stack.iter().filter_map(|(id, place)| Some((picture(id)?, *place))).collect();
        let kept = pictures.iter().filter_map(|(one, _)| one.kept.clone()).collect();
        let whole = match (first, &pictures[..]) {
            (Some(_), [(one, _)]) => one.buffer.clone(),
            _ => None,
        };
        let screen = &mut self.screens.lit[n];
        match &whole {
            Some(buffer) => {
                let surface = self.surfaces.get(&stack[0].0);
                let was_it = screen.whole.as_ref() == Some(&stack[0].0);
                let damage = surface.map(|one| one.damage.get()).filter(|_| was_it);
                screen.present(Err(buffer), damage.unwrap_or_default(), None, kept, self.viewers.as_mut())?;
            }
            None => {
                let quads = pictures.iter().map(|(picture, place)| Quad {
                    source: &picture.source,
                    is_opaque: picture.is_opaque,
                    place: *place,
                    size: picture.size,
                });
                let quads: Vec<_> = quads.collect();
                let (own, target) = screen.target(&self.gpu)?;
                let fence = self.gpu.draw(target, &quads)?;
                screen.present(Ok(own), Damage::Full, fence, kept, self.viewers.as_mut())?;
            }
        }
        screen.whole = whole.map(|_| stack[0].0.clone());
        for (id, _) in &stack {
            let Some(surface) = self.surfaces.get_mut(id) else {
                continue;
            };
            surface.damage = Changed::default();
            screen.ask(surface);
            let is_alone = first.is_some() && stack.len() == 1;
            if let Some(changed) = surface.scanout.frame(is_alone.then_some(number)) {
                let of_screen = changed.and_then(|number| self.feedback_of_screens.get(&number));
                let feedback = of_screen.unwrap_or(&self.feedback);
                let objects = surface.feedback_objects.iter();
                objects.for_each(|object| buffers::send_feedback(object, feedback));
            }
        }
        Ok(())
    }

    /// What a surface is told now.
    fn feedback_of(&self, surface: &WlSurface) -> &FeedbackEvents {
        let number = self.surfaces.get(&surface.id()).and_then(|one| one.scanout.current());
        let of_screen = number.and_then(|number| self.feedback_of_screens.get(number));
        of_screen.unwrap_or(&self.feedback)
    }
}

/// What the GPU samples, after what it samples and a screen shows as it is.
fn feedback_for(gpu: &Gpu, samples: &FormatSet, shows: Option<(u64, &FormatSet)>) -> Result<FeedbackEvents> {
    let explicit = || samples.iter().map(|one| (one.fourcc, one.modifier));
    let implicit = || samples.formats().filter(|_| gpu.is_linear).map(|fourcc| (fourcc, Modifier::INVALID));
    let pairs = || explicit().chain(implicit());
    let own = gpu.device.node().id.dev_t();
    let sampled = Tranche::new(own, TrancheFlags::SAMPLING, pairs());
    let shown = shows.map(|(device, takes)| {
        let both = pairs().filter(|(fourcc, modifier)| {
            // Without alpha, as an opaque window is shown.
            let opaque = FormatInfo::of(*fourcc).and_then(|info| info.opaque_twin());
            takes.contains(opaque.unwrap_or(*fourcc), *modifier)
        });
        Tranche::new(device, TrancheFlags::SCANOUT, both)
    });
    let shown = shown.filter(|tranche| !tranche.pairs.is_empty());
    let feedback = Feedback::new(shown.into_iter().chain([sampled])).main_device(own);
    Ok(FeedbackEvents::new(&feedback)?)
}
