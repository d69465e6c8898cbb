//! Pictures as XRGB8888 bytes: blue, green, red and one unused, tightly packed.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context, Result, bail};

const BYTES: usize = 4;

#[derive(Debug)]
pub(crate) struct Picture {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

/// A pixel that is not what was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) x: usize,
    pub(crate) y: usize,
    /// Red, green, blue.
    pub(crate) sent: [u8; 3],
    pub(crate) arrived: [u8; 3],
}

impl Picture {
    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn pixel_count(&self) -> usize {
        self.bytes.len() / BYTES
    }

    /// A pattern in which, up to 4096x4096, no two pixels are alike, so that a pixel in the wrong
    /// place is seen.
    pub(crate) fn pattern(width: u32, height: u32) -> Self {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let bytes = pixels
            .flat_map(|(x, y)| {
                let high = (x >> 8 & 0xf) << 4 | (y >> 8 & 0xf);
                [high as u8, y as u8, x as u8, 0xff]
            })
            .collect();
        Self {
            width,
            height,
            bytes,
        }
    }

    /// Reads rows at an offset and stride with `read`.
    pub(crate) fn read(
        (width, height): (u32, u32),
        (offset, stride): (usize, usize),
        read: impl Fn(usize, &mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let row_bytes = width as usize * BYTES;
        let mut bytes = vec![0; row_bytes * height as usize];
        for (y, row) in bytes.chunks_exact_mut(row_bytes).enumerate() {
            read(offset + y * stride, row)?;
        }
        Ok(Self {
            width,
            height,
            bytes,
        })
    }

    /// The first pixel in which `arrived`, of the same size, is another colour.
    pub(crate) fn first_difference(&self, arrived: &Picture) -> Option<Difference> {
        let colour = |pixel: &[u8]| [pixel[2], pixel[1], pixel[0]];
        let pixels = self.bytes.chunks_exact(BYTES);
        pixels
            .zip(arrived.bytes.chunks_exact(BYTES))
            .map(|(sent, arrived)| (colour(sent), colour(arrived)))
            .enumerate()
            .find(|(_, (sent, arrived))| sent != arrived)
            .map(|(index, (sent, arrived))| Difference {
                x: index % self.width as usize,
                y: index / self.width as usize,
                sent,
                arrived,
            })
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let what = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(what)?;
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().with_context(what)?;
        let size = reader
            .output_buffer_size()
            .context("the PNG is too large")?;
        let mut data = vec![0; size];
        let info = reader.next_frame(&mut data).with_context(what)?;
        let samples = info.color_type.samples();
        let bytes = data[..info.buffer_size()]
            .chunks_exact(samples)
            .flat_map(|pixel| match samples {
                1 | 2 => [pixel[0], pixel[0], pixel[0], 0xff],
                _ => [pixel[2], pixel[1], pixel[0], 0xff],
            })
            .collect();
        Ok(Self {
            width: info.width,
            height: info.height,
            bytes,
        })
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent()
            && !folder.exists()
            && !folder.as_os_str().is_empty()
        {
            bail!("{}: there is no folder {}", what(), folder.display());
        }
        let file = File::create(path).with_context(what)?;
        let mut encoder = png::Encoder::new(BufWriter::new(file), self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let rgb: Vec<u8> = self
            .bytes
            .chunks_exact(BYTES)
            .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]])
            .collect();
        let mut writer = encoder.write_header().with_context(what)?;
        writer.write_image_data(&rgb).with_context(what)?;
        writer.finish().with_context(what)
    }
}
