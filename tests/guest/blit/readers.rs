//! A reader that looks at a destination after its fence, and before the next copy into it is asked for, sees
//! one whole frame.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use primeshare::alloc::Dumb;
use primeshare::blit::{BlitInfo, Blitter, Completion, Damage, DamageBox, Options, Rect};
use primeshare::sync::{Access, BufferMapping};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use super::{EACH_WAY, PATIENCE, blitter_by, forced, read, two_gpus};
use crate::support::in_guest;

const WIDTH: u32 = 200;
const HEIGHT: u32 = 100;
const WHOLE: Rect = Rect {
    x: 0,
    y: 0,
    width: WIDTH,
    height: HEIGHT,
};

/// What a picture shows: a colour for each pixel.
type Picture = Vec<Vec<u8>>;

/// Paints rectangles in the buffer and in what it is known to show.
fn paint(buffer: &DmaBuf, shown: &mut Picture, rects: &[Rect], colour: u32) {
    let mut map = BufferMapping::new(buffer).unwrap();
    let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
    let mut plane = access.plane_mut(0).unwrap();
    for rect in rects {
        let pixels = colour.to_le_bytes().repeat(rect.width as usize);
        let left = 4 * rect.x as usize;
        for y in rect.y..rect.y + rect.height {
            let mut row = plane.row(y as usize).unwrap();
            row.write(left, &pixels).unwrap();
            shown[y as usize][left..left + pixels.len()].copy_from_slice(&pixels);
        }
    }
    access.end().unwrap();
}

/// A frame that was started, and what it is to show.
type Started = (Completion, Picture);

/// Looks at the destination after each fence, then lets it be used again.
fn look(destination: &DmaBuf, frames: &Receiver<Started>, looked: &Sender<()>) {
    for (fence, wanted) in frames {
        fence.wait(PATIENCE).unwrap();
        let seen = read(destination);
        for (y, (seen, wanted)) in seen.iter().zip(&wanted).enumerate() {
            for (x, (seen, wanted)) in seen.chunks(4).zip(wanted.chunks(4)).enumerate() {
                assert_eq!(seen, wanted, "the pixel at {x}, {y} is of another frame");
            }
        }
        looked.send(()).unwrap();
    }
}

/// Draws, copies and looks at so many frames, in turn in each pair of buffers: whole ones of one
/// colour, and changes here and there.
fn show(blitter: &Blitter, pairs: &[(DmaBuf, DmaBuf)], frames: u32) {
    thread::scope(|scope| {
        let each = pairs.iter().map(|(source, destination)| {
            let (start, frames) = mpsc::channel();
            let (look_at, looked) = mpsc::channel();
            scope.spawn(move || look(destination, &frames, &look_at));
            let shown = vec![vec![0; 4 * WIDTH as usize]; HEIGHT as usize];
            (source, destination, shown, start, looked)
        });
        let mut each: Vec<_> = each.collect();
        let turns = pairs.len() as u32;
        for number in 0..frames {
            let (source, destination, shown, start, looked) = &mut each[(number % turns) as usize];
            if number >= turns {
                looked
                    .recv()
                    .expect("the reader has seen what it waited for");
            }
            let corner = number % HEIGHT;
            let changes = [
                Rect {
                    x: corner,
                    y: corner / 2,
                    width: 1 + corner / 3,
                    height: 40,
                },
                Rect {
                    x: WIDTH - 1 - corner,
                    y: HEIGHT - 20,
                    width: 1 + corner,
                    height: 20,
                },
            ];
            // Every other one in its turn, and the first is whole.
            let damage = match number / turns % 2 {
                0 => &[][..],
                _ => &changes[..],
            };
            let painted = match damage {
                [] => &[WHOLE][..],
                some => some,
            };
            paint(source, shown, painted, 0xff00_0000 | (number * 0x01_0307));
            let boxes: Vec<DamageBox> = damage.iter().map(|rect| (*rect).into()).collect();
            let info = BlitInfo::default().damage(match damage {
                [] => Damage::Full,
                _ => Damage::Boxes(&boxes),
            });
            let fence = blitter.blit(source, destination, &info).unwrap();
            start.send((fence, shown.clone())).unwrap();
        }
        for (.., looked) in &each {
            looked
                .recv()
                .expect("the reader has seen what it waited for");
        }
    });
}

#[test]
fn readers_that_wait_see_whole_frames() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let request = Request::new(WIDTH, HEIGHT, Fourcc::XRGB8888);
        let on = |device| Dumb::new(device).allocate(&request).unwrap();
        let pairs = [(); 3].map(|()| (on(&vgem), on(&vkms)));
        // The blitter uses several strategies while trials go on, and then the fastest.
        let all = blitter_by(&gpus, &vgem, &vkms, &Options::default());
        show(&all, &pairs, 90);
        for strategy in EACH_WAY {
            let one = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            show(&one, &pairs, 18);
        }
    });
}
