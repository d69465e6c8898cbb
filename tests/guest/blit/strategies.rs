use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::blit::{
    BlitDevice, BlitInfo, Blitter, Error, Options, Outcome, StagingSource, Strategy,
};
use primeshare::buffer::PlaneFd;
use primeshare::{Allocator, BufferDesc, Device, DmaBuf, Fourcc, Request};

use super::{
    EACH_WAY, PATIENCE, assert_shows, blit, blitter, blitter_by, forced, patient, read, settle,
    two_gpus, write,
};
use crate::support::{Held, buffer_on, in_guest};

fn pair(
    (source, destination): (&Device, &Device),
    (from, to): (Fourcc, Fourcc),
    (width, height): (u32, u32),
) -> (DmaBuf, DmaBuf) {
    let on = |device: &Device, fourcc| {
        let request = Request::new(width, height, fourcc);
        Dumb::new(device).allocate(&request).unwrap()
    };
    (on(source, from), on(destination, to))
}

/// The same rows further apart.
fn with_wide_rows(width: u32, height: u32) -> DmaBuf {
    let memory = Udmabuf::open().unwrap();
    let wide = Request::new(width + 100, height, Fourcc::XRGB8888);
    let wide = memory.allocate(&wide).unwrap();
    let plane = PlaneFd {
        fd: wide.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
        offset: 256,
        stride: wide.planes()[0].stride,
    };
    // One row less: the picture begins later in the memory.
    let layout = BufferDesc::linear(width, height - 1, Fourcc::XRGB8888);
    DmaBuf::new(layout, [plane]).unwrap()
}

#[test]
fn every_strategy_copies_bit_by_bit_however_far_rows_are_apart() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let formats = (Fourcc::XRGB8888, Fourcc::XRGB8888);
        let of_size = |size| pair((&vgem, &vkms), formats, size);
        let mut pairs = [(1, 1), (33, 17), (1000, 100), (256, 256)]
            .map(of_size)
            .to_vec();
        let request = Request::new(64, 32, Fourcc::XRGB8888);
        let tight = || Dumb::new(&vkms).allocate(&request).unwrap();
        pairs.push((with_wide_rows(64, 33), tight()));
        pairs.push((tight(), with_wide_rows(64, 33)));
        let mut seed = 0;
        for &strategy in Strategy::ALL {
            let blitter = blitter(guest, &vgem, &vkms, &forced(strategy));
            for (from, to) in &pairs {
                // Twice: the second time everything is there already.
                for _ in 0..2 {
                    seed += 1;
                    write(from, seed);
                    let what = format!("{strategy}, {}x{}", from.width(), from.height());
                    let done = blit(&blitter, from, to, &[], &[]);
                    done.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                    assert_shows(to, seed, &what);
                }
            }
        }
    });
}

#[test]
fn components_change_places_and_alpha_is_set_on_the_way() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let formats = [
            (Fourcc::ARGB8888, Fourcc::ABGR8888),
            (Fourcc::XBGR8888, Fourcc::XRGB8888),
            (Fourcc::ARGB8888, Fourcc::XRGB8888),
            (Fourcc::XRGB8888, Fourcc::ARGB8888),
        ];
        for (strategy, able) in [
            (Strategy::Pull, 3),
            (Strategy::Push, 3),
            (Strategy::Cpu, 4),
            (Strategy::HostMemory, 4),
        ] {
            let blitter = blitter(guest, &vgem, &vkms, &forced(strategy));
            for (from, to) in formats.into_iter().take(able) {
                let (source, destination) = pair((&vgem, &vkms), (from, to), (50, 20));
                write(&source, 3);
                blit(&blitter, &source, &destination, &[], &[])
                    .unwrap_or_else(|failure| panic!("{strategy}, {from} to {to}: {failure}"));
                // B, G, R, A in memory for ARGB; R, G, B, A for ABGR.
                let is_swapped = |fourcc| matches!(fourcc, Fourcc::ABGR8888 | Fourcc::XBGR8888);
                let swap = is_swapped(from) != is_swapped(to);
                for (sent, arrived) in read(&source).iter().zip(read(&destination)) {
                    for (sent, arrived) in sent.chunks(4).zip(arrived.chunks(4)) {
                        let mut wanted = [sent[0], sent[1], sent[2], sent[3]];
                        if swap {
                            wanted.swap(0, 2);
                        }
                        if to == Fourcc::ARGB8888 && from == Fourcc::XRGB8888 {
                            wanted[3] = 255;
                        }
                        let looked_at = match to {
                            Fourcc::XRGB8888 => 3,
                            _ => 4,
                        };
                        assert_eq!(arrived[..looked_at], wanted[..looked_at], "{strategy}");
                    }
                }
            }
        }
    });
}

#[test]
fn pictures_of_several_planes_arrive() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for fourcc in [Fourcc::NV12, Fourcc::YUV420] {
            let blitter = blitter(guest, &vgem, &vkms, &Options::default());
            let (from, to) = pair((&vgem, &vkms), (fourcc, fourcc), (64, 32));
            let verdict = settle(&blitter, &from, &to);
            println!("{verdict}");
            assert!(verdict.chosen.is_some());
        }
    });
}

#[test]
fn what_one_copy_writes_the_next_may_read_at_once() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let chain = [&vgem, &vkms, &vgem, &vkms].map(buffer_on);
        for strategy in EACH_WAY {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            settle(&blitter, &chain[0], &chain[1]);
            for seed in 50..60 {
                write(&chain[0], seed);
                let links = chain.windows(2);
                let copy = |pair: &[DmaBuf]| {
                    blitter
                        .blit(&pair[0], &pair[1], &BlitInfo::default())
                        .unwrap()
                };
                let fences: Vec<_> = links.map(copy).collect();
                for fence in fences {
                    fence.wait(PATIENCE).unwrap();
                }
                assert_shows(&chain[3], seed, strategy.name());
            }
        }
    });
}

#[test]
fn trials_leave_no_memory_and_no_import() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &forced(Strategy::Cpu));
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        settle(&blitter, &from, &to);
        let before = Held::settled();
        let all = super::blitter(guest, &vgem, &vkms, &patient());
        let info = BlitInfo::default();
        let verdict = all.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        assert!(verdict.settled, "{verdict}");
        let (held, after) = (before, Held::settled());
        assert_eq!(after.dma_bufs, held.dma_bufs, "{verdict}");
    });
}

#[test]
fn staging_memory_is_bounded_however_many_sizes_there_are() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for strategy in [
            Strategy::Staged(StagingSource::DmaHeap),
            Strategy::HostMemory,
        ] {
            let blitter = blitter(guest, &vgem, &vkms, &forced(strategy));
            let formats = (Fourcc::XRGB8888, Fourcc::XRGB8888);
            let copy = |size| {
                let (from, to) = pair((&vgem, &vkms), formats, size);
                blit(&blitter, &from, &to, &[], &[]).unwrap();
            };
            copy((64, 64));
            let verdict_is_there = Held::settled();
            (1..=40).for_each(|step| copy((64 + 16 * step, 64 + 8 * step)));
            let held = Held::settled();
            assert!(held.dma_bufs <= verdict_is_there.dma_bufs + 8, "{held:?}");
            assert!(held.fds <= verdict_is_there.fds + 40, "{held:?}");
            let kept = blitter.statistics().staging_bytes;
            assert!(kept > 0 && kept < 32 << 20, "{kept}");
        }
    });
}

#[test]
fn without_vulkan_the_processor_copies() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let sides = (BlitDevice::new(&vgem, None), BlitDevice::new(&vkms, None));
        let blitter = Blitter::new(sides.0, sides.1, &Options::default()).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        write(&from, 9);
        blit(&blitter, &from, &to, &[], &[]).unwrap();
        assert_shows(&to, 9, "by the processor");
        let verdict = blitter.verdict(&from, &to, &BlitInfo::default()).unwrap();
        assert_eq!(verdict.chosen, Some(Strategy::Cpu));
        assert!(
            verdict.to_string().contains("no Vulkan device"),
            "{verdict}"
        );
    });
}

#[test]
fn on_one_gpu_it_is_a_plain_copy() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let gpu = guest.physical();
        let [from, to] = [(); 2].map(|()| BlitDevice::new(&vgem, Some(&gpu)));
        let blitter = Blitter::new(from, to, &Options::default()).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vgem));
        let verdict = settle(&blitter, &from, &to);
        for &strategy in Strategy::ALL {
            let offered = !matches!(verdict.outcome(strategy), Some(Outcome::NotOffered(_)));
            let wanted = [
                Strategy::Pull,
                Strategy::PullBytes,
                Strategy::PushBytes,
                Strategy::Cpu,
                Strategy::HostMemory,
            ];
            assert_eq!(offered, wanted.contains(&strategy), "{verdict}");
        }
    });
}

#[test]
fn pictures_that_do_not_go_together_are_refused() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &Options::default());
        let small = buffer_on(&vgem);
        let same = (Fourcc::XRGB8888, Fourcc::XRGB8888);
        let (_, large) = pair((&vgem, &vkms), same, (65, 64));
        let refused =
            |from: &DmaBuf, to: &DmaBuf| blitter.blit(from, to, &BlitInfo::default()).unwrap_err();
        assert!(matches!(refused(&small, &large), Error::Size { .. }));
        assert_eq!(refused(&small, &small.clone()), Error::SameBuffer);
        let (_, other) = pair((&vgem, &vkms), (same.0, Fourcc::R8), (64, 64));
        let formats = Error::Format {
            from: Fourcc::XRGB8888,
            to: Fourcc::R8,
        };
        assert_eq!(refused(&small, &other), formats);
    });
}
