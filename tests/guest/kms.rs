//! Screens: framebuffers, planes, page flips, and what is on the screen afterwards.

mod by_gpu;
mod framebuffers;
mod hotplug;
mod legacy;
mod outputs;
pub(crate) mod presenting;
mod robust;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use primeshare::alloc::{Allocator, Dumb};
use primeshare::kms::capture::{self, Writeback};
use primeshare::kms::{
    Card, Connector, ConnectorId, Crtc, Mode, Output, OutputConfig, PlaneId, Screens, Status,
};
use primeshare::sync::{Access, BufferMapping};
use primeshare::{Device, DmaBuf, Fourcc, Request};

use crate::blit::read;
use crate::support::PATIENCE;

/// The program's side: an fd of its own, by which it is the device's master.
pub(crate) struct Program {
    pub(crate) master: File,
    pub(crate) card: Card,
    pub(crate) screens: Screens,
}

impl Program {
    pub(crate) fn on(device: &Device) -> Self {
        let path = &device.node().path;
        let master = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let card = Card::new(&master).unwrap();
        card.show_writeback().unwrap();
        let screens = card.screens(true).unwrap();
        Self {
            master,
            card,
            screens,
        }
    }

    pub(crate) fn connector(&self) -> &Connector {
        let mut connectors = self.screens.connectors.iter();
        let is_screen = |connector: &&Connector| {
            !connector.is_writeback && connector.status == Status::Connected
        };
        connectors.find(is_screen).expect("a screen is plugged in")
    }

    pub(crate) fn connector_id(&self) -> ConnectorId {
        self.connector().id
    }

    /// In the smallest mode, so that pictures are looked at soon.
    pub(crate) fn output(&self) -> Output {
        let connector = self.connector();
        let pixels = |mode: &&Mode| mode.size().0 * mode.size().1;
        let smallest = connector.modes.iter().min_by_key(pixels).unwrap();
        let config = OutputConfig::new(connector.id).mode(*smallest);
        Output::new(&self.card, &self.screens, &config).unwrap()
    }

    pub(crate) fn crtc(&self, output: &Output) -> &Crtc {
        self.screens.crtc(output.crtc()).unwrap()
    }

    /// Waits for the page flip of the output.
    pub(crate) fn wait_for_flip(&self, output: &mut Output) {
        let end = Instant::now() + PATIENCE;
        while output.is_pending() {
            assert!(Instant::now() < end, "no page flip came");
            wait_readable(&self.card, Duration::from_secs(1));
            for flip in self.card.read_events().unwrap() {
                assert!(output.page_flip(&flip));
            }
        }
    }

    /// What looks at the output's screen.
    pub(crate) fn writeback(&self, output: &Output) -> Recorder {
        let mut connectors = self.screens.connectors.iter();
        let connector = connectors.find(|connector| connector.is_writeback && can_clone());
        let Some(connector) = connector else {
            return Recorder::Plane(self.card.clone(), output.primary());
        };
        let writeback = Writeback::new(&self.card, connector, self.crtc(output)).unwrap();
        assert!(writeback.formats().contains(&Fourcc::XRGB8888));
        let (width, height) = output.mode().size();
        let request = Request::new(width, height, Fourcc::XRGB8888);
        let buffer = Dumb::new(self.card.device()).allocate(&request).unwrap();
        Recorder::Writeback(writeback, buffer)
    }

    /// What the screen shows, row by row.
    pub(crate) fn picture(&self, output: &Output) -> Vec<Vec<u8>> {
        self.writeback(output).picture()
    }

    /// The dma-buf on the output's primary plane.
    pub(crate) fn on_screen(&self, output: &Output) -> Option<DmaBuf> {
        capture::on_plane(&self.card, output.primary()).unwrap()
    }
}

/// The program's fd as the crate `drm` has it.
pub(crate) struct Host<'a>(pub(crate) &'a File);

impl AsFd for Host<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Host<'_> {}
impl drm::control::Device for Host<'_> {}

/// Whether a CRTC feeds a screen and a writeback connector at once. Linux 6.12.107 has a check for it that its vkms does
/// not pass ("failed valid clone check").
pub(crate) fn can_clone() -> bool {
    std::env::var_os("PRIMESHARE_GUEST_KIND").is_none_or(|kind| kind != "compat")
}

/// Writes down what a screen shows.
pub(crate) enum Recorder {
    /// As the display controller sees it.
    Writeback(Writeback, DmaBuf),
    /// The memory of the framebuffer that is on the primary plane, where the driver writes nothing back.
    Plane(Card, PlaneId),
}

impl Recorder {
    pub(crate) fn picture(&mut self) -> Vec<Vec<u8>> {
        match self {
            Self::Writeback(writeback, buffer) => {
                writeback.write(buffer).unwrap().wait(PATIENCE).unwrap();
                read(buffer)
            }
            Self::Plane(card, plane) => {
                let shown = capture::on_plane(card, *plane).unwrap();
                read(&shown.expect("something is shown"))
            }
        }
    }
}

/// Fails unless the screen's rows are the buffer's.
pub(crate) fn assert_shown(rows: &[Vec<u8>], buffer: &DmaBuf, what: &str) {
    let expected = read(buffer);
    assert_eq!(rows.len(), expected.len(), "{what}");
    let first = rows
        .iter()
        .zip(&expected)
        .position(|(shown, expected)| shown != expected);
    assert_eq!(first, None, "{what}: the first row that differs");
}

/// Fails unless all pixels are of this colour: blue, green, red.
pub(crate) fn assert_all(rows: &[Vec<u8>], [b, g, r]: [u8; 3]) {
    let row = [b, g, r, 255].repeat(rows[0].len() / 4);
    let first = rows.iter().position(|shown| *shown != row);
    assert_eq!(first, None, "the first row that is not all {b} {g} {r}");
}

pub(crate) fn wait_readable(fd: impl AsFd, time: Duration) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(time).unwrap()).unwrap();
}

/// Blue, green and red of each pixel, by column and row.
pub(crate) fn fill(buffer: &DmaBuf, pixel: impl Fn(u32, u32) -> [u8; 3]) {
    let mut map = BufferMapping::new(buffer).unwrap();
    let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
    for (y, mut row) in access.plane_mut(0).unwrap().into_rows().enumerate() {
        let pixels = (0..buffer.width()).flat_map(|x| {
            let [b, g, r] = pixel(x, y as u32);
            [b, g, r, 255]
        });
        row.write(0, &pixels.collect::<Vec<u8>>()).unwrap();
    }
    access.end().unwrap();
}

/// Fills a buffer with one colour: blue, green, red.
pub(crate) fn paint(buffer: &DmaBuf, [b, g, r]: [u8; 3]) {
    let mut map = BufferMapping::new(buffer).unwrap();
    let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
    let bytes = [b, g, r, 255].repeat(buffer.width() as usize);
    for mut row in access.plane_mut(0).unwrap().into_rows() {
        row.write(0, &bytes).unwrap();
    }
    access.end().unwrap();
}

/// A buffer of a device in which every pixel is of its own.
pub(crate) fn picture(device: &Device, (width, height): (u32, u32), seed: u32) -> DmaBuf {
    let request = Request::new(width, height, Fourcc::XRGB8888);
    let buffer = Dumb::new(device).allocate(&request).unwrap();
    fill(&buffer, marked(seed));
    buffer
}

/// Several of them, of which no two are alike.
pub(crate) fn pictures<const N: usize>(device: &Device, size: (u32, u32)) -> [DmaBuf; N] {
    std::array::from_fn(|index| picture(device, size, index as u32 + 1))
}

/// A picture in which every pixel is of its own.
pub(crate) fn marked(seed: u32) -> impl Fn(u32, u32) -> [u8; 3] {
    move |x, y| {
        let mixed = (x ^ y << 12 ^ seed << 24).wrapping_mul(0x9e37_79b1);
        [mixed as u8, (mixed >> 8) as u8, (mixed >> 16) as u8]
    }
}
