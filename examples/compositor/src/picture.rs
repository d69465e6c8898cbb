//! Pictures in buffers, as PNG files.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primeshare::buffer::PlaneRef;
use primeshare::sync::{Access, BufferMapping};
use primeshare::{DmaBuf, Fourcc, Modifier};

const PATIENCE: Duration = Duration::from_secs(20);

/// Writes the picture in a buffer.
pub(crate) fn save(buffer: &DmaBuf, path: &Path) -> Result<()> {
    let rgb = read(&linear(buffer)?)?;
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), buffer.width(), buffer.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&rgb)?;
    Ok(())
}

/// The buffer with its layout told: a driver without modifiers does not say that its buffers are linear.
fn linear(buffer: &DmaBuf) -> Result<DmaBuf> {
    if buffer.modifier() != Modifier::INVALID {
        return Ok(buffer.clone());
    }
    let planes = buffer.planes().iter();
    let objects = planes.map(|plane| PlaneRef {
        fd: buffer.objects()[plane.object].as_fd(),
        offset: plane.offset,
        stride: plane.stride,
    });
    Ok(DmaBuf::from_borrowed(buffer.desc().with_modifier(Modifier::LINEAR), objects)?)
}

fn read(buffer: &DmaBuf) -> Result<Vec<u8>> {
    let order = match buffer.fourcc() {
        Fourcc::XRGB8888 | Fourcc::ARGB8888 => [2, 1, 0],
        Fourcc::XBGR8888 | Fourcc::ABGR8888 => [0, 1, 2],
        other => anyhow::bail!("the screen shows {other}"),
    };
    let mut mapping = BufferMapping::new(buffer)?;
    let access = mapping.begin_wait(Access::Read, PATIENCE)?;
    let mut rgb = Vec::new();
    for row in access.plane(0)?.rows() {
        let mut bytes = vec![0; row.bytes()];
        row.read(0, &mut bytes)?;
        let (pixels, rest) = bytes.as_chunks::<4>();
        ensure!(rest.is_empty(), "a part of a pixel");
        rgb.extend(pixels.iter().flat_map(|pixel| order.map(|n: usize| pixel[n])));
    }
    Ok(rgb)
}
