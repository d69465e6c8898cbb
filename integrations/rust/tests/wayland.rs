//! A client of linux-dmabuf and its server in one process, over a socket pair.
#![cfg(feature = "wayland")]

mod common;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{PATIENCE, buffer_on, device};
use primeshare::negotiate::{Feedback, FormatTable, Tranche, TrancheFlags};
use primeshare::{DmaBuf, Fourcc, Modifier};
use primeshare_integrations::wayland::Server;
use rustix::fs::SealFlags;
use wayland_client::backend::WaylandError;
use wayland_client::backend::protocol::ProtocolError;
use wayland_client::protocol::wl_buffer::WlBuffer;
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::{
    Connection, Dispatch, EventQueue, Proxy, QueueHandle, delegate_noop, event_created_child,
};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_buffer_params_v1::{
    self as params, Error, Flags, ZwpLinuxBufferParamsV1,
};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_feedback_v1::{
    self as feedback, ZwpLinuxDmabufFeedbackV1,
};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_v1::{
    self as dmabuf, ZwpLinuxDmabufV1,
};
use wayland_server::Display;

/// What the client has been told.
#[derive(Default)]
struct Client {
    version: u32,
    global: Option<ZwpLinuxDmabufV1>,
    created: Option<WlBuffer>,
    failed: bool,
    modifiers: Vec<(u32, u64)>,
    table: Option<(OwnedFd, u32)>,
    main_device: Option<u64>,
    tranche: (u64, u32, Vec<u8>),
    tranches: Vec<(u64, u32, Vec<u8>)>,
    done: bool,
}

impl Dispatch<WlRegistry, ()> for Client {
    fn event(
        client: &mut Self,
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
            && interface == ZwpLinuxDmabufV1::interface().name
        {
            assert_eq!(version, 6);
            client.global = Some(registry.bind(name, client.version, queue, ()));
        }
    }
}

impl Dispatch<ZwpLinuxDmabufV1, ()> for Client {
    fn event(
        client: &mut Self,
        _: &ZwpLinuxDmabufV1,
        event: dmabuf::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let dmabuf::Event::Modifier {
            format,
            modifier_hi,
            modifier_lo,
        } = event
        {
            let modifier = u64::from(modifier_hi) << 32 | u64::from(modifier_lo);
            client.modifiers.push((format, modifier));
        }
    }
}

impl Dispatch<ZwpLinuxBufferParamsV1, ()> for Client {
    fn event(
        client: &mut Self,
        _: &ZwpLinuxBufferParamsV1,
        event: params::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            params::Event::Created { buffer } => client.created = Some(buffer),
            params::Event::Failed => client.failed = true,
            other => panic!("{other:?}"),
        }
    }

    event_created_child!(Client, ZwpLinuxBufferParamsV1, [
        params::EVT_CREATED_OPCODE => (WlBuffer, ()),
    ]);
}

impl Dispatch<ZwpLinuxDmabufFeedbackV1, ()> for Client {
    fn event(
        client: &mut Self,
        _: &ZwpLinuxDmabufFeedbackV1,
        event: feedback::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            feedback::Event::FormatTable { fd, size } => client.table = Some((fd, size)),
            feedback::Event::MainDevice { device } => {
                client.main_device = Some(FormatTable::device(&device).unwrap());
            }
            feedback::Event::TrancheTargetDevice { device } => {
                client.tranche.0 = FormatTable::device(&device).unwrap();
            }
            feedback::Event::TrancheFlags { flags } => client.tranche.1 = flags.into(),
            feedback::Event::TrancheFormats { indices } => client.tranche.2.extend(indices),
            feedback::Event::TrancheDone => {
                client.tranches.push(std::mem::take(&mut client.tranche));
            }
            feedback::Event::Done => client.done = true,
            other => panic!("{other:?}"),
        }
    }
}

delegate_noop!(Client: WlBuffer);

/// Both ends, on one thread: each turn, what one has said is read by the other.
struct Both {
    display: Display<Server>,
    server: Server,
    connection: Connection,
    queue: EventQueue<Client>,
    client: Client,
}

impl Both {
    /// A client that has bound this version.
    fn new(version: u32) -> Self {
        let vkms = device("vkms");
        let display = Display::new().unwrap();
        let server = Server::new(vkms.clone(), &offer(vkms.node().id.dev_t())).unwrap();
        Server::create_global(&display.handle());
        let (ours, theirs) = UnixStream::pair().unwrap();
        display.handle().insert_client(ours, Arc::new(())).unwrap();
        let connection = Connection::from_socket(theirs).unwrap();
        let queue = connection.new_event_queue();
        connection.display().get_registry(&queue.handle(), ());
        let client = Client {
            version,
            ..Client::default()
        };
        let mut both = Self {
            display,
            server,
            connection,
            queue,
            client,
        };
        both.until(|client, _| client.global.is_some()).unwrap();
        both
    }

    /// Lets both talk until something is so, or the server ends the connection.
    fn until(&mut self, is_so: impl Fn(&Client, &Server) -> bool) -> Result<(), ProtocolError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(error) = self.connection.protocol_error() {
                return Err(error);
            }
            if is_so(&self.client, &self.server) {
                return Ok(());
            }
            // What fails here is seen at the next turn, as the protocol error that it is.
            let _ = self.connection.flush();
            self.display.dispatch_clients(&mut self.server).unwrap();
            self.display.flush_clients().unwrap();
            if let Some(guard) = self.queue.prepare_read() {
                match guard.read() {
                    Ok(_) | Err(WaylandError::Protocol(_)) => {}
                    Err(WaylandError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let _ = self.queue.dispatch_pending(&mut self.client);
        }
        panic!("it did not come in time");
    }

    /// Parameters with planes of these fds, offsets and strides.
    fn params(&self, planes: &[(u32, BorrowedFd<'_>, u32)]) -> ZwpLinuxBufferParamsV1 {
        let global = self.client.global.as_ref().unwrap();
        let params = global.create_params(&self.queue.handle(), ());
        for &(index, fd, stride) in planes {
            params.add(fd, index, 0, stride, 0, 0);
        }
        params
    }

    /// The answer to `create`: an error, `failed` or a buffer.
    fn create(&mut self, params: &ZwpLinuxBufferParamsV1, format: Fourcc) -> Answer {
        params.create(64, 64, format.0, Flags::empty());
        self.answer(|client, _| client.failed || client.created.is_some())
    }

    /// The answer to `create_immed`, which is silence if all is well.
    fn create_immed(&mut self, params: &ZwpLinuxBufferParamsV1, format: Fourcc) -> Answer {
        let queue = self.queue.handle();
        params.create_immed(64, 64, format.0, Flags::empty(), &queue, ());
        self.answer(|_, server| !server.buffers.is_empty())
    }

    fn answer(&mut self, is_there: impl Fn(&Client, &Server) -> bool) -> Answer {
        match self.until(is_there) {
            Err(error) => Answer::Error(error.code),
            Ok(()) if self.client.failed => Answer::Failed,
            Ok(()) => Answer::Made,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Made,
    Failed,
    Error(u32),
}

impl Answer {
    fn error(code: Error) -> Self {
        Self::Error(code as u32)
    }
}

const LINEAR: [(Fourcc, Modifier); 2] = [
    (Fourcc::XRGB8888, Modifier::LINEAR),
    (Fourcc::NV12, Modifier::LINEAR),
];

fn offer(device: u64) -> Feedback {
    let shown = Tranche::new(device, TrancheFlags::SCANOUT, LINEAR[..1].iter().copied());
    let sampled = Tranche::new(device, TrancheFlags::SAMPLING, LINEAR);
    Feedback::new([shown, sampled]).main_device(device)
}

fn buffer() -> DmaBuf {
    buffer_on(&device("vgem"))
}

/// The only plane of a buffer.
fn plane(buffer: &DmaBuf) -> (u32, BorrowedFd<'_>, u32) {
    (0, buffer.plane_fd(0).unwrap(), buffer.planes()[0].stride)
}

#[test]
fn a_good_buffer_is_accepted_and_goes_when_the_client_destroys_it() {
    for immediately in [false, true] {
        let mut both = Both::new(6);
        let buffer = buffer();
        let params = both.params(&[plane(&buffer)]);
        let answer = match immediately {
            false => both.create(&params, Fourcc::XRGB8888),
            true => both.create_immed(&params, Fourcc::XRGB8888),
        };
        assert_eq!(answer, Answer::Made);
        let [known] = &both.server.buffers[..] else {
            panic!("one buffer")
        };
        let known = known.upgrade().unwrap();
        assert_eq!((known.id(), known.desc()), (buffer.id(), buffer.desc()));
        drop(known);
        if let Some(created) = both.client.created.take() {
            created.destroy();
            both.until(|_, server| server.buffers[0].is_gone()).unwrap();
        }
    }
}

#[test]
fn a_wrong_stride_is_a_protocol_error() {
    let buffer = buffer();
    let (index, fd, _) = plane(&buffer);
    let mut both = Both::new(5);
    let params = both.params(&[(index, fd, 4)]);
    let answer = both.create(&params, Fourcc::XRGB8888);
    assert_eq!(answer, Answer::error(Error::OutOfBounds));
}

#[test]
fn a_missing_plane_is_a_protocol_error() {
    let buffer = buffer();
    let (_, fd, stride) = plane(&buffer);
    // None, the second only, and one where the format has two.
    for planes in [&[][..], &[(1, fd, stride)], &[(0, fd, stride)]] {
        let mut both = Both::new(5);
        let params = both.params(planes);
        let answer = both.create(&params, Fourcc::NV12);
        assert_eq!(answer, Answer::error(Error::Incomplete));
    }
}

#[test]
fn an_fd_that_is_no_dma_buf_fails_at_create_and_is_an_error_at_create_immed() {
    let file = File::open("/dev/null").unwrap();
    let mut both = Both::new(5);
    let params = both.params(&[(0, file.as_fd(), 256)]);
    assert_eq!(both.create(&params, Fourcc::XRGB8888), Answer::Failed);
    // The connection lives on.
    let good = buffer();
    let params = both.params(&[plane(&good)]);
    both.client.failed = false;
    assert_eq!(both.create(&params, Fourcc::XRGB8888), Answer::Made);

    let mut both = Both::new(5);
    let params = both.params(&[(0, file.as_fd(), 256)]);
    let answer = both.create_immed(&params, Fourcc::XRGB8888);
    assert_eq!(answer, Answer::error(Error::InvalidWlBuffer));
}

#[test]
fn what_the_protocol_forbids_is_answered_with_its_code() {
    let buffer = buffer();
    let (_, fd, stride) = plane(&buffer);
    let (one, other) = ((0, fd, stride), (4, fd, stride));
    for (planes, format, code) in [
        (&[one][..], Fourcc::ARGB8888, Error::InvalidFormat),
        (&[one, other], Fourcc::XRGB8888, Error::PlaneIdx),
        (&[one, one], Fourcc::XRGB8888, Error::PlaneSet),
    ] {
        let mut both = Both::new(5);
        let params = both.params(planes);
        assert_eq!(both.create(&params, format), Answer::error(code));
    }
    let mut both = Both::new(5);
    let params = both.params(&[one]);
    assert_eq!(both.create(&params, Fourcc::XRGB8888), Answer::Made);
    both.client.created = None;
    assert_eq!(
        both.create(&params, Fourcc::XRGB8888),
        Answer::error(Error::AlreadyUsed)
    );
}

#[test]
fn feedback_is_read_as_it_was_written() {
    for version in [4, 5, 6] {
        let mut both = Both::new(version);
        let global = both.client.global.clone().unwrap();
        global.get_default_feedback(&both.queue.handle(), ());
        both.until(|client, _| client.done).unwrap();
        let client = &mut both.client;
        let (fd, size) = client.table.take().unwrap();
        let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW));
        let mut bytes = vec![0; size as usize];
        File::from(fd).read_exact_at(&mut bytes, 0).unwrap();
        let table = FormatTable::parse(&bytes).unwrap();
        let device = device("vkms").node().id.dev_t();
        assert_eq!(client.main_device, (version < 6).then_some(device));
        let tranches = client
            .tranches
            .iter()
            .map(|(target_device, flags, indices)| {
                let flags = TrancheFlags::from_bits(*flags).unwrap();
                Tranche::new(*target_device, flags, table.tranche(indices).unwrap())
            });
        let mut offered = offer(device);
        if version < 6 {
            offered.tranches[1].flags = TrancheFlags::empty();
        }
        assert_eq!(tranches.collect::<Vec<_>>(), offered.tranches);
    }
}

#[test]
fn a_client_of_version_3_is_told_in_events() {
    let mut both = Both::new(3);
    both.until(|client, _| client.modifiers.len() == LINEAR.len())
        .unwrap();
    let told = LINEAR.map(|(fourcc, modifier)| (fourcc.0, modifier.0));
    assert_eq!(both.client.modifiers, told);
}
