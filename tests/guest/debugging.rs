//! What a developer sees who looks for a bug.

use std::os::fd::AsRawFd;

use primeshare::gem::Stats;

use crate::support::{buffer_on, in_guest};

#[test]
fn a_device_says_what_it_is_and_what_it_holds() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        assert_eq!(vgem.to_string(), "vgem (/dev/dri/card0)");
        let debug = format!("{vgem:?}");
        let bus = vgem.node().bus.as_ref().unwrap();
        let node = format!(
            "Node {{ path: \"/dev/dri/card0\", kind: Primary, id: NodeId(226:0), \
             bus: Some(BusId({bus})) }}"
        );
        let beginning = format!("Device {{ driver: \"vgem\", node: {node}, stats: Stats {{ ");
        assert!(debug.starts_with(&beginning), "{debug}");
        assert!(debug.contains("handles: 1, "), "{debug}");
        let held = format!(
            "handles: [Created Handle(1) of {:?} with 1 users]",
            buffer.id()
        );
        assert!(debug.contains(&held), "{debug}");
        drop(buffer);
        assert!(format!("{vgem:?}").contains("handles: 0, "));
    });
}

#[test]
fn a_buffer_says_its_description_and_its_dma_bufs() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let object = &buffer.objects()[0];
        let fd = buffer.plane_fd(0).unwrap().as_raw_fd();
        assert_eq!(
            format!("{buffer:?}"),
            format!(
                "DmaBuf {{ desc: BufferDesc {{ width: 64, height: 64, fourcc: Fourcc(XR24), \
                 modifier: Modifier(LINEAR), flags: BufferFlags(0x0) }}, \
                 planes: [Plane {{ object: 0, offset: 0, stride: 256 }}], \
                 objects: [PlaneObject {{ fd: OwnedFd {{ fd: {fd} }}, id: {:?}, size: {} }}] }}",
                object.id(),
                object.size()
            )
        );
        let id = format!("{:?}", object.id());
        let numbers = id.strip_prefix("BufferId(").unwrap();
        let (device, inode) = numbers.strip_suffix(')').unwrap().split_once(':').unwrap();
        assert!(
            device.parse::<u64>().is_ok() && inode.parse::<u64>().is_ok(),
            "{id}"
        );
    });
}

#[test]
fn an_import_says_its_handles_and_what_it_met() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let imported = vkms.import(&buffer).unwrap();
        let debug = format!("{imported:?}");
        assert!(debug.contains("handle: Handle(1)"), "{debug}");
        assert!(debug.contains("New"), "{debug}");
        let object = format!("{:?}", imported.object());
        let wanted = format!("Object {{ device: \"{vkms}\", handle: Handle(1) }}");
        assert_eq!(object, wanted);
    });
}

/// By how much the numbers have grown.
fn counted(before: Stats, after: Stats) -> [u64; 4] {
    [
        after.hits - before.hits,
        after.imports - before.imports,
        after.exports - before.exports,
        after.closes - before.closes,
    ]
}

#[test]
fn statistics_count_hits_and_every_ioctl() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut last = (vgem.stats(), vkms.stats());
        // Hits, imports, exports, closes; on vgem, and on vkms.
        let mut since = || {
            let now = (vgem.stats(), vkms.stats());
            let counted = (counted(last.0, now.0), counted(last.1, now.1));
            last = now;
            counted
        };
        assert_eq!(since(), ([0; 4], [0; 4]));
        let buffer = buffer_on(&vgem);
        assert_eq!(since(), ([0, 0, 1, 0], [0; 4]));
        let first = vkms.import(&buffer).unwrap();
        assert_eq!(since(), ([0; 4], [0, 1, 0, 0]));
        let again = vkms.import(&buffer).unwrap();
        let by_fd = vkms.import_fd(buffer.plane_fd(0).unwrap()).unwrap();
        assert_eq!(since(), ([0; 4], [2, 0, 0, 0]));
        let home = vgem.import(&buffer).unwrap();
        assert_eq!(since(), ([1, 0, 0, 0], [0; 4]));
        first.object().export().unwrap();
        assert_eq!(since(), ([0; 4], [0, 0, 1, 0]));
        drop((again, by_fd, first.clone()));
        assert_eq!(since(), ([0; 4], [0; 4]));
        drop(first);
        assert_eq!(since(), ([0; 4], [0, 0, 0, 1]));
        drop((home, buffer));
        assert_eq!(since(), ([0, 0, 0, 1], [0; 4]));
        // A file that is no dma-buf costs no ioctl, since `fstat` tells.
        let file = std::fs::File::open("/dev/null").unwrap();
        vkms.import_fd(&file).unwrap_err();
        assert_eq!(since(), ([0; 4], [0; 4]));
    });
}
