//! The screens of all devices, and the pictures that are on their way to them.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use primeshare::alloc::Dumb;
use primeshare::blit::{self, BlitDevice, Blitter};
use primeshare::buffer::Damage;
use primeshare::device::{NodeId, NodeKind};
use primeshare::kms::{
    Card, Change, Connector, Event, Hotplug, Mode, Output, OutputConfig, PageFlip, PresentInfo, Presenter,
    Screens as OnCard, Status, Swapchain, Way, capture,
};
use primeshare::negotiate::{FormatSet, Usage, Wanted, negotiate};
use primeshare::sync::SyncFile;
use primeshare::vk::{Instance, Select, Validation};
use primeshare::{Device, DmaBuf, Errno, Fourcc, Request, device};
use wayland_server::backend::{GlobalId, ObjectId};
use wayland_server::protocol::wl_callback::WlCallback;
use wayland_server::protocol::wl_output::WlOutput;

use crate::gpu::{Gpu, Target};
use crate::picture;
use crate::surface::{Kept, Surface};
use crate::time::{self, Feedback};
use crate::viewers::Viewers;

const FORMAT: Fourcc = Fourcc::XRGB8888;
/// The frame was drawn by the GPU.
pub(crate) const DRAWN: usize = 0;
/// The screen's device reads the client's buffer.
pub(crate) const DIRECT: usize = 1;
/// The client's buffer was copied for the screen's device.
pub(crate) const COPIED: usize = 2;

/// One on the screen, one on its way, one that is drawn.
const TARGETS: usize = 3;

/// All screens.
pub(crate) struct Screens {
    cards: Vec<Card>,
    /// The nodes of devices whose screens are used. None: of all devices.
    only: Vec<PathBuf>,
    pub(crate) hotplug: Option<Hotplug>,
    /// Devices that are to be forgotten.
    removed: Vec<NodeId>,
    instance: Option<Instance>,
    pub(crate) lit: Vec<Screen>,
    /// Numbers that were given to screens.
    numbers: u32,
}

pub(crate) struct Screen {
    /// Never given again.
    pub(crate) number: u32,
    pub(crate) card: Card,
    pub(crate) presenter: Presenter,
    /// What its primary plane takes.
    pub(crate) takes: FormatSet,
    pub(crate) global: Option<GlobalId>,
    pub(crate) bound: Vec<WlOutput>,
    /// Whether something on it has changed.
    pub(crate) is_dirty: bool,
    /// The surface whose buffer the last frame was.
    pub(crate) whole: Option<ObjectId>,
    request: Request,
    targets: Vec<Target>,
    frames: Vec<Frame>,
    /// Of frames that were not shown.
    callbacks: Vec<WlCallback>,
}

/// A frame that the presenter has, until the frame after it is on the screen.
struct Frame {
    number: u64,
    target: Option<usize>,
    callbacks: Vec<WlCallback>,
    feedback: Vec<Feedback>,
    _kept: Vec<Kept>,
}

/// A frame that is on a screen.
pub(crate) struct Shown {
    pub(crate) flip: PageFlip,
    /// [`DRAWN`], [`DIRECT`] or [`COPIED`].
    pub(crate) by: usize,
    pub(crate) callbacks: Vec<WlCallback>,
    pub(crate) feedback: Vec<Feedback>,
}

impl Screens {
    pub(crate) fn new(only: &[PathBuf]) -> Result<Self> {
        let hotplug = Hotplug::new().inspect_err(|error| log::warn!("no hot plug: {error}"));
        Ok(Self {
            cards: Vec::new(),
            only: only.to_vec(),
            hotplug: hotplug.ok(),
            removed: Vec::new(),
            instance: Instance::new(Validation::Off).ok(),
            lit: Vec::new(),
            numbers: 0,
        })
    }

    /// Lights the screens that have come, and gives back those that have gone.
    pub(crate) fn find(&mut self, gpu: &Gpu) -> Result<Vec<Screen>> {
        let removed = std::mem::take(&mut self.removed);
        let is_removed = |card: &Card| removed.contains(&card.device().node().id);
        let mut gone: Vec<_> = self.lit.extract_if(.., |screen| is_removed(&screen.card)).collect();
        self.cards.retain(|card| !is_removed(card));
        for node in device::enumerate()? {
            let is_known = |card: &Card| card.device().node().id == node.id;
            let is_used = self.only.is_empty() || self.only.contains(&node.path);
            if node.kind != NodeKind::Primary || !is_used || self.cards.iter().any(is_known) {
                continue;
            }
            // Who opens a device that has no master becomes its master.
            let master = OpenOptions::new().read(true).write(true).open(&node.path);
            match master.map(Card::new) {
                Ok(Ok(card)) => self.cards.push(card),
                // A GPU without outputs.
                Ok(Err(error)) if error.errno() == Some(Errno::EOPNOTSUPP) => {}
                Ok(Err(error)) => log::info!("{}: {error}", node.path.display()),
                Err(error) => log::info!("{}: {error}", node.path.display()),
            }
        }
        for card in self.cards.clone() {
            let on_card = match card.screens(true) {
                Ok(on_card) => on_card,
                Err(error) => {
                    log::info!("{error}");
                    continue;
                }
            };
            let is_lit = |screen: &Screen, connector: &Connector| {
                let output = screen.presenter.output();
                let is_it = output.connector().id == connector.id;
                is_it && screen.card.device().is_same_device(card.device())
            };
            for connector in on_card.connectors.iter().filter(|one| !one.is_writeback) {
                let has_screen = connector.status == Status::Connected;
                let place = self.lit.iter().position(|screen| is_lit(screen, connector));
                match (has_screen, place) {
                    (false, Some(place)) => gone.push(self.lit.remove(place)),
                    (true, None) => match self.light(gpu, &card, &on_card, connector) {
                        Ok(screen) => self.lit.push(screen),
                        Err(error) => log::warn!("{card}, {}: {error:#}", connector.name),
                    },
                    _ => {}
                }
            }
        }
        Ok(gone)
    }

    fn light(&mut self, gpu: &Gpu, card: &Card, on_card: &OnCard, connector: &Connector) -> Result<Screen> {
        let output = Output::new(card, on_card, &OutputConfig::new(connector.id))?;
        let size = output.mode().size();
        let plane = on_card.plane(output.primary()).context("no primary plane")?;
        let shows = plane.endpoint(card)?;
        // A layout that the GPU draws and the screen's device shows, else one that can be copied.
        let wanted = Wanted::new(size.0, size.1).in_formats([FORMAT]);
        let draws = gpu.draws()?;
        let agreement = negotiate(&[&draws, &shows], &wanted);
        let modifiers = agreement.best().map(|best| best.modifiers.clone());
        let request = Request::new(size.0, size.1, FORMAT)
            .modifiers(modifiers.unwrap_or_default())
            .usage(Usage::RENDER | Usage::SCANOUT);
        let side = |device: &Device| {
            let instance = self.instance.as_ref();
            let own = instance.and_then(|instance| {
                let own = instance.select(&Select::Drm(device));
                own.or_else(|_| instance.select(&Select::Software)).ok()
            });
            BlitDevice::new(device, own.as_ref())
        };
        let sides = (side(&gpu.device), side(card.device()));
        let blitter = Blitter::new(sides.0, sides.1, &blit::Options::default())?;
        let dumb = Dumb::new(card.device());
        let makes = dumb.endpoint([FORMAT])?;
        let copies = Swapchain::negotiated(dumb, &makes, &output, on_card, [FORMAT], TARGETS)?;
        self.numbers += 1;
        log::info!("{card}, {}: {}", connector.name, output.mode());
        Ok(Screen {
            number: self.numbers,
            card: card.clone(),
            presenter: Presenter::new(output, blitter, copies)?,
            takes: shows.formats,
            global: None,
            bound: Vec::new(),
            is_dirty: true,
            whole: None,
            request,
            targets: Vec::new(),
            frames: Vec::new(),
            callbacks: Vec::new(),
        })
    }

    /// Has all screens drawn anew.
    pub(crate) fn repaint(&mut self) {
        self.lit.iter_mut().for_each(|screen| screen.is_dirty = true);
    }

    /// What becomes readable when a screen has something to tell.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let cards = self.cards.iter().map(AsFd::as_fd);
        let presenters = self.lit.iter().map(|screen| screen.presenter.as_fd());
        let hotplug = self.hotplug.iter().map(AsFd::as_fd);
        cards.chain(presenters).chain(hotplug)
    }

    /// Whether screens may have come or gone.
    pub(crate) fn have_changed(&mut self) -> bool {
        let changes = self.hotplug.as_mut().and_then(|hotplug| hotplug.changes().ok()).unwrap_or_default();
        let removed = changes.iter().filter_map(|change| match change {
            Change::DeviceRemoved(node) => Some(*node),
            _ => None,
        });
        self.removed.extend(removed);
        !changes.is_empty()
    }

    /// Gives page flips to their screens.
    pub(crate) fn read_events(&mut self) {
        for card in &self.cards {
            let flips = card.read_events().unwrap_or_default();
            for flip in flips.iter() {
                let device = card.device().node().id;
                let mut of_card = self.lit.iter_mut().filter(|screen| screen.card.device().node().id == device);
                of_card.any(|screen| screen.presenter.page_flip(flip));
            }
        }
    }
}

impl Screen {
    pub(crate) fn mode(&self) -> &Mode {
        self.presenter.output().mode()
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        self.mode().size()
    }

    pub(crate) fn name(&self) -> String {
        let connector = &self.presenter.output().connector().name;
        format!("{}-{connector}", self.card.device().node().id.minor)
    }

    /// Writes what it shows: its primary plane, which is all that is used of it.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let shown = capture::on_plane(&self.card, self.presenter.output().primary())?;
        picture::save(&shown.context("the screen shows nothing")?, path)
    }

    /// Whether it has something to show and takes another frame.
    pub(crate) fn wants_frame(&self) -> bool {
        let in_use = self.frames.iter().filter(|frame| frame.target.is_some());
        self.is_dirty && self.presenter.is_ready() && in_use.count() < TARGETS
    }

    /// A picture that nobody reads, and its number.
    pub(crate) fn target(&mut self, gpu: &Gpu) -> Result<(usize, &Target)> {
        let is_read = |n: usize| std::sync::Arc::strong_count(&self.targets[n].users) > 1;
        let is_free = |n: &usize| !is_read(*n) && !self.frames.iter().any(|frame| frame.target == Some(*n));
        let free = (0..self.targets.len()).find(is_free);
        let free = match free {
            Some(free) => free,
            None => {
                self.targets.push(gpu.target(&self.request)?);
                self.targets.len() - 1
            }
        };
        Ok((free, &self.targets[free]))
    }

    /// Hands a picture over: one of the screen's own, or a client's buffer.
    pub(crate) fn present(
        &mut self,
        picture: Result<usize, &DmaBuf>,
        damage: Damage<'_>,
        fence: Option<SyncFile>,
        kept: Vec<Kept>,
        viewers: Option<&mut Viewers>,
    ) -> Result<()> {
        let (buffer, own) = match picture {
            Ok(own) => (&self.targets[own].buffer, Some(self.targets[own].users.clone())),
            Err(client) => (client, None),
        };
        if let Some(viewers) = viewers {
            viewers.send(buffer, fence.as_ref(), &(own, kept.clone()));
        }
        let mut info = PresentInfo::default().damage(damage);
        if let Some(fence) = &fence {
            info = info.fence(fence.as_fd());
        }
        let number = self.presenter.present(buffer, &info)?;
        self.is_dirty = false;
        let (callbacks, feedback) = Default::default();
        self.frames.push(Frame { number, target: picture.ok(), callbacks, feedback, _kept: kept });
        Ok(())
    }

    /// Who is told when the frame is shown that was presented last.
    pub(crate) fn ask(&mut self, surface: &mut Surface) {
        if let Some(frame) = self.frames.last_mut() {
            frame.callbacks.append(&mut self.callbacks);
            frame.callbacks.append(&mut surface.callbacks);
            frame.feedback.append(&mut surface.feedback);
        }
    }

    /// Tells all who wait for frames that there are none any more.
    pub(crate) fn end(self) {
        let now = time::milliseconds();
        let frames = self.frames.into_iter().flat_map(|frame| {
            frame.feedback.into_iter().for_each(Feedback::discard);
            frame.callbacks
        });
        frames.chain(self.callbacks).for_each(|callback| callback.done(now));
    }

    /// Frames that have got to the screen since the last call.
    pub(crate) fn shown(&mut self) -> Vec<Shown> {
        let events: Vec<_> = self.presenter.dispatch().collect();
        let mut shown = Vec::new();
        for event in events {
            match event {
                Event::Shown { frame, flip, way } => {
                    // The frames before are not read any more.
                    self.frames.retain(|known| known.number >= frame);
                    let Some(own) = self.frames.first_mut() else {
                        continue;
                    };
                    let by = match (own.target, way) {
                        (Some(_), _) => DRAWN,
                        (None, Way::Direct) => DIRECT,
                        (None, _) => COPIED,
                    };
                    let (callbacks, feedback) = (std::mem::take(&mut own.callbacks), std::mem::take(&mut own.feedback));
                    shown.push(Shown { flip, by, callbacks, feedback });
                }
                Event::Dropped { frame, why } => {
                    log::warn!("{}: frame {frame}: {why}", self.name());
                    let is_it = |known: &mut Frame| known.number == frame;
                    for frame in self.frames.extract_if(.., is_it) {
                        frame.feedback.into_iter().for_each(Feedback::discard);
                        // The next frame tells them.
                        self.callbacks.extend(frame.callbacks);
                    }
                    self.is_dirty = true;
                }
                _ => {}
            }
        }
        shown
    }
}
