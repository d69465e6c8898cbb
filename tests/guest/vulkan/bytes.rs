//! A Vulkan buffer that the test reads and writes, and copies between it and what is shared.

use primeshare::buffer::{FormatInfo, PlaneInfo};
use primeshare::sync::{Access, Mapping};
use primeshare::vk::ash::vk;
use primeshare::vk::{self as shared, Commands, Device, Image, Transfer, Use, acquire, release};
use primeshare::{DmaBuf, Fourcc};

use crate::support::PATIENCE;

/// Memory of the device's own, at least as large as what goes through it, mapped; lavapipe's only kind of memory is coherent.
pub(crate) struct Bytes {
    device: Device,
    raw: vk::Buffer,
    memory: vk::DeviceMemory,
    address: *mut u8,
    size: usize,
}

impl Bytes {
    /// To copy from and to.
    pub(crate) fn new(device: &Device, size: usize) -> Self {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        Self::with_usage(device, size, usage)
    }

    pub(super) fn with_usage(device: &Device, size: usize, usage: vk::BufferUsageFlags) -> Self {
        let info = vk::BufferCreateInfo::default()
            .size(size as u64)
            .usage(usage);
        let raw = device.raw();
        // SAFETY: plain creation; a failure ends the test. Type 0 is the only one.
        unsafe {
            let buffer = raw.create_buffer(&info, None).unwrap();
            let needs = raw.get_buffer_memory_requirements(buffer);
            let info = vk::MemoryAllocateInfo::default().allocation_size(needs.size);
            let memory = raw.allocate_memory(&info, None).unwrap();
            raw.bind_buffer_memory(buffer, memory, 0).unwrap();
            let flags = vk::MemoryMapFlags::empty();
            let address = raw.map_memory(memory, 0, vk::WHOLE_SIZE, flags).unwrap();
            Self {
                device: device.clone(),
                raw: buffer,
                memory,
                address: address.cast(),
                size,
            }
        }
    }

    pub(super) fn raw(&self) -> vk::Buffer {
        self.raw
    }

    pub(super) fn contents(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is of at least this size, and the device is idle between the steps
        // of a test.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.size) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: the device is idle.
        unsafe {
            self.device.raw().destroy_buffer(self.raw, None);
            self.device.raw().free_memory(self.memory, None);
        }
    }
}

/// The format planes of a buffer that the library knows.
pub(super) fn planes(fourcc: Fourcc) -> &'static [PlaneInfo] {
    FormatInfo::of(fourcc).unwrap().planes
}

/// Bytes of a row and number of rows, for each plane.
pub(super) fn extents(buffer: &DmaBuf) -> Vec<(usize, usize)> {
    let (width, height) = (buffer.width(), buffer.height());
    let extent = |plane: &PlaneInfo| {
        let row = plane.row_bytes(width).unwrap();
        (row as usize, plane.rows(height) as usize)
    };
    planes(buffer.fourcc()).iter().map(extent).collect()
}

/// Bytes of all planes without padding.
pub(super) fn packed_size(buffer: &DmaBuf) -> usize {
    extents(buffer).iter().map(|(row, rows)| row * rows).sum()
}

/// A gradient that no two rows have alike, of all planes without padding.
pub(super) fn gradient(buffer: &DmaBuf, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(packed_size(buffer));
    let mut line = usize::from(seed);
    for (row, rows) in extents(buffer) {
        for _ in 0..rows {
            line += 1;
            let start = line.wrapping_mul(101);
            bytes.extend((0..row).map(|x| (start + x + (x >> 7)) as u8));
        }
    }
    bytes
}

/// Calls `each` with the place of every row in the packed bytes and in the dma-buf.
fn rows(buffer: &DmaBuf, mut each: impl FnMut(std::ops::Range<usize>, usize)) {
    let mut packed = 0;
    for ((row, rows), plane) in extents(buffer).into_iter().zip(buffer.planes()) {
        for y in 0..rows {
            let shared = plane.offset as usize + plane.stride as usize * y;
            each(packed..packed + row, shared);
            packed += row;
        }
    }
}

/// Writes packed bytes through the CPU's mapping.
pub(super) fn cpu_write(buffer: &DmaBuf, mapping: &mut Mapping, packed: &[u8]) {
    let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
    rows(buffer, |range, offset| {
        access.write(offset, &packed[range]).unwrap()
    });
}

/// Whether the CPU's mapping has these packed bytes.
pub(super) fn cpu_has(buffer: &DmaBuf, mapping: &mut Mapping, packed: &[u8]) -> bool {
    let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
    let (mut same, mut row) = (true, Vec::new());
    rows(buffer, |range, offset| {
        row.resize(range.len(), 0);
        access.read(offset, &mut row).unwrap();
        same &= row == packed[range];
    });
    same
}

/// Regions between packed bytes and an image of the buffer.
fn regions(buffer: &DmaBuf) -> Vec<vk::BufferImageCopy> {
    let mut offset = 0;
    let extents = extents(buffer).into_iter().enumerate();
    extents
        .map(|(plane, (row, rows))| {
            // Where the bytes are packed, so are the texels.
            let region = shared::copy_region(buffer, plane).unwrap();
            let region = region.buffer_offset(offset as u64).buffer_row_length(0);
            offset += row * rows;
            region
        })
        .collect()
}

/// Runs what is recorded, and waits for it.
pub(super) fn run(
    device: &Device,
    record: impl FnOnce(&primeshare::vk::ash::Device, vk::CommandBuffer),
) {
    let mut commands = Commands::new(device).unwrap();
    // SAFETY: what is recorded is of this device, and is alive until the wait is over.
    unsafe {
        commands.record(record).unwrap();
        commands.submit().unwrap();
    }
    commands.wait(PATIENCE).unwrap();
}

/// Copies an image, between its acquisition and its release, to packed bytes.
pub(super) fn image_to_bytes(image: &Image, buffer: &DmaBuf, bytes: &Bytes) {
    let transfer = [Transfer::image(image, Use::Source)];
    let regions = regions(buffer);
    run(image.device(), |raw, commands| {
        // SAFETY: see `run`.
        unsafe {
            acquire(commands, &transfer);
            let layout = Use::Source.layout();
            raw.cmd_copy_image_to_buffer(commands, image.raw(), layout, bytes.raw(), &regions);
            release(commands, &transfer);
        }
    });
}

/// Copies packed bytes to an image, between its acquisition and its release.
pub(super) fn bytes_to_image(bytes: &Bytes, image: &Image, buffer: &DmaBuf) {
    let transfer = [Transfer::image(image, Use::Destination)];
    let regions = regions(buffer);
    run(image.device(), |raw, commands| {
        // SAFETY: see `run`.
        unsafe {
            acquire(commands, &transfer);
            let layout = Use::Destination.layout();
            raw.cmd_copy_buffer_to_image(commands, bytes.raw(), image.raw(), layout, &regions);
            release(commands, &transfer);
        }
    });
}

/// Copies a `VkBuffer`, padding and all, to bytes of the same size, between its acquisition and its
/// release.
pub(super) fn buffer_to_bytes(from: &shared::Buffer, device: &Device, to: &Bytes) {
    let whole = [vk::BufferCopy::default().size(from.size())];
    let transfer = [Transfer::buffer(from, Use::Source)];
    run(device, |raw, commands| {
        // SAFETY: see `run`.
        unsafe {
            acquire(commands, &transfer);
            raw.cmd_copy_buffer(commands, from.raw(), to.raw(), &whole);
            release(commands, &transfer);
        }
    });
}

/// Copies bytes of the same size to a `VkBuffer`, between its acquisition and its release.
pub(super) fn bytes_to_buffer(from: &Bytes, to: &shared::Buffer, device: &Device) {
    let whole = [vk::BufferCopy::default().size(to.size())];
    let transfer = [Transfer::buffer(to, Use::Destination)];
    run(device, |raw, commands| {
        // SAFETY: see `run`.
        unsafe {
            acquire(commands, &transfer);
            raw.cmd_copy_buffer(commands, from.raw(), to.raw(), &whole);
            release(commands, &transfer);
        }
    });
}

/// The packed bytes among those of a whole dma-buf.
pub(super) fn pack(buffer: &DmaBuf, whole: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; packed_size(buffer)];
    rows(buffer, |range, offset| {
        let row = &whole[offset..offset + range.len()];
        packed[range].copy_from_slice(row);
    });
    packed
}

/// Writes packed bytes into those of a whole dma-buf.
pub(super) fn unpack(buffer: &DmaBuf, packed: &[u8], whole: &mut [u8]) {
    rows(buffer, |range, offset| {
        whole[offset..offset + range.len()].copy_from_slice(&packed[range]);
    });
}
