//! Buffers of several planes, in one dma-buf or in several.

use std::os::fd::AsFd;

use primeshare::buffer::{Error, PlaneFd};
use primeshare::gem::ImportOrigin;
use primeshare::{BufferDesc, DmaBuf, Fourcc, Modifier};

use crate::support::{buffer_on, in_guest, of_two_dma_bufs};

/// A buffer of up to four planes, each in the dma-buf of another buffer, of a layout that nobody
/// knows and that may have any number of them.
pub(crate) fn of_planes_in<'a>(buffers: impl IntoIterator<Item = &'a DmaBuf>) -> DmaBuf {
    let layout =
        BufferDesc::linear(64, 64, Fourcc::XRGB8888).with_modifier(Modifier(0x0100_0000_0000_0001));
    let plane = |(number, buffer): (u32, &DmaBuf)| PlaneFd {
        fd: buffer.objects()[0].as_fd().try_clone_to_owned().unwrap(),
        offset: number * 1024,
        stride: 64,
    };
    DmaBuf::new(layout, (0..).zip(buffers).map(plane)).unwrap()
}

#[test]
fn every_sharing_of_four_planes_has_a_handle_for_each_dma_buf() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffers = [(); 4].map(|()| buffer_on(&vgem));
        // Which of the dma-bufs each plane lies in: all 256 ways.
        for way in 0..256 {
            let which = [0, 2, 4, 6].map(|shift| way >> shift & 3);
            let mut distinct: Vec<usize> = Vec::new();
            for index in which {
                if !distinct.contains(&index) {
                    distinct.push(index);
                }
            }
            let buffer = of_planes_in(which.map(|index| &buffers[index]));
            assert_eq!(buffer.objects().len(), distinct.len(), "{which:?}");
            let before = vkms.stats();
            let imported = vkms.import(&buffer).unwrap();
            for (plane, index) in which.into_iter().enumerate() {
                let (_, id) = imported.plane(plane).unwrap().export().unwrap();
                assert_eq!(id, buffers[index].id(), "{which:?}");
                for (other, another) in which.into_iter().enumerate() {
                    let shared = imported.plane(plane) == imported.plane(other);
                    assert_eq!(shared, index == another, "{which:?}");
                }
            }
            assert!(
                imported
                    .objects()
                    .all(|(_, found)| found == ImportOrigin::New)
            );
            drop(imported);
            let after = vkms.stats();
            let closes = (after.closes - before.closes) as usize;
            assert_eq!((closes, after.handles), (distinct.len(), 0), "{which:?}");
        }
        assert_eq!(vkms.stats().failed_closes, 0);
    });
}

#[test]
fn planes_of_one_import_are_met_each_in_its_own_way() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (own, foreign, known) = (buffer_on(&vkms), buffer_on(&vgem), buffer_on(&vgem));
        let held = vkms.import(&known).unwrap();
        let buffer = of_planes_in([&foreign, &own, &known, &own]);
        let imported = vkms.import(&buffer).unwrap();
        let found: Vec<_> = imported.objects().map(|(_, found)| found).collect();
        let wanted = [
            ImportOrigin::New,
            ImportOrigin::SelfImport,
            ImportOrigin::AlreadyImported,
        ];
        assert_eq!(found, wanted);
        assert_eq!(imported.plane(1), imported.plane(3));
        assert_eq!(imported.plane(2), Some(held.object()));
    });
}

#[test]
fn planes_that_came_by_different_ways_to_one_dma_buf_share_it() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        // An fd from the exporter, and one that went through another device.
        let (again, _) = vkms.import(&buffer).unwrap().object().export().unwrap();
        let plane = |fd, offset| PlaneFd {
            fd,
            offset,
            stride: 64,
        };
        let dup = buffer.objects()[0].as_fd().try_clone_to_owned().unwrap();
        let layout = BufferDesc::linear(64, 64, Fourcc::NV12);
        let both = DmaBuf::new(layout, [plane(dup, 0), plane(again, 4096)]).unwrap();
        assert_eq!(both.objects().len(), 1);
        let third = guest.third();
        let imported = third.import(&both).unwrap();
        assert_eq!(imported.plane(0), imported.plane(1));
        assert_eq!(third.stats().imports, 1);
    });
}

#[test]
fn planes_may_lie_side_by_side_but_not_over_each_other() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (buffer, other) = (buffer_on(&vgem), buffer_on(&vgem));
        let nv12 = |planes: [(&DmaBuf, u32, u32); 2]| {
            let planes = planes.map(|(buffer, offset, stride)| PlaneFd {
                fd: buffer.objects()[0].as_fd().try_clone_to_owned().unwrap(),
                offset,
                stride,
            });
            DmaBuf::new(BufferDesc::linear(64, 64, Fourcc::NV12), planes).map(drop)
        };
        let overlap = Err(Error::PlanesOverlap { plane: 1, other: 0 });
        // The last rows of luma are the first of chroma.
        assert_eq!(nv12([(&buffer, 0, 64), (&buffer, 3840, 64)]), overlap);
        assert_eq!(nv12([(&buffer, 0, 64), (&buffer, 4096, 64)]), Ok(()));
        // A row of luma and a row of chroma in each stride.
        assert_eq!(nv12([(&buffer, 0, 128), (&buffer, 64, 128)]), Ok(()));
        assert_eq!(nv12([(&buffer, 0, 128), (&buffer, 63, 128)]), overlap);
        // The same place in another dma-buf.
        assert_eq!(nv12([(&buffer, 0, 64), (&other, 0, 64)]), Ok(()));
    });
}

#[test]
fn a_plane_in_use_by_another_buffer_stays_when_the_rest_goes() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let [a, b, c] = [(); 3].map(|()| buffer_on(&vgem));
        let (left, right) = (of_two_dma_bufs(&a, &b), of_two_dma_bufs(&b, &c));
        let first = vkms.import(&left).unwrap();
        let second = vkms.import(&right).unwrap();
        assert_eq!(first.plane(1), second.plane(0));
        assert_eq!(vkms.stats().handles, 3);
        drop(first);
        assert_eq!(vkms.stats().handles, 2);
        assert_eq!(second.plane(0).unwrap().export().unwrap().1, b.id());
    });
}
