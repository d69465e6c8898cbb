//! Negotiation with what a real plane says of itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use drm::control::Device as _;
use drm::{ClientCapability, Device as _};
use primeshare::alloc::{self, Request};
use primeshare::device::{Node, NodeKind, enumerate, key_of};
use primeshare::gbm::Gbm;
use primeshare::negotiate::{
    DeviceKey, Endpoint, FormatSet, Usage, Wanted, negotiate, parse_in_formats,
};
use primeshare::vk::{ImageAllocator, Use};
use primeshare::{Allocator, Device, Fourcc, Modifier};

use crate::support::in_guest;

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

/// The formats of each plane, and its `IN_FORMATS`.
fn planes(device: &Device) -> Vec<(BTreeSet<Fourcc>, Vec<u8>)> {
    let card = Card(File::open(&device.node().path).unwrap());
    card.set_client_capability(ClientCapability::UniversalPlanes, true)
        .unwrap();
    let planes = card.plane_handles().unwrap();
    let described = planes.into_iter().map(|plane| {
        let formats = card.get_plane(plane).unwrap();
        let formats = formats.formats().iter().copied().map(Fourcc).collect();
        let properties = card.get_properties(plane).unwrap();
        let blob = properties.iter().find_map(|(property, value)| {
            let info = card.get_property(*property).unwrap();
            (info.name().to_bytes() == b"IN_FORMATS").then_some(*value)
        });
        (formats, card.get_property_blob(blob.unwrap()).unwrap())
    });
    described.collect()
}

#[test]
fn a_plane_s_in_formats_are_its_formats_with_modifiers() {
    in_guest(|guest| {
        let planes = planes(&guest.vkms());
        assert!(!planes.is_empty());
        for (formats, blob) in planes {
            let set: FormatSet = parse_in_formats(&blob).unwrap().into_iter().collect();
            assert_eq!(set.formats().collect::<BTreeSet<_>>(), formats);
            // All that vkms knows.
            assert!(set.iter().all(|entry| entry.modifier == Modifier::LINEAR));
        }
    });
}

#[test]
fn what_is_agreed_on_with_a_plane_can_be_allocated() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let (_, blob) = planes(&vkms).into_iter().next().unwrap();
        let formats = parse_in_formats(&blob).unwrap().into_iter().collect();
        let plane = Endpoint::plane("plane", DeviceKey(1), formats);
        let formats = [Modifier::LINEAR, Modifier::INVALID];
        let formats = formats.map(|modifier| (Fourcc::XRGB8888, modifier));
        let formats = FormatSet::from_iter(formats);
        let gbm = Endpoint::gbm("gbm", DeviceKey(2), Usage::RENDER, formats);
        let agreement = negotiate(&[&plane, &gbm], &Wanted::new(640, 480));
        let choice = agreement.best().unwrap();
        assert_eq!(agreement.allocator(choice).unwrap().name, "gbm");
        let request = Request::new(640, 480, choice.fourcc).modifiers(choice.modifiers.clone());
        let buffer = Gbm::new(&vkms).unwrap().allocate(&request).unwrap();
        assert_eq!(buffer.fourcc(), Fourcc::XRGB8888);
        assert_eq!(buffer.modifier(), Modifier::LINEAR);
    });
}

#[test]
fn what_all_agree_on_is_allocated_by_one_and_imported_by_the_others() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let (_, blob) = planes(&vkms).into_iter().next().unwrap();
        let formats: FormatSet = parse_in_formats(&blob).unwrap().into_iter().collect();
        let display = vkms.key().unwrap();
        let plane = Endpoint::plane("plane", display, formats.clone());
        let vulkan = guest.vulkan();
        let gpu = vulkan.endpoint(Usage::RENDER | Usage::COPY_TO).unwrap();
        let gbm = Gbm::new(&vkms).unwrap();
        let pairs = formats.iter().map(|entry| (entry.fourcc, entry.modifier));
        let gbm_end = gbm.endpoint(alloc::Usage::SCANOUT, pairs).unwrap();
        let agreement = negotiate(&[&plane, &gpu, &gbm_end], &Wanted::new(64, 64));
        assert!(agreement.choices.len() > 1);
        for choice in &agreement.choices {
            // vkms knows nothing else.
            assert!(choice.only_linear());
            let request = Request::new(64, 64, choice.fourcc).modifiers(choice.modifiers.clone());
            let allocator = agreement.allocator(choice).unwrap();
            let made = match allocator.name == gpu.name {
                true => ImageAllocator::new(&vulkan, Use::Destination).allocate(&request),
                false => gbm.allocate(&request),
            };
            // gbm's software backend promises formats that its dumb buffers then cannot be.
            let Ok(buffer) = made else {
                assert_eq!(allocator.name, gbm_end.name, "{made:?}");
                continue;
            };
            vulkan.import_image(&buffer, Use::Destination).unwrap();
            vkms.import(&buffer).unwrap();
        }
    });
}

#[test]
fn all_nodes_of_a_device_have_one_key_and_no_other_device_has_it() {
    in_guest(|_| {
        let nodes = enumerate().unwrap();
        let render = nodes.iter().filter(|node| node.kind == NodeKind::Render);
        assert!(render.count() > 0);
        for node in &nodes {
            for other in &nodes {
                let same = node.key().unwrap() == other.key().unwrap();
                assert_eq!(same, node.bus == other.bus, "{node:?} and {other:?}");
            }
        }
    });
}

#[test]
fn a_device_is_found_by_the_number_of_either_of_its_nodes() {
    in_guest(|guest| {
        for node in enumerate().unwrap() {
            let found = Node::find(node.id.dev_t()).unwrap();
            assert_eq!(found.as_ref(), Some(&node));
            assert_eq!(key_of(node.id.dev_t()), node.key());
        }
        let vgem = guest.vgem();
        let render = vgem.node().render_node().unwrap().unwrap();
        assert_eq!(render.kind, NodeKind::Render);
        let reopened = Device::open(&render.path).unwrap();
        assert!(reopened.is_same_device(&vgem));
        assert_eq!(reopened.key(), vgem.key());
        assert_eq!(render.render_node().unwrap(), Some(render));
        // Of null, and of a card that is not there.
        for number in [0x103, 226 << 8 | 63] {
            assert_eq!(Node::find(number).unwrap(), None);
            assert_eq!(key_of(number), Ok(DeviceKey(number)));
        }
    });
}

#[test]
fn what_gbm_knows_is_of_the_device_that_it_was_made_for() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let pairs = [(Fourcc::XRGB8888, Modifier::LINEAR)];
        let gbm = Gbm::new(&vkms).unwrap();
        let endpoint = gbm.endpoint(alloc::Usage::SCANOUT, pairs).unwrap();
        assert_eq!(endpoint.device, Some(vkms.key().unwrap()));
    });
}
