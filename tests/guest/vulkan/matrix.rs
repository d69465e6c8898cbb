//! Every allocator, format, size and way into Vulkan: bit-exact both ways, or refused for the
//! reason that is expected. `cargo xtask matrix` prints it.

use primeshare::alloc::{self, DmaHeap, Dumb, Udmabuf};
use primeshare::buffer::{Colour, FormatInfo};
use primeshare::gbm::{self, Gbm};
use primeshare::sync::Mapping;
use primeshare::vk::ash::vk;
use primeshare::vk::{Device, Error, ImageAllocator};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use super::bytes::{
    Bytes, buffer_to_bytes, bytes_to_buffer, bytes_to_image, cpu_has, cpu_write, gradient,
    image_to_bytes, pack, unpack,
};
use crate::support::{Guest, in_guest};

const RGB: [Fourcc; 8] = [
    Fourcc::XRGB8888,
    Fourcc::ARGB8888,
    Fourcc::XBGR8888,
    Fourcc::RGB565,
    Fourcc::XRGB2101010,
    Fourcc::XBGR16161616F,
    Fourcc::R8,
    Fourcc::GR88,
];
const YCBCR: [Fourcc; 5] = [
    Fourcc::NV12,
    Fourcc::NV21,
    Fourcc::P010,
    Fourcc::YUV420,
    Fourcc::YUYV,
];
const SMALL: [(u32, u32); 3] = [(1, 1), (33, 17), (1000, 101)];
/// For formats that have none of those.
const EVEN: (u32, u32) = (64, 48);
/// With one byte a pixel, since every page of it that is touched costs the guest much.
const LARGE: (u32, u32) = (4096, 4096);
const LARGEST_DMA_BUF: usize = 17 << 20;
const IMAGE_USAGE: vk::ImageUsageFlags = vk::ImageUsageFlags::from_raw(
    vk::ImageUsageFlags::TRANSFER_SRC.as_raw() | vk::ImageUsageFlags::TRANSFER_DST.as_raw(),
);
const BUFFER_USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw() | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Image,
    Buffer,
}

/// `Err`: the refusal's name.
type Outcome = Result<(), String>;

type Allocate = Box<dyn Fn(&Request) -> Result<DmaBuf, String>>;

fn by(allocator: impl Allocator + 'static) -> Allocate {
    let reason = |error: alloc::Error| match error.of::<gbm::Error>() {
        Some(of_gbm) => format!("gbm's {}", name(of_gbm)),
        None => name(&error),
    };
    Box::new(move |request| allocator.allocate(request).map_err(reason))
}

fn allocators(guest: &Guest, vulkan: &Device) -> Vec<(&'static str, Allocate)> {
    let exporter = ImageAllocator::new(vulkan, IMAGE_USAGE);
    let images: Allocate =
        Box::new(move |request| exporter.create_wait(request).map_err(|error| name(&error)));
    let device = vulkan.clone();
    let buffers: Allocate = Box::new(move |request| {
        let (width, height) = (request.width, request.height);
        let created = device.create_buffer(width, height, request.fourcc, BUFFER_USAGE);
        created.map(|new| new.1).map_err(|error| name(&error))
    });
    vec![
        ("dumb vgem", by(Dumb::new(&guest.vgem()))),
        ("dumb vkms", by(Dumb::new(&guest.vkms()))),
        ("gbm vkms", by(Gbm::new(&guest.vkms()).unwrap())),
        ("udmabuf", by(Udmabuf::open().unwrap())),
        ("dma-heap", by(DmaHeap::system().unwrap())),
        ("vk image", images),
        ("vk buffer", buffers),
    ]
}

/// The name of an error's variant.
fn name(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The bytes that came through are other ones.
const VULKAN_READS_OTHERS: &str = "Vulkan reads other bytes";
const CPU_READS_OTHERS: &str = "the CPU reads other bytes";

pub(crate) fn there_and_back(
    vulkan: &Device,
    buffer: &DmaBuf,
    mapping: &mut Mapping,
    bytes: &mut Bytes,
    way: As,
    refused: impl Fn(Error) -> String,
) -> Outcome {
    let (there, back) = (gradient(buffer, 3), gradient(buffer, 200));
    cpu_write(buffer, mapping, &there);
    let read = match way {
        As::Image => {
            let image = vulkan.import_image(buffer, IMAGE_USAGE).map_err(&refused)?;
            image_to_bytes(&image, buffer, bytes);
            let read = bytes.contents()[..there.len()].to_vec();
            bytes.contents()[..back.len()].copy_from_slice(&back);
            bytes_to_image(bytes, &image, buffer);
            read
        }
        As::Buffer => {
            let shared = vulkan
                .import_buffer(buffer, BUFFER_USAGE)
                .map_err(refused)?;
            buffer_to_bytes(&shared, vulkan, bytes);
            let read = pack(buffer, bytes.contents());
            unpack(buffer, &back, bytes.contents());
            bytes_to_buffer(bytes, &shared, vulkan);
            read
        }
    };
    match (read == there, cpu_has(buffer, mapping, &back)) {
        (false, _) => Err(VULKAN_READS_OTHERS.to_owned()),
        (_, false) => Err(CPU_READS_OTHERS.to_owned()),
        _ => Ok(()),
    }
}

/// What should come of it.
fn expected(
    guest: &Guest,
    allocator: &str,
    fourcc: Fourcc,
    (width, height): (u32, u32),
    way: As,
) -> Outcome {
    let info = FormatInfo::of(fourcc).unwrap();
    let (across, down) = info.chroma;
    let odd = !width.is_multiple_of(across) || !height.is_multiple_of(down);
    let planar = info.planes.len() > 1;
    let refused = match (allocator, way) {
        // Mesa's software gbm makes no YCbCr.
        ("gbm vkms", _) if info.colour == Colour::YCbCr => "no gbm's Create",
        // There are no images of odd sizes with subsampled colours; bytes are bytes.
        ("vk image", _) if odd => "no OddSize",
        (_, As::Image) if odd => "OddSize",
        // Mesa 25.0 lists the modifier for planar formats and takes no such image.
        ("vk image", _) if planar && guest.has_old_mesa() => "no NotExportable",
        (_, As::Image) if planar && guest.has_old_mesa() => "NotImportable",
        // Mesa 26.1 does not tell where the second plane is.
        ("vk image", _) if planar => "no OverlappingPlanes",
        _ => return Ok(()),
    };
    Err(refused.to_owned())
}

struct Cell {
    allocator: &'static str,
    fourcc: Fourcc,
    size: (u32, u32),
    way: As,
    outcome: Outcome,
    expected: Outcome,
}

fn fill(guest: &Guest) -> Vec<Cell> {
    let vulkan = guest.vulkan();
    let mut bytes = Bytes::new(&vulkan, LARGEST_DMA_BUF);
    let mut cells = Vec::new();
    for (allocator, allocate) in allocators(guest, &vulkan) {
        let small = RGB.into_iter().chain(YCBCR);
        let small = small.flat_map(|fourcc| SMALL.map(|size| (fourcc, size)));
        let even = YCBCR.map(|fourcc| (fourcc, EVEN));
        for (fourcc, size) in small.chain(even).chain([(Fourcc::R8, LARGE)]) {
            let buffer = allocate(&Request::new(size.0, size.1, fourcc));
            let mut mapping = buffer
                .as_ref()
                .ok()
                .map(|b| Mapping::new(&b.objects()[0]).unwrap());
            for way in [As::Image, As::Buffer] {
                let outcome = match (&buffer, &mut mapping) {
                    (Ok(buffer), Some(mapping)) => {
                        there_and_back(&vulkan, buffer, mapping, &mut bytes, way, |error| {
                            name(&error)
                        })
                    }
                    (Err(why), _) => Err(format!("no {why}")),
                    _ => unreachable!("a buffer is mapped"),
                };
                cells.push(Cell {
                    allocator,
                    fourcc,
                    size,
                    way,
                    outcome,
                    expected: expected(guest, allocator, fourcc, size, way),
                });
            }
        }
    }
    cells
}

/// A line for each allocator and format, a column for each size: what comes of the image, and
/// after a slash of the buffer where that is something else.
fn print(cells: &[Cell]) {
    let sizes: Vec<_> = SMALL.into_iter().chain([EVEN, LARGE]).collect();
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for cell in cells {
        let name = format!("{:<10} {}", cell.allocator, cell.fourcc);
        let known = lines.iter().position(|(known, _)| *known == name);
        let line = known.unwrap_or_else(|| {
            lines.push((name, vec![String::new(); sizes.len()]));
            lines.len() - 1
        });
        let column = sizes.iter().position(|size| *size == cell.size).unwrap();
        let text = &mut lines[line].1[column];
        let outcome = match &cell.outcome {
            Ok(()) => "exact",
            Err(why) => why,
        };
        match cell.way {
            As::Image => *text = outcome.to_owned(),
            As::Buffer if text == outcome => {}
            As::Buffer => *text += &format!(" / {outcome}"),
        }
    }
    let kind = std::env::var("PRIMESHARE_GUEST_KIND").unwrap();
    println!("\nImport into Vulkan, as image / as buffer ({kind} guest)");
    let print_line = |name: &str, columns: &[String]| {
        print!("{name:<16}");
        columns.iter().for_each(|text| print!(" {text:<22}"));
        println!();
    };
    let head: Vec<_> = sizes.iter().map(|(w, h)| format!("{w}x{h}")).collect();
    print_line("", &head);
    lines
        .iter()
        .for_each(|(name, columns)| print_line(name, columns));
}

#[test]
fn every_cell_is_exact_or_refused_as_expected() {
    in_guest(|guest| {
        let cells = fill(guest);
        print(&cells);
        let wrong: Vec<_> = cells
            .iter()
            .filter(|cell| cell.outcome != cell.expected)
            .map(|cell| {
                let (w, h) = cell.size;
                let way = if cell.way == As::Image {
                    "image"
                } else {
                    "buffer"
                };
                format!(
                    "{} {} {w}x{h} as {way}: {:?} instead of {:?}",
                    cell.allocator, cell.fourcc, cell.outcome, cell.expected
                )
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
