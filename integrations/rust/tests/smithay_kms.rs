//! The library's framebuffers on a screen of Smithay's: vgem's memory on vkms.
#![cfg(feature = "smithay-kms")]

mod common;
#[path = "common/smithay_screen.rs"]
mod smithay_screen;

use std::os::fd::AsFd;

use common::{buffer_on, device};
use primeshare::alloc::Dumb;
use primeshare::kms::{Card, PlaneId, capture};
use primeshare::{Allocator as _, Fourcc, Request};
use primeshare_smithay::to_smithay;
use primeshare_smithay::{Devices, SmithayFramebuffer, SmithayFramebuffers, to_smithay_of};
use smithay::backend::drm::exporter::{ExportBuffer, ExportFramebuffer};
use smithay::backend::drm::{DrmNode, Framebuffer as _};
use smithay::reexports::drm::control::{Device as _, Event};
use smithay_screen::{open, surface, whole};

#[test]
fn smithay_shows_a_buffer_of_another_device_by_the_librarys_framebuffer() {
    let (vgem, vkms) = (device("vgem"), device("vkms"));
    let (drm, surface) = surface(&vkms).unwrap();
    let exporter = SmithayFramebuffers::new(drm.device_fd()).unwrap();
    let (width, height) = surface.pending_mode().size();
    let request = Request::new(width.into(), height.into(), Fourcc::ARGB8888);
    let buffer = Dumb::new(&vgem).allocate(&request).unwrap();
    let dmabuf = to_smithay(&buffer).unwrap();
    let framebuffer = |use_opaque| -> SmithayFramebuffer {
        let given = ExportBuffer::Allocator(&dmabuf);
        assert!(exporter.can_add_framebuffer(&given));
        let made = exporter.add_framebuffer(drm.device_fd(), given, use_opaque);
        made.unwrap().unwrap()
    };
    let opaque = framebuffer(true);
    assert_eq!(opaque.format().code as u32, Fourcc::XRGB8888.0);
    assert_eq!(framebuffer(false).format().code as u32, Fourcc::ARGB8888.0);
    // Kept for the buffer: asked again, it is the same one.
    assert_eq!(framebuffer(true).as_ref(), opaque.as_ref());

    surface
        .commit([whole(&surface, *opaque.as_ref())], true)
        .unwrap();
    let is_flip = |event: Event| matches!(event, Event::PageFlip(_));
    while !drm.receive_events().unwrap().any(is_flip) {}
    let plane = PlaneId(surface.plane().into());
    let card = Card::new(open(&vkms).unwrap().as_fd()).unwrap();
    let shown = capture::on_plane(&card, plane).unwrap().unwrap();
    assert_eq!(shown.id(), buffer.id());
}

#[test]
fn a_device_is_found_by_each_of_its_nodes() {
    let (vgem, vkms) = (device("vgem"), device("vkms"));
    let devices = Devices::new([vgem.clone(), vkms.clone(), vgem.reopen().unwrap()]).unwrap();
    assert_eq!(devices.iter().len(), 2);
    let node =
        |device: &primeshare::Device| DrmNode::from_dev_id(device.node().id.dev_t()).unwrap();
    assert!(devices.of(node(&vkms)).unwrap().is_same_device(&vkms));
    let render = vgem.node().render_node().unwrap().unwrap();
    let render = DrmNode::from_dev_id(render.id.dev_t()).unwrap();
    assert!(devices.of(render).unwrap().is_same_device(&vgem));
    let dmabuf = to_smithay_of(&buffer_on(&vgem), &vgem).unwrap();
    assert_eq!(dmabuf.node(), Some(render));
    assert!(devices.of_buffer(&dmabuf).unwrap().is_same_device(&vgem));
    let without = to_smithay(&buffer_on(&vgem)).unwrap();
    assert!(devices.of_buffer(&without).is_none());
}
