//! Buffers handed to another process, and what comes from peers that mean no good.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use primeshare::buffer::{self, BufferFlags, PlaneFd};
use primeshare::export::{self, SendError};
use primeshare::gem::ImportOrigin;
use primeshare::import::{Malformed, ReceiveError};
use primeshare::sync::{Access, Mapping};
use primeshare::{Allocator, BufferDesc, DmaBuf, Errno, Fourcc, Modifier, Request};

use crate::faults::fds;
use crate::kernel::flags;
use crate::peer::{pair, send_raw, two_processes, wait};
use crate::support::{Guest, PATIENCE, buffer_on, in_guest, kernel_dma_bufs, of_two_dma_bufs};

/// The bytes of a message, for peers of our making. What they mean is in `buffer::message`.
fn message(layout: &BufferDesc, planes: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = b"dma-buf\x02".to_vec();
    let count = planes.len() as u32;
    for word in [layout.width, layout.height, layout.fourcc.0, count] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(layout.modifier.0.to_le_bytes());
    bytes.extend(layout.flags.bits().to_le_bytes());
    for word in planes.iter().flat_map(|(offset, stride)| [offset, stride]) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(68, 0);
    bytes
}

/// A message that describes the buffer.
fn message_of(buffer: &DmaBuf) -> Vec<u8> {
    let planes: Vec<_> = buffer
        .planes()
        .iter()
        .map(|p| (p.offset, p.stride))
        .collect();
    message(buffer.desc(), &planes)
}

/// What a peer's message is met with, and that it was taken from the socket.
fn refused(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> ReceiveError {
    let (ours, theirs) = pair();
    send_raw(&theirs, bytes, fds);
    let refused = DmaBuf::receive(&ours).unwrap_err();
    assert_eq!(DmaBuf::receive(&ours).unwrap_err(), ReceiveError::Empty);
    refused
}

fn buffers(guest: &Guest) -> Vec<DmaBuf> {
    let vgem = guest.vgem();
    let (luma, chroma) = (buffer_on(&vgem), buffer_on(&vgem));
    let allocate = |fourcc| {
        let dumb = primeshare::alloc::Dumb::new(&vgem);
        dumb.allocate(&Request::new(64, 64, fourcc)).unwrap()
    };
    let one = allocate(Fourcc::XRGB8888);
    let plane = |buffer: &DmaBuf| PlaneFd {
        fd: buffer.objects()[0].as_fd().try_clone_to_owned().unwrap(),
        offset: 4096,
        stride: 1234,
    };
    // Of a layout that nobody knows, in four planes of three dma-bufs.
    let modifier = Modifier(0x0123_4567_89ab_cdef);
    let unknown = BufferDesc::new(u32::MAX, 7, Fourcc(0xfedc_ba98), modifier)
        .with_flags(BufferFlags::Y_INVERT | BufferFlags::INTERLACED);
    let four = DmaBuf::new(unknown, [&luma, &chroma, &luma, &one].map(plane)).unwrap();
    vec![
        one,
        allocate(Fourcc::NV12),
        of_two_dma_bufs(&luma, &chroma),
        four,
    ]
}

#[test]
fn what_is_received_is_what_was_sent() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (ours, theirs) = pair();
        for sent in buffers(guest) {
            sent.send(&ours).unwrap();
            let received = DmaBuf::receive(&theirs).unwrap();
            // Memory and layout ...
            assert_eq!(received, sent);
            // ... and the order of planes, for which dma-bufs are shared as before.
            assert_eq!(received.planes(), sent.planes());
            for (received, sent) in received.objects().iter().zip(sent.objects()) {
                assert_eq!((received.id(), received.size()), (sent.id(), sent.size()));
                assert_eq!(flags(received.as_fd()), (true, true));
            }
            let imported = vgem.import(&sent).unwrap();
            let again = vgem.import(&received).unwrap();
            for ((a, _), (b, found)) in imported.objects().zip(again.objects()) {
                assert_eq!(a, b);
                assert_ne!(found, ImportOrigin::New);
            }
        }
    });
}

#[test]
fn buffers_that_are_on_their_way_need_no_sender() {
    in_guest(|guest| {
        let (ours, theirs) = pair();
        let mut ids = Vec::new();
        for (number, buffer) in buffers(guest).into_iter().enumerate() {
            let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
            let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
            access.write(0, &[number as u8]).unwrap();
            drop(access);
            buffer.send(&ours).unwrap();
            ids.push(buffer.id());
        }
        drop(ours);
        // In their order, then the end.
        for id in ids {
            assert_eq!(DmaBuf::receive(&theirs).unwrap().id(), id);
        }
        assert_eq!(DmaBuf::receive(&theirs).unwrap_err(), ReceiveError::Closed);
    });
}

#[test]
fn buffers_that_nobody_takes_go_with_the_socket() {
    in_guest(|guest| {
        let before = kernel_dma_bufs();
        let (ours, theirs) = pair();
        for buffer in buffers(guest) {
            buffer.send(&ours).unwrap();
        }
        assert!(kernel_dma_bufs() > before);
        drop((ours, theirs));
        assert_eq!(kernel_dma_bufs(), before);
    });
}

#[test]
fn another_process_sees_the_same_bytes() {
    two_processes(
        "transfer::another_process_sees_the_same_bytes",
        |guest, socket| {
            let buffer = buffer_on(&guest.vgem());
            let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
            let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
            access.write(0, b"from here").unwrap();
            drop(access);
            buffer.send(&socket).unwrap();
            wait(&socket);
            let returned = DmaBuf::receive(&socket).unwrap();
            assert_eq!(returned, buffer);
            let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
            let mut bytes = [0; 10];
            access.read(4096, &mut bytes).unwrap();
            assert_eq!(&bytes, b"from there");
        },
        |guest, socket| {
            wait(&socket);
            let buffer = DmaBuf::receive(&socket).unwrap();
            let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
            let mut access = mapping.begin_wait(Access::ReadWrite, PATIENCE).unwrap();
            let mut bytes = [0; 9];
            access.read(0, &mut bytes).unwrap();
            assert_eq!(&bytes, b"from here");
            access.write(4096, b"from there").unwrap();
            drop(access);
            // What goes back went through a device of this process.
            let vkms = guest.vkms();
            let imported = vkms.import(&buffer).unwrap();
            assert_eq!(imported.origin(), ImportOrigin::New);
            let plane = buffer.planes()[0];
            let places = [(plane.offset, plane.stride)];
            let again = export::export(imported.object(), *buffer.desc(), places).unwrap();
            again.send(&socket).unwrap();
        },
    );
}

#[test]
fn neither_end_ever_waits() {
    in_guest(|guest| {
        // Both ends are in blocking mode.
        let (ours, theirs) = pair();
        assert_eq!(DmaBuf::receive(&ours).unwrap_err(), ReceiveError::Empty);
        let buffer = buffer_on(&guest.vgem());
        let (sent, refused) = send_until_refused(&ours, &buffer);
        assert!(sent > 0);
        let full = SendError::Send {
            errno: Errno::EAGAIN,
        };
        assert_eq!(refused, full);
        // What was refused was not sent in part.
        for _ in 0..sent {
            assert_eq!(DmaBuf::receive(&theirs).unwrap(), buffer);
        }
        assert_eq!(DmaBuf::receive(&theirs).unwrap_err(), ReceiveError::Empty);
    });
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let gone = |errno| SendError::Send { errno };
        let (ours, theirs) = pair();
        drop(theirs);
        assert_eq!(DmaBuf::receive(&ours).unwrap_err(), ReceiveError::Closed);
        let refused = buffer.send(&ours).unwrap_err();
        assert_eq!(refused, gone(Errno::EPIPE));
        // One that leaves something unread says so once.
        let (ours, theirs) = pair();
        buffer.send(&ours).unwrap();
        drop(theirs);
        for errno in [Errno::ECONNRESET, Errno::EPIPE] {
            assert_eq!(buffer.send(&ours).unwrap_err(), gone(errno));
        }
    });
}

fn send_until_refused(socket: &OwnedFd, buffer: &DmaBuf) -> (usize, SendError) {
    let mut sent = 0;
    loop {
        match buffer.send(socket) {
            Ok(()) => sent += 1,
            Err(error) => return (sent, error),
        }
    }
}

#[test]
fn sockets_that_run_messages_together_are_refused() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        for kind in [SockType::Stream, SockType::Datagram] {
            let flags = SockFlag::SOCK_CLOEXEC;
            let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
            let refused = buffer.send(&ours).unwrap_err();
            assert_eq!(refused, SendError::SocketType);
            let refused = DmaBuf::receive(&theirs).unwrap_err();
            assert_eq!(refused, ReceiveError::SocketType);
        }
        let file = File::open("/dev/null").unwrap();
        let errno = Errno::ENOTSOCK;
        assert_eq!(buffer.send(&file).unwrap_err(), SendError::Send { errno });
        assert_eq!(
            DmaBuf::receive(&file).unwrap_err(),
            ReceiveError::Receive { errno }
        );
    });
}

#[test]
fn messages_of_another_length_are_refused() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let (good, fd) = (message_of(&buffer), buffer.plane_fd(0).unwrap());
        for length in 1..68 {
            let refused = refused(&good[..length], &[fd]);
            assert_eq!(refused, Malformed::Length(length).into());
        }
        for longer in [69, 128, 4096] {
            let mut bytes = good.clone();
            bytes.resize(longer, 0);
            assert_eq!(refused(&bytes, &[fd]), Malformed::Length(longer).into());
        }
        // No bytes at all cannot be told from the end.
        assert_eq!(refused(b"", &[fd]), ReceiveError::Closed);
    });
}

#[test]
fn messages_of_something_else_are_refused() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let (good, fd) = (message_of(&buffer), buffer.plane_fd(0).unwrap());
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            refused(&bytes, &[fd])
        };
        assert_eq!(changed(0, b'D'), Malformed::Magic.into());
        assert_eq!(changed(7, 1), Malformed::Magic.into());
        assert_eq!(changed(20, 0), Malformed::PlaneCount(0).into());
        assert_eq!(changed(20, 5), Malformed::PlaneCount(5).into());
        assert_eq!(changed(67, 1), Malformed::Spare.into());
    });
}

#[test]
fn there_is_an_fd_for_every_plane_and_no_other() {
    in_guest(|guest| {
        for buffer in buffers(guest) {
            let planes = buffer.planes().len();
            let bytes = message_of(&buffer);
            let fd = buffer.plane_fd(0).unwrap();
            for found in (0..=10).filter(|found| *found != planes) {
                let expected = ReceiveError::FdCount {
                    expected: planes,
                    found,
                };
                assert_eq!(refused(&bytes, &vec![fd; found]), expected);
            }
        }
    });
}

#[test]
fn more_fds_than_a_message_has_room_for_are_closed() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let fd = buffer.plane_fd(0).unwrap();
        // The most that the kernel sends at once (SCM_MAX_FD).
        for found in [100, 253] {
            let lost = refused(&message_of(&buffer), &vec![fd; found]);
            assert_eq!(lost, ReceiveError::FdsLost);
        }
    });
}

#[test]
fn without_room_for_an_fd_the_message_is_refused_and_the_next_can_be_received() {
    in_guest(|guest| {
        let (ours, theirs) = pair();
        let (luma, chroma) = (buffer_on(&guest.vgem()), buffer_on(&guest.vgem()));
        let buffer = of_two_dma_bufs(&luma, &chroma);
        for room in [0, 1] {
            buffer.send(&ours).unwrap();
            let lost = fds::with_room_for(room, || DmaBuf::receive(&theirs)).unwrap_err();
            assert_eq!(lost, ReceiveError::FdsLost);
        }
        buffer.send(&ours).unwrap();
        let received = fds::with_room_for(2, || DmaBuf::receive(&theirs)).unwrap();
        assert_eq!(received, buffer);
    });
}

#[test]
fn fds_of_something_else_are_refused() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (luma, chroma) = (buffer_on(&vgem), buffer_on(&vgem));
        let buffer = of_two_dma_bufs(&luma, &chroma);
        let bytes = message_of(&buffer);
        let good = buffer.plane_fd(0).unwrap();
        let (socket, _other) = pair();
        let file = File::open("/proc/self/exe").unwrap();
        for wrong in [file.as_fd(), socket.as_fd(), vgem.as_fd()] {
            for (plane, fds) in [(0, [wrong, good]), (1, [good, wrong])] {
                let expected = buffer::Error::NotADmaBuf { plane };
                assert_eq!(refused(&bytes, &fds), expected.into());
            }
        }
    });
}

#[test]
fn descriptions_that_do_not_fit_their_dma_bufs_are_refused() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let fd = buffer.plane_fd(0).unwrap();
        let size = buffer.objects()[0].size();
        let linear = BufferDesc::linear(64, 64, Fourcc::XRGB8888);
        let refused = |layout: BufferDesc, planes: &[(u32, u32)]| {
            refused(&message(&layout, planes), &vec![fd; planes.len()])
        };
        let past = buffer::Error::OutOfBounds {
            plane: 0,
            end: size + 1,
            size,
        };
        let last = u32::try_from(size).unwrap() - 64 * 256;
        assert_eq!(refused(linear, &[(last + 1, 256)]), past.into());
        let short = buffer::Error::StrideTooSmall {
            plane: 0,
            stride: 255,
            row_bytes: 256,
        };
        assert_eq!(refused(linear, &[(0, 255)]), short.into());
        for (width, height) in [(0, 64), (64, 0)] {
            let empty = BufferDesc::linear(width, height, Fourcc::XRGB8888);
            let expected = buffer::Error::Empty { width, height };
            assert_eq!(refused(empty, &[(0, 256)]), expected.into());
        }
        let planes = buffer::Error::FormatPlaneCount {
            fourcc: Fourcc::XRGB8888,
            expected: 1,
            found: 2,
        };
        assert_eq!(refused(linear, &[(0, 256), (0, 256)]), planes.into());
        let huge = BufferDesc::linear(u32::MAX, u32::MAX, Fourcc::XRGB8888);
        let too_large = buffer::Error::TooLarge {
            width: u32::MAX,
            height: u32::MAX,
            fourcc: Fourcc::XRGB8888,
        };
        assert_eq!(refused(huge, &[(0, u32::MAX)]), too_large.into());
        // Of a layout that is not known only that it has its stride and as many of them as rows.
        let tiled = linear.with_modifier(Modifier(0x0100_0000_0000_0001));
        let outside = buffer::Error::OutOfBounds {
            plane: 0,
            end: size + 64,
            size,
        };
        assert_eq!(refused(tiled, &[(size as u32, 1)]), outside.into());
        let no_stride = buffer::Error::NoStride {
            plane: 0,
            modifier: tiled.modifier,
        };
        assert_eq!(refused(tiled, &[(0, 0)]), no_stride.into());
        let overlap = buffer::Error::PlanesOverlap { plane: 1, other: 0 };
        let nv12 = BufferDesc::linear(64, 64, Fourcc::NV12);
        assert_eq!(refused(nv12, &[(0, 64), (3840, 64)]), overlap.into());
    });
}

/// `SO_PASSSEC` and `SO_PASSPIDFD` of `include/uapi/asm-generic/socket.h`.
const PASSSEC: libc::c_int = 34;
const PASSPIDFD: libc::c_int = 76;

/// Has the kernel add something to each message that comes; security labels only if it has any.
fn ask_for(socket: &impl AsFd, option: libc::c_int) {
    let yes: libc::c_int = 1;
    // SAFETY: the option's value is an int, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const yes).cast(),
            size_of_val(&yes) as u32,
        )
    };
    let errno = nix::errno::Errno::last();
    let has_no_labels = option == PASSSEC && errno == nix::errno::Errno::EOPNOTSUPP;
    assert!(set == 0 || has_no_labels, "option {option}: {errno}");
}

#[test]
fn a_socket_that_tells_of_its_senders_gives_buffers_too() {
    in_guest(|guest| {
        let one = buffer_on(&guest.vgem());
        let two = of_two_dma_bufs(&one, &buffer_on(&guest.vgem()));
        let all = [libc::SO_PASSCRED, PASSSEC, PASSPIDFD];
        for options in [&all[..1], &all[1..2], &all[2..], &all] {
            let (ours, theirs) = pair();
            options.iter().for_each(|option| ask_for(&theirs, *option));
            for buffer in [&one, &two] {
                buffer.send(&ours).unwrap();
                let received = DmaBuf::receive(&theirs).unwrap();
                assert_eq!(received.objects()[0].id(), buffer.objects()[0].id());
                assert_eq!(received.planes().len(), buffer.planes().len());
            }
            // `in_guest` finds the pidfds that are left.
        }
    });
}

#[test]
fn a_message_of_four_fds_and_more_that_the_kernel_adds_is_whole() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let fd = buffer.plane_fd(0).unwrap();
        let (ours, theirs) = pair();
        [libc::SO_PASSCRED, PASSSEC, PASSPIDFD]
            .into_iter()
            .for_each(|option| ask_for(&theirs, option));
        send_raw(&ours, &message_of(&buffer), &[fd; 4]);
        // They came, though they are not what the buffer has.
        let refused = DmaBuf::receive(&theirs).unwrap_err();
        assert_eq!(
            refused,
            ReceiveError::FdCount {
                expected: 1,
                found: 4
            }
        );
    });
}
