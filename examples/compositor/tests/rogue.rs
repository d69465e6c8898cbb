//! A client that sends what it likes, and what it is told for it.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use wayland_client::backend::WaylandError;
use wayland_client::protocol::wl_buffer::WlBuffer;
use wayland_client::protocol::wl_region::WlRegion;
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::protocol::wl_subcompositor::WlSubcompositor;
use wayland_client::protocol::wl_subsurface::WlSubsurface;
use wayland_client::protocol::wl_surface::WlSurface;
use wayland_client::{Connection, Dispatch, Proxy, QueueHandle, delegate_noop, event_created_child};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_buffer_params_v1::{
    self as params, ZwpLinuxBufferParamsV1,
};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_feedback_v1::ZwpLinuxDmabufFeedbackV1;
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_v1::ZwpLinuxDmabufV1;

use super::client::{Client, State};
use super::compositor::{Compositor, wait_until};
use super::steady::Done;

type Globals = Arc<Mutex<Vec<(u32, String)>>>;

/// How often a params object has said `created`, and how often `failed`.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) created: AtomicU32,
    pub(crate) failed: AtomicU32,
}

/// A client whose requests are made one by one.
pub(crate) struct Rogue {
    pub(crate) client: Client,
    pub(crate) registry: WlRegistry,
    connection: Connection,
    globals: Globals,
}

impl Rogue {
    /// Connects, and has a window that the compositor has given a size.
    pub(crate) fn connect(compositor: &Compositor) -> Self {
        let mut client = Client::connect(compositor);
        let backend = client.surface.backend().upgrade().unwrap();
        let connection = Connection::from_backend(backend);
        let globals = Globals::default();
        let registry = connection.display().get_registry(&client.queue.handle(), globals.clone());
        client.queue.roundtrip(&mut client.state).unwrap();
        Self { client, registry, connection, globals }
    }

    pub(crate) fn handle(&self) -> QueueHandle<State> {
        self.client.queue.handle()
    }

    /// Binds a global.
    pub(crate) fn bind<I: Proxy + 'static>(&self, version: u32) -> I
    where
        State: Dispatch<I, ()>,
    {
        let globals = self.globals.lock().unwrap();
        let found = globals.iter().find(|global| global.1 == I::interface().name);
        let name = found.expect("the compositor has it").0;
        self.registry.bind(name, version, &self.handle(), ())
    }

    pub(crate) fn surface(&self) -> WlSurface {
        self.client.state.compositor.as_ref().unwrap().create_surface(&self.handle(), ())
    }

    /// A params object of the newest version.
    pub(crate) fn params(&self) -> (ZwpLinuxBufferParamsV1, Arc<Answers>) {
        let dmabuf: ZwpLinuxDmabufV1 = self.bind(6);
        let answers = Arc::<Answers>::default();
        (dmabuf.create_params(&self.handle(), answers.clone()), answers)
    }

    /// Sends all requests, and waits while the socket is full. Whether the connection is there still.
    pub(crate) fn send(&self) -> bool {
        loop {
            match self.client.queue.flush() {
                Ok(()) => return true,
                Err(WaylandError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
            let mut fds = [PollFd::new(&self.client.queue, PollFlags::OUT)];
            poll(&mut fds, None).unwrap();
        }
    }

    /// Waits until the compositor has handled all requests. The error's object and number, if it ends the
    /// connection.
    pub(crate) fn roundtrip(&mut self) -> Result<(), (String, u32)> {
        let done = Done::default();
        self.connection.display().sync(&self.handle(), done.clone());
        // All at once: an answer cannot be read any more after something was sent to a connection that has ended.
        self.send();
        loop {
            let dispatched = self.client.queue.dispatch_pending(&mut self.client.state);
            if done.load(Ordering::Acquire) {
                return Ok(());
            }
            let read = self.client.queue.prepare_read().map(|guard| {
                let mut fds = [PollFd::new(&self.client.queue, PollFlags::IN)];
                poll(&mut fds, None).unwrap();
                guard.read()
            });
            match read {
                Some(Err(WaylandError::Io(error))) if error.kind() == ErrorKind::WouldBlock => {}
                Some(Err(_)) => break,
                _ if dispatched.is_err() => break,
                _ => {}
            }
        }
        let error = self.connection.protocol_error();
        Err(error.map_or_else(|| ("no error".to_owned(), 0), |error| (error.object_interface, error.code)))
    }

    /// The error that ends the connection.
    #[track_caller]
    pub(crate) fn error(&mut self, what: &str) -> (String, u32) {
        self.roundtrip().expect_err(what)
    }
}

/// A memfd of this size.
pub(crate) fn memory(size: u64) -> OwnedFd {
    let memory = memfd_create("rogue", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, size).unwrap();
    memory
}

/// A connection without a protocol library.
pub(crate) fn raw_connection(compositor: &Compositor) -> UnixStream {
    let mut stream = None;
    wait_until("a connection", || {
        stream = UnixStream::connect(compositor.socket()).ok();
        stream.is_some()
    });
    stream.unwrap()
}

/// Adds a plane whose modifier is LINEAR.
pub(crate) fn add(params: &ZwpLinuxBufferParamsV1, fd: impl AsFd, index: u32, (offset, stride): (u32, u32)) {
    params.add(fd.as_fd(), index, offset, stride, 0, 0);
}

impl Dispatch<WlRegistry, Globals> for State {
    fn event(
        _: &mut Self,
        _: &WlRegistry,
        event: wl_registry::Event,
        globals: &Globals,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let wl_registry::Event::Global { name, interface, .. } = event {
            globals.lock().unwrap().push((name, interface));
        }
    }
}

impl Dispatch<ZwpLinuxBufferParamsV1, Arc<Answers>> for State {
    fn event(
        _: &mut Self,
        _: &ZwpLinuxBufferParamsV1,
        event: params::Event,
        answers: &Arc<Answers>,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            params::Event::Created { .. } => answers.created.fetch_add(1, Ordering::Relaxed),
            params::Event::Failed => answers.failed.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    event_created_child!(State, ZwpLinuxBufferParamsV1, [params::EVT_CREATED_OPCODE => (WlBuffer, ())]);
}

delegate_noop!(State: ignore WlRegion);
delegate_noop!(State: ignore WlSubcompositor);
delegate_noop!(State: ignore WlSubsurface);
delegate_noop!(State: ignore ZwpLinuxDmabufFeedbackV1);
