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
use crate::surface::Role;

/// A toplevel.
pub(crate) struct Window {
    pub(crate) surface: ObjectId,
    xdg: XdgSurface,
    toplevel: XdgToplevel,
    /// The number of its screen. 0: there is none.
    pub(crate) screen: u32,
    is_configured: bool,
}

impl Window {
    /// Without a picture, it asks for its size again.
    pub(crate) fn unmap(&mut self) {
        self.is_configured = false;
    }

    fn is_new(&self, surface: &ObjectId) -> bool {
        self.surface == *surface && !self.is_configured
    }

    /// Whether it is this surface's and has not been told its size. That is an error of who shows a picture.
    pub(crate) fn refuses_picture(&self, surface: &ObjectId) -> bool {
        let is_new = self.is_new(surface);
        if is_new {
            self.xdg.post_error(xdg_surface::Error::UnconfiguredBuffer, "the window has not been told its size");
        }
        is_new
    }
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

    /// Clients make trees as high as they like, so this does not recurse.
    fn add_tree(&self, id: &ObjectId, place: (i32, i32), stack: &mut Vec<(ObjectId, (i32, i32))>) {
        let mut left = vec![(id.clone(), place)];
        while let Some((id, place)) = left.pop() {
            let children = self.surfaces.get(&id).into_iter().flat_map(|surface| surface.children.iter().rev());
            left.extend(children.map(|child| {
                let at = (place.0.saturating_add(child.place.0), place.1.saturating_add(child.place.1));
                (child.surface.clone(), at)
            }));
            stack.push((id, place));
        }
    }

    /// Whether a surface is another one, or one of those that it is over.
    pub(crate) fn is_below(&self, below: &ObjectId, surface: &ObjectId) -> bool {
        // Nothing is above it: not looked for, so that high trees are built fast.
        let is_top = self.surfaces.get(below).is_none_or(|one| one.children.is_empty());
        let mut next = Some(surface).filter(|next| !is_top || *next == below);
        while let Some(id) = next.filter(|id| *id != below) {
            let parent = self.surfaces.get(id).and_then(|surface| surface.parent.as_ref());
            next = parent.map(|(parent, _)| parent);
        }
        next.is_some()
    }

    /// Takes a surface off the one that it is over.
    pub(crate) fn unparent(&mut self, id: &ObjectId) {
        let parent = self.surfaces.get_mut(id).and_then(|surface| surface.parent.take());
        if let Some(below) = parent.and_then(|(parent, _)| self.surfaces.get_mut(&parent)) {
            below.children.retain(|child| child.surface != *id);
            self.screens.repaint();
        }
    }

    /// A surface that is gone, or a window no more.
    pub(crate) fn forget(&mut self, id: &ObjectId) {
        // Clients that show nothing come and go without a frame.
        if self.windows.extract_if(.., |window| window.surface == *id).count() > 0 {
            self.screens.repaint();
        }
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
        if let Some(window) = self.windows.iter().position(|window| window.is_new(surface)) {
            self.configure(window);
        }
    }
}

global!(XdgWmBase);
requests!(XdgPositioner, ());
requests!(XdgPopup, ());
// Titles, moves and limits of the size: a window fills its screen.
requests!(XdgToplevel, ObjectId, |_, _| {}, |state, _, surface| state.forget(surface));

requests!(XdgWmBase, (), |state, Call { object, request, init, .. }| {
    match request {
        xdg_wm_base::Request::GetXdgSurface { id, surface } => {
            init.init(id, surface.downgrade());
            match state.surfaces.get_mut(&surface.id()) {
                Some(one) if one.role != Some(Role::Subsurface) && !one.has_xdg_surface => one.has_xdg_surface = true,
                _ => object.post_error(xdg_wm_base::Error::Role, "the surface has a role"),
            }
        }
        xdg_wm_base::Request::CreatePositioner { id } => drop(init.init(id, ())),
        _ => {}
    }
});

requests!(
    XdgSurface,
    Weak<WlSurface>,
    |state, Call { object, request, data, init, .. }| {
        match request {
            xdg_surface::Request::GetToplevel { id } => {
                let surface = data.id();
                if state.windows.iter().any(|window| window.xdg == *object) {
                    object.post_error(xdg_surface::Error::AlreadyConstructed, "it is a window already");
                }
                let known = state.surfaces.get_mut(&surface);
                known.into_iter().for_each(|known| known.role = Some(Role::Window));
                let (toplevel, screen) = (init.init(id, surface.clone()), state.emptiest_screen());
                let xdg = object.clone();
                state.windows.push(Window { surface, xdg, toplevel, screen, is_configured: false });
            }
            // Menus: without input devices nobody opens one.
            xdg_surface::Request::GetPopup { id, .. } => init.init(id, ()).popup_done(),
            _ => {}
        }
    },
    |state, _, surface| {
        let surface = state.surfaces.get_mut(&surface.id());
        surface.into_iter().for_each(|surface| surface.has_xdg_surface = false);
    }
);
