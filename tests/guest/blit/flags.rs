//! Pictures whose rows are upside down in memory, or of two fields.

use std::os::fd::AsFd;

use primeshare::blit::{
    Blit, BlitInfo, Damage, DamageBox, Error, Filter, Rect, Scaling, StagingSource, Strategy,
    Transform,
};
use primeshare::buffer::{BufferFlags, PlaneRef};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request, alloc};

use super::resampling::fill;
use super::{PATIENCE, blitter_by, forced, read, two_gpus};
use crate::support::in_guest;

const SIZE: u32 = 32;
const INTERLACED: BufferFlags = BufferFlags::INTERLACED;
const Y_INVERT: BufferFlags = BufferFlags::Y_INVERT;

/// New memory, described with these flags.
fn buffer(device: &Device, flags: BufferFlags) -> DmaBuf {
    let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
    let buffer = alloc::Dumb::new(device).allocate(&request).unwrap();
    let plane = PlaneRef {
        fd: buffer.objects()[0].as_fd(),
        offset: buffer.planes()[0].offset,
        stride: buffer.planes()[0].stride,
    };
    DmaBuf::from_borrowed(buffer.desc().with_flags(flags), [plane]).unwrap()
}

/// Every row and column is of its own.
fn mark(buffer: &DmaBuf) {
    fill(buffer, |_, y, byte| (16 * y + byte / 4) as u8);
}

/// The rows from the top of the picture to its bottom, without the bytes that mean nothing.
fn picture(buffer: &DmaBuf) -> Vec<Vec<u8>> {
    let colours = |row: Vec<u8>| row.chunks(4).flat_map(|p| p[..3].to_vec()).collect();
    let rows = read(buffer).into_iter().map(colours);
    match buffer.flags().contains(Y_INVERT) {
        true => rows.rev().collect(),
        false => rows.collect(),
    }
}

const STRATEGIES: [Strategy; 6] = [
    Strategy::Cpu,
    Strategy::HostMemory,
    Strategy::Pull,
    Strategy::PullBytes,
    Strategy::Push,
    Strategy::Staged(StagingSource::Udmabuf),
];

#[test]
fn a_picture_that_lies_upside_down_arrives_upright_by_each_strategy() {
    in_guest(|guest| {
        let (vgem, vkms, gpus) = (guest.vgem(), guest.vkms(), two_gpus(guest));
        let upright = BufferFlags::empty();
        for strategy in STRATEGIES {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            for flags in [
                [Y_INVERT, upright],
                [upright, Y_INVERT],
                [Y_INVERT, Y_INVERT],
            ] {
                let (from, to) = (buffer(&vgem, flags[0]), buffer(&vkms, flags[1]));
                mark(&from);
                let copy = |info: &BlitInfo<'_>| blitter.blit(&from, &to, info).unwrap();
                copy(&BlitInfo::default()).wait(PATIENCE).unwrap();
                assert_eq!(picture(&to), picture(&from), "{strategy}, {flags:?}");
            }
        }
    });
}

#[test]
fn damage_and_boxes_count_from_the_top_of_the_picture() {
    in_guest(|guest| {
        let (vgem, vkms, gpus) = (guest.vgem(), guest.vkms(), two_gpus(guest));
        let top = [DamageBox {
            x1: 0,
            y1: 0,
            x2: SIZE as i32,
            y2: 3,
        }];
        for strategy in [Strategy::Cpu, Strategy::PullBytes] {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            for flags in [[Y_INVERT; 2], [Y_INVERT, BufferFlags::empty()]] {
                let (from, to) = (buffer(&vgem, flags[0]), buffer(&vkms, flags[1]));
                mark(&from);
                fill(&to, |_, _, _| 7);
                let copy = |info: &BlitInfo<'_>| blitter.blit(&from, &to, info).unwrap();
                let info = BlitInfo::default().damage(Damage::Boxes(&top));
                copy(&info).wait(PATIENCE).unwrap();
                let (shown, drawn) = (picture(&to), picture(&from));
                // A copy that turns rows round reaches one row further.
                assert_eq!(shown[..3], drawn[..3], "{strategy}, {flags:?}");
                assert!(shown[4..].iter().flatten().all(|byte| *byte == 7));
            }
            let (from, to) = (buffer(&vgem, Y_INVERT), buffer(&vkms, Y_INVERT));
            mark(&from);
            fill(&to, |_, _, _| 7);
            let part = |y| Rect {
                x: 0,
                y,
                width: SIZE,
                height: 4,
            };
            let info = BlitInfo::default().scaling(Scaling {
                source: part(2),
                destination: part(20),
                transform: Transform::Flipped180,
                filter: Filter::Nearest,
            });
            blitter
                .blit(&from, &to, &info)
                .unwrap()
                .wait(PATIENCE)
                .unwrap();
            let (shown, drawn) = (picture(&to), picture(&from));
            for row in 0..4 {
                assert_eq!(shown[20 + row], drawn[5 - row], "{strategy}, row {row}");
            }
        }
    });
}

#[test]
fn interlaced_pictures_are_copied_as_they_are_and_no_other_way() {
    in_guest(|guest| {
        let (vgem, vkms, gpus) = (guest.vgem(), guest.vkms(), two_gpus(guest));
        let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(Strategy::Cpu));
        let (from, to) = (buffer(&vgem, INTERLACED), buffer(&vkms, INTERLACED));
        mark(&from);
        let all = BlitInfo::default();
        blitter
            .blit(&from, &to, &all)
            .unwrap()
            .wait(PATIENCE)
            .unwrap();
        assert_eq!(picture(&to), picture(&from));
        let refused = |to: &DmaBuf, info: &BlitInfo<'_>| {
            let error = blitter.blit(&from, to, info).unwrap_err();
            let flags = (from.flags(), to.flags());
            assert_eq!(
                error,
                Error::Flags {
                    from: flags.0,
                    to: flags.1
                }
            );
        };
        refused(&buffer(&vkms, BufferFlags::empty()), &all);
        refused(&buffer(&vkms, INTERLACED | BufferFlags::BOTTOM_FIRST), &all);
        refused(&buffer(&vkms, INTERLACED | Y_INVERT), &all);
        let half = Rect::whole(SIZE, SIZE / 2);
        let scaled = Scaling {
            source: half,
            ..Scaling::whole((SIZE, SIZE), (SIZE, SIZE))
        };
        refused(&to, &all.scaling(scaled));
    });
}

#[test]
fn a_prepared_copy_refuses_pictures_whose_rows_lie_in_another_order() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let (from, to) = (
            buffer(&guest.vgem(), Y_INVERT),
            buffer(&guest.vkms(), Y_INVERT),
        );
        assert!(Blit::new(&vulkan, &from, &to, 1).is_ok());
        let upright = buffer(&guest.vkms(), BufferFlags::empty());
        let refused = Blit::new(&vulkan, &from, &upright, 1).unwrap_err();
        let (from, to) = (Y_INVERT, BufferFlags::empty());
        assert_eq!(refused, Error::Flags { from, to });
    });
}
