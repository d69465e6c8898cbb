//! Copies that are submitted to a GPU before their fences are signalled, as on all real GPUs. The imitated
//! GPUs of [`Hardware`] execute them once the fences are.

use std::os::fd::AsFd;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use primeshare::blit::{
    BlitDevice, BlitInfo, Blitter, Completion, Error, Failure, Options, StagingSource, Strategy,
    Stream, SyncFiles,
};
use primeshare::sync::{Access, BufferMapping, Stage, Status, SyncFile, Syncobj, implicit};
use primeshare::{Device, DmaBuf, vk};

use super::ring::{Hardware, pending};
use super::{PATIENCE, after_fences, assert_shows, blit, draw, forced, patient, settle, write};
use crate::fences::busy::Busy;
use crate::fences::sw_sync;
use crate::support::{Held, buffer_on, can_run, give_back_memory, in_guest};

/// By one GPU, and by two.
const GPUS: [Strategy; 2] = [Strategy::Pull, Strategy::Staged(StagingSource::DmaHeap)];

/// A blitter from one device to another, by GPUs that execute later.
fn blitter(hardware: &Hardware<'_>, devices: [&Device; 2], options: &Options) -> Blitter {
    give_back_memory();
    let is_staged = |strategy: &Strategy| matches!(strategy, Strategy::Staged(_));
    let (gpus, sync_files) = match options.strategies.iter().any(is_staged) {
        true => {
            let gpus = [Some(hardware.software()), Some(hardware.software())];
            (gpus, SyncFiles::Always)
        }
        false => ([None, Some(hardware.gpu())], SyncFiles::Hardware),
    };
    let options = options.clone().sync_files(sync_files);
    let source = BlitDevice::new(devices[0], gpus[0].as_ref());
    let destination = BlitDevice::new(devices[1], gpus[1].as_ref());
    Blitter::new(source, destination, &options).unwrap()
}

/// As [`blitter`], settled, with buffers that it has copied between.
fn settled(
    hardware: &Hardware<'_>,
    devices: [&Device; 2],
    options: &Options,
) -> (Blitter, [DmaBuf; 2]) {
    let blitter = blitter(hardware, devices, options);
    let buffers = devices.map(buffer_on);
    settle(&blitter, &buffers[0], &buffers[1]);
    (blitter, buffers)
}

/// As [`settled`], with a blitter that has two lanes, so that two streams can be in different ones.
fn settled_in_two_lanes(
    hardware: &Hardware<'_>,
    devices: [&Device; 2],
    options: &Options,
) -> (Blitter, [DmaBuf; 2]) {
    let (blitter, buffers) = settled(hardware, devices, options);
    let client = Client::new(&blitter, devices, 1);
    let copy = client.start(&blitter);
    frame(&blitter, &buffers, 2, "in another lane");
    assert!(!copy.is_done(), "in the first lane");
    client.signal();
    copy.wait(PATIENCE).unwrap();
    (blitter, buffers)
}

/// A stream with buffers of its own, and a fence that its first copy waits for.
struct Client {
    stream: Stream,
    buffers: [DmaBuf; 2],
    fence: (SyncFile, Busy),
}

impl Client {
    /// With different pictures in its buffers.
    fn new(blitter: &Blitter, devices: [&Device; 2], seed: u8) -> Self {
        let buffers = devices.map(buffer_on);
        write(&buffers[0], seed);
        write(&buffers[1], seed ^ 0xff);
        let vgem = devices.into_iter().find(|device| device.driver() == "vgem");
        Self {
            stream: blitter.stream(),
            buffers,
            fence: pending(vgem),
        }
    }

    /// A copy behind the fence.
    fn start(&self, blitter: &Blitter) -> Completion {
        let after = [self.fence.0.as_fd()];
        let info = after_fences(&after).stream(self.stream);
        blitter
            .blit(&self.buffers[0], &self.buffers[1], &info)
            .unwrap()
    }

    fn signal(self) -> [DmaBuf; 2] {
        self.fence.1.end();
        self.buffers
    }
}

/// The bytes in the memory, read without waiting for anybody.
fn peek(buffer: &DmaBuf) -> Vec<u8> {
    let object = &buffer.objects()[0];
    let length = usize::try_from(object.size()).unwrap();
    let size = length.try_into().unwrap();
    let (read, shared) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping, whose bytes are copied out before it goes.
    unsafe {
        let map = mmap(None, size, read, shared, object, 0).unwrap();
        let bytes = std::slice::from_raw_parts(map.as_ptr().cast::<u8>(), length).to_vec();
        munmap(map, length).unwrap();
        bytes
    }
}

/// Copies a picture in a stream of its own, and looks at it.
fn frame(blitter: &Blitter, [source, destination]: &[DmaBuf; 2], seed: u8, what: &str) {
    write(source, seed);
    blit(blitter, source, destination, &[], &[]).unwrap();
    assert_shows(destination, seed, what);
}

fn is_pending(file: &SyncFile) -> bool {
    file.status() == Ok(Status::Pending)
}

#[test]
fn a_copy_is_with_the_gpu_before_its_fence_is_signalled_and_made_after() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        for (strategy, steps) in GPUS.into_iter().zip(1..) {
            let (blitter, buffers) = settled(&hardware, [&vgem, &vkms], &forced(strategy));
            let [source, destination] = &buffers;
            let before = peek(destination);
            // Begun before there is a fence, which it would wait for.
            let mut map = BufferMapping::new(source).unwrap();
            let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
            let writer = Busy::new(&vgem, source, Access::Write);
            let info = BlitInfo::default();
            let copy = blitter.blit(source, destination, &info).unwrap();
            assert_eq!(hardware.on_rings(), steps, "{strategy}: with the GPU");
            let file = copy.sync_file().expect("a sync file at once");
            assert!(is_pending(file), "{strategy}");
            let early = copy.wait(Duration::from_millis(20)).unwrap_err();
            assert!(matches!(early, Failure::TimedOut(_)), "{strategy}: {early}");
            assert!(is_pending(file), "{strategy}");
            assert!(peek(destination) == before, "{strategy}: copied too early");
            // The picture is finished only now.
            draw(source, &mut access, 103);
            access.end().unwrap();
            writer.end();
            file.wait(PATIENCE).unwrap();
            assert_shows(destination, 103, strategy.name());
            copy.wait(PATIENCE).unwrap();
        }
    });
}

#[test]
fn the_sync_file_of_a_pending_copy_is_in_the_dma_bufs() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        for strategy in GPUS {
            let devices = [&vgem, &vkms];
            let (blitter, _) = settled(&hardware, devices, &forced(strategy));
            let client = Client::new(&blitter, devices, 7);
            let copy = client.start(&blitter);
            let waits = |buffer: &DmaBuf, access| {
                let file = implicit::export_sync_file(buffer, access).unwrap();
                is_pending(&file)
            };
            let [source, destination] = &client.buffers;
            assert!(!waits(source, Access::Read), "{strategy}: others read");
            assert!(waits(source, Access::Write), "{strategy}: nobody writes");
            assert!(waits(destination, Access::Read), "{strategy}: nobody reads");
            let [source, destination] = client.signal();
            copy.wait(PATIENCE).unwrap();
            assert!(!waits(&source, Access::Write), "{strategy}");
            assert!(!waits(&destination, Access::Write), "{strategy}");
            assert_shows(&destination, 7, strategy.name());
        }
    });
}

#[test]
fn a_copy_that_waits_for_nothing_stays_behind_one_of_its_stream_that_does() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        for strategy in GPUS {
            let devices = [&vgem, &vkms];
            let (blitter, _) = settled_in_two_lanes(&hardware, devices, &forced(strategy));
            let client = Client::new(&blitter, devices, 7);
            let others = devices.map(buffer_on);
            write(&others[0], 8);
            let before = peek(&others[1]);
            let first = client.start(&blitter);
            // Of another source into another destination, and into the first one's.
            let behind = BlitInfo::default().stream(client.stream);
            let second = blitter.blit(&others[0], &others[1], &behind).unwrap();
            let third = blitter.blit(&others[0], &client.buffers[1], &behind);
            let third = third.unwrap();
            let early = third.wait(Duration::from_millis(50)).unwrap_err();
            assert!(matches!(early, Failure::TimedOut(_)), "{strategy}: {early}");
            assert!(!first.is_done() && !second.is_done(), "{strategy}");
            assert!(peek(&others[1]) == before, "{strategy}: copied too early");
            let [_, destination] = client.signal();
            second.wait(PATIENCE).unwrap();
            assert!(first.is_done(), "{strategy}");
            assert_shows(&others[1], 8, "the second");
            third.wait(PATIENCE).unwrap();
            assert_shows(&destination, 8, "the third");
        }
    });
}

/// How long a frame takes, in milliseconds: the middle one of many.
fn median(mut frames: Vec<Duration>) -> f64 {
    frames.sort();
    frames[frames.len() / 2].as_secs_f64() * 1e3
}

#[test]
fn a_stream_whose_fence_never_comes_leaves_another_lane_to_others() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        for strategy in GPUS {
            let (alone, one) = settled(&hardware, devices, &forced(strategy));
            let (beside, other) = settled(&hardware, devices, &forced(strategy));
            let client = Client::new(&beside, devices, 7);
            let never = client.start(&beside);
            let stuck = hardware.on_rings();
            assert!(stuck > 0, "{strategy}: with the GPU");
            // Another lane is made.
            frame(&beside, &other, 1, strategy.name());
            let mut took = [Vec::new(), Vec::new()];
            for seed in 10..40 {
                for (at, (blitter, buffers)) in
                    [(&alone, &one), (&beside, &other)].into_iter().enumerate()
                {
                    write(&buffers[0], seed);
                    let start = Instant::now();
                    blit(blitter, &buffers[0], &buffers[1], &[], &[]).unwrap();
                    took[at].push(start.elapsed());
                    assert_shows(&buffers[1], seed, strategy.name());
                }
            }
            let [alone, beside] = took.map(median);
            let ratio = beside / alone;
            println!("{strategy}: {alone:.2} ms alone, {beside:.2} ms beside: {ratio:.2}");
            assert!(!never.is_done() && never.sync_file().is_some_and(is_pending));
            let [_, destination] = client.signal();
            never.wait(PATIENCE).unwrap();
            assert_shows(&destination, 7, "let go");
        }
    });
}

#[test]
fn copies_of_one_stream_arrive_in_their_order_beside_one_that_is_stuck() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        for strategy in GPUS {
            let options = forced(strategy).in_flight(4);
            let (blitter, [_, destination]) = settled(&hardware, devices, &options);
            let client = Client::new(&blitter, devices, 7);
            let never = client.start(&blitter);
            let sources = [(); 3].map(|()| buffer_on(&vgem));
            for round in 0..10 {
                for (index, source) in sources.iter().enumerate() {
                    write(source, round * 3 + index as u8);
                }
                let start = |source| {
                    let info = BlitInfo::default();
                    blitter.blit(source, &destination, &info).unwrap()
                };
                let copies = sources.each_ref().map(start);
                copies[2].wait(PATIENCE).unwrap();
                assert!(copies.iter().all(Completion::is_done));
                assert_shows(&destination, round * 3 + 2, "the last of them");
            }
            assert!(!never.is_done());
            client.signal();
            never.wait(PATIENCE).unwrap();
        }
    });
}

#[test]
fn with_more_stuck_streams_than_lanes_the_others_get_their_pictures() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        for strategy in GPUS {
            let options = forced(strategy).in_flight(8);
            let (blitter, free) = settled(&hardware, devices, &options);
            let clients = [1, 2, 3, 4, 5].map(|seed| Client::new(&blitter, devices, seed));
            let mut copies = Vec::new();
            for (seed, client) in clients.iter().enumerate() {
                copies.push(client.start(&blitter));
                for round in 0..3 {
                    frame(&blitter, &free, 10 * seed as u8 + round, "beside the stuck");
                }
            }
            // One lane is left.
            let with_gpu = copies.iter().filter(|copy| copy.sync_file().is_some());
            assert_eq!(with_gpu.count(), 2, "{strategy}");
            assert!(copies.iter().all(|copy| !copy.is_done()), "{strategy}");
            let buffers = clients.map(Client::signal);
            for ((copy, buffers), seed) in copies.iter().zip(&buffers).zip(1..) {
                copy.wait(PATIENCE).unwrap();
                assert_shows(&buffers[1], seed, strategy.name());
            }
        }
    });
}

#[test]
fn what_follows_a_copy_behind_a_stuck_one_holds_back_nobody_else() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        let options = forced(Strategy::Pull).in_flight(8);
        let (blitter, free) = settled(&hardware, devices, &options);
        let client = Client::new(&blitter, devices, 7);
        let never = client.start(&blitter);
        let shared = devices.map(buffer_on);
        write(&shared[0], 8);
        let behind = BlitInfo::default().stream(client.stream);
        let second = blitter.blit(&shared[0], &shared[1], &behind).unwrap();
        // Of another stream, and into the second one's destination.
        let other = BlitInfo::default().stream(blitter.stream());
        let third = blitter.blit(&free[0], &shared[1], &other).unwrap();
        for seed in 20..25 {
            let buffers = devices.map(buffer_on);
            frame(&blitter, &buffers, seed, "beside them");
        }
        assert!(!never.is_done() && !second.is_done() && !third.is_done());
        client.signal();
        for copy in [never, second, third] {
            copy.wait(PATIENCE).unwrap();
        }
    });
}

#[test]
fn a_fence_that_never_comes_does_not_hold_up_the_queue_of_the_program() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let device = vk::Device::new(&hardware.gpu()).unwrap();
        let blitter = Blitter::new(
            BlitDevice::new(&vgem, None),
            BlitDevice::with_host(&vkms, &device),
            &forced(Strategy::Pull),
        );
        let blitter = blitter.unwrap();
        let devices = [&vgem, &vkms];
        let free = devices.map(buffer_on);
        settle_on(&blitter, &free);
        let client = Client::new(&blitter, devices, 7);
        let never = client.start(&blitter);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(hardware.on_rings(), 0, "all of the program's would wait");
        for seed in 20..25 {
            frame(&blitter, &free, seed, "beside it");
        }
        assert!(!never.is_done());
        let [_, destination] = client.signal();
        never.wait(PATIENCE).unwrap();
        assert!(never.sync_file().is_some(), "by the program's GPU");
        assert_shows(&destination, 7, "let go");
    });
}

/// As [`settle`], for options whose strategies are not used before they were tried.
fn settle_on(blitter: &Blitter, [source, destination]: &[DmaBuf; 2]) {
    let info = BlitInfo::default();
    let verdict = blitter.settle_wait(source, destination, &info, PATIENCE);
    assert!(verdict.unwrap().settled);
    settle(blitter, source, destination);
}

#[test]
fn a_point_is_signalled_when_the_pending_copy_is_done() {
    in_guest(|guest| {
        if !can_run(guest.in_qemu(), "a device with timelines of syncobjs") {
            return;
        }
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let syncobj = Syncobj::new(&guest.nth("virtio_gpu", 0)).unwrap();
        let (blitter, _) = settled(&hardware, [&vgem, &vkms], &forced(Strategy::Pull));
        let client = Client::new(&blitter, [&vgem, &vkms], 7);
        let after = [client.fence.0.as_fd()];
        let points = [(&syncobj, 3)];
        let info = after_fences(&after).signal(&points);
        let [source, destination] = &client.buffers;
        let copy = blitter.blit(source, destination, &info).unwrap();
        let has_come = |stage| syncobj.has_come(3, stage).unwrap();
        assert!(has_come(Stage::Submitted), "others can wait for it");
        assert!(!has_come(Stage::Signalled));
        hardware.hold();
        client.signal();
        thread::sleep(Duration::from_millis(20));
        assert!(!has_come(Stage::Signalled), "the fence is not the copy");
        hardware.release();
        syncobj.wait(3, Stage::Signalled, PATIENCE).unwrap();
        copy.wait(PATIENCE).unwrap();
    });
}

#[test]
fn a_device_that_is_lost_with_pending_copies_loses_no_frame() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        let staged = [StagingSource::DmaHeap, StagingSource::Destination];
        for strategies in [
            [Strategy::Pull, Strategy::PullBytes],
            staged.map(Strategy::Staged),
        ] {
            let options = patient()
                .in_flight(8)
                .strategies(strategies.iter().copied());
            // Somebody else's, with something to do just then.
            let others = vk::Device::new(&hardware.gpu()).unwrap();
            let (blitter, free) = settled(&hardware, devices, &options);
            let client = Client::new(&blitter, devices, 7);
            let first = client.start(&blitter);
            assert!(first.sync_file().is_some(), "with the GPU");
            let behind = devices.map(buffer_on);
            write(&behind[0], 8);
            let info = BlitInfo::default().stream(client.stream);
            let second = blitter.blit(&behind[0], &behind[1], &info).unwrap();
            let before = [&client.buffers[1], &behind[1]].map(peek);
            assert!(hardware.on_rings() > 0, "{options:?}");
            assert!(hardware.lose_busy() > 0);
            // The copies of the lost device wait for their fences again. No other copy does.
            for seed in 20..25 {
                frame(&blitter, &free, seed, "beside the lost");
            }
            assert!(!first.is_done() && !second.is_done());
            let now = [&client.buffers[1], &behind[1]].map(peek);
            assert!(now == before, "made too early");
            let [_, destination] = client.signal();
            second.wait(PATIENCE).unwrap();
            assert!(first.is_done(), "in their order");
            first.wait(PATIENCE).unwrap();
            assert_shows(&destination, 7, "the first");
            assert_shows(&behind[1], 8, "the second");
            assert_is_alive(&others);
            println!("{}", blitter.statistics());
        }
    });
}

#[test]
fn a_second_step_that_waits_after_its_first_was_lost_holds_back_nobody() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vkms, &vgem];
        let staged = [StagingSource::DmaHeap, StagingSource::Destination];
        let options = patient()
            .in_flight(8)
            .strategies(staged.map(Strategy::Staged).iter().copied());
        let (blitter, free) = settled_in_two_lanes(&hardware, devices, &options);
        let [one, other] = [(); 2].map(|()| devices.map(buffer_on));
        for stream in [None, Some(blitter.stream())] {
            let start = |[source, destination]: &[DmaBuf; 2], seed| {
                write(source, seed);
                let info = BlitInfo::default().stream(stream);
                blitter.blit(source, destination, &info).unwrap()
            };
            // Together, so that there is memory for two.
            hardware.hold();
            let both = [(&one, 1), (&other, 2)].map(|(buffers, seed)| start(buffers, seed));
            while hardware.on_rings() < 4 {
                thread::yield_now();
            }
            hardware.release();
            both.iter().for_each(|copy| copy.wait(PATIENCE).unwrap());
            // Somebody reads the second one's destination, so that its second step waits.
            hardware.hold();
            let first = start(&one, 3);
            let reader = Busy::new(&vgem, &other[1], Access::Read);
            let read = peek(&other[1]);
            let second = start(&other, 4);
            assert_eq!(hardware.on_rings(), 4);
            assert_eq!(hardware.lose_first(), 1);
            hardware.release();
            first.wait(PATIENCE).unwrap();
            assert_shows(&one[1], 3, "the first");
            for seed in 20..25 {
                frame(&blitter, &free, seed, "beside them");
            }
            assert!(!second.is_done());
            assert!(peek(&other[1]) == read, "what is being read");
            reader.end();
            second.wait(PATIENCE).unwrap();
            assert_shows(&other[1], 4, "the second");
            blitter.measure_again();
            settle_on(&blitter, &free);
        }
    });
}

/// Pseudo-random numbers, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % most
    }
}

/// Frames of one stream, behind fences that `signal` sees to, with up to two under way.
fn play(blitter: &Blitter, devices: [&Device; 2], seed: u64, signal: &Sender<(Busy, u64)>) {
    let mut random = Random(seed);
    let vgem = devices.into_iter().find(|device| device.driver() == "vgem");
    let sources = [(); 2].map(|()| buffer_on(devices[0]));
    let destination = buffer_on(devices[1]);
    let stream = Some(blitter.stream());
    let mut before: Option<Completion> = None;
    for number in 0..40_u8 {
        let source = &sources[usize::from(number) % 2];
        write(source, number);
        let (file, busy) = pending(vgem);
        let after = [file.as_fd()];
        let info = BlitInfo::default()
            .stream(stream)
            .after(if random.below(4) == 0 { &[] } else { &after });
        let copy = blitter.blit(source, &destination, &info).unwrap();
        signal.send((busy, random.below(8))).unwrap();
        if let Some(before) = before.take() {
            before.wait(PATIENCE).unwrap();
        }
        match random.below(3) {
            0 => before = Some(copy),
            _ => {
                copy.wait(PATIENCE).unwrap();
                assert_shows(&destination, number, &format!("stream {seed}"));
            }
        }
    }
    before
        .into_iter()
        .for_each(|copy| copy.wait(PATIENCE).unwrap());
    assert_shows(&destination, 39, &format!("stream {seed}, the last"));
}

#[test]
fn streams_with_fences_of_all_lengths_get_their_pictures_while_devices_are_lost() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        let staged = [StagingSource::DmaHeap, StagingSource::Destination];
        for strategies in [
            [Strategy::Pull, Strategy::PullBytes],
            staged.map(Strategy::Staged),
        ] {
            let options = patient()
                .in_flight(16)
                .strategies(strategies.iter().copied());
            let blitter = blitter(&hardware, devices, &options);
            let free = devices.map(buffer_on);
            settle_on(&blitter, &free);
            let (signal, signals) = mpsc::channel::<(Busy, u64)>();
            let mut lost = 0;
            thread::scope(|scope| {
                scope.spawn(move || {
                    for (busy, milliseconds) in signals {
                        thread::sleep(Duration::from_millis(milliseconds));
                        busy.end();
                    }
                });
                let streams = [1, 2, 3, 4].map(|seed| {
                    let (signal, blitter) = (signal.clone(), &blitter);
                    scope.spawn(move || play(blitter, devices, seed, &signal))
                });
                drop(signal);
                let are_over = || streams.iter().all(ScopedJoinHandle::is_finished);
                while !are_over() {
                    thread::sleep(Duration::from_millis(150));
                    hardware.hold();
                    while hardware.on_rings() == 0 && !are_over() {
                        thread::yield_now();
                    }
                    lost += hardware.lose_busy();
                    hardware.release();
                    // What has failed is tried again.
                    blitter.measure_again();
                    settle_on(&blitter, &free);
                }
            });
            let statistics = blitter.statistics();
            println!("{lost} devices lost\n{statistics}");
            assert!(lost > 0 && statistics.failed == 0, "{statistics}");
        }
    });
}

/// Fails unless the device still executes work.
fn assert_is_alive(device: &vk::Device) {
    let mut commands = vk::Commands::new(device).unwrap();
    // SAFETY: nothing is recorded, and so nothing used.
    unsafe {
        commands.record(|_, _| {}).unwrap();
        commands.submit().unwrap();
    }
    commands.wait(PATIENCE).unwrap();
}

/// A way to end a blitter that has a copy whose fence is never signalled, and how long that may take.
type Ending = (fn(Blitter), Duration);

#[test]
fn a_blitter_with_pending_copies_ends_in_time_and_leaves_nothing_once_they_are_done() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let short = |blitter: Blitter| {
            let closed = blitter.close_wait(Duration::from_millis(300));
            assert_eq!(closed, Err(Error::StillRunning));
        };
        // Ten seconds, as documented, and what a busy machine takes.
        let endings: [Ending; 2] = [
            (short, Duration::from_secs(8)),
            (drop, Duration::from_secs(18)),
        ];
        for (strategy, (end, most)) in GPUS.into_iter().zip(endings) {
            let held = Held::settled();
            let (blitter, buffers) = settled(&hardware, [&vgem, &vkms], &forced(strategy));
            let client = Client::new(&blitter, [&vgem, &vkms], 7);
            let copies = [(); 2].map(|()| client.start(&blitter));
            let begun = Instant::now();
            end(blitter);
            assert!(begun.elapsed() < most, "{strategy}: {:?}", begun.elapsed());
            // The copy that was submitted to the GPU goes on. Those that have not begun are cancelled.
            assert_eq!(copies[0].result(), None, "{strategy}");
            let [_, destination] = client.signal();
            copies[0].wait(PATIENCE).unwrap();
            assert_shows(&destination, 7, strategy.name());
            let second = copies[1].wait(PATIENCE);
            assert!(matches!(second, Ok(()) | Err(Failure::Cancelled)));
            drop((copies, buffers, destination));
            held.assert_no_more(strategy.name());
        }
    });
}

#[test]
fn what_waits_for_a_fence_for_too_long_ends_with_an_error_and_holds_back_nobody() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let devices = [&vgem, &vkms];
        let held = Held::settled();
        let input_timeout = Duration::from_secs(1);
        let options = forced(Strategy::Pull)
            .in_flight(8)
            .input_timeout(input_timeout);
        let blitter = blitter(&hardware, devices, &options);
        let free = devices.map(buffer_on);
        settle_on(&blitter, &free);
        let clients = [1, 2].map(|seed| Client::new(&blitter, devices, seed));
        let [with_gpu, waits] = clients.each_ref().map(|client| client.start(&blitter));
        assert_eq!(hardware.on_rings(), 1);
        let others = devices.map(buffer_on);
        write(&others[0], 8);
        let info = BlitInfo::default().stream(clients[0].stream);
        let behind = blitter.blit(&others[0], &others[1], &info).unwrap();
        // The blitter's thread waits for this one, to the deadline.
        assert_eq!(waits.wait(PATIENCE), Err(Failure::Deadline(input_timeout)));
        frame(&blitter, &free, 19, "in another lane");
        let (begun, mut slowest) = (Instant::now(), (Duration::ZERO, Duration::ZERO));
        while !with_gpu.is_done() {
            let start = Instant::now();
            frame(&blitter, &free, 20, "beside it");
            slowest = slowest.max((start.elapsed(), begun.elapsed()));
            thread::sleep(Duration::from_millis(20));
        }
        println!("the slowest frame beside it, and when: {slowest:?}");
        assert_eq!(
            with_gpu.result(),
            Some(Err(Failure::Deadline(input_timeout)))
        );
        // This copy was submitted to the GPU, which may write its picture at any time from now on.
        assert_eq!(behind.wait(PATIENCE), Err(Failure::Deadline(input_timeout)));
        frame(&blitter, &free, 30, "after it");
        // The abandoned copies end after all; the next one sees that.
        clients.into_iter().for_each(|client| drop(client.signal()));
        while hardware.on_rings() > 0 {
            thread::yield_now();
        }
        frame(&blitter, &free, 31, "at the end");
        drop((blitter, free, others, with_gpu, waits, behind));
        held.assert_no_more("all has ended");
    });
}
