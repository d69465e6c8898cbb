//! Reads of memory that the CPU does not cache.
//!
//! Each ordinary load from uncached or write-combined memory is a transaction on the bus: 50 to 240 MB/s. A
//! streaming load (SSE4.1 `MOVNTDQA`) fetches a line of 64 bytes into a buffer, which serves the next three
//! loads (Intel, "Copying Accelerated Video Decode Frame Buffers", 2015; Intel SDM, MOVNTDQA). From cached
//! memory it is an ordinary load. On processors without it, ordinary copies are made.

use std::time::{Duration, Instant};

/// How many bytes are read before any is written, so that writes do not evict the lines.
const BOUNCE: usize = 4096;

/// Copies bytes out of uncached memory.
///
/// # Safety
/// `length` bytes can be read from `from` and written to `to`, and they do not overlap.
pub(crate) unsafe fn read(from: *const u8, to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.1") {
        // SAFETY: as the caller promises; the processor has the instruction.
        return unsafe { sse4_1::read(from, to, length) };
    }
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(from, to, length) }
}

/// Copies bytes out of uncached memory into memory that may be uncached too.
///
/// # Safety
/// As for [`read`].
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    let mut bounce = std::mem::MaybeUninit::<[u8; BOUNCE]>::uninit();
    let bounce = bounce.as_mut_ptr().cast::<u8>();
    // The first block ends where the source is aligned to lines.
    let mut end = length.min(BOUNCE - from.addr() % 64);
    let mut start = 0;
    while start < length {
        let bytes = end - start;
        // SAFETY: inside of what the caller promises, and not more than the bounce buffer has.
        unsafe {
            read(from.add(start), bounce, bytes);
            std::ptr::copy_nonoverlapping(bounce, to.add(start), bytes);
        }
        start = end;
        end = length.min(start + BOUNCE);
    }
}

#[cfg(target_arch = "x86_64")]
mod sse4_1 {
    use std::arch::x86_64::{__m128i, _mm_mfence, _mm_storeu_si128, _mm_stream_load_si128};

    const VECTOR: usize = size_of::<__m128i>();
    const LINE: usize = 4 * VECTOR;

    /// # Safety
    /// As for [`super::read`].
    #[target_feature(enable = "sse4.1")]
    pub(super) unsafe fn read(from: *const u8, to: *mut u8, length: usize) {
        // Bytes before the first aligned vector.
        let head = length.min(from.align_offset(VECTOR));
        let lines_end = head + (length - head) / LINE * LINE;
        let vectors_end = head + (length - head) / VECTOR * VECTOR;
        // Streaming loads may be served from a buffer that was filled before a device wrote.
        #[allow(
            unused_unsafe,
            reason = "newer versions of Rust have it as a safe function"
        )]
        // SAFETY: it touches no memory of the program's.
        unsafe {
            _mm_mfence();
        }
        // SAFETY: all offsets are up to `length`, as the caller promises; loads are of aligned
        // vectors.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, head);
            let mut at = head;
            let load = |at: usize| _mm_stream_load_si128(from.add(at).cast());
            let store = |at: usize, vector| _mm_storeu_si128(to.add(at).cast(), vector);
            while at < lines_end {
                let line = [
                    load(at),
                    load(at + VECTOR),
                    load(at + 2 * VECTOR),
                    load(at + 3 * VECTOR),
                ];
                for (index, vector) in line.into_iter().enumerate() {
                    store(at + index * VECTOR, vector);
                }
                at += LINE;
            }
            while at < vectors_end {
                store(at, load(at));
                at += VECTOR;
            }
            std::ptr::copy_nonoverlapping(from.add(at), to.add(at), length - at);
        }
    }
}

/// Bytes read to find out whether memory is cached: few enough for every first-level cache.
const SAMPLE: usize = 16 * 1024;

/// Whether memory is uncached or write-combined, found by reading it. `None` if it is too small to tell.
///
/// The second and later reads of cached memory come from the cache, as those of an ordinary buffer
/// of the same size do; those of uncached memory are as slow as the first.
///
/// # Safety
/// `length` bytes can be read from `from`.
pub(crate) unsafe fn is_uncached(from: *const u8, length: usize) -> Option<bool> {
    if length < SAMPLE {
        return None;
    }
    let ordinary = vec![1; SAMPLE];
    let mut into = vec![0; SAMPLE];
    let mut time = |from: *const u8| {
        let start = Instant::now();
        // SAFETY: so many bytes can be read, as the caller promises and as the vector has.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), SAMPLE) };
        std::hint::black_box(&mut into);
        start.elapsed()
    };
    // The first read of each fills the cache and is not counted; of the others the best, since an
    // interrupt makes any of them slow.
    let mut best = |from| {
        time(from);
        time(from).min(time(from)).min(time(from))
    };
    let ordinary = best(ordinary.as_ptr());
    Some(is_slow(best(from), ordinary))
}

/// Uncached reads are 50 times as slow and more: 16 KiB from a first-level cache take less than
/// 1 us, at 240 MB/s 68 us. Cached memory is as fast as the ordinary buffer, and a few times slower
/// where something else evicts it meanwhile. Eight times is between the two.
fn is_slow(read: Duration, ordinary: Duration) -> bool {
    // No clock is fine enough to measure less.
    read > 8 * ordinary.max(Duration::from_nanos(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies at every alignment of source and destination, of lengths around those of vectors,
    /// lines and bounce buffers, and looks at the bytes before and after too.
    fn check(copy: unsafe fn(*const u8, *mut u8, usize), lengths: impl Iterator<Item = usize>) {
        let source: Vec<u8> = (0..3 * BOUNCE)
            .map(|at| (at * 7 + at / 251) as u8)
            .collect();
        for length in lengths {
            for (skip, at) in [(0, 0), (1, 0), (0, 1), (15, 3), (16, 9), (17, 16), (63, 5)] {
                let mut into = vec![0xa5; 3 * BOUNCE + 64];
                // SAFETY: both vectors are longer.
                unsafe { copy(source.as_ptr().add(skip), into.as_mut_ptr().add(at), length) };
                let (before, rest) = into.split_at(at);
                let (copied, after) = rest.split_at(length);
                assert!(
                    copied == &source[skip..skip + length],
                    "{length} {skip} {at}"
                );
                assert!(before.iter().chain(after).all(|byte| *byte == 0xa5));
            }
        }
    }

    #[test]
    fn a_streaming_read_gives_the_same_bytes_at_every_alignment_and_length() {
        check(read, (0..300).chain([4095, 4096, 4097, 9000]));
    }

    #[test]
    fn a_streaming_copy_gives_the_same_bytes_at_every_alignment_and_length() {
        check(
            copy,
            (0..140).chain(4030..4170).chain([8191, 8192, 8200, 12000]),
        );
    }

    #[test]
    fn memory_is_uncached_if_it_stays_many_times_slower_than_an_ordinary_buffer() {
        let us = Duration::from_micros;
        assert!(is_slow(us(68), us(1)));
        assert!(!is_slow(us(3), us(1)));
        assert!(!is_slow(
            Duration::from_nanos(900),
            Duration::from_nanos(20)
        ));
        assert!(is_slow(us(400), us(12)));
    }

    #[test]
    fn too_little_memory_tells_nothing() {
        let bytes = [0; 64];
        // SAFETY: so many bytes can be read.
        let told = unsafe { is_uncached(bytes.as_ptr(), bytes.len()) };
        assert_eq!(told, None);
    }
}
