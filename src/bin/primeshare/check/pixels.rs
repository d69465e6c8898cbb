//! A pattern that is written by the CPU, copied, and compared by the CPU.

use primeshare::blit::{self, BlitInfo, Blitter, Completion, Failure};
use primeshare::sync::{self, Access, BufferMapping};
use primeshare::{DmaBuf, Errno};

use super::step::Reason;
use crate::machine::PATIENCE;

/// Why a copy is no proof.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the {end} cannot be reached by the CPU: {error}")]
    Map {
        end: &'static str,
        error: sync::Error,
    },
    #[error("the copy was refused: {0}")]
    Blit(blit::Error),
    #[error("the copy failed: {0}")]
    Failed(Failure),
    #[error(
        "{wrong} of {rows} rows are not as sent, the first in plane {plane}, row {row}, byte {byte}: {found:#04x}, not {sent:#04x}"
    )]
    Differs {
        wrong: usize,
        rows: usize,
        plane: usize,
        row: usize,
        byte: usize,
        sent: u8,
        found: u8,
    },
}

impl Error {
    pub(super) fn reason(&self) -> Reason {
        let errno: Option<Errno> = match self {
            Self::Map { error, .. } => error.errno(),
            Self::Blit(error) => error.errno(),
            Self::Failed(failure) => {
                let reason = Reason::of_failure(failure);
                return Reason {
                    text: self.to_string(),
                    ..reason
                };
            }
            Self::Differs { .. } => None,
        };
        Reason::new(self, errno)
    }
}

/// Writes a pattern into the source and another one into the destination, copies, and compares every byte. Gives the
/// copy, which has ended, and the number of pixels.
pub(super) fn copy_and_compare(
    blitter: &Blitter,
    from: &DmaBuf,
    to: &DmaBuf,
) -> Result<(Completion, u64), Error> {
    let (sent, other) = (0x5a, 0xa5);
    write(from, sent).map_err(map("source"))?;
    write(to, other).map_err(map("destination"))?;
    let copy = blitter.blit(from, to, &BlitInfo::default());
    let copy = copy.map_err(Error::Blit)?;
    copy.wait(PATIENCE).map_err(Error::Failed)?;
    compare(to, sent)?;
    Ok((copy, u64::from(to.width()) * u64::from(to.height())))
}

fn map(end: &'static str) -> impl Fn(sync::Error) -> Error {
    move |error| Error::Map { end, error }
}

/// A row of the pattern: neighbours differ, rows differ, and a pattern of another seed differs everywhere.
fn row_of(bytes: &mut [u8], plane: usize, row: usize, seed: u8) {
    let start = (plane.wrapping_mul(101)).wrapping_add(row.wrapping_mul(31)) as u8;
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = start.wrapping_add((at as u8).wrapping_mul(7)) ^ seed;
    }
}

fn write(buffer: &DmaBuf, seed: u8) -> Result<(), sync::Error> {
    let mut mapping = BufferMapping::new(buffer)?;
    let planes = mapping.planes();
    let mut access = mapping.begin_wait(Access::Write, PATIENCE)?;
    let mut bytes = Vec::new();
    for plane in 0..planes {
        for (number, mut row) in access.plane_mut(plane)?.into_rows().enumerate() {
            bytes.resize(row.bytes(), 0);
            row_of(&mut bytes, plane, number, seed);
            row.write(0, &bytes)?;
        }
    }
    access.end()
}

fn compare(buffer: &DmaBuf, seed: u8) -> Result<(), Error> {
    let map = map("destination");
    let mut mapping = BufferMapping::new(buffer).map_err(&map)?;
    let planes = mapping.planes();
    let access = mapping.begin_wait(Access::Read, PATIENCE).map_err(&map)?;
    let (mut sent, mut found) = (Vec::new(), Vec::new());
    let (mut rows, mut wrong, mut first) = (0, 0, None);
    for plane in 0..planes {
        for (number, row) in access.plane(plane).map_err(&map)?.rows().enumerate() {
            sent.resize(row.bytes(), 0);
            found.resize(row.bytes(), 0);
            row_of(&mut sent, plane, number, seed);
            row.read(0, &mut found).map_err(&map)?;
            rows += 1;
            if let Some(byte) = (0..sent.len()).find(|&byte| sent[byte] != found[byte]) {
                wrong += 1;
                first.get_or_insert((plane, number, byte, sent[byte], found[byte]));
            }
        }
    }
    access.end().map_err(&map)?;
    match first {
        None => Ok(()),
        Some((plane, row, byte, sent, found)) => Err(Error::Differs {
            wrong,
            rows,
            plane,
            row,
            byte,
            sent,
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::row_of;

    #[test]
    fn patterns_of_two_seeds_differ_in_every_byte() {
        let (mut one, mut other) = ([0; 64], [0; 64]);
        row_of(&mut one, 0, 0, 0x5a);
        row_of(&mut other, 0, 0, 0xa5);
        assert!(one.iter().zip(&other).all(|(one, other)| one != other));
        row_of(&mut other, 0, 1, 0x5a);
        assert_ne!(one, other, "rows differ");
        assert!(one.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
