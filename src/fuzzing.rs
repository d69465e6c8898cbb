//! Ways in for `fuzz/`, to what is pure and not public. Not part of the library: `--cfg fuzzing`.

use crate::buffer::layout::{self, Placed};
use crate::buffer::{BufferDesc, Error, FormatInfo};

/// Checks a description: offset, stride and the dma-buf's size of each plane. Planes lie in one
/// dma-buf if its size is the same.
pub fn check(layout: &BufferDesc, planes: &[(u32, u32, u64)]) -> Result<(), Error> {
    let placed = planes.iter().map(|&(offset, stride, size)| Placed {
        object: planes.iter().position(|plane| plane.2 == size).unwrap_or(0),
        offset,
        stride,
        size,
    });
    layout::check(layout, &placed.collect::<Vec<_>>())
}

/// Lays a picture out: offset and stride of each plane, and bytes in all.
pub fn pack(width: u32, height: u32, info: &FormatInfo) -> Result<(Vec<(u32, u32)>, u64), Error> {
    let packed = layout::pack(width, height, info)?;
    Ok((packed.planes.to_vec(), packed.size))
}
