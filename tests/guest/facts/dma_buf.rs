//! What a dma-buf says of itself, and its CPU access.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use primeshare::buffer::BufferId;

use super::{LENGTH, every_exporter};
use crate::kernel::Gem;
use crate::kernel::dma_buf::{END, READ, WRITE, fdinfo, set_name, sync};
use crate::support::in_guest;

#[test]
fn a_dma_buf_is_as_long_as_its_object_and_has_no_other_position() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            assert_eq!(
                lseek64(&fd, 0, Whence::SeekEnd),
                Ok(LENGTH as i64),
                "{exporter}"
            );
            assert_eq!(lseek64(&fd, 0, Whence::SeekSet), Ok(0), "{exporter}");
            for (offset, whence) in [
                (1, Whence::SeekSet),
                (4096, Whence::SeekSet),
                (-1, Whence::SeekEnd),
                (1, Whence::SeekEnd),
                (0, Whence::SeekCur),
            ] {
                let refused = lseek64(&fd, offset, whence);
                assert_eq!(
                    refused,
                    Err(Errno::EINVAL),
                    "{exporter}: {offset} {whence:?}"
                );
            }
        }
    });
}

#[test]
fn sizes_are_whole_pages() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            let dumb = drm_ffi::mode::dumbbuffer::create(device.as_fd(), 33, 3, 32, 0).unwrap();
            let fd = gem.export_writable(dumb.handle).unwrap();
            gem.close(dumb.handle).unwrap();
            let size = lseek64(&fd, 0, Whence::SeekEnd).unwrap();
            assert!(size >= 33 * 3 * 4 && size % 4096 == 0, "{device}: {size}");
        }
    });
}

/// The device and inode that `fstat` says, and those that `kcmp` compares.
#[test]
fn an_inode_names_a_dma_buf() {
    in_guest(|guest| {
        let fds = every_exporter(guest);
        for (number, (exporter, fd)) in fds.iter().enumerate() {
            let dup = fd.try_clone().unwrap();
            assert_eq!(BufferId::of(&dup), BufferId::of(fd), "{exporter}");
            for (other, (another, its)) in fds.iter().enumerate() {
                let same = BufferId::of(its) == BufferId::of(fd);
                assert_eq!(same, number == other, "{exporter} and {another}");
            }
        }
        // Of an export that was asked for twice too, and the kernel's files are one as well.
        let vgem = guest.vgem();
        let gem = Gem(vgem.as_fd());
        let handle = gem.create().unwrap();
        let fds = [(); 2].map(|()| gem.export_writable(handle).unwrap());
        assert_eq!(BufferId::of(&fds[0]), BufferId::of(&fds[1]));
        assert!(same_file(&fds[0], &fds[1]));
        gem.close(handle).unwrap();
    });
}

/// `kcmp(KCMP_FILE)`.
fn same_file(a: &OwnedFd, b: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    let pid = std::process::id();
    // SAFETY: kcmp takes integers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, 0, a.as_raw_fd(), b.as_raw_fd()) };
    assert!(order >= 0, "kcmp: {}", Errno::last());
    order == 0
}

#[test]
fn what_is_no_dma_buf_has_no_identity() {
    in_guest(|guest| {
        let files: [OwnedFd; 3] = [
            File::open("/dev/null").unwrap().into(),
            File::open("/proc/self/exe").unwrap().into(),
            nix::sys::eventfd::EventFd::new().unwrap().into(),
        ];
        // Before one was met, and after.
        for _ in 0..2 {
            for file in &files {
                assert_eq!(BufferId::of(file), Err(primeshare::Errno::EINVAL));
            }
            let (_, fd) = every_exporter(guest).swap_remove(0);
            assert!(BufferId::of(fd).is_ok());
        }
    });
}

#[test]
fn fdinfo_tells_size_users_exporter_and_name() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            let info = |field| fdinfo(&fd, field);
            assert_eq!(info("size"), Some(LENGTH.to_string()), "{exporter}");
            let count = || info("count").unwrap().parse::<u32>().unwrap();
            let before = count();
            let dup = fd.try_clone().unwrap();
            // Files are counted and not fds.
            assert_eq!(count(), before + 1, "{exporter}");
            drop(dup);
            assert!(!info("exp_name").unwrap().is_empty(), "{exporter}");
            assert_eq!(info("name"), None, "{exporter}");
            set_name(&fd, c"front").unwrap();
            assert_eq!(info("name").as_deref(), Some("front"), "{exporter}");
        }
    });
}

#[test]
fn names_have_at_most_31_bytes() {
    in_guest(|guest| {
        const LONGEST: &CStr = c"exactly thirty-one bytes of a na";
        for (exporter, fd) in every_exporter(guest) {
            let name = |length: usize| {
                let bytes = [&LONGEST.to_bytes()[..length], b"\0"].concat();
                let name = CStr::from_bytes_with_nul(&bytes).unwrap();
                set_name(&fd, name)
            };
            assert_eq!(name(31), Ok(()), "{exporter}");
            assert_eq!(fdinfo(&fd, "name").unwrap().len(), 31, "{exporter}");
            assert_eq!(name(32), Err(Errno::EINVAL), "{exporter}");
        }
    });
}

#[test]
fn the_kernel_counts_them_at_the_end_of_bufinfo() {
    in_guest(|guest| {
        let total = || {
            let info = fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
            let last = info
                .lines()
                .rfind(|line| !line.is_empty())
                .unwrap()
                .to_owned();
            let count = last.strip_prefix("Total ").unwrap();
            let (count, _) = count.split_once(" objects, ").unwrap();
            count.parse::<usize>().unwrap()
        };
        let before = total();
        let fds = every_exporter(guest);
        assert_eq!(total(), before + fds.len());
        drop(fds);
        assert_eq!(total(), before);
    });
}

#[test]
fn cpu_access_is_bracketed_by_three_flags() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            for direction in [READ, WRITE, READ | WRITE] {
                assert_eq!(sync(&fd, direction), Ok(()), "{exporter}: {direction}");
                assert_eq!(
                    sync(&fd, END | direction),
                    Ok(()),
                    "{exporter}: {direction}"
                );
            }
            for wrong in [0, END, 8, READ | 8, 1 << 32 | READ, u64::MAX] {
                assert_eq!(sync(&fd, wrong), Err(Errno::EINVAL), "{exporter}: {wrong}");
            }
        }
    });
}

#[test]
fn an_end_without_a_start_is_an_error_on_udmabuf_only() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            let wanted = match exporter.as_str() {
                "udmabuf" => Err(Errno::EINVAL),
                _ => Ok(()),
            };
            assert_eq!(sync(&fd, END | READ), wanted, "{exporter}");
        }
    });
}
