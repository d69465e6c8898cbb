//! Everything pure that judges what came from outside: descriptions of buffers, `IN_FORMATS` blobs,
//! and the tables of Wayland's dma-buf feedback.
//!
//! Nothing may panic or overflow, and what is taken is held to its promise by arithmetic of another
//! kind: 128 bits, where nothing here can overflow.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use primeshare::buffer::{BufferFlags, FormatInfo, MAX_PLANES};
use primeshare::fuzzing::{check, pack};
use primeshare::negotiate::{Feedback, FormatTable, Tranche, TrancheFlags, parse_in_formats};
use primeshare::vk::format_of;
use primeshare::{Fourcc, BufferDesc, Modifier};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    match kind % 4 {
        // Without bytes enough there is nothing to judge.
        0 => description(&mut Unstructured::new(rest)).unwrap_or_default(),
        1 => packing(&mut Unstructured::new(rest)).unwrap_or_default(),
        2 => in_formats(rest),
        _ => feedback(rest),
    }
});

/// Formats that are laid out in each way there is, and any other.
fn fourcc(u: &mut Unstructured<'_>) -> Result<Fourcc> {
    const KNOWN: [&[u8; 4]; 12] = [
        b"XR24", b"AB24", b"RG16", b"AB4H", b"R8  ", b"NV12", b"NV24", b"P010", b"YU12", b"YV16",
        b"YUYV", b"Q410",
    ];
    Ok(match u.arbitrary::<bool>()? {
        true => Fourcc::new(u.choose(&KNOWN)?),
        false => Fourcc(u.arbitrary()?),
    })
}

fn description(u: &mut Unstructured<'_>) -> Result<()> {
    let (width, height, fourcc) = (u.arbitrary()?, u.arbitrary()?, fourcc(u)?);
    let modifier = match u.arbitrary::<bool>()? {
        true => Modifier::LINEAR,
        false => Modifier(u.arbitrary()?),
    };
    let flags = BufferFlags::from_bits_retain(u.int_in_range(0..=8)?);
    let layout = BufferDesc::new(width, height, fourcc, modifier).with_flags(flags);
    let count = u.int_in_range(0..=MAX_PLANES + 1)?;
    let mut planes = Vec::new();
    for _ in 0..count {
        planes.push((u.arbitrary()?, u.arbitrary()?, u.arbitrary()?));
    }
    format_of(layout.fourcc);
    if check(&layout, &planes).is_ok() {
        taken(&layout, &planes);
    }
    Ok(())
}

/// What a description that was taken promises: every byte of every row is there, and is of one
/// plane only.
fn taken(layout: &BufferDesc, planes: &[(u32, u32, u64)]) {
    assert!(layout.width > 0 && layout.height > 0);
    assert!((1..=MAX_PLANES).contains(&planes.len()));
    let known = FormatInfo::of(layout.fourcc).filter(|_| layout.modifier == Modifier::LINEAR);
    for (n, &(offset, stride, size)) in planes.iter().enumerate() {
        let (offset, stride) = (u128::from(offset), u128::from(stride));
        assert!(offset < u128::from(size));
        let Some(info) = known else {
            assert!(offset + stride <= u128::from(size));
            assert!(offset + stride <= u128::from(u32::MAX));
            // AFBC has no stride, and Amlogic's scatter layout has its content elsewhere.
            let modifier = layout.modifier.0;
            assert!(stride > 0 || modifier >> 52 == 0x080);
            if n == 0 && (modifier >> 56 != 0x0a || modifier & 0xff != 2) {
                assert!(offset + stride * u128::from(layout.height) <= u128::from(size));
            }
            continue;
        };
        assert_eq!(info.planes.len(), planes.len());
        let row = u128::from(info.planes[n].row_bytes(layout.width).unwrap());
        let rows = u128::from(info.planes[n].rows(layout.height));
        assert!(row > 0 && rows > 0 && row <= stride);
        assert!(offset + stride * (rows - 1) + row <= u128::from(size));
    }
    if let Some(info) = known {
        apart(layout, info, planes);
    }
}

/// Looks at each row of a small picture whether it begins in a row of another plane of the same
/// dma-buf.
fn apart(layout: &BufferDesc, info: &FormatInfo, planes: &[(u32, u32, u64)]) {
    const MOST: u32 = 1000;
    if layout.height > MOST {
        return;
    }
    let rows = |n: usize| {
        let (offset, stride, _) = planes[n];
        let bytes = u128::from(info.planes[n].row_bytes(layout.width).unwrap());
        let row = move |row: u32| u128::from(offset) + u128::from(row) * u128::from(stride);
        (0..info.planes[n].rows(layout.height)).map(move |n| row(n)..row(n) + bytes)
    };
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        if b >= planes.len() || planes[a].2 != planes[b].2 {
            continue;
        }
        for row in rows(a) {
            // Rows of one plane are in order, so the first that ends later decides.
            let mut later = rows(b).skip_while(|other| other.end <= row.start);
            assert!(later.next().is_none_or(|other| other.start >= row.end));
        }
    }
}

/// What is laid out here is taken there.
fn packing(u: &mut Unstructured<'_>) -> Result<()> {
    let (width, height, fourcc) = (u.arbitrary()?, u.arbitrary()?, fourcc(u)?);
    let Some(info) = FormatInfo::of(fourcc) else {
        return Ok(());
    };
    if let Ok((planes, size)) = pack(width, height, info) {
        let layout = BufferDesc::linear(width, height, fourcc);
        let planes: Vec<_> = planes
            .iter()
            .map(|plane| (plane.0, plane.1, size))
            .collect();
        assert_eq!(check(&layout, &planes), Ok(()));
        taken(&layout, &planes);
    }
    Ok(())
}

fn in_formats(blob: &[u8]) {
    if let Ok(pairs) = parse_in_formats(blob) {
        // 64 bits of formats for each modifier's 24 bytes.
        assert!(pairs.len() <= blob.len() / 24 * 64);
        for (fourcc, modifier) in pairs {
            let is_there = |bytes: &[u8]| blob.windows(bytes.len()).any(|window| window == bytes);
            assert!(is_there(&fourcc.0.to_ne_bytes()) && is_there(&modifier.0.to_ne_bytes()));
        }
    }
}

/// A table, and a tranche of it. What is read is written again as it was.
fn feedback(bytes: &[u8]) {
    let Some((&length, bytes)) = bytes.split_first() else {
        return;
    };
    let (indices, table) = bytes.split_at(bytes.len().min(length.into()));
    assert_eq!(FormatTable::device(indices).is_ok(), indices.len() == 8);
    let Ok(table) = FormatTable::parse(table) else {
        return;
    };
    let Ok(pairs) = table.tranche(indices) else {
        return;
    };
    assert_eq!(pairs.len() * 2, indices.len());
    assert!(pairs.iter().all(|pair| table.pairs().contains(pair)));
    let tranche = Tranche::new(2, TrancheFlags::SAMPLING, pairs.clone());
    let feedback = Feedback::new([tranche]).main_device(1);
    let encoded = feedback.encode(6).expect("127 pairs are not too many");
    let again = FormatTable::parse(&encoded.table).expect("written here");
    assert_eq!(again.tranche(&encoded.tranches[0].formats), Ok(pairs));
}
