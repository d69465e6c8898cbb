//! Framebuffers: what is refused, and what is kept.

use std::os::fd::AsFd;
use std::sync::Arc;

use primeshare::alloc::{Allocator, Dumb};
use primeshare::buffer::{BufferFlags, PlaneRef};
use primeshare::kms::{CommitOptions, Error, FramebufferOptions, Framebuffers, Layer};
use primeshare::{BufferDesc, Device, DmaBuf, Errno, ErrorKind, Fourcc, Modifier, Request, buffer};

use crate::kernel::seccomp::without_ioctls;
use crate::support::{buffer_on, in_guest};

fn get(framebuffers: &Framebuffers, buffer: &DmaBuf) -> Result<u32, Error> {
    let options = FramebufferOptions::default();
    let framebuffer = framebuffers.get(buffer, options);
    framebuffer
        .map(|framebuffer| framebuffer.id())
        .map_err(Arc::unwrap_or_clone)
}

/// The memory of a buffer, described otherwise.
fn described(buffer: &DmaBuf, desc: BufferDesc, offset: u32, stride: u32) -> DmaBuf {
    let plane = PlaneRef {
        fd: buffer.objects()[0].as_fd(),
        offset,
        stride,
    };
    DmaBuf::from_borrowed(desc, [plane]).unwrap()
}

#[test]
fn a_buffer_has_one_framebuffer_on_a_device_for_as_long_as_it_lives() {
    in_guest(|guest| {
        let device = guest.vkms();
        let framebuffers = Framebuffers::new(&device).unwrap();
        let buffer = buffer_on(&guest.vgem());
        let id = get(&framebuffers, &buffer).unwrap();
        assert_eq!(get(&framebuffers, &buffer.clone()), Ok(id));
        if guest.in_qemu() {
            println!("left out: cirrus shows no format with alpha");
            return;
        }
        let opaque = FramebufferOptions::default().format(Fourcc::ARGB8888);
        let other = framebuffers.get(&buffer, opaque).unwrap();
        assert_ne!(other.id(), id);
        assert_eq!(other.format(), Fourcc::ARGB8888);
        assert_eq!(framebuffers.len(), 2);
        let exists = |id| all_of(&device).contains(&id);
        assert!(exists(id));
        drop(buffer);
        assert!(!exists(id));
        assert!(exists(other.id()), "somebody has it");
        assert!(framebuffers.is_empty());
    });
}

/// The framebuffers of a file description, as the kernel counts them.
fn all_of(device: &Device) -> Vec<u32> {
    use drm::control::Device as _;
    let known = Kms(device).resource_handles().unwrap();
    let known = known.framebuffers().iter();
    known.map(|&framebuffer| framebuffer.into()).collect()
}

struct Kms<'a>(&'a Device);

impl AsFd for Kms<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Kms<'_> {}
impl drm::control::Device for Kms<'_> {}

#[test]
fn a_programs_own_commit_shows_a_framebuffer_of_the_librarys() {
    use drm::control::Device as _;
    in_guest(|guest| {
        let program = super::Program::on(&guest.vkms());
        let output = program.output();
        let (width, height) = output.mode().size();
        let buffer = super::picture(&guest.vgem(), (width, height), 3);
        let framebuffers =
            Framebuffers::new(&program.card.device().private_copy().unwrap()).unwrap();
        let id = get(&framebuffers, &buffer).unwrap();
        let host = super::Host(&program.master);
        let handle = |id: u32| std::num::NonZeroU32::new(id).unwrap();
        let connector = handle(output.connector().id.0).into();
        let modes = host.get_connector(connector, false).unwrap();
        let size = |mode: &&drm::control::Mode| mode.size() == (width as u16, height as u16);
        let mode = *modes.modes().iter().find(size).unwrap();
        let crtc = handle(output.crtc().0).into();
        let shown = Some(handle(id).into());
        host.set_crtc(crtc, shown, (0, 0), &[connector], Some(mode))
            .unwrap();
        super::assert_shown(&program.picture(&output), &buffer, "the program's commit");
        host.set_crtc(crtc, None, (0, 0), &[], None).unwrap();
    });
}

#[test]
fn what_is_no_framebuffer_is_refused_with_the_reason_and_asked_once() {
    in_guest(|guest| {
        let device = guest.vkms();
        let framebuffers = Framebuffers::new(&device).unwrap();
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let desc = *buffer.desc();
        let refused = |buffer: &DmaBuf| {
            let error = get(&framebuffers, buffer).unwrap_err();
            assert_eq!(get(&framebuffers, buffer), Err(error.clone()));
            error
        };
        // The kernel takes both of vkms.
        let odd = described(&buffer, desc, 0, 258);
        assert!(matches!(
            refused(&odd),
            Error::Buffer(buffer::Error::Misaligned { .. })
        ));
        let odd = described(&buffer, desc, 2, 256);
        assert!(matches!(
            refused(&odd),
            Error::Buffer(buffer::Error::Misaligned { .. })
        ));
        let upside_down = described(&buffer, desc.with_flags(BufferFlags::Y_INVERT), 0, 256);
        assert_eq!(refused(&upside_down), Error::Flags(BufferFlags::Y_INVERT));
        let implicit = described(&buffer, desc.with_modifier(Modifier::INVALID), 0, 256);
        assert_eq!(refused(&implicit), Error::ImplicitLayout);
        let own = FramebufferOptions::default().implicit();
        assert!(framebuffers.get(&implicit, own).is_ok());
        let as_other = FramebufferOptions::default().format(Fourcc::RGB565);
        let (from, to) = (Fourcc::XRGB8888, Fourcc::RGB565);
        let other = framebuffers.get(&buffer, as_other).unwrap_err();
        assert_eq!(*other, Error::Format { from, to });
        let tiled = described(
            &buffer,
            desc.with_modifier(Modifier(0x0100_0000_0000_0001)),
            0,
            256,
        );
        let error = refused(&tiled);
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(matches!(error, Error::AddFramebuffer { .. }), "{error}");
    });
}

/// A buffer of these numbers in the memory of another one, its rows in planes of one number each.
fn claimed(
    memory: &DmaBuf,
    (width, height): (u32, u32),
    modifier: Modifier,
    (offset, stride): (u32, u32),
) -> Result<DmaBuf, buffer::Error> {
    let desc = BufferDesc::new(width, height, Fourcc::XRGB8888, modifier);
    let fd = memory.objects()[0].as_fd();
    DmaBuf::from_borrowed(desc, [PlaneRef { fd, offset, stride }])
}

#[test]
fn numbers_that_overflow_or_lie_outside_of_the_memory_are_refused_before_there_is_a_buffer() {
    const MOST: u32 = u32::MAX;
    const TILED: Modifier = Modifier(0x0100_0000_0000_0001);
    in_guest(|guest| {
        // bochs, qxl and virtio-gpu look at no size (virtio-gpu shows what lies behind the buffer).
        let memory = buffer_on(&guest.vgem());
        let (small, page) = ((64, 64), (0, 256));
        // Allocators leave room behind a picture.
        let rows = (memory.objects()[0].size() / 256) as u32;
        for modifier in [Modifier::LINEAR, Modifier::INVALID, TILED] {
            let refused = |size, place| claimed(&memory, size, modifier, place).unwrap_err();
            for error in [
                refused(small, (0, MOST)),
                refused(small, (MOST, 256)),
                refused(small, (MOST, MOST)),
                refused((64, MOST), page),
                refused((64, rows + 1), page),
                refused((64, rows), (256, 256)),
            ] {
                use buffer::Error::{OutOfBounds, OutOfReach};
                let is_it = matches!(error, OutOfBounds { .. } | OutOfReach { .. });
                assert!(is_it, "{modifier}: {error}");
            }
        }
        let linear = |size, place| claimed(&memory, size, Modifier::LINEAR, place).unwrap_err();
        use buffer::Error::{StrideTooSmall, TooLarge};
        assert!(matches!(linear((MOST, 64), page), TooLarge { .. }));
        assert!(matches!(linear((65, 64), page), StrideTooSmall { .. }));
    });
}

#[test]
fn rows_of_an_implicit_layout_that_are_too_short_are_refused_by_the_kernel() {
    in_guest(|guest| {
        // What the library cannot know: the layout is the driver's.
        let framebuffers = Framebuffers::new(&guest.vkms()).unwrap();
        let memory = buffer_on(&guest.vgem());
        let options = FramebufferOptions::default().implicit();
        let short = claimed(&memory, (64, 64), Modifier::INVALID, (0, 252)).unwrap();
        let error = framebuffers.get(&short, options).unwrap_err();
        let Error::AddFramebuffer {
            errno: Errno::EINVAL,
            ..
        } = *error
        else {
            panic!("{error}");
        };
    });
}

#[test]
fn a_handle_that_other_code_of_the_program_has_closed_is_told_as_the_kernel_tells_it() {
    in_guest(|guest| {
        let path = guest.vkms().node().path.clone();
        let host = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        // On the program's own file description, which is against the rules where the program closes handles.
        let device = Device::from_fd(host.try_clone().unwrap().into()).unwrap();
        let framebuffers = Framebuffers::new(&device).unwrap();
        let buffer = buffer_on(&guest.vgem());
        let imported = device.import(&buffer).unwrap();
        drm_ffi::gem::close(host.as_fd(), imported.object().handle().raw()).unwrap();
        let error = get(&framebuffers, &buffer).unwrap_err();
        let Error::AddFramebuffer {
            errno: Errno::ENOENT,
            ..
        } = error
        else {
            panic!("{error}");
        };
        drop(imported);
        assert_eq!(device.stats().failed_closes, 1);
        // The next import gives a handle that is there.
        framebuffers.forget(&buffer);
        get(&framebuffers, &buffer).unwrap();
    });
}

/// DRM_IOCTL_MODE_CLOSEFB of `include/uapi/drm/drm.h`.
const CLOSEFB: u32 = 0xc008_64d0;

#[test]
fn without_closefb_a_framebuffer_ends_by_rmfb_and_a_screen_keeps_those_that_it_shows() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        // As the kernel answers before Linux 6.8.
        without_ioctls(&[CLOSEFB], Errno::EINVAL, || {
            let program = super::Program::on(&vkms);
            let mut output = program.output();
            let size = output.mode().size();
            for frame in super::pictures::<3>(&vgem, size) {
                let layers = [Layer::new(&frame)];
                output.commit(&layers, CommitOptions::default()).unwrap();
                program.wait_for_flip(&mut output);
                let id = program.on_screen(&output).unwrap().id();
                assert_eq!(id, frame.id());
                // `frame` goes here, and the output has the last of it: RMFB would turn off the screen.
            }
            assert!(program.on_screen(&output).is_some());
            assert_eq!(program.card.device().stats().failed_closes, 0);
            output.turn_off_wait().unwrap();
            assert!(all_of(program.card.device()).is_empty());
        });
    });
}

#[test]
fn a_framebuffer_that_is_too_large_is_refused_before_the_kernel_is_asked() {
    in_guest(|guest| {
        let framebuffers = Framebuffers::new(&guest.vkms()).unwrap();
        let request = Request::new(20_000, 4, Fourcc::XRGB8888);
        let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let error = get(&framebuffers, &buffer).unwrap_err();
        assert!(
            matches!(error, Error::FramebufferSize { width: 20_000, .. }),
            "{error}"
        );
    });
}

#[test]
fn two_hundred_buffers_come_and_go_with_their_framebuffers() {
    in_guest(|guest| {
        let (vgem, device) = (guest.vgem(), guest.vkms());
        let framebuffers = Framebuffers::new(&device).unwrap();
        for _ in 0..200 {
            let buffer = buffer_on(&vgem);
            let id = get(&framebuffers, &buffer).unwrap();
            assert_eq!(get(&framebuffers, &buffer), Ok(id));
        }
        assert!(framebuffers.is_empty());
        assert_eq!(device.stats().handles, 0, "{device:?}");
    });
}
