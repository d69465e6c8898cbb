//! One test at a time, with leak checks after it.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use primeshare::alloc::{Allocator, Dumb, Request};
use primeshare::buffer::PlaneFd;
use primeshare::device::{Node, NodeKind};
use primeshare::vk::{self, Instance, PhysicalDevice, Select, Validation};
use primeshare::{BufferDesc, Device, DmaBuf, Fourcc};

use crate::drivers;
use crate::kernel::Gem;

/// How long to wait for an event that has to come: long enough for any busy machine. Only a test that fails
/// waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The checks look at the whole process and kernel, so tests run one after another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Devices and Vulkan for one test. They are remembered for the leak checks at its end.
pub(crate) struct Guest {
    files: RefCell<Vec<(PathBuf, OwnedFd)>>,
    instance: OnceCell<Instance>,
}

/// Runs a test in the guest. Afterwards the same fds are open as before, the kernel has no more
/// dma-bufs, no file description used has a GEM handle left, and the validation layer has been
/// silent.
pub(crate) fn in_guest(test: impl FnOnce(&Guest)) {
    assert!(
        std::env::var_os("PRIMESHARE_GUEST").is_some(),
        "these tests need the guest's devices and root: run them by cargo, without PRIMESHARE_RUN"
    );
    run(true, test);
}

/// As [`in_guest`], for the second process of a test. Without the check on the kernel's dma-bufs, since the
/// first process goes on meanwhile.
pub(crate) fn in_other_process(test: impl FnOnce(&Guest)) {
    run(false, test);
}

/// Devices for a process in which a driver may leave behind what it likes.
pub(crate) fn without_checks(test: impl FnOnce(&Guest)) {
    let guest = Guest {
        files: RefCell::default(),
        instance: OnceCell::new(),
    };
    test(&guest);
}

fn run(alone: bool, test: impl FnOnce(&Guest)) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let fds = open_fds();
    let dma_bufs = kernel_dma_bufs();
    let guest = Guest {
        files: RefCell::default(),
        instance: OnceCell::new(),
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&guest))) {
        resume_unwind(panic);
    }
    give_back_memory();
    let has_old_mesa = guest.has_old_mesa();
    if let Some(instance) = guest.instance.into_inner() {
        let mut messages = instance.validation_messages();
        messages.retain(|message| !has_old_mesa || !is_false_alarm(message));
        assert_eq!(messages, [""; 0], "validation layer");
    }
    for (path, file) in guest.files.into_inner() {
        let handle = next_handle(&file);
        assert_eq!(handle, 1, "{}: GEM handles are left", path.display());
    }
    let mut left = open_fds();
    if drivers::has_venus() {
        drivers::forget_what_venus_leaves(&mut left, &fds);
    }
    assert_eq!(left, fds, "fds are left, or closed that were not ours");
    if alone {
        // A flip's worker in the kernel lets go of the frame before a moment after it has sent its event.
        let end = Instant::now() + Duration::from_secs(10);
        while kernel_dma_bufs() != dma_bufs && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(kernel_dma_bufs(), dma_bufs, "dma-bufs are left");
    }
}

/// Mesa 25.0's lavapipe does not fill in VkDrmFormatModifierPropertiesList2EXT (26.1 does). The validation
/// layer asks by it, and so finds no features in any format with modifiers.
fn is_false_alarm(message: &str) -> bool {
    message.contains("VUID-VkImageViewCreateInfo-None-02273")
        && message.contains("VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT has no supported format")
}

impl Guest {
    /// A file description of its own of the `index`-th device with this driver.
    pub(crate) fn nth(&self, driver: &str, index: usize) -> Device {
        let nodes = primeshare::device::enumerate().unwrap();
        nodes
            .iter()
            .filter(|node| node.kind == NodeKind::Primary)
            .map(|node| self.open(&node.path))
            .filter(|device| device.driver() == driver)
            .nth(index)
            .unwrap_or_else(|| panic!("no {driver} number {index}"))
    }

    pub(crate) fn open(&self, path: &Path) -> Device {
        let device = Device::open(path).unwrap();
        // The dup keeps the file description for the check at the end.
        let dup = device.as_fd().try_clone_to_owned().unwrap();
        self.files.borrow_mut().push((path.to_owned(), dup));
        device
    }

    pub(crate) fn vgem(&self) -> Device {
        self.nth("vgem", 0)
    }

    /// A device with a display that takes everybody's memory: vkms, or in QEMU, where
    /// the kernel has none, cirrus.
    pub(crate) fn vkms(&self) -> Device {
        self.nth(self.display(), 0)
    }

    /// A third device: the second vkms, or where the kernel cannot make one, a file description of
    /// the first with handles of its own.
    pub(crate) fn third(&self) -> Device {
        self.nth(self.display(), usize::from(self.has_third()))
    }

    /// Whether [`third`](Self::third) is a device of its own.
    pub(crate) fn has_third(&self) -> bool {
        !self.is_compat() && !self.in_qemu()
    }

    /// The driver of [`vkms`](Self::vkms).
    pub(crate) fn display(&self) -> &'static str {
        if self.in_qemu() { "cirrus" } else { "vkms" }
    }

    /// A file description of each device.
    pub(crate) fn devices(&self) -> [Device; 3] {
        [self.vgem(), self.vkms(), self.third()]
    }

    /// The render node, of vgem.
    pub(crate) fn render_node(&self) -> Device {
        let nodes = primeshare::device::enumerate().unwrap();
        let is_render = |node: &&Node| node.kind == NodeKind::Render;
        Device::open(&nodes.iter().find(is_render).unwrap().path).unwrap()
    }

    /// Whether this is the compatibility guest: the oldest kernel and Mesa that are supported, one
    /// vkms and one CPU.
    pub(crate) fn is_compat(&self) -> bool {
        std::env::var_os("PRIMESHARE_GUEST_KIND").is_some_and(|kind| kind == "compat")
    }

    /// Whether Mesa is the oldest that is supported, 25.0.
    pub(crate) fn has_old_mesa(&self) -> bool {
        self.is_compat() || (self.in_qemu() && !self.has_gpu())
    }

    /// Whether this is a guest in QEMU, with Debian's own kernel.
    pub(crate) fn in_qemu(&self) -> bool {
        std::env::var_os("PRIMESHARE_GUEST").is_some_and(|machine| machine == "qemu")
    }

    /// Whether it is the one with a GPU: a virtio-gpu with OpenGL and Vulkan.
    pub(crate) fn has_gpu(&self) -> bool {
        std::env::var_os("PRIMESHARE_GUEST_KIND").is_some_and(|kind| kind == "gpu")
    }

    /// Vulkan with the validation layer; any message fails the test.
    pub(crate) fn instance(&self) -> &Instance {
        self.instance
            .get_or_init(|| Instance::new(Validation::On).unwrap())
    }

    pub(crate) fn vulkan(&self) -> vk::Device {
        vk::Device::new(&self.physical()).unwrap()
    }

    /// The Vulkan device that [`drivers::chosen`] names.
    pub(crate) fn physical(&self) -> PhysicalDevice {
        let driver = drivers::chosen();
        let chosen = self.instance().select(&Select::Driver(driver)).unwrap();
        drivers::say(&chosen);
        chosen
    }
}

/// Whether the running test has what it needs in this guest. If it has not, says that it is left out:
/// libtest counts it among those that passed, and `cargo xtask test` counts these lines.
pub(crate) fn can_run(has_it: bool, needs: &str) -> bool {
    if !has_it {
        left_out(needs);
    }
    has_it
}

/// Says that the running test leaves something out, and what it would need.
pub(crate) fn left_out(needs: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Past libtest, which does not show what a test prints that passes. libtest may have begun a line. All is
    // written at once, since other threads write there, too.
    let line = format!("\nleft out: {test}: needs {needs}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Gives back what drivers have freed: each page counts as a mapping of User-Mode Linux's on the host,
/// which allows 65530 for a process.
pub(crate) fn give_back_memory() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// How much of something: the second number where `cargo xtask soak` asks for a long run.
pub(crate) fn scale(test: usize, soak: usize) -> usize {
    match std::env::var_os("PRIMESHARE_SOAK") {
        None => test,
        Some(_) => soak,
    }
}

/// A small dumb buffer.
pub(crate) fn buffer_on(device: &Device) -> DmaBuf {
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    Dumb::new(device).allocate(&request).unwrap()
}

/// A buffer of two planes, each in a dma-buf of its own.
pub(crate) fn of_two_dma_bufs(luma: &DmaBuf, chroma: &DmaBuf) -> DmaBuf {
    let planes = [luma, chroma].map(|buffer| PlaneFd {
        fd: buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
        offset: 0,
        stride: 64,
    });
    DmaBuf::new(BufferDesc::linear(64, 64, Fourcc::NV12), planes).unwrap()
}

/// What glibc's malloc opens for a moment when a thread gives memory back
/// (`check_may_shrink_heap`), such as one whose test is just waiting for its turn.
const TRANSIENT: &str = "/proc/sys/vm/overcommit_memory";

/// Open fds and what they are.
fn open_fds() -> BTreeMap<String, String> {
    // Collected before the links are read, and without the fd of the listing itself.
    let entries: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let target = fs::read_link(&path).ok()?.to_str()?.to_owned();
            (target != TRANSIENT).then_some((name, target))
        })
        .collect()
}

/// The kernel's count of dma-bufs: the last line's `Total N objects, M bytes`. (Each object has a
/// line `Total N devices attached` of its own before it.)
pub(crate) fn kernel_dma_bufs() -> usize {
    let info = fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
    let total = info.lines().find_map(|line| {
        let (count, _) = line.strip_prefix("Total ")?.split_once(" objects")?;
        count.parse().ok()
    });
    total.unwrap()
}

/// What must not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) fds: usize,
    pub(crate) dma_bufs: usize,
    /// Of blitters.
    pub(crate) threads: usize,
}

impl Held {
    fn now() -> Self {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
        let is_ours = |name: &std::io::Result<String>| {
            name.as_ref()
                .is_ok_and(|name| name.trim() == "primeshare blit")
        };
        Self {
            fds: open_fds().len(),
            dma_bufs: kernel_dma_bufs(),
            threads: names.filter(is_ours).count(),
        }
    }

    /// As [`now`](Self::now), once what has just ended is gone: a thread that was joined, and the
    /// fds of one that has just signalled a fence, are seen for a moment longer. What takes longer
    /// than the pause, on a busy machine, is counted, and lets as much grow unseen.
    pub(crate) fn settled() -> Self {
        std::thread::sleep(Duration::from_millis(50));
        Self::now()
    }

    /// Fails if there is more now, and still after a while.
    pub(crate) fn assert_no_more(self, what: &str) {
        let is_more = |now: &Self| {
            now.fds > self.fds || now.dma_bufs > self.dma_bufs || now.threads > self.threads
        };
        let end = Instant::now() + PATIENCE;
        let mut now = Self::now();
        while is_more(&now) && Instant::now() < end {
            std::thread::yield_now();
            now = Self::now();
        }
        assert!(!is_more(&now), "{what}: {self:?}, then {now:?}");
    }
}

/// Pages of memory that the process has.
pub(crate) fn resident_pages() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The handle the kernel gives next on a file description: 1 where there is none.
pub(crate) fn next_handle(file: impl AsFd) -> u32 {
    let gem = Gem(file.as_fd());
    let handle = gem.create().unwrap();
    gem.close(handle).unwrap();
    handle
}

/// The checks themselves: each must see what it is for.
mod checks {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap};
    use primeshare::alloc::Udmabuf;

    use super::*;

    #[test]
    #[should_panic(expected = "fds are left")]
    fn a_forgotten_fd_is_seen() {
        in_guest(|_| std::mem::forget(fs::File::open("/dev/null").unwrap()));
    }

    #[test]
    #[should_panic(expected = "GEM handles are left")]
    fn a_forgotten_handle_is_seen() {
        in_guest(|guest| {
            let vgem = guest.vgem();
            drm_ffi::mode::dumbbuffer::create(vgem.as_fd(), 64, 64, 32, 0).unwrap();
        });
    }

    #[test]
    #[should_panic(expected = "dma-bufs are left")]
    fn a_forgotten_dma_buf_is_seen() {
        in_guest(|_| {
            let request = Request::new(64, 64, Fourcc::XRGB8888);
            let buffer = Udmabuf::open().unwrap().allocate(&request).unwrap();
            // A mapping keeps the memory when all fds are closed.
            let object = &buffer.objects()[0];
            let (page, read) = (4096.try_into().unwrap(), ProtFlags::PROT_READ);
            // SAFETY: a new mapping disturbs no other.
            unsafe { mmap(None, page, read, MapFlags::MAP_SHARED, object, 0) }.unwrap();
        });
    }

    #[test]
    #[should_panic(expected = "validation layer")]
    fn a_validation_message_is_seen() {
        in_guest(|guest| {
            let vulkan = guest.vulkan();
            let fence = vk::ash::vk::FenceCreateInfo::default();
            // SAFETY: a fence without use; never destroyed, which the layer says at the device's
            // end.
            unsafe { vulkan.raw().create_fence(&fence, None) }.unwrap();
        });
    }
}
