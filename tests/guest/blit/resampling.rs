//! Pictures that are scaled, turned and converted on the way, by every strategy.

use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{
    BlitDevice, BlitInfo, Blitter, Damage, DamageBox, Error, Failure, Filter, Outcome, Rect,
    Scaling, ScalingError, StagingSource, Strategy, SyncFiles, Transform,
};
use primeshare::sync::{Access, BufferMapping};
use primeshare::vk::ash::vk;
use primeshare::vk::{self as shared, Call};
use primeshare::{Device, DmaBuf, Fourcc, Request};

use super::failures::{gpu, with_empty_shaders, without_pipelines};
use super::{PATIENCE, blitter_by, forced, patient, read, two_gpus};
use crate::support::{Guest, in_guest};

fn picture(device: &Device, (width, height): (u32, u32), fourcc: Fourcc) -> DmaBuf {
    let request = Request::new(width, height, fourcc);
    Dumb::new(device).allocate(&request).unwrap()
}

/// Fills every plane with rows of bytes.
pub(super) fn fill(buffer: &DmaBuf, byte: impl Fn(usize, usize, usize) -> u8) {
    let mut map = BufferMapping::new(buffer).unwrap();
    let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
    for plane in 0..buffer.planes().len() {
        let rows = access.plane_mut(plane).unwrap().into_rows();
        for (y, mut row) in rows.enumerate() {
            let bytes: Vec<u8> = (0..row.bytes()).map(|x| byte(plane, y, x)).collect();
            row.write(0, &bytes).unwrap();
        }
    }
    access.end().unwrap();
}

/// A pixel of four bytes, without what means nothing.
fn pixel(rows: &[Vec<u8>], x: usize, y: usize) -> [u8; 3] {
    let row = &rows[y];
    [row[4 * x], row[4 * x + 1], row[4 * x + 2]]
}

/// Four coloured quarters: top left, top right, bottom left, bottom right.
const QUARTERS: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];

fn quarters(buffer: &DmaBuf) {
    let (width, height) = (buffer.width() as usize, buffer.height() as usize);
    fill(buffer, |_, y, byte| {
        let quarter = usize::from(byte / 4 >= width / 2) + 2 * usize::from(y >= height / 2);
        match byte % 4 {
            3 => 255,
            component => QUARTERS[quarter][component],
        }
    });
}

/// A strategy of each kind.
const STRATEGIES: [Strategy; 5] = [
    Strategy::Cpu,
    Strategy::HostMemory,
    Strategy::PullBytes,
    Strategy::Push,
    Strategy::Staged(StagingSource::Udmabuf),
];
/// Some by which a GPU makes the pixels: from and to images, and from and to plain bytes.
const BY_GPU: [Strategy; 3] = [
    Strategy::Pull,
    Strategy::PushBytes,
    Strategy::Staged(StagingSource::Udmabuf),
];

/// Bytes that differ from place to place and, as half floats, are from 0 to 1.
fn fill_mixed(buffer: &DmaBuf, seed: usize) {
    let mask = match buffer.fourcc() {
        Fourcc::ABGR16161616F => 0x3b,
        _ => 0xff,
    };
    fill(buffer, |plane, y, byte| {
        let mixed = (byte + 64 * y + 4096 * plane + seed + 1).wrapping_mul(0x9e37_79b1);
        (mixed >> 13 ^ mixed >> 24) as u8 & mask
    });
}

/// Bytes of a word of the format's numbers, and the first bit of each number with how many it has.
fn numbers(fourcc: Fourcc) -> (usize, &'static [(u32, u32)]) {
    match fourcc {
        Fourcc::XRGB8888 | Fourcc::XBGR8888 => (4, &[(0, 8), (8, 8), (16, 8)]),
        Fourcc::XRGB2101010 => (4, &[(0, 10), (10, 10), (20, 10)]),
        Fourcc::RGB565 => (2, &[(0, 5), (5, 6), (11, 5)]),
        Fourcc::P010 => (2, &[(6, 10)]),
        Fourcc::ABGR16161616F => (2, &[(0, 16)]),
        _ => (1, &[(0, 8)]),
    }
}

/// Fails unless all numbers are the same, or `steps` off at most.
fn assert_near(fourcc: Fourcc, made: &[Vec<u8>], wanted: &[Vec<u8>], steps: u32, what: &str) {
    let (bytes, parts) = numbers(fourcc);
    let word = |bytes: &[u8]| {
        let bytes = bytes.iter().rev();
        bytes.fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
    };
    for (y, (made, wanted)) in made.iter().zip(wanted).enumerate() {
        let words = made.chunks(bytes).zip(wanted.chunks(bytes));
        for (x, (made, wanted)) in words.enumerate() {
            for &(bit, bits) in parts {
                let number = |bytes| word(bytes) >> bit & ((1 << bits) - 1);
                let (made, wanted) = (number(made), number(wanted));
                let off = made.abs_diff(wanted);
                assert!(
                    off <= steps,
                    "{what}: row {y}, word {x}, bit {bit} is {made}, not {wanted}"
                );
            }
        }
    }
}

/// Whether lavapipe has images of what the strategy has as images. Not of three bytes a pixel; Mesa 25.0's
/// not of YCbCr either.
fn has_images(guest: &Guest, strategy: Strategy, buffers: [&DmaBuf; 2]) -> bool {
    let is_rgb = |fourcc| {
        matches!(
            fourcc,
            Fourcc::XRGB8888 | Fourcc::ARGB8888 | Fourcc::XBGR8888
        )
    };
    let has = |buffer: &DmaBuf| match buffer.fourcc() {
        Fourcc::RGB888 => false,
        fourcc => is_rgb(fourcc) || !guest.is_compat(),
    };
    !matches!(strategy, Strategy::Pull | Strategy::Push) || buffers.into_iter().all(has)
}

fn make(blitter: &Blitter, from: &DmaBuf, to: &DmaBuf, info: &BlitInfo<'_>) -> Result<(), Failure> {
    blitter.blit(from, to, info).unwrap().wait(PATIENCE)
}

#[test]
fn pictures_are_scaled_and_turned_by_every_strategy() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let from = picture(&vgem, (32, 16), Fourcc::XRGB8888);
        let to = picture(&vkms, (100, 80), Fourcc::XRGB8888);
        quarters(&from);
        // Which quarter is seen where, top left to bottom right.
        let turned = |transform| match transform {
            Transform::Normal => [0, 1, 2, 3],
            Transform::Rotate90 => [1, 3, 0, 2],
            Transform::Rotate180 => [3, 2, 1, 0],
            Transform::Rotate270 => [2, 0, 3, 1],
            Transform::Flipped => [1, 0, 3, 2],
            Transform::Flipped90 => [0, 2, 1, 3],
            Transform::Flipped180 => [2, 3, 0, 1],
            Transform::Flipped270 => [3, 1, 2, 0],
        };
        for strategy in STRATEGIES {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            for transform in Transform::ALL {
                for filter in [Filter::Nearest, Filter::Linear] {
                    let what = format!("{strategy}, {transform:?}, {filter:?}");
                    fill(&to, |_, _, _| 7);
                    let destination = Rect {
                        x: 10,
                        y: 20,
                        width: 80,
                        height: 40,
                    };
                    let info = BlitInfo::default().scaling(Scaling {
                        source: Rect::whole(32, 16),
                        destination,
                        transform,
                        filter,
                    });
                    let copy = blitter.blit(&from, &to, &info).unwrap();
                    copy.wait(PATIENCE).unwrap_or_else(|failure| {
                        let verdict = blitter.settle_wait(&from, &to, &info, PATIENCE);
                        panic!("{what}: {failure}\n{verdict:?}")
                    });
                    let rows = read(&to);
                    let places = [(15, 25), (85, 25), (15, 55), (85, 55)];
                    for (place, quarter) in places.into_iter().zip(turned(transform)) {
                        let is = pixel(&rows, place.0, place.1);
                        assert_eq!(is, QUARTERS[quarter], "{what} at {place:?}");
                    }
                    for outside in [(9, 30), (90, 30), (50, 19), (50, 60)] {
                        assert_eq!(pixel(&rows, outside.0, outside.1), [7; 3], "{what}");
                    }
                }
            }
        }
    });
}

#[test]
fn gpus_convert_formats_as_the_cpu_does() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let pairs = [
            (Fourcc::XRGB8888, Fourcc::ARGB8888),
            (Fourcc::ARGB8888, Fourcc::XBGR8888),
            (Fourcc::XBGR8888, Fourcc::XRGB2101010),
            (Fourcc::XRGB2101010, Fourcc::RGB565),
            (Fourcc::RGB565, Fourcc::RGB888),
            (Fourcc::RGB888, Fourcc::NV12),
            (Fourcc::NV12, Fourcc::XRGB8888),
            (Fourcc::P010, Fourcc::ABGR16161616F),
            (Fourcc::ABGR16161616F, Fourcc::YUYV),
            (Fourcc::YUYV, Fourcc::P010),
        ];
        let by_cpu = blitter_by(&gpus, &vgem, &vkms, &forced(Strategy::Cpu));
        let info = BlitInfo::default();
        let mut buffers = Vec::new();
        for (from, to) in pairs {
            let from = picture(&vgem, (70, 34), from);
            let to = picture(&vkms, (70, 34), to);
            fill_mixed(&from, 0);
            make(&by_cpu, &from, &to, &info).unwrap();
            let wanted = read(&to);
            buffers.push((from, to, wanted));
        }
        drop(by_cpu);
        for strategy in BY_GPU {
            // Of two steps the GPUs are given both at once.
            let options = forced(strategy).sync_files(SyncFiles::Always);
            let blitter = blitter_by(&gpus, &vgem, &vkms, &options);
            for (from, to, wanted) in &buffers {
                let what = format!("{strategy}, {} to {}", from.fourcc(), to.fourcc());
                if !has_images(guest, strategy, [from, to]) {
                    continue;
                }
                fill(to, |_, _, _| 0xa5);
                make(&blitter, from, to, &info)
                    .unwrap_or_else(|failure| panic!("{what}: {failure}"));
                assert_near(to.fourcc(), &read(to), wanted, 1, &what);
            }
        }
    });
}

#[test]
fn gpus_turn_scale_and_crop_as_the_cpu_does() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let from = picture(&vgem, (40, 30), Fourcc::XRGB8888);
        fill_mixed(&from, 0);
        let rect = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        let info = |transform, filter| {
            BlitInfo::default().scaling(Scaling {
                source: rect(3, 5, 33, 21),
                destination: rect(8, 4, 40, 26),
                transform,
                filter,
            })
        };
        let all = Transform::ALL.into_iter().flat_map(|transform| {
            [Filter::Nearest, Filter::Linear].map(|filter| (transform, filter))
        });
        let by_cpu = blitter_by(&gpus, &vgem, &vkms, &forced(Strategy::Cpu));
        let formats = [Fourcc::ARGB8888, Fourcc::NV12, Fourcc::XRGB8888];
        let destinations = formats.map(|fourcc| {
            let to = picture(&vkms, (60, 50), fourcc);
            let by_cpu = all.clone().map(|(transform, filter)| {
                fill(&to, |_, _, _| 7);
                make(&by_cpu, &from, &to, &info(transform, filter)).unwrap();
                read(&to)
            });
            let wanted: Vec<_> = by_cpu.collect();
            (to, wanted)
        });
        drop(by_cpu);
        for strategy in BY_GPU {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            for (to, wanted) in &destinations {
                if !has_images(guest, strategy, [&from, to]) {
                    continue;
                }
                let fourcc = to.fourcc();
                for ((transform, filter), wanted) in all.clone().zip(wanted) {
                    let what = format!("{strategy}, {fourcc}, {transform:?}, {filter:?}");
                    fill(to, |_, _, _| 7);
                    make(&blitter, &from, to, &info(transform, filter))
                        .unwrap_or_else(|failure| panic!("{what}: {failure}"));
                    assert_near(fourcc, &read(to), wanted, 1, &what);
                }
            }
        }
    });
}

#[test]
fn trials_look_at_pictures_that_are_scaled_turned_and_converted() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let from = picture(&vgem, (64, 32), Fourcc::XRGB8888);
        let to = picture(&vkms, (32, 64), Fourcc::NV12);
        let info = BlitInfo::default().scaling(Scaling {
            transform: Transform::Rotate270,
            ..Scaling::whole((64, 32), (32, 64))
        });
        fill_mixed(&from, 0);
        let options = patient().strategies(STRATEGIES.iter().copied());
        let blitter = blitter_by(&gpus, &vgem, &vkms, &options);
        make(&blitter, &from, &to, &info).unwrap();
        let verdict = blitter.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        for strategy in STRATEGIES {
            if has_images(guest, strategy, [&from, &to]) {
                let outcome = verdict.outcome(strategy);
                let is_right = matches!(outcome, Some(Outcome::Works { verified: true, .. }));
                assert!(is_right, "{strategy}\n{verdict}");
            }
        }
    });
}

#[test]
fn a_shader_that_is_not_made_or_makes_nothing_is_a_reason_and_costs_no_frame() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let from = picture(&vgem, (64, 32), Fourcc::NV12);
        let to = picture(&vkms, (64, 32), Fourcc::XRGB8888);
        let info = BlitInfo::default();
        fill(&from, |_, _, _| 128);
        let options = patient().strategies([Strategy::PullBytes, Strategy::Cpu]);
        let outcome = |lookup| {
            let gpu = gpu(guest, lookup);
            let sides = (
                BlitDevice::new(&vgem, None),
                BlitDevice::new(&vkms, Some(&gpu)),
            );
            let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
            let settled = blitter.settle_wait(&from, &to, &info, PATIENCE).unwrap();
            fill(&to, |_, _, _| 0);
            make(&blitter, &from, &to, &info).unwrap();
            // Grey.
            assert_eq!(pixel(&read(&to), 63, 31), [130; 3]);
            assert_eq!(settled.chosen, Some(Strategy::Cpu), "{settled}");
            settled.outcome(Strategy::PullBytes).cloned().unwrap()
        };
        let not_made = outcome(without_pipelines as vk::PFN_vkGetDeviceProcAddr);
        let call = Call::CreateComputePipelines;
        assert!(
            matches!(&not_made, Outcome::Failed(Failure::Vulkan(shared::Error::Call { call: of, .. })) if *of == call),
            "{not_made:?}"
        );
        let empty = outcome(with_empty_shaders);
        assert!(
            matches!(empty, Outcome::Failed(Failure::Unlike { .. })),
            "{empty:?}"
        );
    });
}

#[test]
fn gpus_make_the_part_that_changed_and_nothing_else() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let part = [
            DamageBox {
                x1: 9,
                y1: 5,
                x2: 17,
                y2: 11,
            },
            DamageBox {
                x1: 30,
                y1: 20,
                x2: 40,
                y2: 30,
            },
        ];
        let scaling = Some(Scaling {
            transform: Transform::Flipped270,
            ..Scaling::whole((40, 30), (60, 80))
        });
        let whole = BlitInfo::default().scaling(scaling);
        let partly = whole.damage(Damage::Boxes(&part));
        for strategy in BY_GPU {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            for (from, to) in [
                (Fourcc::XRGB8888, Fourcc::RGB888),
                (Fourcc::NV12, Fourcc::ARGB8888),
                (Fourcc::XRGB8888, Fourcc::NV12),
            ] {
                let from = picture(&vgem, (40, 30), from);
                let to = picture(&vkms, (60, 80), to);
                if !has_images(guest, strategy, [&from, &to]) {
                    continue;
                }
                let what = format!("{strategy}, {} to {}", from.fourcc(), to.fourcc());
                fill_mixed(&from, 0);
                let copied = |info: &BlitInfo<'_>| make(&blitter, &from, &to, info).unwrap();
                copied(&whole);
                let wanted = read(&to);
                fill(&to, |_, _, _| 0xa5);
                copied(&partly);
                let made = read(&to);
                let (mut same, mut other) = (0, 0);
                for (made, wanted) in made.iter().flatten().zip(wanted.iter().flatten()) {
                    assert!(made == wanted || *made == 0xa5, "{what}: {made} {wanted}");
                    same += usize::from(made == wanted);
                    other += usize::from(*made == 0xa5);
                }
                assert!(same > 100 && other > same, "{what}: {same} {other}");
            }
        }
    });
}

#[test]
fn a_shared_format_is_not_needed() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &patient());
        let info = BlitInfo::default();
        // Ten bits to eight: 1023, 512 and 256 of 1023 are 255, 128 and 64 of 255.
        let ten = picture(&vgem, (33, 9), Fourcc::XRGB2101010);
        let word = (1023_u32 << 20 | 512 << 10 | 256).to_le_bytes();
        fill(&ten, |_, _, byte| word[byte % 4]);
        let eight = picture(&vkms, (33, 9), Fourcc::XRGB8888);
        let copy = |from: &DmaBuf, to: &DmaBuf| {
            let copy = blitter.blit(from, to, &info).unwrap();
            copy.wait(PATIENCE).unwrap();
            read(to)
        };
        for round in ["the first frame", "settled"] {
            let rows = copy(&ten, &eight);
            for x in 0..33 {
                assert_eq!(pixel(&rows, x, 8), [64, 128, 255], "{round}");
            }
            blitter.settle_wait(&ten, &eight, &info, PATIENCE).unwrap();
        }
        // White of narrow range is 235, and grey has no colour differences.
        let rgb = picture(&vgem, (64, 32), Fourcc::XRGB8888);
        let video = picture(&vkms, (64, 32), Fourcc::NV12);
        fill(&rgb, |_, _, _| 255);
        let rows = copy(&rgb, &video);
        assert!(
            rows[..32]
                .iter()
                .all(|row| row.iter().all(|luma| *luma == 235))
        );
        assert!(
            rows[32..]
                .iter()
                .all(|row| row.iter().all(|chroma| *chroma == 128))
        );
        // And back: BT.709's pure red in narrow range is Y 63, Cb 102, Cr 240.
        let video = picture(&vgem, (64, 32), Fourcc::NV12);
        fill(&video, |plane, _, byte| match (plane, byte % 2) {
            (0, _) => 63,
            (_, 0) => 102,
            _ => 240,
        });
        let rgb = picture(&vkms, (64, 32), Fourcc::ARGB8888);
        let rows = copy(&video, &rgb);
        for (x, y) in [(0, 0), (31, 15), (63, 31)] {
            let [blue, green, red] = pixel(&rows, x, y);
            assert!(
                red >= 254 && green <= 1 && blue <= 1,
                "{red} {green} {blue}"
            );
            assert_eq!(rows[y][4 * x + 3], 255, "opaque");
        }
    });
}

#[test]
fn a_part_that_changed_is_shown_where_it_belongs() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let from = picture(&vgem, (32, 32), Fourcc::XRGB8888);
        let to = picture(&vkms, (64, 64), Fourcc::XRGB8888);
        for strategy in STRATEGIES {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            fill(&from, |_, _, _| 10);
            let scaling = Some(Scaling::whole((32, 32), (64, 64)));
            let all = BlitInfo::default().scaling(scaling);
            let wait = |info: &BlitInfo<'_>| {
                let copy = blitter.blit(&from, &to, info).unwrap();
                copy.wait(PATIENCE).unwrap();
            };
            wait(&all);
            let changed = |x: usize, y: usize| (8..12).contains(&x) && (4..8).contains(&y);
            fill(
                &from,
                |_, y, byte| if changed(byte / 4, y) { 200 } else { 10 },
            );
            let part = [DamageBox {
                x1: 8,
                y1: 4,
                x2: 12,
                y2: 8,
            }];
            wait(
                &BlitInfo::default()
                    .damage(Damage::Boxes(&part))
                    .scaling(scaling),
            );
            let rows = read(&to);
            assert_eq!(pixel(&rows, 19, 11), [200; 3], "{strategy}");
            assert_eq!(pixel(&rows, 40, 40), [10; 3], "{strategy}");
        }
    });
}

#[test]
fn boxes_that_do_not_fit_are_refused() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &patient());
        let from = picture(&vgem, (32, 32), Fourcc::XRGB8888);
        let to = picture(&vkms, (64, 64), Fourcc::XRGB8888);
        let refused = |scaling| {
            let info = BlitInfo::default().scaling(scaling);
            blitter.blit(&from, &to, &info).unwrap_err()
        };
        let outside = refused(Scaling::whole((33, 32), (64, 64)));
        assert!(
            matches!(outside, Error::Scaling(ScalingError::Outside { .. })),
            "{outside}"
        );
        let empty = refused(Scaling::whole((32, 32), (64, 0)));
        assert!(
            matches!(empty, Error::Scaling(ScalingError::Empty { .. })),
            "{empty}"
        );
    });
}
