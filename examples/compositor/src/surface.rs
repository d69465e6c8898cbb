//! Surfaces: what clients attach, when it may be read, and what is read for it.

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use primeshare::DmaBuf;
use primeshare::blit::{BlitInfo, Readable, Shadow, ShadowFrame};
use primeshare::buffer::{Damage, DamageBox};
use primeshare::sync::{Access, Fence, Stage, implicit};
use primeshare::wayland::{Points, ShmBuffer, SurfaceFeedback, SurfacePoints};
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_feedback_v1::ZwpLinuxDmabufFeedbackV1;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_surface_v1::WpLinuxDrmSyncobjSurfaceV1;
use wayland_server::backend::ObjectId;
use wayland_server::protocol::{wl_buffer::WlBuffer, wl_callback::WlCallback};
use wayland_server::protocol::{wl_compositor, wl_region, wl_subcompositor, wl_subsurface, wl_surface};
use wayland_server::{Resource, Weak};

use crate::Compositor;
use crate::buffers::ClientBuffer;
use crate::gpu::{Gpu, Source};
use crate::objects::Call;
use crate::shell::Window;
use crate::time::Feedback;

pub(crate) struct Surface {
    pending: Commit,
    /// Of a synchronized subsurface: what is applied with its parent's commit.
    cached: Option<Commit>,
    /// Commits that wait for fences or copies, in order.
    waiting: VecDeque<Commit>,
    pub(crate) picture: Option<Picture>,
    /// What has changed since the surface was shown.
    pub(crate) damage: Changed,
    pub(crate) callbacks: Vec<WlCallback>,
    pub(crate) feedback: Vec<Feedback>,
    pub(crate) children: Vec<Child>,
    /// The parent of a subsurface, and whether it is synchronized with it.
    pub(crate) parent: Option<(ObjectId, bool)>,
    pub(crate) role: Option<Role>,
    pub(crate) has_xdg_surface: bool,
    /// The clients' turn in which a commit was applied at once.
    turn: u32,
    pub(crate) points: Option<(SurfacePoints, WpLinuxDrmSyncobjSurfaceV1)>,
    pub(crate) scanout: SurfaceFeedback<u32>,
    pub(crate) feedback_objects: Vec<ZwpLinuxDmabufFeedbackV1>,
    /// Copies of buffers that the GPU does not take.
    shadow: Shadow,
    /// Memory that `wl_shm` is copied into.
    upload: Option<Arc<Source>>,
    /// The client has taken its buffer away: a window starts anew.
    is_unmapped: bool,
}

/// What a surface is, for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Window,
    Subsurface,
}

/// A subsurface.
pub(crate) struct Child {
    pub(crate) surface: ObjectId,
    pub(crate) place: (i32, i32),
}

/// What the GPU or a screen reads for a surface.
pub(crate) struct Picture {
    pub(crate) source: Arc<Source>,
    pub(crate) size: (u32, u32),
    pub(crate) is_opaque: bool,
    /// The client's buffer, if it is read itself.
    pub(crate) buffer: Option<DmaBuf>,
    /// Kept until the frame after the last one with it is on the screen.
    pub(crate) kept: Option<Kept>,
}

/// A client's buffer ([`Held`]) or a copy of it ([`ShadowFrame`]) that is read.
pub(crate) type Kept = Arc<dyn Any>;

impl Picture {
    /// Whether nothing is seen behind it on a screen of this size.
    pub(crate) fn covers(&self, screen: (u32, u32)) -> bool {
        self.is_opaque && self.size == screen
    }
}

/// A client's buffer that is read. The last user gives it back.
struct Held {
    buffer: WlBuffer,
    _points: Option<Points>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffer.release();
    }
}

/// What has changed: at most so many boxes. `None`: everything.
pub(crate) struct Changed(Option<Vec<DamageBox>>);

impl Default for Changed {
    fn default() -> Self {
        Self(Some(Vec::new()))
    }
}

impl Changed {
    const MOST: usize = 32;

    fn add(&mut self, other: Damage<'_>) {
        match (other, &mut self.0) {
            (Damage::Boxes(new), Some(old)) if old.len() + new.len() <= Self::MOST => old.extend(new),
            _ => self.0 = None,
        }
    }

    pub(crate) fn get(&self) -> Damage<'_> {
        self.0.as_deref().map_or(Damage::Full, Damage::Boxes)
    }

    /// The rows of a picture of this height.
    fn rows(&self, height: u32) -> std::ops::Range<u32> {
        let Some(boxes) = &self.0 else {
            return 0..height;
        };
        let row = |y: i32| u32::try_from(y).unwrap_or(0).min(height);
        let first = boxes.iter().map(|one| row(one.y1)).min();
        first.unwrap_or(0)..boxes.iter().map(|one| row(one.y2)).max().unwrap_or(0)
    }
}

/// Commits of one surface that wait at a time.
const MOST_WAITING: usize = 8;
/// Rectangles of a region that are kept.
const MOST_RECTANGLES: usize = 64;

/// Rectangles: a corner and a size.
type Region = Vec<(i32, i32, i32, i32)>;

/// What one `wl_surface.commit` changes.
#[derive(Default)]
struct Commit {
    /// `Some(None)`: no buffer from now on.
    buffer: Option<Option<WlBuffer>>,
    points: Option<Points>,
    /// In pixels of the buffer.
    damage: Changed,
    /// In units of the surface: the same, if it is not scaled.
    surface_damage: Changed,
    scale: Option<u32>,
    /// What the client promises to be opaque, also with a format that has alpha.
    opaque: Region,
    callbacks: Vec<WlCallback>,
    feedback: Vec<Feedback>,
    /// What has to come before it is applied.
    waits: Vec<Wait>,
    is_read: bool,
    picture: Option<Picture>,
}

enum Wait {
    /// The client's work, by the fences in its buffer.
    Fence(Fence),
    /// The client's work, by its acquire point.
    Point(OwnedFd),
    /// A copy of ours, which reads the client's buffer.
    Copy { frame: ShadowFrame, _held: Arc<Held> },
}

impl Wait {
    fn is_over(&self) -> bool {
        match self {
            Self::Fence(fence) => fence.is_signalled().unwrap_or(true),
            Self::Point(eventfd) => crate::is_readable(eventfd.as_fd()),
            Self::Copy { frame, .. } => frame.completion().is_done(),
        }
    }

    /// Whether it ended and there is no picture.
    fn has_failed(&self) -> bool {
        matches!(self, Self::Copy { frame, .. } if matches!(frame.completion().result(), Some(Err(_))))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Fence(fence) => fence.as_fd(),
            Self::Point(eventfd) => eventfd.as_fd(),
            Self::Copy { frame, .. } => frame.completion().as_fd(),
        }
    }
}

impl Commit {
    /// Forgets what it need not wait for any more.
    fn go_on(&mut self) {
        if self.waits.iter().any(Wait::has_failed) {
            log::warn!("a copy has failed: the surface stays as it was");
            self.picture = None;
        }
        self.waits.retain(|wait| !wait.is_over());
    }

    /// A commit after this one that is applied together with it.
    fn merge(&mut self, later: Self) {
        if later.buffer.is_some() {
            let old = std::mem::replace(&mut self.buffer, later.buffer).flatten();
            // Nobody will read it, unless it is the new one as well. What is read already is given back by its `Held`.
            let is_unused =
                |old: &WlBuffer| !self.is_read && self.buffer.as_ref().and_then(Option::as_ref) != Some(old);
            old.filter(is_unused).into_iter().for_each(|old| old.release());
            self.points = later.points;
            // The old one's fences are of no interest any more, but a copy that is being made reads it.
            self.waits.retain(|wait| matches!(wait, Wait::Copy { .. }));
            self.waits.extend(later.waits);
            (self.is_read, self.picture) = (false, None);
        }
        self.damage.add(later.damage.get());
        (self.scale, self.opaque) = (later.scale, later.opaque);
        self.callbacks.extend(later.callbacks);
        self.feedback.extend(later.feedback);
    }
}

impl Surface {
    fn new(gpu: &Gpu) -> Self {
        Self {
            pending: Commit::default(),
            cached: None,
            waiting: VecDeque::new(),
            picture: None,
            damage: Changed::default(),
            callbacks: Vec::new(),
            feedback: Vec::new(),
            children: Vec::new(),
            parent: None,
            role: None,
            has_xdg_surface: false,
            turn: 0,
            points: None,
            scanout: SurfaceFeedback::new(),
            feedback_objects: Vec::new(),
            shadow: gpu.shadow(),
            upload: None,
            is_unmapped: false,
        }
    }

    pub(crate) fn ask_feedback(&mut self, feedback: Feedback) {
        self.pending.feedback.push(feedback);
    }

    /// What its first commit waits for.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.waiting.front().into_iter().flat_map(|commit| commit.waits.iter().map(Wait::fd))
    }

    /// The request `commit`. `false`: the client has broken the protocol.
    fn commit(&mut self) -> bool {
        let mut commit = std::mem::take(&mut self.pending);
        self.pending.scale = commit.scale;
        match (commit.scale.unwrap_or(1), commit.surface_damage.get()) {
            (_, Damage::Boxes([])) => {}
            (1, damage) => commit.damage.add(damage),
            _ => commit.damage.add(Damage::Full),
        }
        self.pending.opaque.clone_from(&commit.opaque);
        let attached = commit.buffer.iter().flatten().next();
        let attached = attached.and_then(|buffer| buffer.data::<Arc<ClientBuffer>>());
        if let Some((points, object)) = &mut self.points {
            let is_dma_buf = attached.map(|buffer| matches!(**buffer, ClientBuffer::DmaBuf(..)));
            match points.commit(is_dma_buf) {
                Ok(points) => commit.points = points,
                Err(error) => {
                    object.post_error(error.code(), error.to_string());
                    return false;
                }
            }
        }
        let wait = match (&commit.points, attached.map(|buffer| &**buffer)) {
            (Some(points), _) => Some(points.acquire_eventfd(Stage::Signalled).map(Wait::Point)),
            (None, Some(ClientBuffer::DmaBuf(buffer, _))) => {
                Some(implicit::fence(buffer, Access::Read).map(Wait::Fence))
            }
            _ => None,
        };
        match wait.transpose() {
            Ok(wait) => commit.waits.extend(wait),
            Err(error) => log::warn!("a fence of a client is passed over: {error}"),
        }
        match (self.parent.as_ref(), &mut self.cached) {
            (Some((_, true)), Some(cached)) => cached.merge(commit),
            (Some((_, true)), None) => self.cached = Some(commit),
            _ if self.waiting.len() < MOST_WAITING => self.waiting.push_back(commit),
            // Each that waits has an fd or two.
            _ => self.waiting.back_mut().into_iter().for_each(|last| last.merge(std::mem::take(&mut commit))),
        }
        true
    }

    /// Applies commits whose fences have come. Whether anything has changed.
    fn advance(&mut self, gpu: &Gpu) -> bool {
        let mut has_changed = false;
        while let Some(mut commit) = self.waiting.pop_front() {
            commit.go_on();
            if commit.waits.is_empty() && !commit.is_read {
                commit.is_read = true;
                commit.picture = self.read(&mut commit, gpu);
                commit.go_on();
            }
            if !commit.waits.is_empty() {
                self.waiting.push_front(commit);
                break;
            }
            has_changed = true;
            if commit.buffer.is_some() {
                // What nothing can read leaves what was there before.
                if commit.picture.is_some() || commit.buffer == Some(None) {
                    self.picture = commit.picture;
                }
                if commit.buffer == Some(None) {
                    self.shadow.clear();
                    (self.upload, self.is_unmapped) = (None, true);
                }
                // A picture that was replaced before it was shown.
                self.feedback.drain(..).for_each(Feedback::discard);
                self.damage.add(commit.damage.get());
            }
            self.callbacks.extend(commit.callbacks);
            self.feedback.extend(commit.feedback);
        }
        has_changed
    }

    /// Finds out what is read for a commit.
    fn read(&mut self, commit: &mut Commit, gpu: &Gpu) -> Option<Picture> {
        let resource = commit.buffer.clone()??;
        let held = Arc::new(Held { buffer: resource.clone(), _points: commit.points.take() });
        let (scale, opaque) = (commit.scale.unwrap_or(1), commit.opaque.clone());
        let picture = |source: Arc<Source>, buffer: Option<&DmaBuf>, kept: Option<Kept>| {
            let size = (source.size.0 / scale, source.size.1 / scale);
            let buffer = buffer.filter(|buffer| scale == 1 && buffer.flags().is_empty()).cloned();
            let (width, height) = (size.0 as i32, size.1 as i32);
            let covers = |&(x, y, w, h): &(i32, i32, i32, i32)| {
                x <= 0 && y <= 0 && x.saturating_add(w) >= width && y.saturating_add(h) >= height
            };
            let is_opaque = source.is_opaque || opaque.iter().any(covers);
            Some(Picture { source, size, is_opaque, buffer, kept })
        };
        match &**resource.data::<Arc<ClientBuffer>>()? {
            ClientBuffer::DmaBuf(buffer, _) => {
                // What memory of ours shows differs from the next commit by more than its damage.
                self.upload = None;
                let info = BlitInfo::default().damage(commit.damage.get());
                match self.shadow.read_from(&gpu.blitter, buffer, &info, |buffer| gpu.import(buffer)) {
                    Ok(Readable::Original(source)) => picture(source, Some(buffer), Some(held)),
                    Ok(Readable::Copy { made, frame, why, .. }) => {
                        let exporter = buffer.exporter(0).unwrap_or_default();
                        log::debug!("{buffer:?} of {exporter} is copied: {why}");
                        commit.waits.push(Wait::Copy { frame: frame.clone(), _held: held });
                        picture(made, None, Some(Arc::new(frame)))
                    }
                    answer => {
                        log::warn!("{buffer:?} cannot be shown: {:?}", answer.err());
                        None
                    }
                }
            }
            ClientBuffer::Shm(buffer, _) => {
                self.shadow.clear();
                if let Some((source, buffer)) = gpu.import_memory(buffer) {
                    self.upload = None;
                    return picture(source, Some(buffer), Some(held));
                }
                match self.upload(buffer, &commit.damage, gpu) {
                    // It was read: the client may draw again.
                    Ok(source) => picture(source?, None, None),
                    Err(error) => {
                        // The client may have destroyed the buffer since, and is told nothing then.
                        if resource.is_alive() {
                            resource.post_error(error.code(), error.to_string());
                        }
                        None
                    }
                }
            }
        }
    }

    /// Copies a client's memory.
    fn upload(
        &mut self,
        buffer: &ShmBuffer,
        damage: &Changed,
        gpu: &Gpu,
    ) -> Result<Option<Arc<Source>>, primeshare::wayland::ShmError> {
        let (size, fourcc) = ((buffer.desc().width, buffer.desc().height), buffer.desc().fourcc);
        let old = self.upload.take().filter(|old| old.size == size && old.fourcc == fourcc);
        let rows = old.as_ref().map_or(0..size.1, |_| damage.rows(size.1));
        let Some(memory) = old.or_else(|| gpu.memory(size, fourcc)) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let stride = buffer.read_rows(rows.clone(), &mut bytes)?;
        if !bytes.is_empty() {
            gpu.upload(&memory, rows, stride, &bytes);
        }
        self.upload = Some(memory.clone());
        Ok(Some(memory))
    }
}

impl Compositor {
    /// Goes on with all commits that wait.
    pub(crate) fn advance(&mut self) {
        let waiting = self.surfaces.iter().filter(|(_, surface)| !surface.waiting.is_empty());
        let ids: Vec<_> = waiting.map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.advance_surface(id));
    }

    /// Has the screen drawn that a surface is on.
    fn repaint(&mut self, id: &ObjectId) {
        let mut root = id;
        while let Some((parent, _)) = self.surfaces.get(root).and_then(|surface| surface.parent.as_ref()) {
            root = parent;
        }
        let screen = self.windows.iter().find(|window| window.surface == *root).map(|window| window.screen);
        let lit = self.screens.lit.iter_mut();
        lit.filter(|lit| Some(lit.number) == screen).for_each(|lit| lit.is_dirty = true);
    }

    /// A synchronized subsurface goes on with its parent. Clients make trees as high as they like, so this does not recurse.
    fn advance_surface(&mut self, id: &ObjectId) {
        let mut has_changed = false;
        let mut left = vec![id.clone()];
        while let Some(next) = left.pop() {
            let Some(surface) = self.surfaces.get_mut(&next).filter(|one| !one.waiting.is_empty()) else {
                continue;
            };
            if !surface.advance(&self.gpu) {
                continue;
            }
            has_changed = true;
            if std::mem::take(&mut surface.is_unmapped) {
                let windows = self.windows.iter_mut().filter(|window| window.surface == next);
                windows.for_each(Window::unmap);
            }
            let first = left.len();
            left.extend(surface.children.iter().map(|child| child.surface.clone()));
            for child in &left[first..] {
                if let Some(child) = self.surfaces.get_mut(child) {
                    child.waiting.extend(child.cached.take());
                }
            }
        }
        if has_changed {
            self.repaint(id);
        }
    }
}

fn damage_box(x: i32, y: i32, width: i32, height: i32) -> DamageBox {
    DamageBox { x1: x, y1: y, x2: x.saturating_add(width), y2: y.saturating_add(height) }
}

global!(wl_compositor::WlCompositor);
global!(wl_subcompositor::WlSubcompositor);
requests!(WlCallback, ());
requests!(wl_region::WlRegion, Mutex<Region>, |_, Call { request, data, .. }| {
    let mut region = data.lock().unwrap();
    match request {
        // Less is known to be opaque, which is never wrong.
        wl_region::Request::Add { .. } if region.len() >= MOST_RECTANGLES => {}
        wl_region::Request::Add { x, y, width, height } => region.push((x, y, width, height)),
        wl_region::Request::Subtract { .. } => region.clear(),
        _ => {}
    }
});

requests!(wl_compositor::WlCompositor, (), |state, Call { request, init, .. }| {
    match request {
        wl_compositor::Request::CreateSurface { id } => {
            let surface = init.init(id, ());
            state.surfaces.insert(surface.id(), Surface::new(&state.gpu));
        }
        wl_compositor::Request::CreateRegion { id } => drop(init.init(id, Mutex::default())),
        _ => {}
    }
});

requests!(
    wl_surface::WlSurface,
    (),
    |state, Call { object, request, init, .. }| {
        let Some(surface) = state.surfaces.get_mut(&object.id()) else {
            return;
        };
        let pending = &mut surface.pending;
        match request {
            wl_surface::Request::Attach { buffer, .. } => pending.buffer = Some(buffer),
            wl_surface::Request::Damage { x, y, width, height } => {
                pending.surface_damage.add(Damage::Boxes(&[damage_box(x, y, width, height)]));
            }
            wl_surface::Request::DamageBuffer { x, y, width, height } => {
                pending.damage.add(Damage::Boxes(&[damage_box(x, y, width, height)]));
            }
            wl_surface::Request::SetOpaqueRegion { region } => {
                let region = region.as_ref().and_then(|region| region.data::<Mutex<Region>>());
                pending.opaque = region.map(|region| region.lock().unwrap().clone()).unwrap_or_default();
            }
            wl_surface::Request::Frame { callback } => pending.callbacks.push(init.init(callback, ())),
            wl_surface::Request::SetBufferScale { scale: scale @ 1.. } => pending.scale = Some(scale as u32),
            wl_surface::Request::SetBufferScale { scale } => {
                object.post_error(wl_surface::Error::InvalidScale, format!("scale {scale}"));
            }
            wl_surface::Request::Commit
                if matches!(pending.buffer, Some(Some(_)))
                    && state.windows.iter().any(|window| window.refuses_picture(&object.id())) => {}
            wl_surface::Request::Commit if surface.commit() => {
                // The others of a turn are looked at when all clients have had theirs.
                if std::mem::replace(&mut surface.turn, state.limits.turn) != state.limits.turn {
                    state.advance_surface(&object.id());
                }
                state.configure_if_new(&object.id());
            }
            _ => {}
        }
    },
    |state, surface, ()| {
        state.forget(&surface.id());
        if let Some(gone) = state.surfaces.remove(&surface.id()) {
            gone.feedback.into_iter().for_each(Feedback::discard);
        }
    }
);

requests!(wl_subcompositor::WlSubcompositor, (), |state, Call { object, request, init, .. }| {
    let wl_subcompositor::Request::GetSubsurface { id, surface, parent } = request else {
        return;
    };
    init.init(id, surface.downgrade());
    let (surface, parent) = (surface.id(), parent.id());
    let is_free = |one: &Surface| one.role != Some(Role::Window) && one.parent.is_none() && !one.has_xdg_surface;
    if !state.surfaces.get(&surface).is_some_and(is_free) {
        object.post_error(wl_subcompositor::Error::BadSurface, "the surface has a role");
        return;
    }
    // A surface that is above itself would be drawn for ever.
    if state.is_below(&surface, &parent) {
        object.post_error(wl_subcompositor::Error::BadParent, "the parent is the surface, or is above it");
        return;
    }
    if let Some(child) = state.surfaces.get_mut(&surface) {
        child.role = Some(Role::Subsurface);
        child.parent = Some((parent.clone(), true));
    }
    if let Some(parent) = state.surfaces.get_mut(&parent) {
        parent.children.push(Child { surface, place: (0, 0) });
    }
});

requests!(wl_subsurface::WlSubsurface, Weak<wl_surface::WlSurface>, |state, Call { request, data, .. }| {
    let id = data.id();
    let Some(Some((parent, is_synchronized))) = state.surfaces.get_mut(&id).map(|one| one.parent.as_mut()) else {
        return;
    };
    match request {
        wl_subsurface::Request::SetSync => *is_synchronized = true,
        wl_subsurface::Request::SetDesync => {
            *is_synchronized = false;
            if let Some(surface) = state.surfaces.get_mut(&id) {
                surface.waiting.extend(surface.cached.take());
            }
            state.advance_surface(&id);
        }
        wl_subsurface::Request::SetPosition { x, y } => {
            // At once, and not with the parent's next commit.
            let parent = parent.clone();
            let children = state.surfaces.get_mut(&parent).map(|parent| &mut parent.children);
            for child in children.into_iter().flatten().filter(|child| child.surface == id) {
                child.place = (x, y);
            }
        }
        wl_subsurface::Request::Destroy => state.unparent(&id),
        _ => {}
    }
});
