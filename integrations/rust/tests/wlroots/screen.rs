//! What screens show, seen by a process that has nothing to do with the compositor.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use primeshare::buffer::PlaneRef;
use primeshare::kms::{Card, PlaneId, PlaneKind, Status, capture};
use primeshare::sync::{Access, BufferMapping};
use primeshare::{DmaBuf, Modifier, device};

use super::compositor::wait_until;

/// The primary plane of a screen.
pub(crate) struct Screen {
    card: Card,
    plane: PlaneId,
    size: (u32, u32),
}

impl Screen {
    /// All screens, one for each device.
    pub(crate) fn all() -> Vec<Self> {
        let (devices, _) = device::open_all().unwrap();
        let of_device = |device: &primeshare::Device| {
            let file = File::options()
                .read(true)
                .write(true)
                .open(&device.node().path)
                .ok()?;
            let card = Card::new(&file).ok()?;
            // Who opens a node that has no master becomes it, and only the master may ask the screens.
            let screens = card.screens(true);
            drop_master(&file);
            let screens = screens.ok()?;
            let mut connectors = screens.connectors.iter();
            let connector =
                connectors.find(|one| one.status == Status::Connected && !one.is_writeback)?;
            let size = connector.preferred_mode()?.size();
            let index = connector.possible_crtcs.trailing_zeros() as usize;
            let crtc = screens.crtcs.iter().find(|crtc| crtc.index == index)?;
            let mut planes = screens.planes_of(crtc);
            let plane = planes.find(|plane| plane.kind == PlaneKind::Primary)?.id;
            Some(Self { card, plane, size })
        };
        devices.iter().filter_map(of_device).collect()
    }

    /// The screen of the device with this node.
    pub(crate) fn of(path: &Path) -> Self {
        let mut all = Self::all().into_iter();
        let is_it = |screen: &Self| screen.path() == path;
        all.find(is_it).expect("the device has a screen")
    }

    /// The screen of the first of these drivers that has one.
    pub(crate) fn first(drivers: &[&str]) -> Self {
        let mut all = Self::all();
        let rank = |screen: &Self| {
            let driver = screen.card.device().driver();
            drivers
                .iter()
                .position(|name| *name == driver)
                .unwrap_or(drivers.len())
        };
        all.sort_by_key(rank);
        all.into_iter().next().expect("no screen")
    }

    /// Screens of two devices, the first of one driver and the second of another or of the same.
    pub(crate) fn pair(first: &str, second: &str) -> Option<[Self; 2]> {
        let mut all = Self::all();
        let mut take = |driver: &str| {
            let found = all
                .iter()
                .position(|one| one.card.device().driver() == driver);
            found.map(|index| all.remove(index))
        };
        Some([take(first)?, take(second)?])
    }

    pub(crate) fn path(&self) -> &Path {
        &self.card.device().node().path
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The buffer on the screen.
    pub(crate) fn on_screen(&self) -> Option<DmaBuf> {
        capture::on_plane(&self.card, self.plane).unwrap()
    }

    /// Waits until there is nothing on the screen.
    pub(crate) fn wait_for_darkness(&self) {
        wait_until("darkness", || self.on_screen().is_none());
    }

    /// Waits until the screen shows the part of a picture of that size that fits on it.
    pub(crate) fn wait_for(&self, picture: impl Fn(u32, u32) -> [u8; 3], size: (u32, u32)) {
        let mut differs = None;
        let (width, height) = (self.size.0.min(size.0), self.size.1.min(size.1));
        wait_until("the picture on the screen", || {
            differs = self.difference(&picture, (width, height));
            differs.is_none()
        });
    }

    /// Whether it shows a picture of this size now.
    pub(crate) fn shows(&self, picture: impl Fn(u32, u32) -> [u8; 3], size: (u32, u32)) -> bool {
        self.difference(&picture, size).is_none()
    }

    /// A number for the picture that it shows now; the same for no picture.
    pub(crate) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        let Some(buffer) = self.on_screen() else {
            return 0;
        };
        let mut mapping = BufferMapping::read_only(&linear(&buffer)).unwrap();
        let access = mapping
            .begin_wait(Access::Read, Duration::from_secs(10))
            .unwrap();
        for row in access.plane(0).unwrap().rows() {
            let mut bytes = vec![0; row.bytes()];
            row.read(0, &mut bytes).unwrap();
            hasher.write(&bytes);
        }
        hasher.finish()
    }

    fn difference(
        &self,
        picture: &impl Fn(u32, u32) -> [u8; 3],
        (width, height): (u32, u32),
    ) -> Option<(u32, u32)> {
        let Some(buffer) = self.on_screen() else {
            return Some((0, 0));
        };
        let mut mapping = BufferMapping::read_only(&linear(&buffer)).unwrap();
        let access = mapping
            .begin_wait(Access::Read, Duration::from_secs(10))
            .unwrap();
        let plane = access.plane(0).unwrap();
        let mut row = vec![0; 4 * width as usize];
        for y in 0..height {
            plane.row(y as usize).unwrap().read(0, &mut row).unwrap();
            for (x, pixel) in row.chunks_exact(4).enumerate() {
                if pixel[..3] != picture(x as u32, y) {
                    return Some((x as u32, y));
                }
            }
        }
        None
    }
}

/// The buffer with its layout told: drivers without modifiers do not tell that dumb buffers are linear.
fn linear(buffer: &DmaBuf) -> DmaBuf {
    let planes = buffer
        .planes()
        .iter()
        .enumerate()
        .map(|(index, plane)| PlaneRef {
            fd: buffer.plane_fd(index).unwrap(),
            offset: plane.offset,
            stride: plane.stride,
        });
    DmaBuf::from_borrowed(buffer.desc().with_modifier(Modifier::LINEAR), planes).unwrap()
}

/// Gives the master's place up, for the compositor.
fn drop_master(file: &File) {
    use drm::Device as _;
    struct Node<'a>(&'a File);
    impl std::os::fd::AsFd for Node<'_> {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl drm::Device for Node<'_> {}
    // A process that is not the master has nothing to give up.
    let _ = Node(file).release_master_lock();
}
