//! CPU access by planes and rows. Rows are copied, never referenced: other processes may change them.

use arrayvec::ArrayVec;

use super::cpu::{log_end, out_of_range};
use super::{Access, Deadline, Error, Mapping};
use crate::buffer::{DmaBuf, FormatInfo, MAX_PLANES, Modifier};
use crate::sys::map::{Region, RegionMut};

/// A LINEAR buffer mapped into the process, by planes and rows.
///
/// Each of its dma-bufs is mapped once as a whole, as by [`Mapping`], since planes may begin anywhere in it.
/// Mapping is the costly part, so keep the mapping. A pair of begin and end then costs two ioctls for each
/// dma-buf and allocates nothing. A mapping keeps the memory, but neither the [`DmaBuf`] nor its GEM handle,
/// and does not pin the memory.
#[derive(Debug)]
pub struct BufferMapping {
    objects: ArrayVec<Mapping, MAX_PLANES>,
    planes: ArrayVec<Place, MAX_PLANES>,
}

/// Where the rows of a plane are. It was checked that they are inside of the dma-buf when the [`DmaBuf`] was
/// made, and it is checked again with every access to a row.
#[derive(Clone, Copy, Debug)]
struct Place {
    object: usize,
    offset: usize,
    stride: usize,
    row_bytes: usize,
    rows: usize,
}

impl Place {
    /// How many bytes the plane has, without the padding of the last row.
    fn length(&self) -> Option<usize> {
        let before = self.rows.checked_sub(1)?.checked_mul(self.stride)?;
        before.checked_add(self.row_bytes)
    }
}

impl BufferMapping {
    /// Maps a buffer for reading and writing.
    ///
    /// [`Error::RowsUnknown`] if the buffer is not LINEAR or the format is not known ([`FormatInfo`]). Use a
    /// [`Mapping`] for its bytes then.
    pub fn new(buffer: &DmaBuf) -> Result<Self, Error> {
        Self::map(buffer, Mapping::of_object)
    }

    /// As [`Self::new`] for reading only, which dma-bufs that were exported without `DRM_RDWR`
    /// allow too.
    pub fn read_only(buffer: &DmaBuf) -> Result<Self, Error> {
        Self::map(buffer, Mapping::of_object_read_only)
    }

    fn map(
        buffer: &DmaBuf,
        map: impl Fn(&DmaBuf, usize) -> Result<Mapping, Error>,
    ) -> Result<Self, Error> {
        let unknown = || Error::RowsUnknown {
            fourcc: buffer.fourcc(),
            modifier: buffer.modifier(),
        };
        let format = FormatInfo::of(buffer.fourcc())
            .filter(|_| buffer.modifier() == Modifier::LINEAR)
            .ok_or_else(unknown)?;
        let objects = (0..buffer.objects().len()).map(|object| map(buffer, object));
        let objects = objects.collect::<Result<_, _>>()?;
        let places = buffer.planes().iter().zip(format.planes);
        let place = |(plane, format): (&crate::buffer::Plane, &crate::buffer::PlaneInfo)| {
            Some(Place {
                object: plane.object,
                offset: usize::try_from(plane.offset).ok()?,
                stride: usize::try_from(plane.stride).ok()?,
                row_bytes: usize::try_from(format.row_bytes(buffer.width())?).ok()?,
                rows: usize::try_from(format.rows(buffer.height())).ok()?,
            })
        };
        let planes = places.map(place).collect::<Option<_>>();
        Ok(Self {
            objects,
            planes: planes.ok_or_else(unknown)?,
        })
    }

    /// How many planes there are.
    pub fn planes(&self) -> usize {
        self.planes.len()
    }

    /// Begins an access to all planes, as [`Mapping::begin_wait`].
    pub fn begin_wait(
        &mut self,
        access: Access,
        deadline: impl Into<Deadline>,
    ) -> Result<BufferAccess<'_>, Error> {
        let deadline = deadline.into();
        // If an access cannot be begun, the drop ends those that were.
        let mut guard = BufferAccess {
            buffer: self,
            access,
            begun: 0,
        };
        for object in &guard.buffer.objects {
            object.start_wait(access, deadline)?;
            guard.begun += 1;
        }
        Ok(guard)
    }
}

/// CPU access to a buffer under way. Ended when dropped, also by a panic.
#[derive(Debug)]
pub struct BufferAccess<'a> {
    buffer: &'a mut BufferMapping,
    access: Access,
    /// For how many of the dma-bufs an access was begun and has to be ended.
    begun: usize,
}

impl BufferAccess<'_> {
    /// A plane, to read. [`Error::WriteOnly`] for access begun for writing only,
    /// [`Error::NoSuchPlane`] past the last.
    pub fn plane(&self, plane: usize) -> Result<MappedPlane<'_>, Error> {
        self.access.check_reads()?;
        let place = self.place(plane)?;
        let memory = self.buffer.objects[place.object].memory();
        let region = place
            .length()
            .and_then(|length| memory.region(place.offset, length));
        Ok(MappedPlane {
            region: region.ok_or_else(|| beyond(&place, memory.length()))?,
            place,
        })
    }

    /// A plane, to write. [`Error::ReadOnly`] for access begun for reading,
    /// [`Error::NoSuchPlane`] past the last.
    pub fn plane_mut(&mut self, plane: usize) -> Result<MappedPlaneMut<'_>, Error> {
        self.access.check_writes()?;
        let place = self.place(plane)?;
        let memory = self.buffer.objects[place.object].memory_mut();
        let size = memory.length();
        let region = place
            .length()
            .and_then(|length| memory.region_mut(place.offset, length));
        Ok(MappedPlaneMut {
            region: region.ok_or_else(|| beyond(&place, size))?,
            place,
        })
    }

    /// Ends the access. An error if devices may not see what was written; dropping the guard only logs that.
    /// All dma-bufs are ended, also after an error. The first error is given.
    pub fn end(mut self) -> Result<(), Error> {
        self.end_all()
    }

    fn end_all(&mut self) -> Result<(), Error> {
        let begun = std::mem::take(&mut self.begun);
        let mut all = Ok(());
        for object in self.buffer.objects.iter().take(begun) {
            all = all.and(object.end(self.access));
        }
        all
    }

    fn place(&self, plane: usize) -> Result<Place, Error> {
        let planes = &self.buffer.planes;
        planes.get(plane).copied().ok_or(Error::NoSuchPlane {
            plane,
            planes: planes.len(),
        })
    }
}

impl Drop for BufferAccess<'_> {
    fn drop(&mut self) {
        log_end(self.end_all());
    }
}

fn beyond(place: &Place, size: usize) -> Error {
    let length = place.length().unwrap_or(usize::MAX);
    out_of_range(place.offset, length, size)
}

/// A plane of a buffer, to read, row by row.
#[derive(Clone, Copy, Debug)]
pub struct MappedPlane<'a> {
    region: Region<'a>,
    place: Place,
}

impl<'a> MappedPlane<'a> {
    /// How many rows it has.
    pub fn height(&self) -> usize {
        self.place.rows
    }

    /// Bytes of a row's pixels.
    pub fn row_bytes(&self) -> usize {
        self.place.row_bytes
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.place.stride
    }

    /// A row's pixels; `None` past the last row.
    pub fn row(&self, row: usize) -> Option<Row<'a>> {
        // The region ends with the last row.
        let start = row.checked_mul(self.place.stride)?;
        self.region.part(start, self.place.row_bytes).map(Row)
    }

    /// All rows, from the top.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = Row<'a>> + use<'a> {
        let plane = *self;
        (0..plane.height()).filter_map(move |row| plane.row(row))
    }
}

/// A plane of a buffer, to write, row by row.
#[derive(Debug)]
pub struct MappedPlaneMut<'a> {
    region: RegionMut<'a>,
    place: Place,
}

impl<'a> MappedPlaneMut<'a> {
    /// The same plane, to read.
    pub fn as_plane(&self) -> MappedPlane<'_> {
        MappedPlane {
            region: self.region.as_region(),
            place: self.place,
        }
    }

    /// A row's pixels; `None` past the last row.
    pub fn row(&mut self, row: usize) -> Option<RowMut<'_>> {
        let start = row.checked_mul(self.place.stride)?;
        self.region
            .part_mut(start, self.place.row_bytes)
            .map(RowMut)
    }

    /// All rows, from the top.
    pub fn into_rows(self) -> impl Iterator<Item = RowMut<'a>> + use<'a> {
        let Place {
            stride, row_bytes, ..
        } = self.place;
        let mut rest = Some(self.region);
        std::iter::from_fn(move || {
            let (row, below) = rest.take()?.split(row_bytes)?;
            // Rows have no padding if the stride is just a row, and the last row never has any.
            rest = below.split(stride.saturating_sub(row_bytes)).map(|it| it.1);
            Some(RowMut(row))
        })
        .take(self.place.rows)
    }
}

/// The pixels of a row, to read. Bytes are copied, since devices and other processes may change
/// them at any time.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a>(Region<'a>);

impl<'a> Row<'a> {
    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.0.length()
    }

    /// The part of the row with `length` bytes from `offset` on. [`Error::Range`] if they are not all in the
    /// row.
    pub fn part(&self, offset: usize, length: usize) -> Result<Row<'a>, Error> {
        let part = self.0.part(offset, length).map(Row);
        part.ok_or_else(|| out_of_range(offset, length, self.bytes()))
    }

    /// Copies bytes out, from `offset` on. [`Error::Range`] if they are not all in the row: nothing is copied
    /// then.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let read = self.0.read(offset, into);
        read.ok_or_else(|| out_of_range(offset, into.len(), self.bytes()))
    }

    /// The address of the first byte, for code that reads by itself. [`Self::bytes`] from there on are valid
    /// while the access is under way. Others may write them meanwhile, so make no Rust reference of it.
    pub fn as_ptr(&self) -> *const u8 {
        self.0.address()
    }
}

/// The pixels of a row, to write.
#[derive(Debug)]
pub struct RowMut<'a>(RegionMut<'a>);

impl RowMut<'_> {
    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.0.length()
    }

    /// The same row, to read.
    pub fn as_row(&self) -> Row<'_> {
        Row(self.0.as_region())
    }

    /// Copies bytes in, at `offset`. [`Error::Range`] if they do not all fit into the row: nothing is copied
    /// then.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Error> {
        let written = self.0.write(offset, from);
        written.ok_or_else(|| out_of_range(offset, from.len(), self.bytes()))
    }

    /// Copies another buffer's row in, at `offset`, straight from one mapping to the other. [`Error::Range`]
    /// if it does not fit: nothing is copied then.
    pub fn copy_from(&mut self, offset: usize, from: Row<'_>) -> Result<(), Error> {
        let copied = self.0.copy(offset, from.0);
        copied.ok_or_else(|| out_of_range(offset, from.bytes(), self.bytes()))
    }

    /// The address of the first byte, as [`Row::as_ptr`], for code that writes by itself.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.address()
    }
}
