//! Handles and the dma-bufs behind them.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use primeshare::Device;
use primeshare::buffer::BufferId;

use super::every_exporter;
use crate::kernel::Gem;
use crate::support::{Guest, in_guest, kernel_dma_bufs, next_handle};

/// Runs `fact` for every device.
fn on_every_device(fact: impl Fn(&Guest, &Device, Gem<'_>)) {
    in_guest(|guest| {
        for device in guest.devices() {
            fact(guest, &device, Gem(device.as_fd()));
        }
    });
}

fn id(fd: &OwnedFd) -> BufferId {
    BufferId::of(fd).unwrap()
}

#[test]
fn a_handle_belongs_to_an_open_file_description() {
    on_every_device(|guest, device, gem| {
        let handles = [gem.create().unwrap(), gem.create().unwrap()];
        // Another open of the same node knows neither, and counts from 1 again.
        let opened = guest.open(&device.node().path);
        let other = Gem(opened.as_fd());
        assert_eq!(next_handle(&opened), 1);
        assert_eq!(
            other.export_writable(handles[1]).unwrap_err(),
            Errno::ENOENT
        );
        assert_eq!(other.close(handles[0]), Err(Errno::EINVAL));
        // A dup knows both.
        let dup = device.as_fd().try_clone_to_owned().unwrap();
        for handle in handles {
            Gem(dup.as_fd()).export_writable(handle).unwrap();
            Gem(dup.as_fd()).close(handle).unwrap();
        }
        assert_eq!(next_handle(device), 1);
    });
}

#[test]
fn imports_are_not_counted_and_one_close_ends_them_all() {
    on_every_device(|guest, device, gem| {
        for (exporter, fd) in every_exporter(guest) {
            let handle = gem.import(&fd).unwrap();
            for _ in 0..3 {
                assert_eq!(gem.import(&fd), Ok(handle), "{exporter}");
            }
            let dup = fd.try_clone().unwrap();
            assert_eq!(gem.import(&dup), Ok(handle), "{exporter}");
            assert_eq!(gem.close(handle), Ok(()));
            assert_eq!(gem.close(handle), Err(Errno::EINVAL), "{exporter}");
            assert_eq!(gem.export_writable(handle).unwrap_err(), Errno::ENOENT);
            assert_eq!(next_handle(device), 1, "{exporter}");
        }
    });
}

#[test]
fn a_self_import_is_the_exporters_handle_and_is_not_counted_either() {
    on_every_device(|_, device, gem| {
        let handle = gem.create().unwrap();
        let fd = gem.export_writable(handle).unwrap();
        assert_eq!(gem.import(&fd), Ok(handle));
        gem.close(handle).unwrap();
        assert_eq!(gem.close(handle), Err(Errno::EINVAL));
        // The dma-buf keeps the object, and it comes back as an import.
        let again = gem.import(&fd).unwrap();
        assert_eq!(id(&gem.export_writable(again).unwrap()), id(&fd));
        gem.close(again).unwrap();
        assert_eq!(next_handle(device), 1);
    });
}

#[test]
fn the_lowest_free_number_is_the_next_handle() {
    on_every_device(|_, device, gem| {
        let handles = [(); 4].map(|()| gem.create().unwrap());
        assert_eq!(handles, [1, 2, 3, 4]);
        gem.close(2).unwrap();
        assert_eq!(gem.create(), Ok(2), "recycled at once");
        for handle in handles {
            gem.close(handle).unwrap();
        }
        assert_eq!(next_handle(device), 1);
    });
}

#[test]
fn a_re_export_is_the_original_dma_buf() {
    on_every_device(|guest, _, gem| {
        for (exporter, fd) in every_exporter(guest) {
            let handle = gem.import(&fd).unwrap();
            let again = gem.export_writable(handle).unwrap();
            assert_eq!(id(&again), id(&fd), "{exporter}");
            gem.close(handle).unwrap();
        }
    });
}

#[test]
fn exported_again_it_is_the_same_dma_buf_though_its_fd_was_closed() {
    on_every_device(|_, _, gem| {
        let handle = gem.create().unwrap();
        let fd = gem.export_writable(handle).unwrap();
        let first = id(&fd);
        drop(fd);
        assert_eq!(id(&gem.export_writable(handle).unwrap()), first);
        gem.close(handle).unwrap();
        // Another object's is another, also where it has the number.
        assert_eq!(gem.create(), Ok(handle));
        assert_ne!(id(&gem.export_writable(handle).unwrap()), first);
        gem.close(handle).unwrap();
    });
}

#[test]
fn a_handle_keeps_its_dma_buf_until_it_is_closed() {
    on_every_device(|guest, _, gem| {
        let before = kernel_dma_bufs();
        // The exporter's own.
        let handle = gem.create().unwrap();
        assert_eq!(kernel_dma_bufs(), before, "made with the first export");
        drop(gem.export_writable(handle).unwrap());
        assert_eq!(kernel_dma_bufs(), before + 1);
        gem.close(handle).unwrap();
        assert_eq!(kernel_dma_bufs(), before);
        // An importer's.
        for (exporter, fd) in every_exporter(guest) {
            let before = kernel_dma_bufs();
            let handle = gem.import(&fd).unwrap();
            drop(fd);
            assert_eq!(kernel_dma_bufs(), before, "{exporter}");
            gem.close(handle).unwrap();
            assert_eq!(kernel_dma_bufs(), before - 1, "{exporter}");
        }
    });
}

#[test]
fn a_dma_buf_lives_on_when_its_exporters_file_is_closed() {
    on_every_device(|guest, device, _| {
        // Not one of the guest's, which keeps those open.
        let closed = Device::open(&device.node().path).unwrap();
        let gem = Gem(closed.as_fd());
        let fd = gem.export_writable(gem.create().unwrap()).unwrap();
        drop(closed);
        let vkms = guest.vkms();
        let handle = Gem(vkms.as_fd()).import(&fd).unwrap();
        assert_eq!(
            id(&Gem(vkms.as_fd()).export_writable(handle).unwrap()),
            id(&fd)
        );
        Gem(vkms.as_fd()).close(handle).unwrap();
    });
}

#[test]
fn a_closed_file_closes_its_handles() {
    on_every_device(|_, device, _| {
        let before = kernel_dma_bufs();
        let closed = Device::open(&device.node().path).unwrap();
        let gem = Gem(closed.as_fd());
        drop(gem.export_writable(gem.create().unwrap()).unwrap());
        assert_eq!(kernel_dma_bufs(), before + 1);
        drop(closed);
        assert_eq!(kernel_dma_bufs(), before);
    });
}

#[test]
fn every_opening_of_a_flink_name_is_a_handle_of_its_own() {
    on_every_device(|_, _, gem| {
        let handle = gem.create().unwrap();
        let name = gem.flink(handle).unwrap();
        assert_eq!(gem.flink(handle), Ok(name), "an object has one name");
        let opened = [gem.open_name(name).unwrap(), gem.open_name(name).unwrap()];
        assert_ne!(opened[0], opened[1]);
        assert!(!opened.contains(&handle));
        // Of one object, as their exports say.
        let fd = gem.export_writable(handle).unwrap();
        for handle in opened {
            assert_eq!(id(&gem.export_writable(handle).unwrap()), id(&fd));
        }
        // An import gives one of them. Which one is the kernel's business.
        let imported = gem.import(&fd).unwrap();
        assert!(imported == handle || opened.contains(&imported));
        for handle in [handle, opened[0], opened[1]] {
            gem.close(handle).unwrap();
        }
        assert_eq!(gem.open_name(name), Err(Errno::ENOENT), "gone with them");
    });
}
