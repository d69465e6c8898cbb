//! xdg-shell: a window fills its screen; popups lie over it.

use std::sync::Mutex;

use wayland_protocols::xdg::shell::server::xdg_popup::{self, XdgPopup};
use wayland_protocols::xdg::shell::server::xdg_positioner::{self, XdgPositioner};
use wayland_protocols::xdg::shell::server::xdg_surface::{self, XdgSurface};
use wayland_protocols::xdg::shell::server::xdg_toplevel::{self, State, XdgToplevel};
use wayland_protocols::xdg::shell::server::xdg_wm_base::{self, XdgWmBase};
use wayland_server::backend::{ClientId, ObjectId};
use wayland_server::protocol::wl_surface::WlSurface;
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, Weak};

use crate::Compositor;
use crate::surface::Child;

/// A toplevel.
pub(crate) struct Window {
    pub(crate) surface: ObjectId,
    xdg: XdgSurface,
    toplevel: XdgToplevel,
    /// The number of its screen. 0: there is none.
    pub(crate) screen: u32,
    /// The corner of what counts as the window, inside of its surface.
    pub(crate) corner: (i32, i32),
    is_configured: bool,
}

/// What a positioner says: the place, from the window's corner, and the size.
#[derive(Clone, Copy, Default)]
pub(crate) struct Placed {
    size: (i32, i32),
    anchor: (i32, i32, i32, i32),
    offset: (i32, i32),
}

impl Compositor {
    /// The windows of a screen from the bottom up, each with all that is over it.
    pub(crate) fn stack(&self, screen: u32, size: (u32, u32)) -> Vec<(ObjectId, (i32, i32))> {
        let mut stack = Vec::new();
        for window in self.windows.iter().filter(|window| window.screen == screen) {
            let picture = self.surfaces.get(&window.surface).and_then(|one| one.picture.as_ref());
            let Some(picture) = picture else {
                continue;
            };
            // In the middle, if it is smaller than the screen.
            let middle = |all: u32, own: u32| (all as i32 - own as i32).max(0) / 2;
            let (width, height) = picture.size;
            let place = (middle(size.0, width), middle(size.1, height));
            let corner = match place {
                (0, 0) => (0, 0),
                _ => window.corner,
            };
            self.add_tree(&window.surface, (place.0 - corner.0, place.1 - corner.1), &mut stack);
        }
        stack
    }

    fn add_tree(&self, id: &ObjectId, place: (i32, i32), stack: &mut Vec<(ObjectId, (i32, i32))>) {
        let Some(surface) = self.surfaces.get(id) else {
            return;
        };
        stack.push((id.clone(), place));
        for child in &surface.children {
            let at = (place.0.saturating_add(child.place.0), place.1.saturating_add(child.place.1));
            self.add_tree(&child.surface, at, stack);
        }
    }

    /// Whether a surface is another one, or one of those that it is over.
    pub(crate) fn is_below(&self, below: &ObjectId, surface: &ObjectId) -> bool {
        let children = self.surfaces.get(below).map(|one| one.children.as_slice());
        below == surface || children.unwrap_or_default().iter().any(|child| self.is_below(&child.surface, surface))
    }

    /// Takes a surface off the one that it is over.
    pub(crate) fn unparent(&mut self, id: &ObjectId) {
        for surface in self.surfaces.values_mut() {
            surface.children.retain(|child| child.surface != *id);
        }
        self.screens.lit.iter_mut().for_each(|screen| screen.is_dirty = true);
    }

    /// A surface that is gone.
    pub(crate) fn forget(&mut self, id: &ObjectId) {
        self.windows.retain(|window| window.surface != *id);
        self.unparent(id);
    }

    /// The screen with the fewest windows.
    fn emptiest_screen(&self) -> u32 {
        let windows = |number: u32| self.windows.iter().filter(|window| window.screen == number).count();
        let screens = self.screens.lit.iter().map(|screen| screen.number);
        screens.min_by_key(|number| windows(*number)).unwrap_or(0)
    }

    /// Moves windows from screens that are gone.
    pub(crate) fn place_windows(&mut self) {
        for n in 0..self.windows.len() {
            let screen = self.windows[n].screen;
            if !self.screens.lit.iter().any(|lit| lit.number == screen) {
                self.windows[n].screen = 0;
                self.windows[n].screen = self.emptiest_screen();
                self.configure(n);
            }
        }
    }

    /// Tells a window its size. It may take another one.
    fn configure(&mut self, window: usize) {
        self.serial += 1;
        let window = &mut self.windows[window];
        let screen = self.screens.lit.iter().find(|screen| screen.number == window.screen);
        let (width, height) = screen.map_or((0, 0), |screen| screen.size());
        let states = [State::Activated, State::Fullscreen].map(|state| (state as u32).to_ne_bytes());
        window.toplevel.configure(width as i32, height as i32, states.concat());
        window.xdg.configure(self.serial);
        window.is_configured = true;
    }

    /// Answers the first commit of a window.
    pub(crate) fn configure_if_new(&mut self, surface: &ObjectId) {
        let is_new = |window: &Window| window.surface == *surface && !window.is_configured;
        if let Some(window) = self.windows.iter().position(is_new) {
            self.configure(window);
        }
    }
}

impl GlobalDispatch<XdgWmBase, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<XdgWmBase>, (): &(), init: &mut DataInit<'_, Self>) {
        init.init(new, ());
    }
}

impl Dispatch<XdgWmBase, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &XdgWmBase, request: xdg_wm_base::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        match request {
            xdg_wm_base::Request::GetXdgSurface { id, surface } => drop(init.init(id, surface.downgrade())),
            xdg_wm_base::Request::CreatePositioner { id } => drop(init.init(id, Mutex::default())),
            _ => {}
        }
    }
}

impl Dispatch<XdgPositioner, Mutex<Placed>> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &XdgPositioner, request: xdg_positioner::Request, placed: &Mutex<Placed>, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
        let mut placed = placed.lock().unwrap();
        match request {
            xdg_positioner::Request::SetSize { width, height } => placed.size = (width, height),
            xdg_positioner::Request::SetAnchorRect { x, y, width, height } => placed.anchor = (x, y, width, height),
            xdg_positioner::Request::SetOffset { x, y } => placed.offset = (x, y),
            _ => {}
        }
    }
}

impl Dispatch<XdgSurface, Weak<WlSurface>> for Compositor {
    fn request(state: &mut Self, _: &Client, resource: &XdgSurface, request: xdg_surface::Request, surface: &Weak<WlSurface>, _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        let id = surface.id();
        let known = state.surfaces.get_mut(&id);
        let takes_role = matches!(request, xdg_surface::Request::GetToplevel { .. } | xdg_surface::Request::GetPopup { .. });
        if takes_role && known.is_some_and(|surface| std::mem::replace(&mut surface.has_role, true)) {
            resource.post_error(xdg_surface::Error::AlreadyConstructed, "the surface has a role");
        }
        match request {
            xdg_surface::Request::GetToplevel { id: new } => {
                let toplevel = init.init(new, id.clone());
                let screen = state.emptiest_screen();
                state.windows.push(Window {
                    surface: id,
                    xdg: resource.clone(),
                    toplevel,
                    screen,
                    corner: (0, 0),
                    is_configured: false,
                });
            }
            xdg_surface::Request::GetPopup { id: new, parent, positioner } => {
                let popup = init.init(new, id.clone());
                let placed = positioner.data::<Mutex<Placed>>().map(|placed| *placed.lock().unwrap());
                let Placed { size, anchor, offset } = placed.unwrap_or_default();
                // Below what it belongs to, as most menus ask for.
                let place = (
                    anchor.0.saturating_add(offset.0),
                    anchor.1.saturating_add(anchor.3).saturating_add(offset.1),
                );
                let parent = parent.and_then(|parent| parent.data::<Weak<WlSurface>>().map(Weak::id));
                if let Some(parent) = parent.filter(|parent| !state.is_below(&id, parent))
                    && let Some(parent) = state.surfaces.get_mut(&parent)
                {
                    parent.children.push(Child { surface: id, place });
                }
                state.serial += 1;
                popup.configure(place.0, place.1, size.0, size.1);
                resource.configure(state.serial);
            }
            xdg_surface::Request::SetWindowGeometry { x, y, .. } => {
                let mut windows = state.windows.iter_mut();
                if let Some(window) = windows.find(|window| window.surface == id) {
                    window.corner = (x, y);
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<XdgToplevel, ObjectId> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &XdgToplevel, _: xdg_toplevel::Request, _: &ObjectId, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
        // Titles, moves and limits of the size: a window fills its screen.
    }

    fn destroyed(state: &mut Self, _: ClientId, _: &XdgToplevel, surface: &ObjectId) {
        state.forget(surface);
    }
}

impl Dispatch<XdgPopup, ObjectId> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &XdgPopup, _: xdg_popup::Request, _: &ObjectId, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
    }

    fn destroyed(state: &mut Self, _: ClientId, _: &XdgPopup, surface: &ObjectId) {
        state.unparent(surface);
    }
}
