//! The table against what the names of both sides say, spelled out bit by bit.

use std::collections::BTreeMap;

use super::*;
use crate::buffer::{Colour, FormatInfo};

/// A bit in memory: byte, and bit of the byte. The same in DRM and Vulkan, if they are the same.
type Place = (usize, usize);
/// Where each bit of each component is: component, and bit from the lowest.
type Picture = BTreeMap<(char, usize), Place>;

/// A word of `bits` bits at byte `start`, with these components from the most significant bit.
fn word_at(picture: &mut Picture, start: usize, fields: &[(char, usize)], big_endian: bool) {
    let bits: usize = fields.iter().map(|(_, bits)| bits).sum();
    let mut top = bits;
    for &(component, bits_of_it) in fields {
        top -= bits_of_it;
        for bit in 0..bits_of_it {
            let byte = (top + bit) / 8;
            let byte = if big_endian {
                bits / 8 - 1 - byte
            } else {
                byte
            };
            picture.insert((component, bit), (start + byte, (top + bit) % 8));
        }
    }
    picture.retain(|(component, _), _| *component != 'X');
}

/// Components and bits from a name such as A2R10G10B10.
fn fields(name: &str) -> Vec<(char, usize)> {
    let mut fields: Vec<(char, usize)> = Vec::new();
    for letter in name.chars() {
        match (letter.to_digit(10), fields.last_mut()) {
            (Some(digit), Some((_, bits))) => *bits = *bits * 10 + digit as usize,
            _ => fields.push((letter, 0)),
        }
    }
    fields
}

/// What DRM means by a code of one plane of RGB.
fn drm(fourcc: Fourcc) -> Picture {
    let plain = Fourcc(fourcc.0 & !Fourcc::BIG_ENDIAN);
    let name = plain.name().unwrap().trim_end_matches('F');
    let digits = name.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let letters = name[..name.len() - digits.len()].chars();
    let bits: Vec<usize> = match digits {
        "2101010" => vec![2, 10, 10, 10],
        "1010102" => vec![10, 10, 10, 2],
        "106106106106" => vec![10, 6, 10, 6, 10, 6, 10, 6],
        "16" | "1616" | "161616" | "16161616" => vec![16; digits.len() / 2],
        digits => digits.bytes().map(|d| usize::from(d - b'0')).collect(),
    };
    let fields: Vec<_> = letters.zip(bits).collect();
    let mut picture = Picture::new();
    word_at(&mut picture, 0, &fields, fourcc.is_big_endian());
    picture
}

/// What Vulkan means by a format of one plane of RGB.
fn vulkan(format: vk::Format, big_endian: bool) -> Picture {
    let name = format!("{format:?}");
    let fields = fields(name.split('_').next().unwrap());
    let all: usize = fields.iter().map(|(_, bits)| bits).sum();
    let word = match name.rsplit('_').find(|part| part.contains("PACK")) {
        // Words of 16 bits, each holding a component and what is unused.
        Some(pack) if !pack.starts_with("PACK") => 16,
        Some(_) => all,
        None => fields[0].1,
    };
    let mut picture = Picture::new();
    let (mut first, mut start) = (0, 0);
    while first < fields.len() {
        let mut last = first;
        let mut bits = 0;
        while bits < word {
            bits += fields[last].1;
            last += 1;
        }
        word_at(&mut picture, start / 8, &fields[first..last], big_endian);
        start += word;
        first = last;
    }
    picture
}

/// The picture that a view with this mapping shows.
fn seen(picture: &Picture, map: vk::ComponentMapping) -> Picture {
    let from = |component, swizzle| match swizzle {
        vk::ComponentSwizzle::IDENTITY => Some(component),
        R => Some('R'),
        G => Some('G'),
        B => Some('B'),
        A => Some('A'),
        _ => None,
    };
    let mut seen = Picture::new();
    for (component, swizzle) in [('R', map.r), ('G', map.g), ('B', map.b), ('A', map.a)] {
        let bits = picture
            .iter()
            .filter(|((found, _), _)| Some(*found) == from(component, swizzle));
        seen.extend(bits.map(|((_, bit), place)| ((component, *bit), *place)));
    }
    seen
}

fn rgb_rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| !row.image.ycbcr)
}

/// Components and what they are.
type Values<'a> = &'a [(char, u32)];

/// Bytes of a pixel whose components have these values.
fn written(picture: &Picture, values: Values<'_>) -> Vec<u8> {
    let size = picture.values().map(|(byte, _)| byte + 1).max().unwrap();
    let mut bytes = vec![0; size];
    for ((component, bit), (byte, place)) in picture {
        let value = values.iter().find(|(name, _)| name == component);
        let value = value.map_or(0, |(_, value)| *value);
        bytes[*byte] |= ((value >> bit & 1) as u8) << place;
    }
    bytes
}

#[test]
fn pixels_have_the_bytes_that_the_kernel_documents() {
    let eight = [('R', 0x11), ('G', 0x22), ('B', 0x33), ('A', 0x44)];
    #[rustfmt::skip]
    let golden: [(Fourcc, Values<'_>, &[u8]); 12] = [
        (Fourcc::ARGB8888, &eight, &[0x33, 0x22, 0x11, 0x44]),
        (Fourcc::XRGB8888, &eight[..3], &[0x33, 0x22, 0x11]),
        (Fourcc::ABGR8888, &eight, &[0x11, 0x22, 0x33, 0x44]),
        (Fourcc::RGBA8888, &eight, &[0x44, 0x33, 0x22, 0x11]),
        (Fourcc::BGRA8888, &eight, &[0x44, 0x11, 0x22, 0x33]),
        (Fourcc::RGB888, &eight[..3], &[0x33, 0x22, 0x11]),
        (Fourcc::RGB565, &[('R', 31)], &[0x00, 0xf8]),
        (Fourcc::RGB565, &[('G', 1)], &[0x20, 0x00]),
        (Fourcc(Fourcc::RGB565.0 | Fourcc::BIG_ENDIAN), &[('R', 31)], &[0xf8, 0x00]),
        (Fourcc::ARGB2101010, &[('B', 0x3ff), ('A', 1)], &[0xff, 0x03, 0x00, 0x40]),
        (Fourcc::GR1616, &[('R', 0x1234), ('G', 0x5678)], &[0x34, 0x12, 0x78, 0x56]),
        (Fourcc::ABGR16161616F, &[('R', 0x3c00), ('A', 0x4000)], &[0, 0x3c, 0, 0, 0, 0, 0, 0x40]),
    ];
    for (fourcc, values, bytes) in golden {
        assert_eq!(written(&drm(fourcc), values), bytes, "{fourcc}");
    }
}

#[test]
fn pixels_have_the_bytes_that_the_vulkan_specification_gives() {
    let values = [('R', 1), ('G', 2), ('B', 3), ('A', 0)];
    #[rustfmt::skip]
    let golden: [(vk::Format, bool, &[u8]); 8] = [
        (F::B8G8R8A8_UNORM, false, &[3, 2, 1, 0]),
        (F::B8G8R8A8_UNORM, true, &[3, 2, 1, 0]),
        (F::R5G6B5_UNORM_PACK16, false, &[0x43, 0x08]),
        (F::R5G6B5_UNORM_PACK16, true, &[0x08, 0x43]),
        (F::A2B10G10R10_UNORM_PACK32, false, &[0x01, 0x08, 0x30, 0x00]),
        (F::R16G16_UNORM, false, &[1, 0, 2, 0]),
        (F::R16G16_UNORM, true, &[0, 1, 0, 2]),
        // The upper ten bits of each word.
        (F::R10X6G10X6B10X6A10X6_UNORM_4PACK16, false, &[0x40, 0, 0x80, 0, 0xc0, 0, 0, 0]),
    ];
    for (format, big_endian, bytes) in golden {
        let found = written(&vulkan(format, big_endian), &values);
        assert_eq!(found, bytes, "{format:?}");
    }
}

#[test]
fn rgb_formats_are_the_same_bits_on_either_side() {
    for big_endian in [false, true] {
        for row in rgb_rows() {
            let Some(fourcc) = row.fourcc_on(big_endian) else {
                continue;
            };
            let image = on_host(fourcc, big_endian).unwrap();
            let seen = seen(&vulkan(image.format, big_endian), image.components);
            assert_eq!(seen, drm(fourcc), "{fourcc} and {:?}", image.format);
        }
    }
}

#[test]
fn alpha_is_forced_exactly_where_the_format_has_none_and_vulkan_s_has() {
    for row in rgb_rows() {
        let info = FormatInfo::of(row.fourcc).unwrap();
        let there = vulkan(row.image.format, false).contains_key(&('A', 0));
        let forced = row.image.components.a == ONE;
        assert_eq!(forced, !info.alpha && there, "{}", row.fourcc);
    }
}

/// The order in memory of Y, U (Cb) and V (Cr), plane by plane.
const YCBCR: &[(&[Fourcc], &[&str])] = &[
    (
        &[Fourcc::YUYV, Fourcc::Y210, Fourcc::Y212, Fourcc::Y216],
        &["YUYV"],
    ),
    (&[Fourcc::YVYU], &["YVYU"]),
    (&[Fourcc::UYVY], &["UYVY"]),
    (&[Fourcc::VYUY], &["VYUY"]),
    (&[Fourcc::NV12, Fourcc::NV16, Fourcc::NV24], &["Y", "UV"]),
    (&[Fourcc::NV21, Fourcc::NV61, Fourcc::NV42], &["Y", "VU"]),
    (
        &[Fourcc::P010, Fourcc::P012, Fourcc::P016, Fourcc::P210],
        &["Y", "UV"],
    ),
    (
        &[Fourcc::YUV420, Fourcc::YUV422, Fourcc::YUV444, Fourcc::Q410],
        &["Y", "U", "V"],
    ),
    (
        &[Fourcc::S016, Fourcc::S216, Fourcc::S416],
        &["Y", "U", "V"],
    ),
    (
        &[Fourcc::YVU420, Fourcc::YVU422, Fourcc::YVU444, Fourcc::Q401],
        &["Y", "V", "U"],
    ),
];

#[test]
fn ycbcr_formats_have_their_components_in_the_same_order() {
    let mut checked = 0;
    for (fourccs, order) in YCBCR {
        for &fourcc in *fourccs {
            let image = on_host(fourcc, false).unwrap();
            let map = image.components;
            // What the conversion sees as green is Y, as blue Cb, as red Cr.
            let swapped = match (map.r, map.g, map.b, map.a) {
                (SAME, SAME, SAME, SAME) => false,
                (B, SAME, R, SAME) => true,
                _ => panic!("{fourcc}: {map:?}"),
            };
            let name = format!("{:?}", image.format);
            let planes: Vec<String> = name
                .split('_')
                .take(order.len())
                .map(|plane| {
                    let seen = plane.chars().filter_map(|letter| match letter {
                        'G' => Some('Y'),
                        'B' => Some(if swapped { 'V' } else { 'U' }),
                        'R' => Some(if swapped { 'U' } else { 'V' }),
                        _ => None,
                    });
                    seen.collect()
                })
                .collect();
            assert_eq!(planes, *order, "{fourcc}");
            checked += 1;
        }
    }
    assert_eq!(checked, ROWS.iter().filter(|row| row.image.ycbcr).count());
}

#[test]
fn ycbcr_formats_have_the_planes_subsampling_and_sizes_of_the_name() {
    for row in ROWS.iter().filter(|row| row.image.ycbcr) {
        let info = FormatInfo::of(row.fourcc).unwrap();
        let name = format!("{:?}", row.image.format);
        let chroma = match () {
            () if name.contains("_420_") => (2, 2),
            () if name.contains("_422_") => (2, 1),
            () => (1, 1),
        };
        assert_eq!(info.chroma, chroma, "{name}");
        assert_eq!(info.colour, Colour::YCbCr, "{name}");
        let planes: Vec<&str> = name.split('_').take(info.planes.len()).collect();
        let several = name.contains(&format!("_{}PLANE_", info.planes.len()));
        assert_eq!(several, info.planes.len() > 1, "{name}");
        let compatible = if several { info.planes.len() } else { 0 };
        assert_eq!(row.image.planes.len(), compatible, "{name}");
        for (index, (plane, letters)) in info.planes.iter().zip(planes).enumerate() {
            let bits: usize = fields(letters).iter().map(|(_, bits)| bits).sum();
            assert_eq!(plane.block_bytes as usize * 8, bits, "{name}");
            if several {
                // The plane's own format: the same bits, from red on.
                let own = format!("{:?}", row.image.planes[index]);
                let bits = |name: &str| -> Vec<usize> {
                    fields(name).iter().map(|(_, bits)| *bits).collect()
                };
                let own = own.split('_').next().unwrap();
                assert_eq!(bits(own), bits(letters), "{name}");
                let subsampled = if index > 0 { chroma } else { (1, 1) };
                assert_eq!((plane.horizontal, plane.vertical), subsampled, "{name}");
            } else {
                assert_eq!(plane.block_width, 2, "{name}");
            }
        }
    }
}

#[test]
fn srgb_formats_differ_in_nothing_else_and_leave_alpha_where_it_is() {
    for row in ROWS {
        let Some(srgb) = row.image.srgb else { continue };
        let (plain, srgb) = (format!("{:?}", row.image.format), format!("{srgb:?}"));
        assert_eq!(plain.replace("UNORM", "SRGB"), srgb);
        // Red, green and blue of a view come from red, green and blue: sRGB decodes no alpha.
        let map = row.image.components;
        assert!(![map.r, map.g, map.b].contains(&A), "{}", row.fourcc);
    }
    assert!(format_of(Fourcc::XRGB8888).unwrap().srgb.is_some());
    assert!(format_of(Fourcc::RGBA8888).unwrap().srgb.is_none());
}

#[test]
fn an_image_s_format_is_exported_under_the_codes_that_it_is_imported_under() {
    for fourcc in Fourcc::named() {
        let Some(image) = format_of(fourcc) else {
            continue;
        };
        let back: Vec<Fourcc> = fourccs_of(image.format).collect();
        assert_eq!(back.contains(&fourcc), image.in_order(), "{fourcc}");
        if let Some(srgb) = image.srgb {
            assert_eq!(fourccs_of(srgb).collect::<Vec<_>>(), back);
        }
        for other in back {
            assert_eq!(format_of(other).unwrap().format, image.format);
        }
    }
    let codes = fourccs_of(F::B8G8R8A8_UNORM).collect::<Vec<_>>();
    assert_eq!(codes, [Fourcc::ARGB8888, Fourcc::XRGB8888]);
    assert_eq!(fourccs_of(F::UNDEFINED).count(), 0);
    assert_eq!(fourccs_of(F::R10X6_UNORM_PACK16).count(), 0);
}

#[test]
fn formats_that_only_look_alike_have_no_counterpart() {
    // R10 has its bits at the bottom of the word, R10X6 at the top; packed 4:4:4 is not in Vulkan.
    for fourcc in [
        Fourcc::R10,
        Fourcc::R12,
        Fourcc::S010,
        Fourcc::RGBA1010102,
        Fourcc::AYUV,
        Fourcc::NV15,
        Fourcc::C8,
        Fourcc(0x1234_5678),
        Fourcc(Fourcc::ARGB8888.0 | Fourcc::BIG_ENDIAN),
    ] {
        assert!(on_host(fourcc, false).is_none(), "{fourcc}");
        assert!(on_host(fourcc, true).is_none(), "{fourcc}");
    }
}

#[test]
fn packed_words_are_the_big_endian_codes_on_a_big_endian_host() {
    let swapped = |fourcc: Fourcc| Fourcc(fourcc.0 | Fourcc::BIG_ENDIAN);
    for fourcc in [Fourcc::RGB565, Fourcc::XRGB1555, Fourcc::XRGB2101010] {
        assert!(on_host(fourcc, false).is_some());
        assert!(on_host(fourcc, true).is_none());
        assert!(on_host(swapped(fourcc), true).is_some());
        assert!(on_host(swapped(fourcc), false).is_none());
    }
    for fourcc in [Fourcc::ABGR16161616, Fourcc::P010] {
        assert!(on_host(fourcc, true).is_none());
        assert!(on_host(swapped(fourcc), true).is_none());
    }
    assert!(on_host(Fourcc::NV12, true).is_some());
}

#[test]
fn copies_need_equal_colours_and_not_equal_alpha() {
    let of = |fourcc| format_of(fourcc).unwrap();
    assert!(of(Fourcc::XRGB8888).same_colours(of(Fourcc::ARGB8888)));
    assert!(!of(Fourcc::XRGB8888).same_colours(of(Fourcc::XBGR8888)));
    assert!(!of(Fourcc::NV12).same_colours(of(Fourcc::NV21)));
    assert!(!of(Fourcc::RGBA8888).same_colours(of(Fourcc::ABGR8888)));
}

#[test]
fn formats_beyond_vulkan_1_1_name_what_brings_them() {
    let brings = |fourcc: Fourcc| format_of(fourcc).unwrap().extension.map(CStr::to_bytes);
    assert_eq!(brings(Fourcc::NV12), None);
    assert_eq!(brings(Fourcc::RGBA4444), None);
    assert_eq!(brings(Fourcc::ARGB4444), Some(&b"VK_EXT_4444_formats"[..]));
    assert_eq!(
        brings(Fourcc::NV24),
        Some(&b"VK_EXT_ycbcr_2plane_444_formats"[..])
    );
    assert_eq!(brings(Fourcc::ABGR1555), Some(&b"VK_KHR_maintenance5"[..]));
    for row in ROWS {
        // Formats of Vulkan 1.0 and 1.1 have numbers below a thousand or of extension 157.
        let number = row.image.format.as_raw();
        let old = number < 1000 || number / 1000 == 1_000_156;
        assert_eq!(row.image.extension.is_none(), old, "{}", row.fourcc);
        assert_eq!(row.image.core == vk::API_VERSION_1_1, old, "{}", row.fourcc);
    }
}
