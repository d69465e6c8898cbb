//! What the kernel does, tested without the library. The library relies on these facts, so a kernel that
//! behaves otherwise is found here first.

mod access;
mod dma_buf;
mod errnos;
mod fences;
mod framebuffers;
mod gbm;
mod handles;
mod heaps;
mod udmabuf;

use std::os::fd::{AsFd, OwnedFd};

use primeshare::alloc::{DmaHeap, Dumb, Udmabuf};
use primeshare::{Allocator, Fourcc, Request};

use crate::support::Guest;

/// Bytes of a dumb buffer of 64 times 64 pixels.
const SIZE: u64 = 64 * 64 * 4;

/// Bytes of a dma-buf of [`every_exporter`]: the library adds 16 rows and a page to such a buffer.
const LENGTH: u64 = SIZE + 16 * 256 + 4096;

/// A dma-buf from every exporter there is, and its name.
fn every_exporter(guest: &Guest) -> Vec<(String, OwnedFd)> {
    let mut allocators: Vec<(String, Box<dyn Allocator>)> = vec![
        ("udmabuf".into(), Box::new(Udmabuf::open().unwrap())),
        ("heap".into(), Box::new(DmaHeap::system().unwrap())),
    ];
    for device in guest.devices() {
        allocators.push((device.to_string(), Box::new(Dumb::new(&device))));
    }
    let export = |(name, allocator): (String, Box<dyn Allocator>)| {
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = allocator.allocate(&request).unwrap();
        let fd = buffer.objects()[0].as_fd().try_clone_to_owned().unwrap();
        (name, fd)
    };
    allocators.into_iter().map(export).collect()
}
