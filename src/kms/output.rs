//! A screen with what feeds it: a connector, a CRTC, and the CRTC's planes.

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::limits::Known;
use super::saved::Saved;
use super::{
    Card, Connector, ConnectorId, Crtc, CrtcId, Error, Framebuffer, Layer, Mode, Operation,
    PageFlip, Plane, PlaneId, PlaneKind, Screens, Status, failed,
};
use crate::buffer::{Damage, DmaBuf, Rect};
use crate::sync::SyncFile;
use crate::sys::kms::{self, Atomic};

/// What an [`Output`] is to be made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutputConfig {
    /// Where the screen is plugged in.
    pub connector: ConnectorId,
    /// What feeds it. `None`: the CRTC that feeds it already, else one that feeds nothing.
    pub crtc: Option<CrtcId>,
    /// `None`: the mode that the screen prefers.
    pub mode: Option<Mode>,
}

impl OutputConfig {
    /// This connector, in the mode that its screen prefers.
    pub fn new(connector: ConnectorId) -> Self {
        Self {
            connector,
            crtc: None,
            mode: None,
        }
    }

    /// Fed by this CRTC.
    #[must_use]
    pub fn crtc(mut self, crtc: CrtcId) -> Self {
        self.crtc = Some(crtc);
        self
    }

    /// In this mode.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }
}

/// How a frame is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// A sync file is wanted that is signalled when the frame is on the screen (`OUT_FENCE_PTR`).
    pub out_fence: bool,
    /// The frame need not wait for the vertical blank, and may tear (`DRM_MODE_PAGE_FLIP_ASYNC`).
    pub tearing: bool,
    /// Whether the screen's rate may follow the frames (`VRR_ENABLED`). `None`: as before.
    pub variable_refresh: Option<bool>,
}

impl CommitOptions {
    /// With a sync file that is signalled when the frame is on the screen.
    #[must_use]
    pub fn out_fence(mut self) -> Self {
        self.out_fence = true;
        self
    }

    /// Without waiting for the vertical blank.
    #[must_use]
    pub fn tearing(mut self) -> Self {
        self.tearing = true;
        self
    }

    /// With a rate that follows the frames, or not.
    #[must_use]
    pub fn variable_refresh(mut self, enabled: bool) -> Self {
        self.variable_refresh = Some(enabled);
        self
    }
}

/// A screen that the program shows frames on.
///
/// [`Self::commit`] hands a frame over and returns at once; a [`PageFlip`] tells when it is on the screen, and the next
/// frame can be handed over from then on. What is shown, and what is about to be, is kept alive: buffers, framebuffers,
/// and whatever came along with a [`Layer`].
///
/// What the screen showed before is remembered: [`Self::restore_wait`] brings it back, and so does drop. Gamma tables, colour
/// properties and what else the library does not know of are left as they are.
#[derive(Debug)]
pub struct Output {
    card: Card,
    connector: Connector,
    crtc: Crtc,
    /// All that the CRTC can show.
    planes: Vec<PlaneIds>,
    primary: PlaneId,
    mode: Mode,
    ids: Ids,
    /// Memory of commits, used again.
    request: Atomic,
    /// The blob of `mode`, while a commit may need it.
    mode_blob: Option<Blob>,
    /// The connector is to be connected to the CRTC, in this mode.
    is_off: bool,
    /// No frame was handed over yet, so there is nothing to bring back.
    is_untouched: bool,
    shown: Vec<Shown>,
    pending: Option<Vec<Shown>>,
    /// Empty, with memory to use again.
    spare: Vec<Shown>,
    /// Planes of the CRTC on which another program has left something.
    left: Vec<PlaneId>,
    saved: Option<Saved>,
    pub(super) limits: Known,
}

/// A buffer on a plane.
struct Shown {
    plane: PlaneId,
    _framebuffer: Arc<Framebuffer>,
    _buffer: DmaBuf,
    _keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} on plane {}", self._framebuffer, self.plane)
    }
}

/// Properties of the connector and the CRTC.
#[derive(Debug)]
struct Ids {
    crtc_of_connector: u32,
    active: u32,
    mode: u32,
    out_fence: Option<u32>,
    variable_refresh: Option<u32>,
}

/// Properties of a plane.
#[derive(Debug)]
struct PlaneIds {
    plane: PlaneId,
    crtc: u32,
    framebuffer: u32,
    source: [u32; 4],
    position: [u32; 4],
    fence: Option<u32>,
    damage: Option<u32>,
    /// With the value that shows a buffer as it is.
    neutral: Vec<(u32, u64)>,
}

impl PlaneIds {
    fn of(card: &Card, plane: &Plane) -> Result<Self, Error> {
        let id = |name| id(card, plane.id.0, &plane.properties, name);
        let rect = |names: [&'static str; 4]| -> Result<[u32; 4], Error> {
            let [a, b, c, d] = names.map(id);
            Ok([a?, b?, c?, d?])
        };
        // What a program before this one may have left: rotated, half transparent.
        let neutral = [("rotation", 1), ("alpha", 0xffff)];
        let neutral = neutral.into_iter().filter_map(|(name, value)| {
            let property = plane.properties.get(name)?;
            (!property.is_immutable).then_some((property.id, value))
        });
        Ok(Self {
            plane: plane.id,
            crtc: id("CRTC_ID")?,
            framebuffer: id("FB_ID")?,
            source: rect(["SRC_X", "SRC_Y", "SRC_W", "SRC_H"])?,
            position: rect(["CRTC_X", "CRTC_Y", "CRTC_W", "CRTC_H"])?,
            fence: plane.properties.id("IN_FENCE_FD"),
            damage: plane.properties.id("FB_DAMAGE_CLIPS"),
            neutral: neutral.collect(),
        })
    }

    fn set(
        &self,
        request: &mut Atomic,
        crtc: CrtcId,
        framebuffer: &Framebuffer,
        layer: &Layer<'_>,
    ) {
        request.object(self.plane.0);
        request.set(self.framebuffer, framebuffer.id().into());
        request.set(self.crtc, crtc.0.into());
        let Rect {
            x,
            y,
            width,
            height,
        } = layer.source_or_all();
        for (id, value) in self.source.iter().zip([x, y, width, height]) {
            // Fixed point, 16.16.
            request.set(*id, u64::from(value) << 16);
        }
        let place = layer.place();
        // Signed ones are extended to 64 bits, as the kernel's range properties want them.
        let place = [
            i64::from(place.x) as u64,
            i64::from(place.y) as u64,
            place.width.into(),
            place.height.into(),
        ];
        for (id, value) in self.position.iter().zip(place) {
            request.set(*id, value);
        }
    }

    fn clear(&self, request: &mut Atomic) {
        request.object(self.plane.0);
        request.set(self.framebuffer, 0);
        request.set(self.crtc, 0);
    }
}

fn id(
    card: &Card,
    object: u32,
    properties: &super::Properties,
    name: &'static str,
) -> Result<u32, Error> {
    properties.id(name).ok_or_else(|| Error::NoProperty {
        device: card.to_string(),
        object,
        name,
    })
}

/// A property blob, destroyed on drop. A state of the device that refers to it keeps it.
#[derive(Debug)]
pub(super) struct Blob {
    card: Card,
    pub(super) id: u32,
}

impl Blob {
    pub(super) fn new(card: &Card, bytes: &mut [u8]) -> Result<Self, Error> {
        let id = kms::create_blob(card.as_fd(), bytes);
        Ok(Self {
            id: id.map_err(failed(card.device(), Operation::CreateBlob))?,
            card: card.clone(),
        })
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        // It goes with the device, too.
        if let Err(errno) = kms::destroy_blob(self.card.as_fd(), self.id) {
            log::debug!("{}: blob {}: {errno}", self.card, self.id);
        }
    }
}

impl Output {
    /// A screen of the device. Nothing is changed yet: the first [`commit`](Self::commit) turns it on.
    ///
    /// `screens` is what the device said of itself ([`Card::screens`]). [`Error::NotConnected`] without a screen,
    /// [`Error::NoneFree`] if other outputs use what it needs.
    pub fn new(card: &Card, screens: &Screens, config: &OutputConfig) -> Result<Self, Error> {
        let no_object = |kind, id| Error::NoObject {
            device: card.to_string(),
            kind,
            id,
        };
        let connector = screens.connector(config.connector);
        let connector = connector.ok_or_else(|| no_object("connector", config.connector.0))?;
        let shows_nothing = |reason| Error::NotConnected {
            connector: connector.name.clone(),
            reason,
        };
        if connector.status == Status::Disconnected {
            return Err(shows_nothing("no screen is plugged in"));
        }
        let mode = config.mode.or(connector.preferred_mode().copied());
        let mode = mode.ok_or_else(|| shows_nothing("it has no modes"))?;
        let crtc = match config.crtc {
            Some(id) => screens.crtc(id).ok_or_else(|| no_object("CRTC", id.0))?,
            None => free_crtc(card, screens, connector)?,
        };
        let mut primary = None;
        let of_crtc = screens.planes_of(crtc);
        let is_primary = |plane: &&Plane| plane.kind == PlaneKind::Primary;
        let candidates: Vec<&Plane> = of_crtc.filter(is_primary).collect();
        // Drivers list primary planes in the order of their CRTCs. One that is in use elsewhere cannot move.
        for plane in candidates {
            let used_by = plane.properties.value("CRTC_ID").unwrap_or(0);
            if used_by == u64::from(crtc.id.0) || (used_by == 0 && primary.is_none()) {
                let is_its_own = used_by != 0 || plane.possible_crtcs == 1 << crtc.index;
                primary = Some(plane.id);
                if is_its_own {
                    break;
                }
            }
        }
        let primary = primary.ok_or_else(|| Error::NoneFree {
            connector: connector.name.clone(),
            what: "primary plane",
        })?;
        let planes = match card.is_atomic() {
            true => {
                let planes = screens
                    .planes_of(crtc)
                    .map(|plane| PlaneIds::of(card, plane));
                planes.collect::<Result<_, _>>()?
            }
            false => Vec::new(),
        };
        let ids = match card.is_atomic() {
            true => Ids {
                crtc_of_connector: id(card, connector.id.0, &connector.properties, "CRTC_ID")?,
                active: id(card, crtc.id.0, &crtc.properties, "ACTIVE")?,
                mode: id(card, crtc.id.0, &crtc.properties, "MODE_ID")?,
                out_fence: crtc.properties.id("OUT_FENCE_PTR"),
                variable_refresh: crtc.properties.id("VRR_ENABLED"),
            },
            false => Ids {
                crtc_of_connector: 0,
                active: 0,
                mode: 0,
                out_fence: None,
                variable_refresh: None,
            },
        };
        let saved = Saved::of(card, connector, crtc, shown_on(screens, crtc))?;
        Ok(Self {
            card: card.clone(),
            connector: connector.clone(),
            crtc: crtc.clone(),
            planes,
            primary,
            mode,
            ids,
            request: Atomic::default(),
            mode_blob: None,
            is_off: true,
            is_untouched: true,
            shown: Vec::new(),
            pending: None,
            spare: Vec::new(),
            left: shown_on(screens, crtc).map(|plane| plane.id).collect(),
            saved: Some(saved),
            limits: Known::default(),
        })
    }

    /// The device.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Where the screen is plugged in.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// What feeds it.
    pub fn crtc(&self) -> CrtcId {
        self.crtc.id
    }

    /// The plane of layers that name none.
    pub fn primary(&self) -> PlaneId {
        self.primary
    }

    /// The mode that the screen is in, or will be from the first frame on.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Changes the mode with the next frame.
    pub fn set_mode(&mut self, mode: Mode) {
        if self.mode != mode {
            self.mode = mode;
            self.mode_blob = None;
            self.is_off = true;
            self.limits.clear();
        }
    }

    /// Whether frames can bring a fence that the display controller waits for (`IN_FENCE_FD` of the primary plane).
    pub fn takes_fences(&self) -> bool {
        let mut planes = self.planes.iter();
        planes.any(|ids| ids.plane == self.primary && ids.fence.is_some())
    }

    /// Whether a frame was handed over and is not on the screen yet.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the driver could show these layers. Nothing is changed; takes some ten microseconds and more, as the
    /// driver likes.
    ///
    /// A device without atomic commits cannot be asked: it is said to take one layer that covers the screen.
    pub fn test(&mut self, layers: &[Layer<'_>]) -> Result<(), Error> {
        self.check_planes(layers)?;
        let framebuffers = self.framebuffers(layers)?;
        if !self.card.is_atomic() {
            return self.check_legacy(layers, CommitOptions::default());
        }
        let _clips = self.build(layers, &framebuffers, CommitOptions::default(), None)?;
        let mut flags = kms::TEST_ONLY;
        if self.is_off {
            flags |= kms::ALLOW_MODESET;
        }
        let tested = self.request.commit(self.card.as_fd(), flags, 0);
        tested.map_err(failed(self.card.device(), Operation::Test))
    }

    /// Shows these layers from the next vertical blank on, and nothing else on this screen. Returns at once, with a sync
    /// file if one was [asked for](CommitOptions::out_fence).
    ///
    /// [`Error::Pending`] until the frame before is on the screen. After another error the screen shows what it showed.
    pub fn commit(
        &mut self,
        layers: &[Layer<'_>],
        options: CommitOptions,
    ) -> Result<Option<SyncFile>, Error> {
        if self.pending.is_some() {
            return Err(Error::Pending);
        }
        self.check_planes(layers)?;
        let framebuffers = self.framebuffers(layers)?;
        let fence = match self.card.is_atomic() {
            true => self.commit_atomic(layers, &framebuffers, options)?,
            false => self.commit_legacy(layers, &framebuffers, options)?,
        };
        let mut pending = std::mem::take(&mut self.spare);
        let shown = layers
            .iter()
            .zip(framebuffers)
            .map(|(layer, framebuffer)| Shown {
                plane: layer.plane.unwrap_or(self.primary),
                _framebuffer: framebuffer,
                _buffer: layer.buffer.clone(),
                _keep: layer.keep.clone(),
            });
        pending.extend(shown);
        self.pending = Some(pending);
        self.is_off = false;
        self.is_untouched = false;
        self.left.clear();
        Ok(fence)
    }

    /// Tells it that a frame is on the screen; `false` if the event is of another screen.
    ///
    /// Buffers that are not shown any more are let go of.
    pub fn page_flip(&mut self, event: &PageFlip) -> bool {
        if event.crtc != self.crtc.id {
            return false;
        }
        if let Some(pending) = self.pending.take() {
            let mut gone = std::mem::replace(&mut self.shown, pending);
            gone.clear();
            self.spare = gone;
        }
        true
    }

    /// The program is the device's master again, after another one was, or after a resume: nothing is known of what
    /// the screen shows, and the next frame sets everything anew. A frame that was pending counts as not shown, and no
    /// event of it is to come.
    ///
    /// `screens` is what the device says of itself now ([`Card::screens`]).
    pub fn reset(&mut self, screens: &Screens) {
        self.is_off = true;
        self.mode_blob = None;
        self.pending = None;
        self.shown.clear();
        self.limits.clear();
        let left = shown_on(screens, &self.crtc);
        self.left = left.map(|plane| plane.id).collect();
    }

    /// Each layer has a plane of its own, one of the CRTC's.
    fn check_planes(&self, layers: &[Layer<'_>]) -> Result<(), Error> {
        if !self.card.is_atomic() {
            // The planes are not known: see `check_legacy`.
            return Ok(());
        }
        let plane = |layer: &Layer<'_>| layer.plane.unwrap_or(self.primary);
        for (index, layer) in layers.iter().enumerate() {
            let own = plane(layer);
            let device = || self.card.to_string();
            if !self.planes.iter().any(|known| known.plane == own) {
                return Err(Error::NoObject {
                    device: device(),
                    kind: "plane",
                    id: own.0,
                });
            }
            if layers[..index].iter().any(|before| plane(before) == own) {
                return Err(Error::PlaneTwice {
                    device: device(),
                    plane: own.0,
                });
            }
        }
        Ok(())
    }

    fn framebuffers(&self, layers: &[Layer<'_>]) -> Result<Framebuffers, Error> {
        let mut all = Framebuffers::new();
        if layers.len() > all.capacity() {
            // Planes are known to be distinct; a device without atomic commits takes one layer.
            return Err(self.needs_atomic("more than one layer"));
        }
        for layer in layers {
            let framebuffer = self.card.framebuffers().get(layer.buffer, layer.options);
            all.push(framebuffer.map_err(Arc::unwrap_or_clone)?);
        }
        Ok(all)
    }

    /// Writes the commit into `self.request`.
    fn build(
        &mut self,
        layers: &[Layer<'_>],
        framebuffers: &[Arc<Framebuffer>],
        options: CommitOptions,
        out_fence: Option<&mut i32>,
    ) -> Result<Vec<Blob>, Error> {
        let mut clips = Vec::new();
        self.request.clear();
        if self.is_off {
            let blob = match self.mode_blob.take() {
                Some(blob) => blob,
                None => Blob::new(&self.card, &mut self.mode.bytes())?,
            };
            self.request.object(self.connector.id.0);
            self.request
                .set(self.ids.crtc_of_connector, self.crtc.id.0.into());
            self.request.object(self.crtc.id.0);
            self.request.set(self.ids.active, 1);
            self.request.set(self.ids.mode, blob.id.into());
            self.mode_blob = Some(blob);
        }
        if out_fence.is_some() || options.variable_refresh.is_some() {
            self.request.object(self.crtc.id.0);
        }
        if let Some(pointer) = out_fence {
            let lacks = || Error::NoProperty {
                device: self.card.to_string(),
                object: self.crtc.id.0,
                name: "OUT_FENCE_PTR",
            };
            let property = self.ids.out_fence.ok_or_else(lacks)?;
            self.request
                .set(property, std::ptr::from_mut(pointer) as u64);
        }
        if let (Some(enabled), Some(id)) = (options.variable_refresh, self.ids.variable_refresh) {
            self.request.set(id, enabled.into());
        }
        for (layer, framebuffer) in layers.iter().zip(framebuffers) {
            let plane = layer.plane.unwrap_or(self.primary);
            let known = self.planes.iter().find(|known| known.plane == plane);
            let ids = known.ok_or_else(|| Error::NoObject {
                device: self.card.to_string(),
                kind: "plane",
                id: plane.0,
            })?;
            ids.set(&mut self.request, self.crtc.id, framebuffer, layer);
            if !self.shown.iter().any(|shown| shown.plane == plane) {
                for (id, value) in &ids.neutral {
                    self.request.set(*id, *value);
                }
            }
            if let Some(fence) = layer.fence {
                let lacks = || Error::NoProperty {
                    device: self.card.to_string(),
                    object: plane.0,
                    name: "IN_FENCE_FD",
                };
                let property = ids.fence.ok_or_else(lacks)?;
                self.request.set(property, fence.as_raw_fd() as u64);
            }
            if let (Damage::Boxes(boxes), Some(id)) = (layer.damage, ids.damage)
                && !boxes.is_empty()
            {
                // As `struct drm_mode_rect`: four numbers of 32 bits.
                let numbers = boxes
                    .iter()
                    .flat_map(|part| [part.x1, part.y1, part.x2, part.y2]);
                let mut bytes: Vec<u8> = numbers.flat_map(i32::to_ne_bytes).collect();
                let blob = Blob::new(&self.card, &mut bytes)?;
                self.request.set(id, blob.id.into());
                clips.push(blob);
            }
        }
        let is_used = |plane: PlaneId| {
            let mut used = layers
                .iter()
                .map(|layer| layer.plane.unwrap_or(self.primary));
            used.any(|used| used == plane)
        };
        for ids in self.planes.iter().filter(|ids| !is_used(ids.plane)) {
            let was_shown = self.shown.iter().any(|shown| shown.plane == ids.plane);
            if was_shown || self.left.contains(&ids.plane) {
                ids.clear(&mut self.request);
            }
        }
        Ok(clips)
    }

    fn commit_atomic(
        &mut self,
        layers: &[Layer<'_>],
        framebuffers: &[Arc<Framebuffer>],
        options: CommitOptions,
    ) -> Result<Option<SyncFile>, Error> {
        let mut fence = -1;
        let pointer = options.out_fence.then_some(&mut fence);
        let _clips = self.build(layers, framebuffers, options, pointer)?;
        let mut flags = kms::PAGE_FLIP_EVENT | kms::NONBLOCK;
        if self.is_off {
            flags |= kms::ALLOW_MODESET;
        } else if options.tearing {
            flags |= kms::PAGE_FLIP_ASYNC;
        }
        let user_data = self.crtc.id.0.into();
        let committed = self.request.commit(self.card.as_fd(), flags, user_data);
        committed.map_err(|errno| match errno {
            crate::Errno::EBUSY => Error::Pending,
            errno => failed(self.card.device(), Operation::Commit)(errno),
        })?;
        out_fence(&self.card, fence)
    }

    fn needs_atomic(&self, what: &'static str) -> Error {
        Error::NotAtomic {
            device: self.card.to_string(),
            what,
        }
    }

    /// What a device without atomic commits can show.
    fn check_legacy(&self, layers: &[Layer<'_>], options: CommitOptions) -> Result<(), Error> {
        let needs = |what| self.needs_atomic(what);
        let [layer] = layers else {
            return Err(needs("another number of layers than one"));
        };
        let (width, height) = self.mode.size();
        let whole = super::Position {
            x: 0,
            y: 0,
            width,
            height,
        };
        let source = layer.source_or_all();
        if layer.plane.is_some_and(|plane| plane != self.primary) {
            return Err(needs("a layer that is not on the primary plane"));
        }
        if layer.place() != whole || source != Rect::whole(width, height) {
            return Err(needs("a layer that is not of the screen's size"));
        }
        if layer.fence.is_some() || options.out_fence {
            return Err(needs("a fence"));
        }
        Ok(())
    }

    fn commit_legacy(
        &mut self,
        layers: &[Layer<'_>],
        framebuffers: &[Arc<Framebuffer>],
        options: CommitOptions,
    ) -> Result<Option<SyncFile>, Error> {
        self.check_legacy(layers, options)?;
        let (fd, crtc) = (self.card.as_fd(), self.crtc.id.0);
        let id = framebuffers[0].id();
        if self.is_off {
            let connectors = [self.connector.id.0];
            let set = kms::set_crtc(fd, crtc, id, &connectors, Some(self.mode.0));
            set.map_err(failed(self.card.device(), Operation::SetCrtc))?;
        }
        let tearing = match options.tearing {
            true => kms::PAGE_FLIP_ASYNC,
            false => 0,
        };
        // After SETCRTC, too: for its event.
        let flipped = kms::page_flip(fd, crtc, id, tearing);
        flipped.map_err(|errno| match errno {
            crate::Errno::EBUSY => Error::Pending,
            errno => failed(self.card.device(), Operation::PageFlip)(errno),
        })?;
        Ok(None)
    }

    /// Turns the screen off, and lets go of what it shows. The next frame turns it on again. Waits for the vertical
    /// blank.
    pub fn turn_off_wait(&mut self) -> Result<(), Error> {
        let device = self.card.device();
        match self.card.is_atomic() {
            true => {
                self.request.clear();
                self.request.object(self.connector.id.0);
                self.request.set(self.ids.crtc_of_connector, 0);
                self.request.object(self.crtc.id.0);
                self.request.set(self.ids.active, 0);
                self.request.set(self.ids.mode, 0);
                for ids in &self.planes {
                    let is_shown = |shown: &Shown| shown.plane == ids.plane;
                    let pending = self.pending.iter().flatten();
                    let is_left = self.left.contains(&ids.plane);
                    if is_left || self.shown.iter().chain(pending).any(is_shown) {
                        ids.clear(&mut self.request);
                    }
                }
                let off = self
                    .request
                    .commit(self.card.as_fd(), kms::ALLOW_MODESET, 0);
                off.map_err(failed(device, Operation::Commit))?;
            }
            false => {
                let off = kms::set_crtc(self.card.as_fd(), self.crtc.id.0, 0, &[], None);
                off.map_err(failed(device, Operation::SetCrtc))?;
            }
        }
        self.is_off = true;
        self.shown.clear();
        self.pending = None;
        Ok(())
    }

    /// Brings back what the screen showed before the first frame, if that is still there, else turns it off. Waits for
    /// the vertical blank. Drop does the same, unless [`Self::leave`] was called.
    pub fn restore_wait(mut self) -> Result<(), Error> {
        self.bring_back()
    }

    /// Ends, and leaves the screen as it is: for a program that hands it on. Framebuffers that end while they are shown
    /// turn it off before Linux 6.8.
    pub fn leave(mut self) {
        self.saved = None;
    }

    fn bring_back(&mut self) -> Result<(), Error> {
        let Some(saved) = self.saved.take() else {
            return Ok(());
        };
        if self.is_untouched {
            return Ok(());
        }
        let off = self.turn_off_wait();
        match saved.shown_again(&self.card)? {
            true => Ok(()),
            false => off,
        }
    }
}

/// The sync file that a commit has put where OUT_FENCE_PTR points; -1 if it was not asked to.
pub(super) fn out_fence(card: &Card, fd: i32) -> Result<Option<SyncFile>, Error> {
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: the commit has succeeded, so this is a new fd that nobody else knows.
    let fence = SyncFile::new(unsafe { OwnedFd::from_raw_fd(fd) });
    let fence = fence.map_err(|error| Error::Events {
        device: card.to_string(),
        errno: error.errno().unwrap_or(crate::Errno::EINVAL),
    });
    fence.map(Some)
}

/// Framebuffers of a frame. Screens have a dozen planes at most.
type Framebuffers = arrayvec::ArrayVec<Arc<Framebuffer>, 32>;

impl Drop for Output {
    fn drop(&mut self) {
        match self.bring_back() {
            Ok(()) | Err(Error::Lost { .. } | Error::NotMaster { .. }) => {}
            Err(error) => log::warn!("{}: {}: {error}", self.card, self.connector.name),
        }
    }
}

/// The planes that show something on a CRTC.
fn shown_on<'a>(screens: &'a Screens, crtc: &'a Crtc) -> impl Iterator<Item = &'a Plane> {
    let shows = |plane: &&Plane| {
        plane.properties.value("CRTC_ID") == Some(crtc.id.0.into())
            && plane.properties.value("FB_ID").unwrap_or(0) != 0
    };
    screens.planes_of(crtc).filter(shows)
}

/// The CRTC that feeds the connector, else the first that feeds nothing.
fn free_crtc<'a>(
    card: &Card,
    screens: &'a Screens,
    connector: &Connector,
) -> Result<&'a Crtc, Error> {
    let is_possible = |crtc: &&Crtc| connector.possible_crtcs & 1 << crtc.index != 0;
    let own = feeding(card, connector)?;
    let mut in_use = Vec::new();
    for other in &screens.connectors {
        in_use.extend(feeding(card, other)?);
    }
    for crtc in screens.crtcs.iter().filter(is_possible) {
        if Some(crtc.id) == own {
            return Ok(crtc);
        }
    }
    for crtc in screens.crtcs.iter().filter(is_possible) {
        if !in_use.contains(&crtc.id) && !is_active(card, crtc)? {
            return Ok(crtc);
        }
    }
    Err(Error::NoneFree {
        connector: connector.name.clone(),
        what: "CRTC",
    })
}

/// The CRTC that feeds a connector. Without atomic commits, the properties do not say.
fn feeding(card: &Card, connector: &Connector) -> Result<Option<CrtcId>, Error> {
    let id = match card.is_atomic() {
        true => connector.properties.value("CRTC_ID").unwrap_or(0) as u32,
        false => {
            let known = kms::connector(card.as_fd(), connector.id.0, false);
            let known = known.map_err(failed(card.device(), Operation::GetConnector))?;
            match known.info.encoder_id {
                0 => 0,
                encoder => kms::crtc_of_encoder(card.as_fd(), encoder)
                    .map_err(failed(card.device(), Operation::GetEncoder))?,
            }
        }
    };
    Ok((id != 0).then_some(CrtcId(id)))
}

fn is_active(card: &Card, crtc: &Crtc) -> Result<bool, Error> {
    if card.is_atomic() {
        return Ok(crtc.properties.value("ACTIVE").unwrap_or(0) != 0);
    }
    let known = kms::crtc(card.as_fd(), crtc.id.0);
    let (_, mode) = known.map_err(failed(card.device(), Operation::GetCrtc))?;
    Ok(mode.is_some())
}
