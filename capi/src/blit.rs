//! # Copies between devices
//!
//! A blitter copies from buffers of one device to buffers of another, by whichever way works and is the fastest, and
//! falls back to the CPU. It finds out by trials of its own, beside the copies.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use primeshare::blit::{
    self, BlitDevice, BlitInfo, Blitter, Completion, Filter, Matrix, Options, Push, Range, Scaling,
    Strategy, Stream, SyncFiles, Transform, YcbcrEncoding,
};
use primeshare::buffer::{Damage, DamageBox, Rect};
use primeshare::vk::{Instance, Select, Validation};
use primeshare::{Errno, ErrorKind};

use crate::arguments::{Growing, array, dup, give_fd, options, out, room, timeout, utf8};
use crate::buffer::primeshare_buffer;
use crate::device::primeshare_device;
use crate::failure::{Failure, call, value};
use crate::object::{Object, give, of, reference, unreference};

failures! { blit::Error, blit::Failure }

/// Vulkan on the device's GPU where there is one, else the CPU.
pub const PRIMESHARE_GPU_AUTO: u32 = 0;
/// The CPU only.
pub const PRIMESHARE_GPU_NONE: u32 = 1;
/// Vulkan on the CPU (lavapipe): for tests.
pub const PRIMESHARE_GPU_SOFTWARE: u32 = 2;

/// The source's GPU writes into the destination only where nothing else works.
pub const PRIMESHARE_PUSH_LAST: u32 = 0;
/// Never: destinations are shown on a screen, and must stay where they are.
pub const PRIMESHARE_PUSH_NEVER: u32 = 1;
/// Whenever that is the fastest.
pub const PRIMESHARE_PUSH_FREELY: u32 = 2;

/// Sync files come from GPUs, not from Vulkan on the CPU.
pub const PRIMESHARE_SYNC_FILES_HARDWARE: u32 = 0;
/// From nobody: a copy's end is known when it has ended.
pub const PRIMESHARE_SYNC_FILES_NEVER: u32 = 1;
/// From all that have them: for tests.
pub const PRIMESHARE_SYNC_FILES_ALWAYS: u32 = 2;

/// How a blitter works. All zeros are what most programs want.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_blitter_options {
    /// sizeof(struct primeshare_blitter_options)
    pub size: usize,
    /// PRIMESHARE_GPU_*
    pub gpu: u32,
    /// PRIMESHARE_PUSH_*
    pub push: u32,
    /// PRIMESHARE_SYNC_FILES_*
    pub sync_files: u32,
    /// Copies under way at a time, from 1 to 64; 0: three.
    pub in_flight: u32,
    /// Names of strategies to choose from, with commas between them: "pull,staged-udmabuf,cpu". NULL: all.
    pub strategies: *const c_char,
}

// SAFETY: repr(C), the size first, numbers and a pointer that may be NULL.
unsafe impl Growing for primeshare_blitter_options {
    const NAME: &'static str = "primeshare_blitter_options";
}

/// A blitter for a pair of devices. All calls are thread-safe.
pub struct primeshare_blitter(pub(crate) Blitter);

impl Object for primeshare_blitter {
    const NAME: &'static str = "primeshare_blitter";
}

/// # Safety
/// `given` is NULL or as the header asks.
pub(crate) unsafe fn blitter(
    source: &primeshare_device,
    destination: &primeshare_device,
    given: *const primeshare_blitter_options,
) -> Result<Blitter, Failure> {
    // SAFETY: as the caller promises.
    let given = unsafe { options(given) }?;
    let mut wanted = Options::default().push(match given.push {
        PRIMESHARE_PUSH_LAST => Push::Last,
        PRIMESHARE_PUSH_NEVER => Push::Never,
        PRIMESHARE_PUSH_FREELY => Push::Freely,
        other => return Err(Failure::invalid(format!("there is no push {other}"))),
    });
    wanted = wanted.sync_files(match given.sync_files {
        PRIMESHARE_SYNC_FILES_HARDWARE => SyncFiles::Hardware,
        PRIMESHARE_SYNC_FILES_NEVER => SyncFiles::Never,
        PRIMESHARE_SYNC_FILES_ALWAYS => SyncFiles::Always,
        other => {
            return Err(Failure::invalid(format!(
                "there is no kind of sync files {other}"
            )));
        }
    });
    if given.in_flight != 0 {
        wanted = wanted.in_flight(given.in_flight as usize);
    }
    if !given.strategies.is_null() {
        // SAFETY: as the caller promises.
        let names = unsafe { utf8(given.strategies, "strategies") }?;
        let named = names.split(',').map(|name| name.trim().parse::<Strategy>());
        let named = named.collect::<Result<Vec<_>, _>>();
        wanted = wanted.strategies(named.map_err(|error| Failure::invalid(error.to_string()))?);
    }
    let sides = match given.gpu {
        PRIMESHARE_GPU_NONE => {
            [source, destination].map(|side| BlitDevice::new(&side.device, None))
        }
        PRIMESHARE_GPU_AUTO => {
            // Without a Vulkan loader the CPU copies.
            let instance = Instance::new(Validation::Off);
            let instance = instance
                .inspect_err(|error| log::info!("no Vulkan: {error}"))
                .ok();
            [source, destination].map(|side| {
                let gpu = instance
                    .as_ref()
                    .map(|instance| instance.select(&Select::Drm(&side.device)));
                BlitDevice::new(&side.device, gpu.and_then(Result::ok).as_ref())
            })
        }
        PRIMESHARE_GPU_SOFTWARE => {
            let gpu = Instance::new(Validation::Off)?.select(&Select::Software)?;
            [source, destination].map(|side| BlitDevice::new(&side.device, Some(&gpu)))
        }
        other => return Err(Failure::invalid(format!("there is no kind of GPU {other}"))),
    };
    let [source, destination] = sides;
    Ok(Blitter::new(source, destination, &wanted)?)
}

/// Makes a blitter that copies from buffers of `source` to buffers of `destination`. Loads Vulkan, which takes some
/// ten milliseconds and more. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_blitter_create(
    source: Option<&primeshare_device>,
    destination: Option<&primeshare_device>,
    options: *const primeshare_blitter_options,
    blitter: Option<&mut MaybeUninit<*mut primeshare_blitter>>,
) -> c_int {
    call(c"primeshare_blitter_create", || {
        let (source, destination) = (of(source, "source")?, of(destination, "destination")?);
        let place = out(blitter, "blitter")?;
        // SAFETY: as the header asks.
        let made = unsafe { self::blitter(source, destination, options) }?;
        place.write(give(Arc::new(primeshare_blitter(made))));
        Ok(())
    })
}

/// Adds a reference, and returns the blitter. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_blitter_ref(
    blitter: *const primeshare_blitter,
) -> *mut primeshare_blitter {
    // SAFETY: as the header asks.
    unsafe { reference(blitter) }
}

/// Takes a reference back. With the last one, waits for the copies that are under way, at most ten seconds. NULL is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_blitter_unref_wait(blitter: *mut primeshare_blitter) {
    // SAFETY: as the header asks.
    unsafe { unreference(blitter) }
}

/// Pixels, from (x1, y1) up to and without (x2, y2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_box {
    /// First column.
    pub x1: i32,
    /// First row.
    pub y1: i32,
    /// First column that is not in it.
    pub x2: i32,
    /// First row that is not in it.
    pub y2: i32,
}

/// Damage of a program: `None` is everything.
pub(crate) fn boxes(boxes: &[primeshare_box]) -> Vec<DamageBox> {
    let boxes = boxes.iter().map(|part| DamageBox {
        x1: part.x1,
        y1: part.y1,
        x2: part.x2,
        y2: part.y2,
    });
    boxes.collect()
}

/// A part of a picture, in pixels.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl From<primeshare_rect> for Rect {
    fn from(rect: primeshare_rect) -> Self {
        let primeshare_rect {
            x,
            y,
            width,
            height,
        } = rect;
        Self {
            x,
            y,
            width,
            height,
        }
    }
}

/// By the nearest pixel.
pub const PRIMESHARE_FILTER_NEAREST: u32 = 0;
/// By linear interpolation.
pub const PRIMESHARE_FILTER_LINEAR: u32 = 1;

/// The weights of ITU-R BT.709.
pub const PRIMESHARE_MATRIX_BT709: u32 = 0;
/// The weights of ITU-R BT.601.
pub const PRIMESHARE_MATRIX_BT601: u32 = 1;
/// The weights of ITU-R BT.2020.
pub const PRIMESHARE_MATRIX_BT2020: u32 = 2;

/// Of 8 bits, 16 is black and 235 white; of more bits, these times a power of two.
pub const PRIMESHARE_RANGE_NARROW: u32 = 0;
/// 0 is black, and the largest number white.
pub const PRIMESHARE_RANGE_FULL: u32 = 1;

/// What belongs to a copy. All zeros: the whole picture, at once, as it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_blit_info {
    /// sizeof(struct primeshare_blit_info)
    pub size: usize,
    /// What has changed, in pixels of the source. NULL is everything; an array with no elements is nothing.
    pub damage: *const primeshare_box,
    /// How many.
    pub damage_count: usize,
    /// Fences (sync files, or other fds that become readable) that the copy waits for, beside those in the buffers. They
    /// are borrowed.
    pub fences: *const c_int,
    /// How many.
    pub fence_count: usize,
    /// Which part of the source is copied. Both rects of width 0: the pictures are of one size, and not turned.
    pub source: primeshare_rect,
    /// Where it goes.
    pub destination: primeshare_rect,
    /// How the part is turned: the values of wl_output.transform.
    pub transform: u32,
    /// How it is scaled: a PRIMESHARE_FILTER.
    pub filter: u32,
    /// Copies of one stream are made in their order, and wait for no other's: a number of the program's own, below
    /// 2^63, for example one for each client. 0: copies into the same buffer are made in their order.
    pub stream: u64,
    /// What the numbers of YCbCr formats mean, if one of the buffers has such a format and the other has not: a
    /// PRIMESHARE_MATRIX.
    pub ycbcr_matrix: u32,
    /// Black and white of it: a PRIMESHARE_RANGE.
    pub ycbcr_range: u32,
}

// SAFETY: repr(C), the size first, numbers and pointers that may be NULL.
unsafe impl Growing for primeshare_blit_info {
    const NAME: &'static str = "primeshare_blit_info";
}

fn scaling(info: &primeshare_blit_info) -> Result<Option<Scaling>, Failure> {
    let transform = Transform::ALL.get(info.transform as usize).copied();
    let transform = transform
        .ok_or_else(|| Failure::invalid(format!("there is no transform {}", info.transform)))?;
    if info.source.width == 0 && info.destination.width == 0 && info.transform == 0 {
        return Ok(None);
    }
    let filter = match info.filter {
        PRIMESHARE_FILTER_NEAREST => Filter::Nearest,
        PRIMESHARE_FILTER_LINEAR => Filter::Linear,
        other => return Err(Failure::invalid(format!("there is no filter {other}"))),
    };
    Ok(Some(Scaling {
        source: info.source.into(),
        destination: info.destination.into(),
        transform,
        filter,
    }))
}

fn encoding(info: &primeshare_blit_info) -> Result<YcbcrEncoding, Failure> {
    let matrix = match info.ycbcr_matrix {
        PRIMESHARE_MATRIX_BT601 => Matrix::Bt601,
        PRIMESHARE_MATRIX_BT709 => Matrix::Bt709,
        PRIMESHARE_MATRIX_BT2020 => Matrix::Bt2020,
        other => return Err(Failure::invalid(format!("there is no matrix {other}"))),
    };
    let range = match info.ycbcr_range {
        PRIMESHARE_RANGE_NARROW => Range::Narrow,
        PRIMESHARE_RANGE_FULL => Range::Full,
        other => return Err(Failure::invalid(format!("there is no range {other}"))),
    };
    Ok(YcbcrEncoding { matrix, range })
}

/// A copy that was ordered. All calls are thread-safe.
pub struct primeshare_copy(Completion);

impl Object for primeshare_copy {
    const NAME: &'static str = "primeshare_copy";
}

/// Orders a copy, and returns before it is made. It waits for the pending work in both buffers and for `info`'s
/// fences, and puts its own fence into both buffers. Until it has ended, the source must not be written and the
/// destination not be used. The library keeps both buffers as long as it needs them. `info` may be NULL.
///
/// -EBUSY: as many copies are under way as the options allow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_blitter_blit(
    blitter: Option<&primeshare_blitter>,
    source: Option<&primeshare_buffer>,
    destination: Option<&primeshare_buffer>,
    info: *const primeshare_blit_info,
    copy: Option<&mut MaybeUninit<*mut primeshare_copy>>,
) -> c_int {
    call(c"primeshare_blitter_blit", || {
        let blitter = of(blitter, "blitter")?;
        let (source, destination) = (of(source, "source")?, of(destination, "destination")?);
        let place = out(copy, "copy")?;
        // SAFETY: as the header asks.
        let info = unsafe { options(info) }?;
        // SAFETY: as the header asks.
        let damage = unsafe { array(info.damage, info.damage_count, "damage") }?;
        // SAFETY: as the header asks.
        let fences = unsafe { array(info.fences, info.fence_count, "fences") }?;
        let boxes = boxes(damage);
        let mut after = Vec::with_capacity(fences.len());
        for number in fences {
            after.extend(crate::arguments::fence(*number, "one of fences")?);
        }
        let blit = BlitInfo::default()
            .after(&after)
            .scaling(scaling(&info)?)
            .encoding(encoding(&info)?)
            .stream((info.stream != 0).then(|| Stream::numbered(info.stream)))
            .damage(match info.damage.is_null() {
                true => Damage::Full,
                false => Damage::Boxes(&boxes),
            });
        let completion = blitter.0.blit(&source.0, &destination.0, &blit)?;
        place.write(give(Arc::new(primeshare_copy(completion))));
        Ok(())
    })
}

/// Adds a reference, and returns the copy. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_copy_ref(copy: *const primeshare_copy) -> *mut primeshare_copy {
    // SAFETY: as the header asks.
    unsafe { reference(copy) }
}

/// Takes a reference back, which does not stop the copy. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_copy_unref(copy: *mut primeshare_copy) {
    // SAFETY: as the header asks.
    unsafe { unreference(copy) }
}

/// An fd that becomes readable when the copy has ended, for an event loop: read nothing from it. It stays the copy's,
/// and is closed with its last reference.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_copy_fd(copy: Option<&primeshare_copy>) -> c_int {
    value(c"primeshare_copy_fd", || {
        Ok(of(copy, "copy")?.0.as_fd().as_raw_fd())
    })
}

/// Returns 1 if the copy has been made, 0 if it is under way, and a negative errno if it failed. Does not wait.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_copy_is_done(copy: Option<&primeshare_copy>) -> c_int {
    value(c"primeshare_copy_is_done", || {
        match of(copy, "copy")?.0.result() {
            None => Ok(0),
            Some(result) => {
                result?;
                Ok(1)
            }
        }
    })
}

/// Waits for the copy, at most so many nanoseconds; negative: without end. -ETIMEDOUT if it passes.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_copy_wait(copy: Option<&primeshare_copy>, timeout_ns: i64) -> c_int {
    call(c"primeshare_copy_wait", || {
        Ok(of(copy, "copy")?.0.wait(timeout(timeout_ns))?)
    })
}

/// Writes a fence that is signalled when a GPU has made the copy: for IN_FENCE_FD, or another driver. -1 if the copy
/// has been made. -EOPNOTSUPP if no GPU has been given the copy: then wait at primeshare_copy_fd.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_copy_export_fence(
    copy: Option<&primeshare_copy>,
    sync_file: Option<&mut MaybeUninit<c_int>>,
) -> c_int {
    call(c"primeshare_copy_export_fence", || {
        let copy = &of(copy, "copy")?.0;
        let place = out(sync_file, "sync_file")?;
        if let Some(result) = copy.result() {
            result?;
            place.write(-1);
            return Ok(());
        }
        let sync_file = copy.sync_file().ok_or_else(|| {
            let message = "no GPU has been given the copy, so that there is no fence of it";
            Failure::new(ErrorKind::Unsupported, Errno::EOPNOTSUPP, message)
        })?;
        place.write(give_fd(Some(dup(sync_file.as_fd())?)));
        Ok(())
    })
}

/// Waits until the blitter has tried all ways to copy between these buffers, at most so many nanoseconds. Not needed
/// for copies: for programs that measure or report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_blitter_settle_wait(
    blitter: Option<&primeshare_blitter>,
    source: Option<&primeshare_buffer>,
    destination: Option<&primeshare_buffer>,
    timeout_ns: i64,
) -> c_int {
    call(c"primeshare_blitter_settle_wait", || {
        let blitter = of(blitter, "blitter")?;
        let (source, destination) = (of(source, "source")?, of(destination, "destination")?);
        let deadline = crate::arguments::timeout(timeout_ns);
        let info = BlitInfo::default();
        blitter
            .0
            .settle_wait(&source.0, &destination.0, &info, deadline)?;
        Ok(())
    })
}

/// Writes which ways there are to copy between two buffers, which of them work, and why the others do not: text for
/// people, a line for each way. Returns its length without the zero at the end, as snprintf does: more than there is
/// room for means that it was cut. Asks no driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_blitter_describe(
    blitter: Option<&primeshare_blitter>,
    source: Option<&primeshare_buffer>,
    destination: Option<&primeshare_buffer>,
    text: *mut c_char,
    text_size: usize,
) -> c_int {
    value(c"primeshare_blitter_describe", || {
        let blitter = of(blitter, "blitter")?;
        let (source, destination) = (of(source, "source")?, of(destination, "destination")?);
        // SAFETY: as the header asks.
        let text = unsafe { room(text, text_size, "text") }?;
        let verdict = blitter
            .0
            .verdict(&source.0, &destination.0, &BlitInfo::default());
        let verdict = verdict.map_or("nothing has been tried".to_owned(), |verdict| {
            verdict.to_string()
        });
        Ok(print(&verdict, text))
    })
}

/// Writes as much of a text as there is room for, and a zero. Returns the length of all of it.
pub(crate) fn print(words: &str, text: &mut [MaybeUninit<c_char>]) -> c_int {
    if let Some(most) = text.len().checked_sub(1) {
        let bytes = words.bytes().map(|byte| byte as c_char).take(most);
        let written = text
            .iter_mut()
            .zip(bytes)
            .map(|(place, byte)| place.write(byte))
            .count();
        text[written].write(0);
    }
    c_int::try_from(words.len()).unwrap_or(c_int::MAX)
}
