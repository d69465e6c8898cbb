//! IEEE 754 half floats. Pure.

/// The value of a half float, exactly.
pub(super) fn from_half(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    let bits = match (exponent, fraction) {
        (0, 0) => 0,
        // Subnormal: a multiple of 2^-24.
        (0, _) => (fraction as f32 * 2f32.powi(-24)).to_bits(),
        (0x1f, _) => 0xff << 23 | fraction << 13,
        _ => (exponent + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(sign | bits)
}

/// The nearest half float. Of two that are equally near, the even one. Too large values become infinite.
pub(super) fn to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0xff << 23 {
        return sign | 0x7e00;
    }
    // 65520 is the smallest number that is rounded to infinity.
    if magnitude >= 65520f32.to_bits() {
        return sign | 0x7c00;
    }
    // Below 2^-14 there are only multiples of 2^-24. A multiplication by a power of two is exact,
    // and the addition rounds as f32 does: to the nearest, and to even.
    if magnitude < (127 - 14) << 23 {
        let multiples = f32::from_bits(magnitude) * 2f32.powi(24);
        return sign | multiples.round_ties_even() as u16;
    }
    let odd = magnitude >> 13 & 1;
    let rounded = magnitude + 0xfff + odd;
    sign | ((rounded >> 13) - ((127 - 15) << 10)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_are_right() {
        for (half, value) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3800, 0.5),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(from_half(half).to_bits(), f32::to_bits(value), "{half:x}");
        }
        assert!(from_half(0x7e00).is_nan());
    }

    #[test]
    fn every_half_float_survives_the_way_there_and_back() {
        for half in 0..=u16::MAX {
            let value = from_half(half);
            match value.is_nan() {
                true => assert!(from_half(to_half(value)).is_nan()),
                false => assert_eq!(to_half(value), half),
            }
        }
    }

    #[test]
    fn values_between_two_half_floats_become_the_nearest() {
        for half in 0..0x7bff_u16 {
            let (low, high) = (from_half(half), from_half(half + 1));
            let middle = (low + high) / 2.0;
            let even = half + (half & 1);
            assert_eq!(to_half(middle), even);
            assert_eq!(to_half(f32::from_bits(middle.to_bits() - 1)), half);
            assert_eq!(to_half(f32::from_bits(middle.to_bits() + 1)), half + 1);
        }
        assert_eq!(to_half(65519.0), 0x7bff);
        assert_eq!(to_half(65520.0), 0x7c00);
        assert_eq!(to_half(-1e9), 0xfc00);
    }
}
