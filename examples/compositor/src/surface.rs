//! Surfaces: what clients attach, when it may be read, and what the GPU reads for it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::blit::{BlitInfo, Blitter, Readable, Shadow, ShadowFrame};
use primeshare::buffer::{Damage, DamageBox};
use primeshare::sync::{Access, Fence, Stage, implicit};
use primeshare::wayland::{Points, ShmBuffer, SurfaceFeedback, SurfacePoints};
use primeshare::{DmaBuf, Modifier};
use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_feedback_v1::ZwpLinuxDmabufFeedbackV1;
use wayland_protocols::wp::linux_drm_syncobj::v1::server::wp_linux_drm_syncobj_surface_v1::WpLinuxDrmSyncobjSurfaceV1;
use wayland_server::backend::{ClientId, ObjectId};
use wayland_server::protocol::wl_buffer::WlBuffer;
use wayland_server::protocol::wl_callback::WlCallback;
use wayland_server::protocol::wl_surface::{self, WlSurface};
use wayland_server::protocol::{wl_compositor, wl_region, wl_subcompositor, wl_subsurface};
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, Weak};

use crate::Compositor;
use crate::buffers::ClientBuffer;
use crate::gpu::{Gpu, Source};
use crate::time::Feedback;

pub(crate) struct Surface {
    pub(crate) resource: WlSurface,
    pending: Commit,
    /// Of a synchronized subsurface: what is applied with its parent's commit.
    cached: Option<Commit>,
    /// Commits that wait for fences or copies, in order.
    waiting: VecDeque<Commit>,
    pub(crate) picture: Option<Picture>,
    /// What has changed since the surface was drawn.
    pub(crate) damage: Changed,
    pub(crate) callbacks: Vec<WlCallback>,
    pub(crate) feedback: Vec<Feedback>,
    pub(crate) children: Vec<Child>,
    /// The parent of a subsurface, and whether it is synchronized with it.
    parent: Option<(ObjectId, bool)>,
    pub(crate) has_role: bool,
    pub(crate) points: Option<(SurfacePoints, WpLinuxDrmSyncobjSurfaceV1)>,
    pub(crate) scanout: SurfaceFeedback<u32>,
    pub(crate) feedback_objects: Vec<ZwpLinuxDmabufFeedbackV1>,
    shadow: Shadow,
    upload: Option<Source>,
}

/// A surface over another one, or a popup.
pub(crate) struct Child {
    pub(crate) surface: ObjectId,
    pub(crate) place: (i32, i32),
}

/// What the GPU, or a screen, reads for a surface.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) source: Source,
    pub(crate) size: (u32, u32),
    /// The client's buffer, if it is read itself.
    pub(crate) buffer: Option<DmaBuf>,
    pub(crate) held: Option<Arc<Held>>,
    _shadow: Option<ShadowFrame>,
}

impl Picture {
    /// Whether nothing is seen behind it on a screen of this size.
    pub(crate) fn covers(&self, screen: (u32, u32)) -> bool {
        self.source.is_opaque && self.size == screen
    }
}

/// A client's buffer that is read. The last user gives it back.
pub(crate) struct Held {
    buffer: WlBuffer,
    _points: Option<Points>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffer.release();
    }
}

/// What has changed, at most so many boxes. `None`: everything.
#[derive(Clone)]
pub(crate) struct Changed(Option<Vec<DamageBox>>);

impl Default for Changed {
    fn default() -> Self {
        Self(Some(Vec::new()))
    }
}

impl Changed {
    const MOST: usize = 32;

    pub(crate) fn add(&mut self, other: Damage<'_>) {
        match (other, &mut self.0) {
            (Damage::Boxes(new), Some(old)) if old.len() + new.len() <= Self::MOST => old.extend(new),
            _ => self.0 = None,
        }
    }

    pub(crate) fn get(&self) -> Damage<'_> {
        self.0.as_deref().map_or(Damage::Full, Damage::Boxes)
    }
}

/// What one `wl_surface.commit` changes.
#[derive(Default)]
struct Commit {
    /// `Some(None)`: no buffer from now on.
    buffer: Option<Option<WlBuffer>>,
    points: Option<Points>,
    damage: Changed,
    scale: Option<u32>,
    callbacks: Vec<WlCallback>,
    feedback: Vec<Feedback>,
    /// What has to come before it is applied.
    waits: Vec<Wait>,
    picture: Option<Picture>,
}

enum Wait {
    /// The client's work, by the fences in its buffer.
    Implicit(Fence),
    /// The client's work, by its acquire point.
    Point(OwnedFd, Points),
    /// A copy of ours.
    Copy(ShadowFrame),
}

impl Wait {
    fn is_over(&self) -> bool {
        match self {
            Self::Implicit(fence) => fence.is_signalled().unwrap_or(true),
            Self::Point(..) => is_readable(self.fd()),
            Self::Copy(frame) => frame.completion().is_done(),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Implicit(fence) => fence.as_fd(),
            Self::Point(eventfd, _) => eventfd.as_fd(),
            Self::Copy(frame) => frame.completion().as_fd(),
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

impl Surface {
    fn new(resource: WlSurface, gpu: &Gpu) -> Self {
        let allocator = Arc::new(Dumb::new(&gpu.device));
        Self {
            resource,
            pending: Commit::default(),
            cached: None,
            waiting: VecDeque::new(),
            picture: None,
            damage: Changed::default(),
            callbacks: Vec::new(),
            feedback: Vec::new(),
            children: Vec::new(),
            parent: None,
            has_role: false,
            points: None,
            scanout: SurfaceFeedback::new(),
            feedback_objects: Vec::new(),
            shadow: Shadow::new(allocator, [Modifier::LINEAR]),
            upload: None,
        }
    }

    pub(crate) fn ask_feedback(&mut self, feedback: Feedback) {
        self.pending.feedback.push(feedback);
    }

    /// What to wait for on behalf of its first commit.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let first = self.waiting.front().into_iter();
        first.flat_map(|commit| commit.waits.iter().map(Wait::fd))
    }

    /// The request `commit`. `false`: the client has broken the protocol.
    fn commit(&mut self) -> bool {
        let mut commit = std::mem::take(&mut self.pending);
        let content = |buffer: &WlBuffer| buffer.data::<Arc<ClientBuffer>>().cloned();
        let attached = commit.buffer.iter().flatten().next().and_then(content);
        if let Some((points, object)) = &mut self.points {
            let is_dma_buf = |content: &Arc<ClientBuffer>| matches!(**content, ClientBuffer::DmaBuf(..));
            match points.commit(attached.as_ref().map(is_dma_buf)) {
                Ok(points) => commit.points = points,
                Err(error) => {
                    object.post_error(error.code(), error.to_string());
                    return false;
                }
            }
        }
        match (&commit.points, attached.as_deref()) {
            (Some(points), _) => match points.acquire_eventfd(Stage::Signalled) {
                Ok(eventfd) => commit.waits.push(Wait::Point(eventfd, points.clone())),
                Err(error) => log::warn!("an acquire point is passed over: {error}"),
            },
            (None, Some(ClientBuffer::DmaBuf(buffer, _))) => match implicit::fence(buffer, Access::Read) {
                Ok(fence) => commit.waits.push(Wait::Implicit(fence)),
                Err(error) => log::warn!("{error}"),
            },
            _ => {}
        }
        match self.parent {
            Some((_, true)) => match &mut self.cached {
                Some(cached) => cached.merge(commit),
                None => self.cached = Some(commit),
            },
            _ => self.waiting.push_back(commit),
        }
        true
    }

    /// Applies commits whose fences have come. Whether anything has changed.
    fn advance(&mut self, gpu: &Gpu, udmabuf: Option<&Udmabuf>, blitter: Option<&Blitter>) -> bool {
        let mut has_changed = false;
        while let Some(mut commit) = self.waiting.pop_front() {
            commit.waits.retain(|wait| !wait.is_over());
            if commit.waits.is_empty() && commit.picture.is_none() {
                self.read(&mut commit, gpu, udmabuf, blitter);
                commit.waits.retain(|wait| !wait.is_over());
            }
            if !commit.waits.is_empty() {
                self.waiting.push_front(commit);
                break;
            }
            self.apply(commit);
            has_changed = true;
        }
        has_changed
    }

    fn apply(&mut self, commit: Commit) {
        if commit.buffer.is_some() {
            // A buffer that nothing can read leaves what was there before.
            if commit.picture.is_some() || commit.buffer == Some(None) {
                self.picture = commit.picture;
            }
            self.damage.add(commit.damage.get());
        }
        self.callbacks.extend(commit.callbacks);
        // A picture that was replaced before it was shown.
        self.feedback.drain(..).for_each(Feedback::discard);
        self.feedback.extend(commit.feedback);
    }

    /// Finds out what the GPU reads for a commit.
    fn read(&mut self, commit: &mut Commit, gpu: &Gpu, udmabuf: Option<&Udmabuf>, blitter: Option<&Blitter>) {
        let Some(Some(resource)) = &commit.buffer else {
            return;
        };
        let held = Arc::new(Held {
            buffer: resource.clone(),
            _points: commit.points.take(),
        });
        let Some(content) = resource.data::<Arc<ClientBuffer>>() else {
            return;
        };
        let picture = match &**content {
            ClientBuffer::Shm(buffer, source) => {
                self.read_shm(buffer, source, commit.damage.get(), gpu, udmabuf, held)
            }
            ClientBuffer::DmaBuf(buffer, source) => {
                let import = |buffer: &DmaBuf| gpu.import(buffer);
                let keep = |buffer: &DmaBuf| match source.get() {
                    Some(known) => Ok(known.clone()),
                    None => import(buffer).inspect(|new| drop(source.set(new.clone()))),
                };
                // The original is kept with the client's buffer; copies are kept by the shadow.
                let take = |one: &DmaBuf| if one.id() == buffer.id() { keep(one) } else { import(one) };
                let info = BlitInfo::default().damage(commit.damage.get());
                let readable = match blitter {
                    Some(blitter) => self.shadow.read_from(blitter, buffer, &info, take),
                    None => keep(buffer).map(Readable::Original).map_err(|original| {
                        let copy = original.clone();
                        primeshare::blit::ShadowError::NotTaken { original, copy }
                    }),
                };
                match readable {
                    Ok(Readable::Original(source)) => Some((source, Some(buffer.clone()), Some(held), None)),
                    Ok(Readable::Copy { made, frame, why, .. }) => {
                        let from = buffer.exporter(0).unwrap_or_default();
                        log::debug!("{} is copied, by {from}: {why}", resource.id());
                        commit.waits.push(Wait::Copy(frame.clone()));
                        Some((made, None, None, Some(frame)))
                    }
                    Ok(_) => None,
                    Err(error) => {
                        log::warn!("{} cannot be shown: {error}", resource.id());
                        None
                    }
                }
            }
        };
        let scale = commit.scale.unwrap_or(1).max(1);
        commit.picture = picture.map(|(source, buffer, held, shadow)| Picture {
            size: (source.size.0 / scale, source.size.1 / scale),
            buffer: buffer.filter(|_| scale == 1),
            source,
            held,
            _shadow: shadow,
        });
    }

    /// A client's memory: read where it is, or copied.
    fn read_shm(
        &mut self,
        buffer: &ShmBuffer,
        known: &OnceLock<Option<Source>>,
        damage: Damage<'_>,
        gpu: &Gpu,
        udmabuf: Option<&Udmabuf>,
        held: Arc<Held>,
    ) -> Option<(Source, Option<DmaBuf>, Option<Arc<Held>>, Option<ShadowFrame>)> {
        let shared = || {
            let buffer = buffer.dma_buf(udmabuf?);
            let buffer = buffer.inspect_err(|why| log::debug!("memory is copied: {why}")).ok()?;
            let source = gpu.import(buffer);
            source.inspect_err(|why| log::debug!("memory is copied: {why}")).ok()
        };
        if let Some(source) = known.get_or_init(shared)
            && let Some(Ok(dma_buf)) = udmabuf.map(|udmabuf| buffer.dma_buf(udmabuf))
        {
            if let Err(error) = buffer.flush() {
                log::warn!("{error}");
            }
            self.upload = None;
            return Some((source.clone(), Some(dma_buf.clone()), Some(held), None));
        }
        let desc = buffer.desc();
        let size = (desc.width, desc.height);
        let old = self.upload.take().filter(|old| old.size == size);
        let rows = match (&old, damage) {
            (Some(_), Damage::Boxes(boxes)) => {
                let first = boxes.iter().map(|one| one.y1.max(0) as u32).min();
                let last = boxes.iter().map(|one| one.y2.max(0) as u32).max();
                first.unwrap_or(0)..last.unwrap_or(0).min(size.1)
            }
            _ => 0..size.1,
        };
        let memory = old.or_else(|| gpu.memory(size, desc.fourcc))?;
        let mut bytes = Vec::new();
        if let Err(error) = buffer.read_rows(rows.clone(), &mut bytes) {
            held.buffer.post_error(error.code(), error.to_string());
            return None;
        }
        if !bytes.is_empty() {
            gpu.upload(&memory, rows.start, rows.end - rows.start, buffer.stride(), &bytes);
        }
        self.upload = Some(memory.clone());
        // It was read: the client may draw again.
        Some((memory, None, None, None))
    }
}

impl Commit {
    /// A commit after this one that is applied together with it.
    fn merge(&mut self, later: Self) {
        if later.buffer.is_some() {
            self.buffer = later.buffer;
            self.points = later.points;
            self.waits = later.waits;
        }
        self.damage.add(later.damage.get());
        self.scale = later.scale.or(self.scale);
        self.callbacks.extend(later.callbacks);
        self.feedback.extend(later.feedback);
    }
}

impl Compositor {
    /// Goes on with all commits that wait. A subsurface goes on with its parent.
    pub(crate) fn advance(&mut self) {
        let waiting = self.surfaces.iter().filter(|(_, surface)| !surface.waiting.is_empty());
        let ids: Vec<_> = waiting.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.advance_surface(&id);
        }
    }

    fn advance_surface(&mut self, id: &ObjectId) {
        let Some(surface) = self.surfaces.get_mut(id) else {
            return;
        };
        let blitter = self.shadow_blitter.as_ref();
        if !surface.advance(&self.gpu, self.udmabuf.as_ref(), blitter) {
            return;
        }
        self.screens.lit.iter_mut().for_each(|screen| screen.is_dirty = true);
        let children: Vec<_> = surface.children.iter().map(|child| child.surface.clone()).collect();
        for child in children {
            if let Some(child) = self.surfaces.get_mut(&child) {
                child.waiting.extend(child.cached.take());
            }
            self.advance_surface(&child);
        }
    }
}

impl GlobalDispatch<wl_compositor::WlCompositor, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<wl_compositor::WlCompositor>, (): &(), init: &mut DataInit<'_, Self>) {
        init.init(new, ());
    }
}

impl Dispatch<wl_compositor::WlCompositor, ()> for Compositor {
    fn request(state: &mut Self, _: &Client, _: &wl_compositor::WlCompositor, request: wl_compositor::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        match request {
            wl_compositor::Request::CreateSurface { id } => {
                let surface = init.init(id, ());
                state.surfaces.insert(surface.id(), Surface::new(surface, &state.gpu));
            }
            wl_compositor::Request::CreateRegion { id } => drop(init.init(id, ())),
            _ => {}
        }
    }
}

impl Dispatch<wl_region::WlRegion, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &wl_region::WlRegion, _: wl_region::Request, (): &(), _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
        // Input and opaque regions: there is no input, and everything is drawn.
    }
}

impl Dispatch<WlSurface, ()> for Compositor {
    fn request(state: &mut Self, _: &Client, resource: &WlSurface, request: wl_surface::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        let Some(surface) = state.surfaces.get_mut(&resource.id()) else {
            return;
        };
        let pending = &mut surface.pending;
        match request {
            wl_surface::Request::Attach { buffer, .. } => pending.buffer = Some(buffer),
            wl_surface::Request::Damage { x, y, width, height } | wl_surface::Request::DamageBuffer { x, y, width, height } => {
                // In units of the surface if it is scaled; then it is everything.
                let changed = DamageBox {
                    x1: x,
                    y1: y,
                    x2: x.saturating_add(width),
                    y2: y.saturating_add(height),
                };
                match pending.scale.is_some_and(|scale| scale > 1) {
                    true => pending.damage.add(Damage::Full),
                    false => pending.damage.add(Damage::Boxes(&[changed])),
                }
            }
            wl_surface::Request::Frame { callback } => pending.callbacks.push(init.init(callback, ())),
            wl_surface::Request::SetBufferScale { scale } if scale < 1 => {
                resource.post_error(wl_surface::Error::InvalidScale, format!("scale {scale}"));
            }
            wl_surface::Request::SetBufferScale { scale } => pending.scale = u32::try_from(scale).ok(),
            wl_surface::Request::Commit => {
                let scale = pending.scale;
                let is_good = surface.commit();
                surface.pending.scale = scale;
                if is_good {
                    state.advance_surface(&resource.id());
                }
                state.configure_if_new(&resource.id());
            }
            _ => {}
        }
    }

    fn destroyed(state: &mut Self, _: ClientId, resource: &WlSurface, (): &()) {
        if let Some(gone) = state.surfaces.remove(&resource.id()) {
            gone.feedback.into_iter().for_each(Feedback::discard);
        }
        state.forget(&resource.id());
    }
}

impl Dispatch<WlCallback, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &WlCallback, _: <WlCallback as Resource>::Request, (): &(), _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
    }
}

impl GlobalDispatch<wl_subcompositor::WlSubcompositor, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<wl_subcompositor::WlSubcompositor>, (): &(), init: &mut DataInit<'_, Self>) {
        init.init(new, ());
    }
}

impl Dispatch<wl_subcompositor::WlSubcompositor, ()> for Compositor {
    fn request(state: &mut Self, _: &Client, resource: &wl_subcompositor::WlSubcompositor, request: wl_subcompositor::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        let wl_subcompositor::Request::GetSubsurface { id, surface, parent } = request else {
            return;
        };
        let [own, above] = [surface.id(), parent.id()];
        init.init(id, surface.downgrade());
        // A surface that is above itself would be drawn for ever.
        if state.surfaces.get(&own).is_none_or(|one| one.has_role) || state.is_below(&own, &above) {
            resource.post_error(wl_subcompositor::Error::BadSurface, "it has a role, or is its parent");
            return;
        }
        if let Some(child) = state.surfaces.get_mut(&own) {
            child.has_role = true;
            child.parent = Some((above.clone(), true));
        }
        if let Some(parent) = state.surfaces.get_mut(&above) {
            let place = (0, 0);
            parent.children.push(Child { surface: own, place });
        }
    }
}

impl Dispatch<wl_subsurface::WlSubsurface, Weak<WlSurface>> for Compositor {
    fn request(state: &mut Self, _: &Client, _: &wl_subsurface::WlSubsurface, request: wl_subsurface::Request, surface: &Weak<WlSurface>, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
        let id = surface.id();
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
                // At once, and not with the parent's next commit: nobody moves subsurfaces often.
                let parent = parent.clone();
                let children = state.surfaces.get_mut(&parent).map(|parent| &mut parent.children);
                for child in children.into_iter().flatten().filter(|child| child.surface == id) {
                    child.place = (x, y);
                }
            }
            wl_subsurface::Request::Destroy => state.unparent(&id),
            _ => {}
        }
    }
}
