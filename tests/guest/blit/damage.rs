use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{Options, Rect, StagingSource, Strategy};
use primeshare::{DmaBuf, Fourcc, Request};

use super::{blit, blitter, forced, read, write};
use crate::support::{Guest, in_guest};

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

fn pictures(guest: &Guest) -> (DmaBuf, DmaBuf) {
    let request = Request::new(61, 43, Fourcc::XRGB8888);
    let on = |device| Dumb::new(device).allocate(&request).unwrap();
    (on(&guest.vgem()), on(&guest.vkms()))
}

#[test]
fn only_what_has_changed_is_copied_from_and_to_images_and_bytes() {
    in_guest(|guest| {
        let (source, destination) = pictures(guest);
        let changes = [
            rect(0, 0, 1, 1),
            rect(7, 5, 20, 9),
            rect(20, 10, 30, 2),
            rect(60, 42, 9, 9),
            rect(30, 20, 31, 1),
        ];
        for strategy in [
            Strategy::Pull,
            Strategy::PushBytes,
            Strategy::Staged(StagingSource::Udmabuf),
            Strategy::HostMemory,
            Strategy::Cpu,
        ] {
            let blitter = blitter(guest, &guest.vgem(), &guest.vkms(), &forced(strategy));
            write(&source, 1);
            write(&destination, 200);
            let (new, old) = (read(&source), read(&destination));
            blit(&blitter, &source, &destination, &changes, &[]).unwrap();
            let is = read(&destination);
            for (y, row) in is.iter().enumerate() {
                for (x, pixel) in row.chunks(4).enumerate() {
                    let inside = |r: &Rect| {
                        let (x, y) = (x as u32, y as u32);
                        x >= r.x && x < r.x + r.width && y >= r.y && y < r.y + r.height
                    };
                    let wanted = match changes.iter().any(inside) {
                        true => &new[y],
                        false => &old[y],
                    };
                    assert_eq!(pixel, &wanted[4 * x..4 * x + 4], "{strategy}: {x},{y}");
                }
            }
        }
    });
}

#[test]
fn damage_outside_of_the_picture_changes_nothing() {
    in_guest(|guest| {
        let (source, destination) = pictures(guest);
        let blitter = blitter(guest, &guest.vgem(), &guest.vkms(), &Options::default());
        write(&source, 1);
        write(&destination, 2);
        let old = read(&destination);
        let outside = [rect(61, 0, 5, 5), rect(u32::MAX, u32::MAX, u32::MAX, 1)];
        blit(&blitter, &source, &destination, &outside, &[]).unwrap();
        assert!(read(&destination) == old);
    });
}
