//! A file description of the library's own, beside a program that uses its fd as it likes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use primeshare::device::{self, Device};
use primeshare::gem::ImportOrigin;
use primeshare::{Errno, gem};

use drm::control::Device as _;

use crate::faults::fds;
use crate::kernel::{Framebuffer, Gem};
use crate::support::{Guest, buffer_on, in_guest, next_handle};

/// The program's fd, as the drm crate wants it.
struct Card<'a>(BorrowedFd<'a>);

impl AsFd for Card<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl drm::Device for Card<'_> {}
impl drm::control::Device for Card<'_> {}

// The structure is one number (`struct drm_auth` of `include/uapi/drm/drm.h`).
nix::ioctl_write_ptr!(auth_magic, b'd', 0x11, u32);

fn is_master(file: BorrowedFd<'_>) -> bool {
    // AUTH_MAGIC of nobody: EINVAL to the master, EACCES to the others (libdrm's `drmIsMaster`).
    // SAFETY: the fd is open, and the magic number outlives the call.
    let asked = unsafe { auth_magic(file.as_raw_fd(), &0) };
    asked != Err(nix::errno::Errno::EACCES)
}

/// Runs a test with the program's device, of which the program is the master or not, and its copy.
fn with_copies(test: impl Fn(&Guest, &Device, &Device)) {
    in_guest(|guest| {
        for becomes_master in [false, true] {
            let host = guest.vkms();
            if becomes_master {
                drm_ffi::auth::acquire_master(host.as_fd()).unwrap();
            }
            let copy = host.private_copy().unwrap();
            assert!(!copy.shares_handles_with(&host));
            assert!(copy.is_same_device(&host));
            assert_eq!(copy.node(), host.node());
            test(guest, &host, &copy);
            assert_eq!(next_handle(&copy), 1, "GEM handles are left on the copy");
            assert_eq!(is_master(host.as_fd()), becomes_master);
            if becomes_master {
                drm_ffi::auth::release_master(host.as_fd()).unwrap();
            }
        }
    });
}

#[test]
fn the_programs_own_imports_and_closes_do_nothing_to_the_librarys() {
    with_copies(|guest, host, copy| {
        let (first, second) = (buffer_on(&guest.vgem()), buffer_on(&guest.vgem()));
        let imported = copy.import(&first).unwrap();
        // The program imports the same buffer, closes it, and imports another by the same number.
        let bare = Gem(host.as_fd());
        let theirs = bare.import(first.plane_fd(0).unwrap()).unwrap();
        bare.close(theirs).unwrap();
        let another = bare.import(second.plane_fd(0).unwrap()).unwrap();
        assert_eq!(another, theirs);
        assert_eq!(imported.object().export().unwrap().1, first.id());
        drop(imported);
        // And the other way round.
        assert!(bare.export_writable(another).is_ok());
        bare.close(another).unwrap();
    });
}

#[test]
fn a_framebuffer_that_is_made_on_the_copy_is_there_for_the_program() {
    with_copies(|guest, host, copy| {
        let buffer = buffer_on(&guest.vgem());
        let imported = copy.import(&buffer).unwrap();
        let handle = imported.object().handle().raw();
        let framebuffer = Framebuffer::new(copy, &buffer, handle);
        let seen = drm_ffi::mode::get_framebuffer2(host.as_fd(), framebuffer.id());
        let seen = seen.unwrap();
        assert_eq!(seen.width, buffer.width());
        // GETFB2 has made a handle, which the caller has to close.
        Gem(host.as_fd()).close(seen.handles[0]).unwrap();
        if is_master(host.as_fd()) {
            shows(host, framebuffer.id());
        }
    });
}

/// Sets a mode with this framebuffer, by the program's fd, and turns the screen off again.
fn shows(host: &Device, framebuffer: u32) {
    use drm::control::{ResourceHandles, crtc, framebuffer::Handle};

    let card = Card(host.as_fd());
    let resources: ResourceHandles = card.resource_handles().unwrap();
    let crtc: crtc::Handle = resources.crtcs()[0];
    let connector = resources.connectors()[0];
    // Makes the kernel look for modes.
    card.get_connector(connector, true).unwrap();
    let mut mode = drm_ffi::drm_mode_modeinfo {
        clock: 10_000,
        hdisplay: 64,
        hsync_start: 70,
        hsync_end: 80,
        htotal: 100,
        vdisplay: 64,
        vsync_start: 70,
        vsync_end: 80,
        vtotal: 100,
        ..Default::default()
    };
    mode.vrefresh = 60;
    let framebuffer = drm::control::from_u32::<Handle>(framebuffer).unwrap();
    card.set_crtc(
        crtc,
        Some(framebuffer),
        (0, 0),
        &[connector],
        Some(mode.into()),
    )
    .unwrap();
    card.set_crtc(crtc, None, (0, 0), &[], None).unwrap();
}

#[test]
fn a_copy_of_a_copy_is_the_librarys_too() {
    with_copies(|guest, _, copy| {
        let again = copy.private_copy().unwrap();
        assert!(!again.shares_handles_with(copy));
        let buffer = buffer_on(&guest.vgem());
        assert_eq!(again.import(&buffer).unwrap().origin(), ImportOrigin::New);
    });
}

#[test]
fn a_copy_is_nobodys_master() {
    in_guest(|guest| {
        let host = guest.vkms();
        let copy = host.private_copy().unwrap();
        assert!(!is_master(copy.as_fd()) && !is_master(host.as_fd()));
        // So the program can become it.
        drm_ffi::auth::acquire_master(host.as_fd()).unwrap();
        drm_ffi::auth::release_master(host.as_fd()).unwrap();
    });
}

/// Runs `work` while a node's path leads nowhere, as in a sandbox that was handed the fd.
fn without_path<R>(path: &Path, work: impl FnOnce() -> R) -> R {
    let elsewhere = path.with_extension("hidden");
    std::fs::rename(path, &elsewhere).unwrap();
    let result = work();
    std::fs::rename(&elsewhere, path).unwrap();
    result
}

#[test]
fn a_copy_needs_no_path() {
    in_guest(|guest| {
        for host in [guest.vkms(), guest.render_node()] {
            let copy = without_path(&host.node().path, || host.private_copy()).unwrap();
            assert!(copy.is_same_device(&host));
            assert_eq!(copy.node().kind, host.node().kind);
        }
    });
}

#[test]
fn a_path_that_leads_to_another_device_is_not_taken() {
    in_guest(|guest| {
        let (host, other) = (guest.vkms(), guest.vgem());
        let path = &host.node().path;
        let copy = without_path(path, || {
            std::fs::hard_link(&other.node().path, path).unwrap();
            let copy = host.private_copy();
            std::fs::remove_file(path).unwrap();
            copy
        });
        assert_eq!(copy.unwrap().driver(), host.driver());
    });
}

#[test]
fn a_copy_for_which_there_is_no_fd_is_a_typed_error() {
    in_guest(|guest| {
        let host = guest.vkms();
        let refused = fds::with_room_for(0, || host.private_copy()).unwrap_err();
        let errno = match refused {
            device::Error::Open { errno, .. } | device::Error::Lease { errno, .. } => errno,
            device::Error::Gem(gem::Error::Lost { .. }) => panic!("lost"),
            other => panic!("{other}"),
        };
        assert_eq!(errno, Errno::EMFILE);
    });
}
