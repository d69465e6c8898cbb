//! A Wayland client that knows nothing of the compositor: a window of shared memory, or of a dma-buf.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use primeshare::{DmaBuf, Modifier};
use rustix::fs::MemfdFlags;
use wayland_client::protocol::wl_buffer::WlBuffer;
use wayland_client::protocol::wl_callback::{self, WlCallback};
use wayland_client::protocol::wl_compositor::WlCompositor;
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::protocol::wl_shm::{Format, WlShm};
use wayland_client::protocol::wl_shm_pool::WlShmPool;
use wayland_client::protocol::wl_surface::WlSurface;
use wayland_client::{Connection, Dispatch, EventQueue, QueueHandle, delegate_noop};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_buffer_params_v1::{
    Flags, ZwpLinuxBufferParamsV1,
};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_v1::ZwpLinuxDmabufV1;
use wayland_protocols::xdg::shell::client::xdg_surface::{self, XdgSurface};
use wayland_protocols::xdg::shell::client::xdg_toplevel::{self, XdgToplevel};
use wayland_protocols::xdg::shell::client::xdg_wm_base::{self, XdgWmBase};

use super::compositor::{Compositor, wait_until};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) compositor: Option<WlCompositor>,
    pub(crate) shm: Option<WlShm>,
    pub(crate) dmabuf: Option<ZwpLinuxDmabufV1>,
    pub(crate) shell: Option<XdgWmBase>,
    size: (u32, u32),
    configured: bool,
    wants_frame: bool,
}

/// A client with one window. Dropped, it is gone as if it had crashed: it says no farewell.
pub(crate) struct Client {
    pub(crate) queue: EventQueue<State>,
    pub(crate) state: State,
    pub(crate) surface: WlSurface,
    /// The buffers of the last pictures.
    shown: Vec<WlBuffer>,
}

impl Client {
    /// Connects, and has a window that the compositor has given a size.
    pub(crate) fn connect(compositor: &Compositor) -> Self {
        let mut stream = None;
        wait_until("a connection", || {
            stream = UnixStream::connect(compositor.socket()).ok();
            stream.is_some()
        });
        let connection = Connection::from_socket(stream.unwrap()).unwrap();
        let mut queue = connection.new_event_queue();
        let handle = queue.handle();
        connection.display().get_registry(&handle, ());
        let mut state = State::default();
        queue.roundtrip(&mut state).unwrap();
        let surface = state
            .compositor
            .as_ref()
            .unwrap()
            .create_surface(&handle, ());
        let shell = state.shell.as_ref().unwrap();
        let window = shell.get_xdg_surface(&surface, &handle, ());
        let toplevel = window.get_toplevel(&handle, ());
        toplevel.set_fullscreen(None);
        surface.commit();
        if compositor.lets_clients_choose() {
            state.size = (640, 480);
        }
        while !state.configured || state.size.0 == 0 {
            queue.blocking_dispatch(&mut state).unwrap();
        }
        Self {
            queue,
            state,
            surface,
            shown: Vec::new(),
        }
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        self.state.size
    }

    /// Draws all of the window, into memory that others cannot seal.
    pub(crate) fn show(&mut self, picture: impl Fn(u32, u32) -> [u8; 3]) {
        self.show_memory(picture, MemfdFlags::CLOEXEC);
    }

    /// Draws all of the window.
    pub(crate) fn show_memory(
        &mut self,
        picture: impl Fn(u32, u32) -> [u8; 3],
        flags: MemfdFlags,
    ) -> File {
        let (buffer, memory) = self.memory(self.state.size, picture, flags);
        self.attach(&buffer);
        // What was shown two pictures ago is shown no more.
        self.shown.push(buffer);
        if self.shown.len() > 2 {
            self.shown.remove(0).destroy();
        }
        memory
    }

    /// A buffer of shared memory, and its file.
    pub(crate) fn memory(
        &self,
        (width, height): (u32, u32),
        picture: impl Fn(u32, u32) -> [u8; 3],
        flags: MemfdFlags,
    ) -> (WlBuffer, File) {
        let pixels = pixels((width, height), picture);
        let memory = rustix::fs::memfd_create("window", flags).unwrap();
        let memory = File::from(memory);
        memory.write_all_at(&pixels, 0).unwrap();
        let handle = self.queue.handle();
        let shm = self.state.shm.as_ref().unwrap();
        let pool = shm.create_pool(memory.as_fd(), pixels.len() as i32, &handle, ());
        let (columns, rows) = (width as i32, height as i32);
        let buffer =
            pool.create_buffer(0, columns, rows, 4 * columns, Format::Xrgb8888, &handle, ());
        pool.destroy();
        (buffer, memory)
    }

    /// Whether the compositor takes dma-bufs.
    #[allow(dead_code, reason = "for benchmarks")]
    pub(crate) fn has_dma_bufs(&self) -> bool {
        self.state.dmabuf.is_some()
    }

    /// The buffers of the last two pictures in memory.
    #[allow(dead_code, reason = "for benchmarks")]
    pub(crate) fn shown(&self) -> &[WlBuffer] {
        &self.shown
    }

    /// Shows a buffer.
    pub(crate) fn show_dma_buf(&mut self, buffer: &DmaBuf) -> WlBuffer {
        let made = self.dma_buf(buffer);
        self.attach(&made);
        made
    }

    /// A dma-buf as a buffer.
    pub(crate) fn dma_buf(&self, buffer: &DmaBuf) -> WlBuffer {
        let handle = self.queue.handle();
        let dmabuf = self.state.dmabuf.as_ref().expect("linux-dmabuf");
        let params = dmabuf.create_params(&handle, ());
        let Modifier(modifier) = buffer.modifier();
        for (n, plane) in buffer.planes().iter().enumerate() {
            let fd = buffer.plane_fd(n).unwrap();
            let (high, low) = ((modifier >> 32) as u32, modifier as u32);
            params.add(fd, n as u32, plane.offset, plane.stride, high, low);
        }
        let (width, height) = (buffer.width() as i32, buffer.height() as i32);
        let flags = Flags::empty();
        let made = params.create_immed(width, height, buffer.fourcc().0, flags, &handle, ());
        params.destroy();
        made
    }

    /// Shows a buffer, and waits until the compositor asks for the frame after it.
    #[allow(dead_code, reason = "for benchmarks")]
    pub(crate) fn show_frame(&mut self, buffer: &WlBuffer) {
        self.state.wants_frame = false;
        self.surface.frame(&self.queue.handle(), ());
        self.surface.attach(Some(buffer), 0, 0);
        self.surface.damage_buffer(0, 0, i32::MAX, i32::MAX);
        self.surface.commit();
        while !self.state.wants_frame {
            self.queue.blocking_dispatch(&mut self.state).unwrap();
        }
    }

    /// Shows a buffer that was shown before, or another one.
    pub(crate) fn attach(&mut self, buffer: &WlBuffer) {
        self.surface.attach(Some(buffer), 0, 0);
        self.surface.damage_buffer(0, 0, i32::MAX, i32::MAX);
        self.surface.commit();
        self.queue.roundtrip(&mut self.state).unwrap();
    }
}

/// A picture as XRGB8888.
pub(crate) fn pixels(
    (width, height): (u32, u32),
    picture: impl Fn(u32, u32) -> [u8; 3],
) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(4 * (width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            pixels.extend(picture(x, y));
            pixels.push(255);
        }
    }
    pixels
}

impl Dispatch<WlRegistry, ()> for State {
    fn event(
        state: &mut Self,
        registry: &WlRegistry,
        event: wl_registry::Event,
        (): &(),
        _: &Connection,
        queue: &QueueHandle<Self>,
    ) {
        if let wl_registry::Event::Global {
            name,
            interface,
            version,
        } = event
        {
            match &*interface {
                "wl_compositor" => state.compositor = Some(registry.bind(name, 4, queue, ())),
                "zwp_linux_dmabuf_v1" => {
                    state.dmabuf = Some(registry.bind(name, version.min(3), queue, ()));
                }
                "wl_shm" => state.shm = Some(registry.bind(name, 1, queue, ())),
                "xdg_wm_base" => state.shell = Some(registry.bind(name, 1, queue, ())),
                _ => {}
            }
        }
    }
}

impl Dispatch<XdgWmBase, ()> for State {
    fn event(
        _: &mut Self,
        shell: &XdgWmBase,
        event: xdg_wm_base::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_wm_base::Event::Ping { serial } = event {
            shell.pong(serial);
        }
    }
}

impl Dispatch<XdgSurface, ()> for State {
    fn event(
        state: &mut Self,
        surface: &XdgSurface,
        event: xdg_surface::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_surface::Event::Configure { serial } = event {
            surface.ack_configure(serial);
            state.configured = true;
        }
    }
}

impl Dispatch<XdgToplevel, ()> for State {
    fn event(
        state: &mut Self,
        _: &XdgToplevel,
        event: xdg_toplevel::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_toplevel::Event::Configure { width, height, .. } = event {
            // Zero leaves it to the client.
            if width > 0 && height > 0 {
                state.size = (width as u32, height as u32);
            }
        }
    }
}

impl Dispatch<WlCallback, ()> for State {
    fn event(
        state: &mut Self,
        _: &WlCallback,
        _: wl_callback::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        state.wants_frame = true;
    }
}

delegate_noop!(State: ignore WlBuffer);
delegate_noop!(State: ignore ZwpLinuxBufferParamsV1);
delegate_noop!(State: ignore ZwpLinuxDmabufV1);
delegate_noop!(State: ignore WlCompositor);
delegate_noop!(State: ignore WlShm);
delegate_noop!(State: ignore WlShmPool);
delegate_noop!(State: ignore WlSurface);
