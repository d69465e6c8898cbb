//! What a warm frame costs on its way to a screen: system calls, one by one, and allocations.
//!
//! Four ways on the same screen: the presenter, directly and copied; an output alone; and a host of the crate `drm`
//! that keeps its framebuffers, as wlroots does (`backend/drm/fb.c` and `atomic.c`).

mod measure;

use std::fs::File;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use drm::control::{self, AtomicCommitFlags, Device as _, atomic, property};
use measure::{Way, report};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{self, BlitDevice, Blitter};
use primeshare::device::{self, NodeKind};
use primeshare::kms::{
    Card, CommitOptions, FramebufferOptions, Layer, Output, OutputConfig, PresentInfo, Presenter,
    Status, Swapchain,
};
use primeshare::vk::{Instance, Select, Validation};
use primeshare::{Device, DmaBuf, Fourcc, Request};

/// A screen, and three frames of another device.
struct Scene {
    master: File,
    card: Card,
    output: Output,
    source: Device,
    frames: Vec<DmaBuf>,
}

impl Scene {
    /// `half`: frames of half the screen's size, which most screens do not scale.
    fn new(half: bool) -> Result<Self> {
        let (devices, _) = device::open_all()?;
        let primary = |device: &&Device| device.node().kind == NodeKind::Primary;
        for screen in devices.iter().filter(primary) {
            let path = &screen.node().path;
            let master = File::options().read(true).write(true).open(path)?;
            let Ok(card) = Card::new(&master) else {
                continue;
            };
            let screens = card.screens(true)?;
            let is_there = |c: &&primeshare::kms::Connector| c.status == Status::Connected;
            let Some(connector) = screens.connectors.iter().find(is_there) else {
                continue;
            };
            let output = Output::new(&card, &screens, &OutputConfig::new(connector.id))?;
            let mut others = devices
                .iter()
                .filter(|device| !device.is_same_device(screen));
            let source = others.find(primary).context("there is one device only")?;
            let (width, height) = output.mode().size();
            let size = match half {
                true => (width / 2, height / 2),
                false => (width, height),
            };
            let request = Request::new(size.0, size.1, Fourcc::XRGB8888);
            let frames = (0..3).map(|_| Dumb::new(source).allocate(&request));
            return Ok(Self {
                frames: frames.collect::<Result<_, _>>()?,
                master,
                card,
                output,
                source: source.clone(),
            });
        }
        bail!("no device has a screen")
    }
}

struct ByPresenter {
    presenter: Presenter,
    card: Card,
    frames: Vec<DmaBuf>,
}

impl ByPresenter {
    fn new(scene: Scene) -> Result<Self> {
        let instance = Instance::new(Validation::Off)?;
        let gpu = instance.select(&Select::Software)?;
        let sides = (
            BlitDevice::new(&scene.source, Some(&gpu)),
            BlitDevice::new(scene.card.device(), Some(&gpu)),
        );
        let blitter = Blitter::new(sides.0, sides.1, &blit::Options::default())?;
        let (width, height) = scene.output.mode().size();
        let request = Request::new(width, height, Fourcc::XRGB8888);
        let swapchain = Swapchain::new(Dumb::new(scene.card.device()), request, 3);
        Ok(Self {
            presenter: Presenter::new(scene.output, blitter, swapchain)?,
            card: scene.card,
            frames: scene.frames,
        })
    }
}

impl Way for ByPresenter {
    fn show(&mut self, frame: usize) -> Result<()> {
        self.presenter
            .present(&self.frames[frame], &PresentInfo::default())?;
        Ok(())
    }

    fn shown(&mut self) -> Result<bool> {
        for flip in self.card.read_events()? {
            self.presenter.page_flip(&flip);
        }
        Ok(self.presenter.dispatch().len() > 0)
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.card.as_fd(), self.presenter.as_fd()]
    }
}

struct ByOutput(Scene);

impl Way for ByOutput {
    fn show(&mut self, frame: usize) -> Result<()> {
        let layer = Layer::new(&self.0.frames[frame]);
        self.0.output.commit(&[layer], CommitOptions::default())?;
        Ok(())
    }

    fn shown(&mut self) -> Result<bool> {
        for flip in self.0.card.read_events()? {
            self.0.output.page_flip(&flip);
        }
        Ok(!self.0.output.is_pending())
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.0.card.as_fd()]
    }
}

/// The file of a host of the crate `drm`.
struct Host<'a>(&'a File);

impl AsFd for Host<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Host<'_> {}
impl control::Device for Host<'_> {}

/// A commit of the primary plane with a kept framebuffer, after a test of it, and nothing else.
struct ByDrm {
    scene: Scene,
    ids: Vec<property::Handle>,
    plane: control::plane::Handle,
}

const PROPERTIES: [&str; 10] = [
    "FB_ID", "CRTC_ID", "SRC_X", "SRC_Y", "SRC_W", "SRC_H", "CRTC_X", "CRTC_Y", "CRTC_W", "CRTC_H",
];

impl ByDrm {
    fn new(mut scene: Scene) -> Result<Self> {
        // The library turns the screen on, which is not measured.
        let layer = Layer::new(&scene.frames[0]);
        scene.output.commit(&[layer], CommitOptions::default())?;
        let mut way = ByOutput(scene);
        while !way.shown()? {}
        let scene = way.0;
        let plane = NonZeroU32::new(scene.output.primary().0)
            .context("no plane")?
            .into();
        let host = Host(&scene.master);
        let known = host.get_properties(plane)?.as_hashmap(&host)?;
        let id = |name: &&str| known.get(*name).map(|info| info.handle());
        let ids = PROPERTIES.iter().map(id).collect::<Option<_>>();
        Ok(Self {
            ids: ids.context("the plane lacks a property")?,
            plane,
            scene,
        })
    }
}

impl Way for ByDrm {
    fn show(&mut self, frame: usize) -> Result<()> {
        let scene = &self.scene;
        let framebuffers = scene.card.framebuffers();
        let framebuffer = framebuffers.get(&scene.frames[frame], FramebufferOptions::default());
        let framebuffer = framebuffer.map_err(|error| anyhow::anyhow!("{error}"))?;
        let (width, height) = scene.output.mode().size();
        let crtc = scene.output.crtc().0;
        let values = [
            framebuffer.id().into(),
            crtc.into(),
            0,
            0,
            u64::from(width) << 16,
            u64::from(height) << 16,
            0,
            0,
            width.into(),
            height.into(),
        ];
        let request = || {
            let mut request = atomic::AtomicModeReq::new();
            for (id, value) in self.ids.iter().zip(values) {
                request.add_raw_property(self.plane.into(), *id, value);
            }
            request
        };
        let host = Host(&scene.master);
        host.atomic_commit(AtomicCommitFlags::TEST_ONLY, request())?;
        let flags = AtomicCommitFlags::NONBLOCK | AtomicCommitFlags::PAGE_FLIP_EVENT;
        Ok(host.atomic_commit(flags, request())?)
    }

    fn shown(&mut self) -> Result<bool> {
        Ok(!self.scene.card.read_events()?.is_empty())
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.scene.card.as_fd()]
    }
}

type Make = fn() -> Result<Box<dyn Way>>;

fn ways() -> [(&'static str, Make); 4] {
    [
        ("presenter, direct", || {
            Ok(Box::new(ByPresenter::new(Scene::new(false)?)?))
        }),
        ("presenter, copied and scaled", || {
            Ok(Box::new(ByPresenter::new(Scene::new(true)?)?))
        }),
        ("output", || Ok(Box::new(ByOutput(Scene::new(false)?)))),
        (
            "wlroots' way with the crate drm: framebuffers kept, a test before each commit",
            || Ok(Box::new(ByDrm::new(Scene::new(false)?)?)),
        ),
    ]
}

fn main() -> Result<()> {
    for (name, make) in ways() {
        report(name, make)?;
    }
    Ok(())
}
