//! Objects that C programs hold by pointers: how they are counted, and how misuse is found.

use std::sync::Arc;

use crate::failure::Failure;

/// What a C program holds a pointer to.
pub(crate) trait Object: Sized {
    /// The name of its type in C, without `struct`.
    #[cfg_attr(
        not(debug_assertions),
        allow(dead_code, reason = "only debug builds know which objects there are")
    )]
    const NAME: &'static str;
}

/// Hands an object out, with one reference.
pub(crate) fn give<T: Object>(object: impl Into<Arc<T>>) -> *mut T {
    let pointer = Arc::into_raw(object.into());
    living::add::<T>(pointer.addr());
    pointer.cast_mut()
}

/// Adds a reference.
///
/// # Safety
/// NULL, or a pointer of [`give`] of which a reference is held.
pub(crate) unsafe fn reference<T: Object>(pointer: *const T) -> *mut T {
    if !pointer.is_null() {
        living::check::<T>(pointer.addr(), "referenced");
        living::add::<T>(pointer.addr());
        // SAFETY: as the caller promises.
        unsafe { Arc::increment_strong_count(pointer) };
    }
    pointer.cast_mut()
}

/// Takes a reference back.
///
/// # Safety
/// NULL, or a pointer of [`give`] of which a reference is held, which is given up.
pub(crate) unsafe fn unreference<T: Object>(pointer: *mut T) {
    if !pointer.is_null() {
        living::remove::<T>(pointer.addr());
        // SAFETY: as the caller promises.
        unsafe { Arc::decrement_strong_count(pointer.cast_const()) };
    }
}

/// Hands an object out that one thread uses at a time.
pub(crate) fn give_exclusive<T: Object>(object: T) -> *mut T {
    let pointer = Box::into_raw(Box::new(object));
    living::add::<T>(pointer.addr());
    pointer
}

/// Ends such an object, and returns it.
///
/// # Safety
/// NULL, or a pointer of [`give_exclusive`], which is not used again.
pub(crate) unsafe fn take_exclusive<T: Object>(pointer: *mut T) -> Option<T> {
    if pointer.is_null() {
        return None;
    }
    living::remove::<T>(pointer.addr());
    // SAFETY: as the caller promises.
    Some(*unsafe { Box::from_raw(pointer) })
}

/// The object of a parameter. In a debug build, ends the process if there is none.
pub(crate) fn of<'a, T: Object>(pointer: Option<&'a T>, name: &str) -> Result<&'a T, Failure> {
    let object = pointer.ok_or_else(|| is_null(name))?;
    living::check::<T>(std::ptr::from_ref(object).addr(), "used");
    Ok(object)
}

/// The same for an object that this call alone uses.
pub(crate) fn of_mut<'a, T: Object>(
    pointer: Option<&'a mut T>,
    name: &str,
) -> Result<&'a mut T, Failure> {
    let object = pointer.ok_or_else(|| is_null(name))?;
    living::check::<T>(std::ptr::from_mut(object).addr(), "used");
    Ok(object)
}

#[cold]
pub(crate) fn is_null(name: &str) -> Failure {
    Failure::invalid(format!("{name} is NULL"))
}

/// The objects that programs hold, in debug builds: a pointer that is none of them, or of another type, ends the
/// process before it does harm. Release builds keep no list.
#[cfg(debug_assertions)]
mod living {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use super::Object;

    type List = HashMap<usize, (&'static str, usize)>;

    static LIVING: Mutex<Option<List>> = Mutex::new(None);

    fn list<R>(change: impl FnOnce(&mut List) -> R) -> R {
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        change(living.get_or_insert_default())
    }

    pub(super) fn add<T: Object>(address: usize) {
        list(|list| list.entry(address).or_insert((T::NAME, 0)).1 += 1);
    }

    pub(super) fn remove<T: Object>(address: usize) {
        check::<T>(address, "unreferenced");
        list(|list| {
            if let Some((_, count)) = list.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    list.remove(&address);
                }
            }
        });
    }

    pub(super) fn check<T: Object>(address: usize, what: &str) {
        let name = list(|list| list.get(&address).map(|(name, _)| *name));
        let found = match name {
            Some(name) if name == T::NAME => return,
            Some(other) => format!("it is a struct {other}"),
            None => "there is no such object: it was unreferenced too often, or never was one"
                .to_owned(),
        };
        eprintln!(
            "primeshare: {address:#x} is {what} as a struct {}, but {found}",
            T::NAME
        );
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
mod living {
    pub(super) fn add<T>(_: usize) {}
    pub(super) fn remove<T>(_: usize) {}
    pub(super) fn check<T>(_: usize, _: &str) {}
}
