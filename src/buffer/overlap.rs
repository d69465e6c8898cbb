//! Whether the rows of two planes have bytes in common. Pure arithmetic.

/// Rows at equal distances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    /// First byte of the first row.
    pub(super) offset: u32,
    /// Bytes from one row to the next, at least one.
    pub(super) stride: u32,
    /// Bytes of each row, at least one.
    pub(super) bytes: u32,
    /// At least one.
    pub(super) count: u32,
}

/// Whether some row of one plane and some row of the other have a byte in common. Rows may lie
/// between the rows of the other plane, as in planes side by side in one stride.
///
/// Takes the same time for any number of rows, since pictures of any height come from outside.
pub(super) fn overlap(a: Rows, b: Rows) -> bool {
    let (a_stride, b_stride) = (i128::from(a.stride), i128::from(b.stride));
    let (a_bytes, b_bytes) = (i128::from(a.bytes), i128::from(b.bytes));
    // Row i of `a` begins `i * a_stride - distance` bytes after the first row of `b`. It has a byte
    // in common with row j of `b` if `j * b_stride` lies strictly between that place less `b_bytes`
    // and that place plus `a_bytes`.
    let distance = i128::from(b.offset) - i128::from(a.offset);
    // The rows i whose span reaches the first row of `b` and does not pass its last row. Within
    // these, a multiple of `b_stride` in the span is a row of `b`, or the first or last row is in
    // the span too.
    let last_of_b = i128::from(b.count - 1) * b_stride;
    let first = (distance - a_bytes).div_euclid(a_stride) + 1;
    let last = (last_of_b + distance + b_bytes - 1).div_euclid(a_stride);
    let (first, last) = (first.max(0), last.min(i128::from(a.count - 1)));
    if first > last {
        return false;
    }
    // A multiple of `b_stride` lies strictly between `low` and `high` if the two have another
    // quotient. Their quotients never fall from row to row, so it is enough to compare sums.
    let high = first * a_stride - distance + a_bytes - 1;
    let low = first * a_stride - distance - b_bytes;
    let rows = last - first + 1;
    sum_of_quotients(rows, a_stride, high, b_stride)
        > sum_of_quotients(rows, a_stride, low, b_stride)
}

/// The sum of `(factor * i + start) / divisor`, rounded down, for each i in `0..count`: Euclid's
/// algorithm, as in "floor sum" of competitive programming.
fn sum_of_quotients(count: i128, factor: i128, start: i128, divisor: i128) -> i128 {
    let (mut n, mut a, mut b, mut m) = (count, factor, start, divisor);
    let mut sum = 0;
    loop {
        sum += n * (n - 1) / 2 * a.div_euclid(m) + n * b.div_euclid(m);
        (a, b) = (a.rem_euclid(m), b.rem_euclid(m));
        let most = a * n + b;
        if most < m {
            return sum;
        }
        // Count the lattice points below the line by columns of the other axis.
        (n, a, b, m) = (most / m, m, most % m, a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(offset: u32, stride: u32, bytes: u32, count: u32) -> Rows {
        Rows {
            offset,
            stride,
            bytes,
            count,
        }
    }

    #[test]
    fn sums_are_those_of_every_term() {
        for (count, factor, divisor) in [(1, 0, 1), (7, 3, 5), (20, 11, 4), (13, 4, 4), (9, 2, 7)] {
            for start in -30..30 {
                let terms = (0..count).map(|i: i128| (factor * i + start).div_euclid(divisor));
                let sum = sum_of_quotients(count, factor, start, divisor);
                assert_eq!(sum, terms.sum(), "{count} {factor} {start} {divisor}");
            }
        }
    }

    /// The same, found by looking at every pair of rows.
    fn overlap_by_rows(a: Rows, b: Rows) -> bool {
        let starts = |rows: Rows| (0..rows.count).map(move |row| rows.offset + row * rows.stride);
        starts(a).any(|x| starts(b).any(|y| x < y + b.bytes && y < x + a.bytes))
    }

    #[test]
    fn every_pair_of_rows_counts() {
        let mut both = [0, 0];
        for a_stride in 1..8 {
            for b_stride in 1..8 {
                for (a_bytes, b_bytes) in [(1, 1), (2, 1), (1, 3), (3, 2)] {
                    for (a_count, b_count) in [(1, 1), (4, 4), (2, 5), (7, 3)] {
                        for b_offset in 0..32 {
                            let a = rows(9, a_stride, a_bytes, a_count);
                            let b = rows(b_offset, b_stride, b_bytes, b_count);
                            let expected = overlap_by_rows(a, b);
                            assert_eq!(overlap(a, b), expected, "{a:?} {b:?}");
                            assert_eq!(overlap(b, a), expected, "{b:?} {a:?}");
                            both[usize::from(expected)] += 1;
                        }
                    }
                }
            }
        }
        assert!(both[0] > 1000 && both[1] > 1000, "{both:?}");
    }

    #[test]
    fn planes_side_by_side_in_one_stride_do_not_overlap() {
        // NV12 of 64x64 pixels.
        let luma = rows(0, 128, 64, 64);
        assert!(!overlap(luma, rows(64, 128, 64, 32)));
        assert!(overlap(luma, rows(63, 128, 64, 32)));
        assert!(overlap(luma, rows(65, 128, 64, 32)));
        // Chroma after every second row of luma.
        assert!(!overlap(luma, rows(64, 256, 64, 32)));
        assert!(overlap(luma, rows(64, 255, 64, 32)));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let most = u32::MAX;
        assert!(overlap(
            rows(most, most, most, most),
            rows(most, most, most, most)
        ));
        assert!(overlap(rows(0, 1, 1, most), rows(most - 1, 1, 1, most)));
        assert!(!overlap(rows(0, 1, 1, most), rows(most, 1, 1, most)));
        assert!(!overlap(
            rows(0, most - 1, 1, most),
            rows(1, most - 1, 1, most)
        ));
        assert!(!overlap(rows(0, 2, 1, most), rows(1, 4, 1, most)));
        assert!(overlap(rows(0, most, 1, most), rows(1, most - 1, 1, most)));
    }
}
