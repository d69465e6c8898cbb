//! What C programs pass in and have written out.

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use primeshare::sync::Deadline;
use primeshare::{Errno, ErrorKind};

use crate::failure::Failure;
use crate::object::is_null;

/// The place of a result that has to be wanted.
pub(crate) fn out<'a, T>(
    place: Option<&'a mut MaybeUninit<T>>,
    name: &str,
) -> Result<&'a mut MaybeUninit<T>, Failure> {
    place.ok_or_else(|| is_null(name))
}

/// Writes a result that need not be wanted.
pub(crate) fn write<T>(place: Option<&mut MaybeUninit<T>>, value: T) {
    if let Some(place) = place {
        place.write(value);
    }
}

/// A text of the program's.
///
/// # Safety
/// NULL, or a string that ends with a zero and stays as it is during the call.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a CStr, Failure> {
    if text.is_null() {
        return Err(is_null(name));
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// The same, which has to be UTF-8.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn utf8<'a>(from: *const c_char, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: as the caller promises.
    let text = unsafe { text(from, name) }?;
    let text = text.to_str();
    text.map_err(|error| Failure::invalid(format!("{name} is not UTF-8: {error}")))
}

/// An array of the program's. NULL is an empty one.
///
/// # Safety
/// NULL, or so many values that stay as they are during the call.
pub(crate) unsafe fn array<'a, T>(
    array: *const T,
    count: usize,
    name: &str,
) -> Result<&'a [T], Failure> {
    match (array.is_null(), count) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::invalid(format!(
            "{name} is NULL, and has {count} elements"
        ))),
        // SAFETY: as the caller promises.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(array, count) }),
    }
}

/// Room for so many values.
///
/// # Safety
/// NULL, or room for so many values that nobody else uses during the call.
pub(crate) unsafe fn room<'a, T>(
    room: *mut T,
    count: usize,
    name: &str,
) -> Result<&'a mut [MaybeUninit<T>], Failure> {
    match (room.is_null(), count) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Failure::invalid(format!(
            "{name} is NULL, and has room for {count}"
        ))),
        // SAFETY: as the caller promises.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(room.cast(), count) }),
    }
}

/// An fd of the program's, which stays the program's.
pub(crate) fn fd<'a>(fd: c_int, name: &str) -> Result<BorrowedFd<'a>, Failure> {
    if fd < 0 {
        let message = format!("{name} is {fd}, which is no fd");
        return Err(Failure::new(ErrorKind::Invalid, Errno::EBADF, message));
    }
    // SAFETY: it is not -1. A number that is not open is the kernel's to refuse, with EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A sync file of the program's; -1 is one that is signalled.
pub(crate) fn fence<'a>(number: c_int, name: &str) -> Result<Option<BorrowedFd<'a>>, Failure> {
    match number {
        -1 => Ok(None),
        number => fd(number, name).map(Some),
    }
}

/// A new fd of the same file description.
pub(crate) fn dup(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let dup = fd.try_clone_to_owned();
    dup.map_err(|error| Errno::of(&error).unwrap_or(Errno::EIO).into())
}

/// The number of an fd that belongs to the program from now on; -1 for none.
pub(crate) fn give_fd(fd: Option<impl Into<OwnedFd>>) -> c_int {
    fd.map_or(-1, |fd| fd.into().into_raw_fd())
}

/// How long to wait, in nanoseconds; negative is without end.
pub(crate) fn timeout(nanoseconds: i64) -> Deadline {
    let end = u64::try_from(nanoseconds)
        .ok()
        .and_then(|nanoseconds| Instant::now().checked_add(Duration::from_nanos(nanoseconds)));
    end.map_or(Deadline::Never, Deadline::At)
}

/// A struct that begins with its size, and may grow.
///
/// # Safety
/// It is `repr(C)`, its first field is `size: usize`, and all zeros are a value of it.
pub(crate) unsafe trait Growing: Copy {
    /// The name of its type in C, without `struct`.
    const NAME: &'static str;
    /// How large it was in the first version.
    const FIRST: usize = size_of::<Self>();
}

/// Copies options in: fields that the program's header does not know are zero, and fields that this library does not
/// know have to be. NULL: all are zero.
///
/// # Safety
/// NULL, or memory of the size that its first field says.
pub(crate) unsafe fn options<T: Growing>(pointer: *const T) -> Result<T, Failure> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        // SAFETY: as the caller promises; the type begins with its size.
        let size = unsafe { checked_size(pointer) }?;
        let known = size.min(size_of::<T>());
        // SAFETY: both are at least as large; what is new is not where the program's is.
        unsafe {
            value
                .as_mut_ptr()
                .cast::<u8>()
                .copy_from_nonoverlapping(pointer.cast(), known);
        }
        // SAFETY: as the caller promises.
        let rest =
            unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
        if rest.iter().any(|byte| *byte != 0) {
            let message = format!(
                "struct {} has fields that this version does not know",
                T::NAME
            );
            return Err(Failure::new(ErrorKind::Unsupported, Errno::E2BIG, message));
        }
    }
    // SAFETY: all zeros are a value, and a value of the same type was copied over its beginning.
    Ok(unsafe { value.assume_init() })
}

/// The same for a struct that says what the call is about, without which there is none.
///
/// # Safety
/// As for [`options`].
pub(crate) unsafe fn required<T: Growing>(pointer: *const T, name: &str) -> Result<T, Failure> {
    if pointer.is_null() {
        return Err(is_null(name));
    }
    // SAFETY: as the caller promises.
    unsafe { options(pointer) }
}

/// Copies a result out, as much of it as the program's header knows; its size stays.
///
/// # Safety
/// NULL, or memory of the size that its first field says.
pub(crate) unsafe fn fill<T: Growing>(
    pointer: *mut T,
    name: &str,
    value: T,
) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(is_null(name));
    }
    // SAFETY: as the caller promises; the type begins with its size.
    let size = unsafe { checked_size(pointer.cast_const()) }?;
    let known = size.min(size_of::<T>());
    let first = size_of::<usize>();
    // SAFETY: both are at least as large; the local value is not where the program's is.
    unsafe {
        pointer.cast::<u8>().add(first).copy_from_nonoverlapping(
            std::ptr::from_ref(&value).cast::<u8>().add(first),
            known - first,
        );
        pointer.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// The size that a struct says it has, if it can be.
///
/// # Safety
/// It begins with its size.
unsafe fn checked_size<T: Growing>(pointer: *const T) -> Result<usize, Failure> {
    // SAFETY: as the caller promises.
    let size = unsafe { pointer.cast::<usize>().read() };
    // More than a page is no struct, but a size that was not set.
    match (T::FIRST..=4096).contains(&size) {
        true => Ok(size),
        false => {
            let (name, first) = (T::NAME, T::FIRST);
            let message =
                format!("size of struct {name} is {size}, which is not from {first} to 4096");
            Err(Failure::invalid(message))
        }
    }
}
