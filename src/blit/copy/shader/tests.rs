//! The shader compared with the CPU, on a Vulkan device in software. No picture is shared between devices.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::blit::copy::convert::Codec;
use crate::blit::copy::gpu::{CopyQueue, Work};
use crate::blit::copy::host::HostPicture;
use crate::blit::copy::memory::{Readable, Writable};
use crate::blit::copy::method::{Memory, Method, grid};
use crate::blit::copy::place::Place;
use crate::blit::damage::{Rect, Rects};
use crate::blit::scale::{Filter, Scaling, Transform};
use crate::blit::ycbcr::{Matrix, Range, YcbcrEncoding};
use crate::buffer::{BufferDesc, Colour, FormatInfo, Fourcc};
use crate::vk::{Compute, Device, Instance, Select, Validation};

use super::SPIRV;

/// How long a copy may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The byte that memory is filled with before a copy.
const POISON: u8 = 0xa5;

/// A device whose name contains this is taken instead of one in software.
const NAME: &str = "PRIMESHARE_TEST_GPU";

/// A device, with the validation layer if there is one. Outside of the guest there may be no driver: the test
/// is left out then.
fn device() -> Option<Device> {
    let name = std::env::var(NAME);
    let select = name
        .as_ref()
        .map_or(Select::Software, |name| Select::Name(name));
    let instance = Instance::new(Validation::On).or_else(|_| Instance::new(Validation::Off));
    let device = instance.and_then(|instance| Device::new(&instance.select(&select)?));
    if let Ok(device) = &device {
        println!("by {}", device.physical().name());
    }
    match device {
        Err(error) if std::env::var_os("PRIMESHARE_GUEST").is_none() => {
            // Past libtest, which does not show what a test prints that passes.
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test");
            let line = format!("\nleft out: {test}: needs a Vulkan device ({error})\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            None
        }
        device => Some(device.unwrap()),
    }
}

/// A device that makes copies. The drop checks that the validation layer has said nothing.
struct Bench {
    device: Device,
    queue: CopyQueue,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let instance = self.device.physical().instance();
            assert_eq!(instance.validation_messages(), [""; 0], "validation layer");
        }
    }
}

/// A copy to make.
#[derive(Clone, Copy, Debug)]
struct Task {
    formats: [Fourcc; 2],
    sizes: [(u32, u32); 2],
    scaling: Option<Scaling>,
    encoding: YcbcrEncoding,
}

impl Task {
    fn plain(from: Fourcc, to: Fourcc) -> Self {
        // Not multiples of the sizes of blocks and workgroups, except for formats that need even sizes.
        let (across, down) = [from, to].map(grid).into_iter().fold((1, 1), |most, grid| {
            (most.0.max(grid.0), most.1.max(grid.1))
        });
        let size = (
            37_u32.next_multiple_of(across),
            21_u32.next_multiple_of(down),
        );
        Self {
            formats: [from, to],
            sizes: [size; 2],
            scaling: None,
            encoding: YcbcrEncoding::default(),
        }
    }

    fn layout(&self, end: usize) -> BufferDesc {
        let (width, height) = self.sizes[end];
        BufferDesc::linear(width, height, self.formats[end])
    }

    fn whole(&self) -> Rects {
        let (width, height) = self.sizes[1];
        [Rect::whole(width, height)].into_iter().collect()
    }
}

impl Bench {
    fn new() -> Option<Self> {
        let device = device()?;
        let queue = CopyQueue::new(&device, 1).unwrap();
        Some(Self { device, queue })
    }

    /// Bytes that look random. All half floats among them are finite.
    fn source(&self, task: &Task) -> Arc<HostPicture> {
        let layout = task.layout(0);
        let mut host = HostPicture::upload(&self.device, &layout).unwrap();
        let info = FormatInfo::of(layout.fourcc).unwrap();
        let mask = match info.colour {
            Colour::RgbFloat => 0x3b,
            _ => 0xff,
        };
        for (at, byte) in host.parts_mut().1.iter_mut().enumerate() {
            let mixed = (at as u32 + 1).wrapping_mul(2_654_435_761);
            *byte = (mixed >> 13 ^ mixed >> 24) as u8 & mask;
        }
        host.flush().unwrap();
        Arc::new(host)
    }

    fn poisoned(&self, task: &Task) -> HostPicture {
        let mut host = HostPicture::download(&self.device, &task.layout(1)).unwrap();
        host.parts_mut().1.fill(POISON);
        host.flush().unwrap();
        host
    }

    fn by_gpu(&mut self, source: &Arc<HostPicture>, task: &Task, rects: &Rects) -> HostPicture {
        let made = Arc::new(self.poisoned(task));
        let ends = [Place::Host(source), Place::Host(&made)];
        let work = Work::new(rects, task.scaling.as_ref(), task.encoding);
        let submitted = self.queue.submit(ends, work).unwrap();
        self.queue.wait(submitted, PATIENCE, |_| {}).unwrap();
        Arc::try_unwrap(made).unwrap()
    }

    fn by_cpu(&self, source: &HostPicture, task: &Task, rects: &Rects) -> HostPicture {
        let mut made = self.poisoned(task);
        let (to, bytes) = made.parts_mut();
        let from = source.picture();
        let method = Method::new(from, to, task.scaling.as_ref(), task.encoding).unwrap();
        let rects = method.cut(rects);
        let readable = Readable::Host(source.bytes().unwrap());
        let mut memory = Memory::default();
        let pictures = ((from, &readable), to);
        let mut writable = Writable::host(bytes);
        method
            .copy(pictures, &mut writable, &rects, 1, &mut memory)
            .unwrap();
        drop(writable);
        made
    }

    /// Fails if a component of a pixel differs by more than one number from what the CPU makes.
    fn compare(&mut self, task: &Task) {
        let source = self.source(task);
        let rects = task.whole();
        let made = self.by_gpu(&source, task, &rects);
        let wanted = self.by_cpu(&source, task, &rects);
        let codec = Codec::new(task.formats[1], task.encoding).unwrap();
        let is_float = FormatInfo::of(task.formats[1]).unwrap().colour == Colour::RgbFloat;
        for y in 0..task.sizes[1].1 {
            let (made, wanted) = (pixels(&made, &codec, y), pixels(&wanted, &codec, y));
            for (x, (made, wanted)) in made.iter().zip(&wanted).enumerate() {
                for index in 0..4 {
                    let Some(component) = codec.component(index) else {
                        continue;
                    };
                    let (is, should) = (made[index], wanted[index]);
                    let is_near = match is_float {
                        true => (is - should).abs() <= 1e-4_f32.max(should.abs() / 1000.0),
                        false => component.encode(is).abs_diff(component.encode(should)) <= 1,
                    };
                    assert!(
                        is_near,
                        "{task:?}: component {index} of pixel {x}, {y} is {is}, not {should}"
                    );
                }
            }
        }
    }
}

fn pixels(picture: &HostPicture, codec: &Codec, y: u32) -> Vec<[f32; 4]> {
    let bytes = picture.bytes().unwrap();
    let place = picture.picture();
    let width = place.layout.width;
    let rows = codec.planes().iter().zip(place.planes);
    let rows: Vec<Vec<u8>> = rows
        .map(|(info, plane)| {
            let start = (plane.offset + y / info.vertical * plane.stride) as usize;
            bytes[start..][..info.row_bytes(width).unwrap() as usize].to_vec()
        })
        .collect();
    let mut pixels = vec![[0.0; 4]; width as usize];
    codec.decode(&rows, 0, &mut pixels);
    pixels
}

fn known() -> impl Iterator<Item = Fourcc> {
    FormatInfo::all()
        .map(|info| info.fourcc)
        .filter(|fourcc| Codec::new(*fourcc, YcbcrEncoding::default()).is_some())
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

#[test]
fn the_driver_compiles_it() {
    if let Some(device) = device() {
        Compute::new(&device, SPIRV).unwrap();
    }
}

#[test]
fn every_known_format_is_read_and_written() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    for fourcc in known() {
        for other in [Fourcc::ABGR8888, Fourcc::P010] {
            for (from, to) in [(fourcc, other), (other, fourcc)] {
                if from != to {
                    bench.compare(&Task::plain(from, to));
                }
            }
        }
    }
}

#[test]
fn every_known_format_is_turned() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    for fourcc in known() {
        let plain = Task::plain(fourcc, fourcc);
        let (width, height) = plain.sizes[0];
        let grid = grid(fourcc);
        let turned = (
            height.next_multiple_of(grid.0),
            width.next_multiple_of(grid.1),
        );
        bench.compare(&Task {
            sizes: [(width, height), turned],
            scaling: Some(Scaling {
                transform: Transform::Rotate90,
                ..Scaling::whole((width, height), turned)
            }),
            ..plain
        });
    }
}

#[test]
fn pictures_are_turned_scaled_and_cropped_as_by_the_cpu() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let boxes = [
        // Larger, smaller, one to one, one pixel.
        (rect(0, 0, 40, 30), rect(0, 0, 60, 50)),
        (rect(3, 5, 30, 21), rect(8, 4, 12, 10)),
        (rect(10, 2, 20, 20), rect(4, 6, 20, 20)),
        (rect(39, 29, 1, 1), rect(0, 0, 60, 50)),
    ];
    for (from, to) in [
        (Fourcc::XRGB8888, Fourcc::XRGB8888),
        (Fourcc::NV12, Fourcc::NV12),
        (Fourcc::YUYV, Fourcc::RGB565),
    ] {
        for (source, destination) in boxes {
            for transform in Transform::ALL {
                for filter in [Filter::Nearest, Filter::Linear] {
                    bench.compare(&Task {
                        formats: [from, to],
                        sizes: [(40, 30), (60, 50)],
                        scaling: Some(Scaling {
                            source,
                            destination,
                            transform,
                            filter,
                        }),
                        encoding: YcbcrEncoding::default(),
                    });
                }
            }
        }
    }
}

#[test]
fn the_numbers_of_ycbcr_mean_what_they_are_said_to_mean() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
        for range in [Range::Narrow, Range::Full] {
            for (from, to) in [
                (Fourcc::NV12, Fourcc::XRGB2101010),
                (Fourcc::ABGR16161616F, Fourcc::P010),
                (Fourcc::ABGR8888, Fourcc::YUV420),
            ] {
                bench.compare(&Task {
                    encoding: YcbcrEncoding { matrix, range },
                    ..Task::plain(from, to)
                });
            }
        }
    }
}

#[test]
fn parts_are_the_same_as_in_the_whole_and_nothing_else_is_written() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    for to in [
        Fourcc::RGB565,
        Fourcc::RGB888,
        Fourcc::NV12,
        Fourcc::NV15,
        Fourcc::YUYV,
        Fourcc::ABGR16161616F,
    ] {
        let scaling = Scaling {
            source: rect(2, 4, 30, 20),
            destination: rect(4, 4, 48, 40),
            transform: Transform::Flipped90,
            filter: Filter::Linear,
        };
        let task = Task {
            formats: [Fourcc::XRGB8888, to],
            sizes: [(40, 30), (60, 50)],
            scaling: Some(scaling),
            encoding: YcbcrEncoding::default(),
        };
        let source = bench.source(&task);
        let whole = bench.by_gpu(&source, &task, &task.whole());
        // One of them reaches beyond the box.
        let parts = [rect(8, 8, 12, 6), rect(20, 8, 4, 2), rect(40, 30, 20, 20)];
        let parts: Rects = parts.into_iter().collect();
        let made = bench.by_gpu(&source, &task, &parts);
        let inside = |x: u32, y: u32| {
            let within = |rect: &Rect| {
                x.wrapping_sub(rect.x) < rect.width && y.wrapping_sub(rect.y) < rect.height
            };
            within(&scaling.destination) && parts.iter().any(within)
        };
        let codec = Codec::new(to, task.encoding).unwrap();
        let poisoned = bench.poisoned(&task);
        for y in 0..50 {
            let made = pixels(&made, &codec, y);
            let (whole, untouched) = (pixels(&whole, &codec, y), pixels(&poisoned, &codec, y));
            for x in 0..60 {
                let at = x as usize;
                let wanted = if inside(x, y) { &whole } else { &untouched };
                assert_eq!(made[at], wanted[at], "{to} at {x}, {y}");
            }
        }
    }
}

#[test]
fn scratch_memory_is_that_of_the_largest_pictures_of_late_and_goes() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let task = |size| Task {
        sizes: [size, size],
        ..Task::plain(Fourcc::XRGB8888, Fourcc::XBGR8888)
    };
    let bytes = |width: u64, height: u64| 2 * 4 * width * height;
    bench.compare(&task((64, 64)));
    assert_eq!(bench.queue.scratch_bytes(), bytes(64, 64));
    bench.compare(&task((640, 480)));
    assert_eq!(bench.queue.scratch_bytes(), bytes(640, 480));
    for _ in 0..3 {
        bench.compare(&task((64, 64)));
        assert_eq!(bench.queue.scratch_bytes(), bytes(640, 480));
        bench.compare(&task((640, 480)));
    }
    for _ in 0..70 {
        bench.compare(&task((64, 64)));
    }
    assert_eq!(bench.queue.scratch_bytes(), bytes(64, 64));
    bench.queue.forget_imports();
    assert_eq!(bench.queue.scratch_bytes(), 0);
}

#[test]
fn copies_one_after_the_other_share_scratch_memory_and_copies_at_once_do_not() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.queue = CopyQueue::new(&bench.device, 3).unwrap();
    let task = Task::plain(Fourcc::XRGB8888, Fourcc::RGB565);
    (0..4).for_each(|_| bench.compare(&task));
    let once = bench.queue.scratch_bytes();
    let (source, rects) = (bench.source(&task), task.whole());
    let made: Vec<_> = (0..3).map(|_| Arc::new(bench.poisoned(&task))).collect();
    let submit = |made: &Arc<HostPicture>| {
        let ends = [Place::Host(&source), Place::Host(made)];
        let work = Work::new(&rects, task.scaling.as_ref(), task.encoding);
        bench.queue.submit(ends, work).unwrap()
    };
    let submitted: Vec<_> = made.iter().map(submit).collect();
    for submitted in submitted {
        bench.queue.wait(submitted, PATIENCE, |_| {}).unwrap();
    }
    let wanted = bench.by_gpu(&source, &task, &rects);
    let codec = Codec::new(task.formats[1], task.encoding).unwrap();
    for y in 0..task.sizes[1].1 {
        let wanted = pixels(&wanted, &codec, y);
        made.iter()
            .for_each(|made| assert_eq!(pixels(made, &codec, y), wanted));
    }
    // A copy may have ended before the next one began, whose scratch memory then is the same.
    assert!((once..=3 * once).contains(&bench.queue.scratch_bytes()));
}
