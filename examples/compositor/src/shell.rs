//! xdg-shell: a window fills its screen.

use wayland_protocols::xdg::shell::server::xdg_popup::XdgPopup;
use wayland_protocols::xdg::shell::server::xdg_positioner::XdgPositioner;
use wayland_protocols::xdg::shell::server::xdg_surface::{self, XdgSurface};
use wayland_protocols::xdg::shell::server::xdg_toplevel::{State, XdgToplevel};
use wayland_protocols::xdg::shell::server::xdg_wm_base::{self, XdgWmBase};
use wayland_server::backend::ObjectId;
use wayland_server::protocol::wl_surface::WlSurface;
use wayland_server::{Resource, Weak};

use crate::Compositor;
use crate::objects::Call;

/// A toplevel.
pub(crate) struct Window {
    pub(crate) surface: ObjectId,
    xdg: XdgSurface,
    toplevel: XdgToplevel,
    /// The number of its screen. 0: there is none.
    pub(crate) screen: u32,
    is_configured: bool,
}

impl Compositor {
    /// The surfaces on a screen of this size from the bottom up, and where they are.
    pub(crate) fn stack(&self, screen: u32, size: (u32, u32)) -> Vec<(ObjectId, (i32, i32))> {
        let mut stack = Vec::new();
        for window in self.windows.iter().filter(|window| window.screen == screen) {
            let picture = self.surfaces.get(&window.surface).and_then(|one| one.picture.as_ref());
            // In the middle, if it is smaller than the screen.
            let middle = |all: u32, own: u32| (all.saturating_sub(own) / 2) as i32;
            if let Some((width, height)) = picture.map(|picture| picture.size) {
                self.add_tree(&window.surface, (middle(size.0, width), middle(size.1, height)), &mut stack);
            }
        }
        stack
    }

    fn add_tree(&self, id: &ObjectId, place: (i32, i32), stack: &mut Vec<(ObjectId, (i32, i32))>) {
        stack.push((id.clone(), place));
        for child in self.surfaces.get(id).iter().flat_map(|surface| &surface.children) {
            let at = (place.0.saturating_add(child.place.0), place.1.saturating_add(child.place.1));
            self.add_tree(&child.surface, at, stack);
        }
    }

    /// Whether a surface is another one, or one of those that it is over.
    pub(crate) fn is_below(&self, below: &ObjectId, surface: &ObjectId) -> bool {
        let mut children = self.surfaces.get(below).into_iter().flat_map(|one| &one.children);
        below == surface || children.any(|child| self.is_below(&child.surface, surface))
    }

    /// Takes a surface off the one that it is over.
    pub(crate) fn unparent(&mut self, id: &ObjectId) {
        for surface in self.surfaces.values_mut() {
            surface.children.retain(|child| child.surface != *id);
        }
        self.screens.repaint();
    }

    /// A surface that is gone, or a window no more.
    pub(crate) fn forget(&mut self, id: &ObjectId) {
        self.windows.retain(|window| window.surface != *id);
        self.unparent(id);
    }

    /// The screen with the fewest windows.
    fn emptiest_screen(&self) -> u32 {
        let windows = |number: u32| self.windows.iter().filter(|window| window.screen == number).count();
        let numbers = self.screens.lit.iter().map(|screen| screen.number);
        numbers.min_by_key(|number| windows(*number)).unwrap_or(0)
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
        let (width, height) = screen.map_or((0, 0), |screen| screen.mode().size());
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

global!(XdgWmBase);
requests!(XdgPositioner, ());
requests!(XdgPopup, ());
// Titles, moves and limits of the size: a window fills its screen.
requests!(XdgToplevel, ObjectId, |_, _| {}, |state, _, surface| state.forget(surface));

requests!(XdgWmBase, (), |_, Call { request, init, .. }| {
    match request {
        xdg_wm_base::Request::GetXdgSurface { id, surface } => drop(init.init(id, surface.downgrade())),
        xdg_wm_base::Request::CreatePositioner { id } => drop(init.init(id, ())),
        _ => {}
    }
});

requests!(XdgSurface, Weak<WlSurface>, |state, Call { object, request, data, init, .. }| {
    match request {
        xdg_surface::Request::GetToplevel { id } => {
            let surface = data.id();
            let known = state.surfaces.get_mut(&surface);
            if known.is_some_and(|known| std::mem::replace(&mut known.has_role, true)) {
                object.post_error(xdg_surface::Error::AlreadyConstructed, "the surface has a role");
            }
            let (toplevel, screen) = (init.init(id, surface.clone()), state.emptiest_screen());
            let xdg = object.clone();
            state.windows.push(Window { surface, xdg, toplevel, screen, is_configured: false });
        }
        // Menus: without input devices nobody opens one.
        xdg_surface::Request::GetPopup { id, .. } => init.init(id, ()).popup_done(),
        _ => {}
    }
});
