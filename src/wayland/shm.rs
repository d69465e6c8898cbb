//! `wl_shm`: memory of clients, as a dma-buf without a copy, or read without a mapping.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crate::alloc::{self, Udmabuf};
use crate::buffer::FormatInfo;
use crate::kind::into_io_error;
use crate::sync;
use crate::sys::{dma_buf, file, memfd};
use crate::{BufferDesc, DmaBuf, Errno, ErrorKind, Fourcc};

/// Memory that a client shares (`wl_shm_pool`).
///
/// The library never maps it to read it: a client may cut its file off at any time, and whoever reads the mapping then
/// gets SIGBUS. `read(2)` ends early instead, which is an error.
#[derive(Clone, Debug)]
pub struct ShmPool {
    file: Arc<OwnedFd>,
    size: u32,
}

/// A picture in a client's memory (`wl_buffer` of `wl_shm_pool.create_buffer`). It keeps the file, not the pool.
#[derive(Debug)]
pub struct ShmBuffer {
    file: Arc<OwnedFd>,
    desc: BufferDesc,
    info: &'static FormatInfo,
    offset: u32,
    stride: u32,
    dma_buf: OnceLock<Result<DmaBuf, alloc::Error>>,
}

/// A number of `wl_shm.format`: DRM's fourcc, but for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShmFormat(pub u32);

impl From<ShmFormat> for Fourcc {
    fn from(ShmFormat(number): ShmFormat) -> Self {
        match number {
            0 => Fourcc::ARGB8888,
            1 => Fourcc::XRGB8888,
            number => Fourcc(number),
        }
    }
}

impl From<Fourcc> for ShmFormat {
    fn from(fourcc: Fourcc) -> Self {
        match fourcc {
            Fourcc::ARGB8888 => Self(0),
            Fourcc::XRGB8888 => Self(1),
            Fourcc(number) => Self(number),
        }
    }
}

/// Why a client's memory or picture is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShmError {
    /// The size of a pool is zero or less.
    #[error("a pool of {0} bytes")]
    PoolSize(i32),
    /// The fd is no regular file or memfd.
    #[error("the fd is no memory: {errno}")]
    File {
        /// The reason.
        errno: Errno,
    },
    /// A pool grows only.
    #[error("a pool of {from} bytes shrinks to {to}")]
    Shrinks {
        /// Bytes before.
        from: u32,
        /// Bytes asked for.
        to: i32,
    },
    /// The format was not offered, the library does not know its rows, or it has several planes.
    #[error("{0} was not offered for wl_shm")]
    Format(Fourcc),
    /// The picture is not in the pool.
    #[error(
        "{width}x{height} with stride {stride} at byte {offset} is not in a pool of {size} bytes"
    )]
    Outside {
        /// Width in pixels.
        width: i32,
        /// Height in pixels.
        height: i32,
        /// Bytes from one row to the next.
        stride: i32,
        /// First byte.
        offset: i32,
        /// Bytes of the pool.
        size: u32,
    },
    /// The client has cut its file off.
    #[error("the client's memory cannot be read: {errno}")]
    Read {
        /// The kernel's reason. ENODATA: the file ends before the picture does.
        errno: Errno,
    },
}

impl ShmError {
    /// The number of `wl_shm.error` that the client is told.
    pub fn code(&self) -> u32 {
        match self {
            Self::Format(_) => 0,
            Self::PoolSize(_) | Self::Outside { .. } => 1,
            Self::File { .. } | Self::Shrinks { .. } | Self::Read { .. } => 2,
        }
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::File { errno, .. } | Self::Read { errno } => Some(*errno),
            _ => None,
        }
    }
}

into_io_error!(ShmError);

impl ShmPool {
    /// The request `wl_shm.create_pool`. Takes ownership of the fd, and closes it if it is refused.
    ///
    /// The file may be shorter than the pool, as with libwayland: what is missing is missed when a picture is read.
    pub fn new(fd: OwnedFd, size: i32) -> Result<Self, ShmError> {
        let bytes = u32::try_from(size).ok().filter(|&bytes| bytes > 0);
        let size = bytes.ok_or(ShmError::PoolSize(size))?;
        let pool = Self {
            file: Arc::new(fd),
            size,
        };
        let refused = |errno| ShmError::File { errno };
        let stat = file::stat(pool.file.as_fd()).map_err(refused)?;
        match stat.st_mode & libc::S_IFMT == libc::S_IFREG {
            true => Ok(pool),
            false => Err(refused(Errno::EINVAL)),
        }
    }

    /// The request `wl_shm_pool.resize`.
    pub fn resize(&mut self, size: i32) -> Result<(), ShmError> {
        let grown = u32::try_from(size).ok().filter(|&grown| grown >= self.size);
        let grown = grown.ok_or(ShmError::Shrinks {
            from: self.size,
            to: size,
        })?;
        self.size = grown;
        Ok(())
    }

    /// The request `wl_shm_pool.create_buffer`. `is_offered` says whether the compositor lists a format.
    pub fn buffer(
        &self,
        offset: i32,
        (width, height): (i32, i32),
        stride: i32,
        format: ShmFormat,
        is_offered: impl FnOnce(Fourcc) -> bool,
    ) -> Result<ShmBuffer, ShmError> {
        let fourcc = Fourcc::from(format);
        let known = FormatInfo::of(fourcc).filter(|info| info.planes.len() == 1);
        let info = known.filter(|_| is_offered(fourcc));
        let info = info.ok_or(ShmError::Format(fourcc))?;
        let outside = ShmError::Outside {
            width,
            height,
            stride,
            offset,
            size: self.size,
        };
        let whole = |number: i32| u32::try_from(number).map_err(|_| outside.clone());
        let desc = BufferDesc::linear(whole(width)?, whole(height)?, fourcc);
        let (offset, stride) = (whole(offset)?, whole(stride)?);
        let row = info.planes[0].row_bytes(desc.width).unwrap_or(u32::MAX);
        // As libwayland has it: the last row is as long as the others.
        let end = u64::from(offset) + u64::from(stride) * u64::from(desc.height);
        let is_empty = desc.width == 0 || desc.height == 0;
        if is_empty || stride < row || end > u64::from(self.size) {
            return Err(outside);
        }
        Ok(ShmBuffer {
            file: self.file.clone(),
            desc,
            info,
            offset,
            stride,
            dma_buf: OnceLock::new(),
        })
    }
}

impl ShmBuffer {
    /// Size and format, LINEAR.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> u32 {
        self.stride
    }

    /// The picture as a dma-buf, without a copy: see [`Udmabuf::from_memfd`]. Made at the first call, and kept for as long as
    /// this lives, with an fd of its own. A refusal is kept as well, unless it is transient, such as a lack of fds.
    ///
    /// Whoever reads it reads what the client writes meanwhile, so the `wl_buffer` is released only when they have read.
    pub fn dma_buf(&self, udmabuf: &Udmabuf) -> Result<&DmaBuf, alloc::Error> {
        let made = match self.dma_buf.get() {
            Some(known) => known,
            None => match self.make_dma_buf(udmabuf) {
                Err(error) if error.kind() == ErrorKind::Transient => return Err(error),
                made => self.dma_buf.get_or_init(|| made),
            },
        };
        made.as_ref().map_err(Clone::clone)
    }

    fn make_dma_buf(&self, udmabuf: &Udmabuf) -> Result<DmaBuf, alloc::Error> {
        let buffer = udmabuf.from_memfd(&*self.file, self.desc, [(self.offset, self.stride)])?;
        // udmabuf refuses an END before any START. START may wait for fences, and nobody has set any yet.
        let start = dma_buf::SYNC_START | dma_buf::SYNC_WRITE;
        if let Err(errno) = dma_buf::sync(buffer.objects()[0].as_fd(), start) {
            log::debug!("{buffer:?}: DMA_BUF_IOCTL_SYNC: {errno}");
        }
        Ok(buffer)
    }

    /// Has devices see what the client has written: to be called after its commit, before a device reads the
    /// [`dma_buf`](Self::dma_buf). Needed where devices do not see the CPU's caches: the END of `DMA_BUF_IOCTL_SYNC` writes
    /// them back. Nothing if there is no dma-buf. Does not wait.
    pub fn flush(&self) -> Result<(), sync::Error> {
        let Some(Ok(buffer)) = self.dma_buf.get() else {
            return Ok(());
        };
        let end = dma_buf::SYNC_END | dma_buf::SYNC_WRITE;
        let synced = dma_buf::sync(buffer.objects()[0].as_fd(), end);
        synced.map_err(|errno| sync::Error::SyncEnd { errno })
    }

    /// Reads these rows into memory of the compositor, and gives the bytes from one row to the next there. The last row ends
    /// with its last pixel, and `into` is made as long as that.
    ///
    /// One system call, if the client's [`stride`](Self::stride) is at most twice as long as a row: the rows keep it then.
    /// Else it takes one for each row, and what is between them is left out: a client says of a stride what it likes, and
    /// its memory may be a file with holes.
    ///
    /// [`ShmError::Read`] if the client has cut its file off. Rows that the picture does not have are left out.
    pub fn read_rows(&self, rows: Range<u32>, into: &mut Vec<u8>) -> Result<u32, ShmError> {
        let row = self.info.planes[0].row_bytes(self.desc.width).unwrap_or(0);
        let is_dense = self.stride / 2 <= row;
        let stride = if is_dense { self.stride } else { row };
        let (start, end) = (rows.start, rows.end.min(self.desc.height));
        if start >= end {
            into.clear();
            return Ok(stride);
        }
        into.resize(
            stride as usize * (end - start - 1) as usize + row as usize,
            0,
        );
        let place = |n: u32| u64::from(self.offset) + u64::from(self.stride) * u64::from(n);
        let read = |n: u32, bytes: &mut [u8]| {
            let read = memfd::read(self.file.as_fd(), place(n), bytes);
            read.map_err(|errno| ShmError::Read { errno })
        };
        match is_dense {
            true => read(start, into)?,
            false => {
                let rows = into.chunks_exact_mut(row as usize);
                (start..end)
                    .zip(rows)
                    .try_for_each(|(n, bytes)| read(n, bytes))?;
            }
        }
        Ok(stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn memory(size: u64) -> OwnedFd {
        let memory = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, size).unwrap();
        memory
    }

    #[test]
    fn pictures_outside_of_their_pool_are_refused() {
        let pool = ShmPool::new(memory(4096), 4096).unwrap();
        let of = |offset, size, stride| pool.buffer(offset, size, stride, ShmFormat(1), |_| true);
        of(0, (32, 32), 128).unwrap();
        let bad = [
            (1, (32, 32), 128),
            (-4, (32, 32), 128),
            (0, (32, 33), 128),
            (0, (33, 32), 128),
            (0, (0, 32), 128),
            (0, (32, 0), 128),
            (0, (-32, -32), -128),
            (0, (i32::MAX, i32::MAX), i32::MAX),
            (i32::MAX, (32, 32), 128),
        ];
        for (offset, size, stride) in bad {
            let refused = of(offset, size, stride).unwrap_err();
            assert_eq!(refused.code(), 1, "{refused}");
        }
        let unknown = pool
            .buffer(0, (32, 32), 128, ShmFormat(2), |_| true)
            .unwrap_err();
        assert_eq!(unknown.code(), 0);
        let planes = ShmFormat::from(Fourcc::NV12);
        let planes = pool.buffer(0, (32, 32), 128, planes, |_| true).unwrap_err();
        assert_eq!(planes.code(), 0);
        let planes = pool
            .buffer(0, (32, 32), 128, ShmFormat(1), |_| false)
            .unwrap_err();
        assert_eq!(planes.code(), 0);
    }

    #[test]
    fn a_pool_is_memory_and_never_shrinks() {
        assert_eq!(ShmPool::new(memory(4096), 0).unwrap_err().code(), 1);
        assert_eq!(ShmPool::new(memory(4096), -1).unwrap_err().code(), 1);
        let (pipe, _end) = std::io::pipe().unwrap();
        assert_eq!(ShmPool::new(pipe.into(), 4096).unwrap_err().code(), 2);
        let memory = memory(4096);
        let mut pool = ShmPool::new(memory.try_clone().unwrap(), 4096).unwrap();
        assert_eq!(pool.resize(4095).unwrap_err().code(), 2);
        pool.resize(8192).unwrap();
        let late = pool.buffer(4096, (32, 32), 128, ShmFormat(0), |_| true);
        let (late, mut rows) = (late.unwrap(), Vec::new());
        let missing = late.read_rows(0..32, &mut rows).unwrap_err();
        assert_eq!((missing.code(), missing.errno()), (2, Some(Errno::ENODATA)));
        // The client may make its file longer afterwards.
        ftruncate(&memory, 8192).unwrap();
        late.read_rows(0..32, &mut rows).unwrap();
    }

    #[test]
    fn memory_that_was_cut_off_is_an_error_and_no_signal() {
        let memory = memory(8192);
        rustix::io::pwrite(&memory, &[7; 8192], 0).unwrap();
        let pool = ShmPool::new(memory.try_clone().unwrap(), 8192).unwrap();
        let buffer = pool
            .buffer(0, (30, 64), 128, ShmFormat(1), |_| true)
            .unwrap();
        let mut rows = Vec::new();
        buffer.read_rows(2..4, &mut rows).unwrap();
        assert_eq!(rows, [7; 128 + 120]);
        buffer.read_rows(63..99, &mut rows).unwrap();
        assert_eq!(rows.len(), 120);
        buffer.read_rows(64..65, &mut rows).unwrap();
        assert!(rows.is_empty());
        ftruncate(&memory, 4096).unwrap();
        let cut = buffer.read_rows(0..64, &mut rows).unwrap_err();
        assert_eq!(cut.errno(), Some(Errno::ENODATA));
        assert_eq!(cut.code(), 2);
    }

    #[test]
    fn rows_that_are_far_apart_are_read_without_what_is_between_them() {
        const STRIDE: i32 = 256 << 20;
        let memory = memory(3 * STRIDE as u64);
        for n in 0..3 {
            let place = n * STRIDE as u64 + 8;
            rustix::io::pwrite(&memory, &[n as u8 + 1; 120], place).unwrap();
        }
        let pool = ShmPool::new(memory, 3 * STRIDE).unwrap();
        let buffer = pool
            .buffer(8, (30, 2), STRIDE, ShmFormat(1), |_| true)
            .unwrap();
        let mut rows = Vec::new();
        assert_eq!(buffer.read_rows(0..2, &mut rows), Ok(120));
        assert_eq!(rows, [[1; 120], [2; 120]].concat());
        assert!(rows.capacity() < 4096);
        assert_eq!(buffer.read_rows(1..2, &mut rows), Ok(120));
        assert_eq!(rows, [2; 120]);
        let dense = pool
            .buffer(8, (30, 2), 240, ShmFormat(1), |_| true)
            .unwrap();
        assert_eq!(dense.read_rows(0..2, &mut rows), Ok(240));
        assert_eq!(rows.len(), 360);
    }

    #[test]
    fn formats_have_the_numbers_of_wl_shm() {
        for (number, fourcc) in [(0, Fourcc::ARGB8888), (1, Fourcc::XRGB8888)] {
            assert_eq!(Fourcc::from(ShmFormat(number)), fourcc);
            assert_eq!(ShmFormat::from(fourcc), ShmFormat(number));
        }
        let other = Fourcc::XBGR8888;
        assert_eq!(Fourcc::from(ShmFormat::from(other)), other);
    }
}
