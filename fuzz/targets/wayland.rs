//! What clients of a Wayland compositor send: requests to linux-dmabuf's params, and to wl_shm's pools, in any order.
//!
//! The fds are of a memfd, `/dev/null` and a pipe. Machines that fuzz have no dma-bufs, so no params object makes a buffer
//! here: the tests in the guests do that. Nothing may panic, no fd may be left open, every refusal has a number of the
//! protocol, and what is taken is held to its promise by arithmetic of another kind.

#![no_main]

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use primeshare::buffer::{FormatInfo, LinuxDmabufAnswer, PlaneFd};
use primeshare::wayland::{Params, ParamsError, ShmBuffer, ShmError, ShmFormat, ShmPool};
use primeshare::{Fourcc, Modifier};

/// Bytes of the memfd.
const SIZE: u64 = 65536;

/// What clients send fds of.
struct Files {
    memory: File,
    others: [OwnedFd; 3],
    /// The first number that is free for an fd, while nothing is left open.
    free: i32,
    fds: usize,
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let memory = rustix::fs::memfd_create("client", rustix::fs::MemfdFlags::CLOEXEC);
        let memory = File::from(memory.unwrap());
        memory.set_len(SIZE).unwrap();
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        let (reader, writer) = std::io::pipe().unwrap();
        let free = null.try_clone().unwrap().as_raw_fd();
        let others = [null, reader.into(), writer.into()];
        Files {
            memory,
            others,
            free,
            fds: count(),
        }
    })
}

fn count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn fd(u: &mut Unstructured<'_>) -> Result<OwnedFd> {
    let files = files();
    let other = files.others.get(u.int_in_range(0..=7_usize)?);
    Ok(other
        .map_or_else(
            || files.memory.try_clone().map(OwnedFd::from),
            OwnedFd::try_clone,
        )
        .unwrap())
}

/// Often one that makes sense.
fn number(u: &mut Unstructured<'_>) -> Result<i32> {
    const KNOWN: [i32; 16] = [
        0,
        1,
        2,
        15,
        16,
        63,
        64,
        65,
        128,
        256,
        4096,
        65535,
        65536,
        65537,
        -1,
        i32::MAX,
    ];
    Ok(if u.ratio(3, 4)? {
        *u.choose(&KNOWN)?
    } else {
        u.arbitrary()?
    })
}

fn fourcc(u: &mut Unstructured<'_>) -> Result<Fourcc> {
    const KNOWN: [&[u8; 4]; 8] = [
        b"XR24", b"AR24", b"AB24", b"RG16", b"R8  ", b"NV12", b"YUYV", b"Q410",
    ];
    Ok(if u.ratio(3, 4)? {
        Fourcc::new(u.choose(&KNOWN)?)
    } else {
        Fourcc(u.arbitrary()?)
    })
}

fuzz_target!(|bytes: &[u8]| {
    let files = files();
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let mut u = Unstructured::new(rest);
    // Without bytes enough the sequence ends.
    let _ = if kind % 2 == 0 {
        params(&mut u)
    } else {
        pool(&mut u)
    };
    // An fd that was left open has this number. It is compared for each sequence, since counting costs ten times as much.
    let free = files.others[0].try_clone().unwrap().as_raw_fd();
    assert_eq!(free, files.free, "an fd was left open");
    static SEQUENCES: AtomicU64 = AtomicU64::new(0);
    if SEQUENCES.fetch_add(1, Ordering::Relaxed) % 65536 == 0 {
        assert_eq!(count(), files.fds);
    }
});

/// What a params object has been told, kept in another way.
#[derive(Default)]
struct Told {
    modifiers: [Option<u64>; 4],
    device: Option<u64>,
    is_used: bool,
}

fn params(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut params, mut told) = (Params::new(), Told::default());
    while !u.is_empty() {
        let refused = match u.int_in_range(0..=7_u8)? {
            0..=4 => add(u, &mut params, &mut told)?,
            5 => device(u, &mut params, &mut told)?,
            6 => create(u, &mut params, &mut told)?,
            _ => {
                (params, told) = Default::default();
                None
            }
        };
        assert_eq!(params.sampling_device(), told.device);
        if let Some(error) = refused {
            assert!(!error.to_string().contains('\0'));
            match error.answer() {
                LinuxDmabufAnswer::Failed => assert!(matches!(error, ParamsError::Buffer(_))),
                // 7, invalid_wl_buffer, is the compositor's choice.
                LinuxDmabufAnswer::ProtocolError(code) => {
                    assert!(matches!(code, 0..=6 | 8), "{error}: {code}")
                }
                _ => panic!("{error} has no answer"),
            }
        }
    }
    Ok(())
}

fn add(
    u: &mut Unstructured<'_>,
    params: &mut Params,
    told: &mut Told,
) -> Result<Option<ParamsError>> {
    let index = if u.ratio(7, 8)? {
        u.int_in_range(0..=4)?
    } else {
        u.arbitrary()?
    };
    let modifier = if u.ratio(7, 8)? { 0 } else { u.arbitrary()? };
    let plane = PlaneFd {
        fd: fd(u)?,
        offset: number(u)? as u32,
        stride: number(u)? as u32,
    };
    let added = params.add(index, plane, Modifier(modifier));
    let place = told.modifiers.get_mut(index as usize);
    let expected = match place {
        _ if told.is_used => Err(ParamsError::AlreadyUsed),
        None => Err(ParamsError::PlaneIndex(index)),
        Some(Some(_)) => Err(ParamsError::PlaneSet(index)),
        Some(free) => {
            *free = Some(modifier);
            Ok(())
        }
    };
    assert_eq!(added, expected);
    Ok(added.err())
}

fn device(
    u: &mut Unstructured<'_>,
    params: &mut Params,
    told: &mut Told,
) -> Result<Option<ParamsError>> {
    let length = u.int_in_range(0..=16)?;
    let bytes = u.bytes(length)?;
    let set = params.set_sampling_device(bytes);
    assert_eq!(set.is_ok(), !told.is_used && length == 8);
    if set.is_ok() {
        told.device = bytes.try_into().ok().map(u64::from_ne_bytes);
    }
    Ok(set.err())
}

fn create(
    u: &mut Unstructured<'_>,
    params: &mut Params,
    told: &mut Told,
) -> Result<Option<ParamsError>> {
    let (size, fourcc, is_offered) = ((number(u)?, number(u)?), fourcc(u)?, u.ratio(7, 8)?);
    let flags = u.int_in_range(0..=8)?;
    let made = params.create(size, fourcc, flags, |_, _| is_offered);
    let error = made.expect_err("no fd is a dma-buf");
    let LinuxDmabufAnswer::ProtocolError(code) = error.answer() else {
        assert!(!told.is_used && size.0 > 0 && size.1 > 0, "{error}");
        told.is_used = true;
        return Ok(Some(error));
    };
    let planes = told.modifiers.iter().flatten().count();
    let has_gap = told.modifiers[..planes].iter().any(Option::is_none);
    let differ = told
        .modifiers
        .iter()
        .flatten()
        .any(|modifier| Some(*modifier) != told.modifiers[0]);
    match () {
        () if std::mem::replace(&mut told.is_used, true) => assert_eq!(code, 0),
        () if planes == 0 || has_gap => assert_eq!(code, 3),
        () if differ || !is_offered => assert_eq!(code, 4),
        () if size.0 < 0 || size.1 < 0 => assert_eq!(code, 5),
        () => assert!(matches!(code, 3 | 5 | 6), "{error}"),
    }
    Ok(Some(error))
}

fn pool(u: &mut Unstructured<'_>) -> Result<()> {
    let result = pool_requests(u);
    // For the next client.
    files().memory.set_len(SIZE).unwrap();
    result
}

fn pool_requests(u: &mut Unstructured<'_>) -> Result<()> {
    let mut size = number(u)?;
    let mut length = SIZE;
    let legal = |error: ShmError| {
        assert!(
            error.code() <= 2 && !error.to_string().contains('\0'),
            "{error}"
        )
    };
    let mut pool = match ShmPool::new(fd(u)?, size) {
        Ok(pool) => pool,
        Err(error) => {
            legal(error);
            return Ok(());
        }
    };
    assert!(size > 0);
    let (mut buffer, mut rows) = (None, Vec::new());
    while !u.is_empty() {
        match u.int_in_range(0..=7_u8)? {
            0 => {
                let wanted = number(u)?;
                let resized = pool.resize(wanted);
                assert_eq!(resized.is_ok(), wanted >= size);
                match resized {
                    Ok(()) => size = wanted,
                    Err(error) => legal(error),
                }
            }
            1 => {
                length = u.int_in_range(0..=SIZE)?;
                files().memory.set_len(length).unwrap();
            }
            2 | 3 => {
                if let Some(buffer) = &buffer {
                    read(u, buffer, length, &mut rows)?;
                }
            }
            _ => match make(u, &pool, size)? {
                Ok(made) => buffer = Some(made),
                Err(error) => legal(error),
            },
        }
    }
    Ok(())
}

type Made = (ShmBuffer, i32);

/// A buffer, and its offset.
fn make(
    u: &mut Unstructured<'_>,
    pool: &ShmPool,
    size: i32,
) -> Result<std::result::Result<Made, ShmError>> {
    let (offset, width, height, stride) = (number(u)?, number(u)?, number(u)?, number(u)?);
    let format = if u.ratio(1, 2)? {
        ShmFormat(u.int_in_range(0..=1)?)
    } else {
        ShmFormat::from(fourcc(u)?)
    };
    let is_offered = u.ratio(7, 8)?;
    let made = pool.buffer(offset, (width, height), stride, format, |_| is_offered);
    let info = FormatInfo::of(Fourcc::from(format)).filter(|info| info.planes.len() == 1);
    let row = info.and_then(|info| info.planes[0].row_bytes(u32::try_from(width).ok()?));
    let end = i128::from(offset) + i128::from(stride) * i128::from(height);
    let is_inside = offset >= 0 && width > 0 && height > 0 && end <= i128::from(size);
    let fits = row.is_some_and(|row| i128::from(row) <= i128::from(stride));
    assert_eq!(made.is_ok(), is_offered && info.is_some() && is_inside && fits);
    Ok(made.map(|made| (made, offset)))
}

fn read(
    u: &mut Unstructured<'_>,
    (buffer, offset): &Made,
    length: u64,
    rows: &mut Vec<u8>,
) -> Result<()> {
    let wanted = number(u)? as u32..number(u)? as u32;
    let read = buffer.read_rows(wanted.clone(), rows);
    let (width, height) = (buffer.desc().width, buffer.desc().height);
    let info = FormatInfo::of(buffer.desc().fourcc).expect("else it is refused");
    let row = u64::from(info.planes[0].row_bytes(width).expect("else it is refused"));
    let end = u64::from(wanted.end.min(height));
    let count = end.saturating_sub(wanted.start.into());
    let Ok(stride) = read else {
        // The file was cut off before the end of what is read.
        let last = *offset as u64 + u64::from(buffer.stride()) * (end - 1) + row;
        assert!(last > length);
        return Ok(());
    };
    assert!(u64::from(stride) >= row && u64::from(stride) <= 2 * row + 1);
    let expected = if count == 0 {
        0
    } else {
        u64::from(stride) * (count - 1) + row
    };
    assert_eq!(rows.len() as u64, expected);
    Ok(())
}
