//! `mmap(2)` of memory that devices share, so that it is never a Rust reference.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use nix::sys::mman::ProtFlags;

use super::stream;
use crate::Errno;

/// A shared mapping, unmapped on drop. Bytes are copied in and out, since devices and other
/// processes may change them at any time.
#[derive(Debug)]
pub(crate) struct Map {
    address: NonNull<u8>,
    length: NonZeroUsize,
    /// Whether streaming loads read it better, once that was measured.
    streams: OnceLock<bool>,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}
// SAFETY: a shared reference only reads; writing takes an exclusive one.
unsafe impl Sync for Map {}

impl Map {
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        length: NonZeroUsize,
        protection: ProtFlags,
    ) -> Result<Self, Errno> {
        let protection = rustix::mm::ProtFlags::from_bits_retain(protection.bits() as u32);
        let flags = rustix::mm::MapFlags::SHARED;
        // By rustix, whose offsets have 64 bits on every target: those of DRM devices begin at 4 GiB
        // (`DRM_FILE_PAGE_OFFSET_START`), past what the C library's `off_t` holds on 32-bit ones.
        // Not repeated: EAGAIN means that too much memory is locked (mlockall), and stays.
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let address =
            unsafe { rustix::mm::mmap(null_mut(), length.get(), protection, flags, fd, offset) };
        let address = address.map_err(super::errno)?;
        Ok(Self {
            address: NonNull::new(address.cast()).ok_or(Errno::EFAULT)?,
            length,
            streams: OnceLock::new(),
        })
    }

    pub(crate) fn length(&self) -> usize {
        self.length.get()
    }

    /// Has the kernel read the first and the last word, and says EFAULT if the memory cannot be
    /// read: a read of the process itself would end it by SIGBUS.
    ///
    /// `rt_sigprocmask(2)` is the system call that reads a word of ours and then does nothing, since
    /// what is to be done with the mask is not known (`kernel/signal.c`: the mask is copied first).
    /// The calls that copy memory between processes, and `MADV_POPULATE_READ`, refuse mappings of
    /// device memory (`VM_PFNMAP`) always.
    pub(crate) fn probe(&self) -> Result<(), Errno> {
        const WORD: usize = size_of::<u64>();
        let last = self.length().saturating_sub(WORD) / WORD * WORD;
        [0, last].into_iter().try_for_each(|offset| {
            if self.length() < WORD {
                return Ok(());
            }
            // SAFETY: inside of the mapping.
            let word = unsafe { self.address.add(offset) };
            // SAFETY: the kernel reads the word, or finds that it cannot, and changes no mask.
            let answer =
                unsafe { libc::syscall(libc::SYS_rt_sigprocmask, -1, word.as_ptr(), 0, WORD) };
            match super::result(answer) {
                Err(Errno::EFAULT) => Err(Errno::EFAULT),
                _ => Ok(()),
            }
        })
    }

    /// Finds out, the first time, whether the memory is uncached or write-combined; reads are by
    /// streaming loads then. To be called when the memory can be read, which [`Self::probe`] says:
    /// this reads it.
    pub(crate) fn measure(&self) {
        self.streams.get_or_init(|| {
            // SAFETY: so many bytes are mapped.
            let is_uncached = unsafe { stream::is_uncached(self.address.as_ptr(), self.length()) };
            is_uncached.unwrap_or(false)
        });
    }

    /// The bytes from `offset`; `None` where they are not all inside.
    pub(crate) fn region(&self, offset: usize, length: usize) -> Option<Region<'_>> {
        let all = Region {
            address: self.address,
            length: self.length(),
            streams: self.streams.get() == Some(&true),
            map: PhantomData,
        };
        all.part(offset, length)
    }

    /// As [`Self::region`], to write to. The mapping must have been made writable.
    pub(crate) fn region_mut(&mut self, offset: usize, length: usize) -> Option<RegionMut<'_>> {
        let region = self.region(offset, length)?;
        Some(RegionMut {
            address: region.address,
            length,
            streams: region.streams,
            map: PhantomData,
        })
    }

    /// Copies bytes out; `None`, and nothing done, where they are not all inside.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        self.region(offset, into.len())?.read(0, into)
    }

    /// Copies bytes out of another mapping; `None`, and nothing done, where they are not all inside
    /// both. The mapping must have been made writable.
    pub(crate) fn copy(
        &mut self,
        at: usize,
        from: &Map,
        offset: usize,
        length: usize,
    ) -> Option<()> {
        let from = from.region(offset, length)?;
        self.region_mut(at, length)?.copy(0, from)
    }

    /// Copies bytes in; `None`, and nothing done, where they are not all inside. The mapping must
    /// have been made writable.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) -> Option<()> {
        self.region_mut(offset, from.len())?.write(0, from)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and its address never left this type.
        let unmapped = unsafe { nix::sys::mman::munmap(self.address.cast(), self.length()) };
        if let Err(errno) = unmapped {
            log::error!("munmap: {errno}");
        }
    }
}

/// Bytes of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    address: NonNull<u8>,
    length: usize,
    /// Whether it is read by streaming loads.
    streams: bool,
    map: PhantomData<&'a Map>,
}

/// Bytes of a mapping that nobody else in the process has borrowed.
#[derive(Debug)]
pub(crate) struct RegionMut<'a> {
    address: NonNull<u8>,
    length: usize,
    /// Whether it is read by streaming loads.
    streams: bool,
    map: PhantomData<&'a mut Map>,
}

// SAFETY: as a reference to the mapping, which is `Sync`.
unsafe impl Send for Region<'_> {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Region<'_> {}
// SAFETY: as a unique reference to the mapping, which is `Send`.
unsafe impl Send for RegionMut<'_> {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for RegionMut<'_> {}

impl<'a> Region<'a> {
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn address(&self) -> *const u8 {
        self.address.as_ptr()
    }

    /// The bytes from `offset`; `None` where they are not all inside.
    pub(crate) fn part(self, offset: usize, length: usize) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| Self {
            // SAFETY: inside of the region, which is inside of the mapping.
            address: unsafe { self.address.add(offset) },
            length,
            ..self
        })
    }

    /// Whether the memory is uncached, as far as that was [measured](Map::measure).
    pub(crate) fn is_uncached(&self) -> bool {
        self.streams
    }

    /// Copies bytes out; `None`, and nothing done, where they are not all inside.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        let from = self.part(offset, into.len())?;
        // SAFETY: the region is inside of a mapping that lives as long as it, and a Rust slice
        // cannot overlap that. If something writes meanwhile the bytes are a mixture.
        unsafe {
            match self.streams {
                true => stream::read(from.address(), into.as_mut_ptr(), into.len()),
                false => {
                    std::ptr::copy_nonoverlapping(from.address(), into.as_mut_ptr(), into.len());
                }
            }
        }
        Some(())
    }
}

impl<'a> RegionMut<'a> {
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn address(&mut self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// The same bytes, for reading.
    pub(crate) fn as_region(&self) -> Region<'_> {
        Region {
            address: self.address,
            length: self.length,
            streams: self.streams,
            map: PhantomData,
        }
    }

    /// The bytes from `offset`; `None` where they are not all inside.
    pub(crate) fn part_mut(&mut self, offset: usize, length: usize) -> Option<RegionMut<'_>> {
        let part = self.as_region().part(offset, length)?;
        Some(RegionMut {
            address: part.address,
            length,
            streams: part.streams,
            map: PhantomData,
        })
    }

    /// The same bytes, for a shorter time.
    pub(crate) fn borrow(&mut self) -> RegionMut<'_> {
        RegionMut { ..*self }
    }

    /// Two regions: the first `length` bytes, and the rest. `None` where there are not so many.
    pub(crate) fn split(self, length: usize) -> Option<(Self, Self)> {
        let rest = self.length.checked_sub(length)?;
        let part = |address, length| Self {
            address,
            length,
            streams: self.streams,
            map: PhantomData,
        };
        // SAFETY: inside of the region, or its end.
        let middle = unsafe { self.address.add(length) };
        Some((part(self.address, length), part(middle, rest)))
    }

    /// Copies bytes in; `None`, and nothing done, where they are not all inside.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) -> Option<()> {
        let into = self.as_region().part(offset, from.len())?;
        // SAFETY: as in `Region::read`, and the mapping is writable.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), into.address.as_ptr(), from.len());
        }
        Some(())
    }

    /// Copies bytes of another region in; `None`, and nothing done, where they are not all
    /// inside.
    pub(crate) fn copy(&mut self, offset: usize, from: Region<'_>) -> Option<()> {
        let into = self.as_region().part(offset, from.length)?;
        // SAFETY: as in `write`. This region is borrowed for itself alone, so in the process's
        // address space the other does not overlap it, though it may be the same memory.
        unsafe {
            match from.streams {
                true => stream::copy(from.address(), into.address.as_ptr(), from.length),
                false => std::ptr::copy_nonoverlapping(
                    from.address(),
                    into.address.as_ptr(),
                    from.length,
                ),
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Sixteen bytes, each its own number.
    fn map() -> Map {
        let memory = crate::sys::udmabuf::memory(16).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let length = NonZeroUsize::new(16).unwrap();
        let mut map = Map::new(memory.as_fd(), 0, length, protection).unwrap();
        let bytes: [u8; 16] = std::array::from_fn(|number| number as u8);
        map.write(0, &bytes).unwrap();
        map
    }

    fn bytes(region: Region<'_>) -> Vec<u8> {
        let mut bytes = vec![0; region.length()];
        region.read(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_region_ends_where_it_was_said_to() {
        let map = map();
        let region = map.region(4, 8).unwrap();
        assert_eq!(bytes(region.part(6, 2).unwrap()), [10, 11]);
        assert_eq!(region.part(8, 0).unwrap().length(), 0);
        assert!(region.part(6, 3).is_none() && region.part(9, 0).is_none());
        assert!(region.part(usize::MAX, 2).is_none());
        assert!(map.region(9, 8).is_none() && map.region(1, usize::MAX).is_none());
    }

    #[test]
    fn memory_that_cannot_be_read_is_found_without_reading_it() {
        assert_eq!(map().probe(), Ok(()));
        let memory = rustix::fs::memfd_create("shrinks", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let page = rustix::param::page_size();
        rustix::fs::ftruncate(&memory, 2 * page as u64).unwrap();
        let length = NonZeroUsize::new(2 * page).unwrap();
        let map = Map::new(memory.as_fd(), 0, length, ProtFlags::PROT_READ).unwrap();
        assert_eq!(map.probe(), Ok(()));
        // What lies past a file's end gives SIGBUS, as memory does that a device has lost.
        rustix::fs::ftruncate(&memory, page as u64).unwrap();
        assert_eq!(map.probe(), Err(Errno::EFAULT));
    }

    #[test]
    fn uncached_memory_is_read_as_any_other() {
        let map = map();
        map.measure();
        let mut region = map.region(1, 14).unwrap();
        // Sixteen bytes tell nothing.
        assert!(!region.is_uncached());
        region.streams = true;
        let part = region.part(2, 9).unwrap();
        assert!(part.is_uncached());
        assert_eq!(bytes(part), [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let mut other = super::tests::map();
        let mut into = other.region_mut(5, 9).unwrap();
        into.copy(0, part).unwrap();
        assert_eq!(bytes(into.as_region()), bytes(part));
    }

    #[test]
    fn split_regions_are_written_apart() {
        let mut map = map();
        let (mut left, mut right) = map.region_mut(0, 8).unwrap().split(3).unwrap();
        left.write(2, &[90]).unwrap();
        right.copy(0, left.as_region()).unwrap();
        assert!(left.write(3, &[1]).is_none());
        assert!(right.copy(3, left.as_region()).is_none());
        assert!(right.split(6).is_none());
        assert_eq!(
            bytes(map.region(0, 9).unwrap()),
            [0, 1, 90, 0, 1, 90, 6, 7, 8]
        );
    }
}
