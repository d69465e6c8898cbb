//! An operation of the library that is run again and again.

use std::error::Error;

/// What an operation needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// No system call that allocates.
    Nothing,
    /// Kernel memory.
    Memory,
    /// A new fd, for which the kernel needs no memory.
    Fds,
    /// Kernel memory and a new fd.
    Both,
}

/// An operation that was given its input.
pub(super) type Attempt<'a> = Box<dyn FnOnce() -> Outcome<'a> + 'a>;
/// The error's text, or a function that says whether the result is right, and drops it.
pub(super) type Outcome<'a> = Result<Box<dyn FnOnce() -> bool + 'a>, String>;

/// An operation of the library.
pub(super) struct Operation<'a> {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    /// Its errors need not name the kernel's reason.
    pub(super) reason_is_lost: bool,
    /// It makes Mesa start a driver.
    pub(super) starts_mesa: bool,
    prepare: Box<dyn Fn() -> Attempt<'a> + 'a>,
}

impl<'a> Operation<'a> {
    /// `prepare` makes the input, without faults.
    pub(super) fn with<I: 'a, T: 'a, E: Error + 'a>(
        name: &'static str,
        needs: Needs,
        prepare: impl Fn() -> I + 'a,
        attempt: impl Fn(I) -> Result<T, E> + Copy + 'a,
        right: impl Fn(&T) -> bool + Copy + 'a,
    ) -> Self {
        let prepare = move || -> Attempt<'a> {
            let input = prepare();
            Box::new(move || match attempt(input) {
                Ok(result) => Ok(Box::new(move || right(&result))),
                Err(error) => Err(error.to_string()),
            })
        };
        Self {
            name,
            needs,
            reason_is_lost: false,
            starts_mesa: false,
            prepare: Box::new(prepare),
        }
    }

    pub(super) fn new<T: 'a, E: Error + 'a>(
        name: &'static str,
        needs: Needs,
        attempt: impl Fn() -> Result<T, E> + Copy + 'a,
        right: impl Fn(&T) -> bool + Copy + 'a,
    ) -> Self {
        Self::with(name, needs, || (), move |()| attempt(), right)
    }

    /// Its errors need not name the kernel's reason.
    pub(super) fn without_reason(self) -> Self {
        Self {
            reason_is_lost: true,
            ..self
        }
    }

    pub(super) fn starting_mesa(self) -> Self {
        Self {
            starts_mesa: true,
            ..self
        }
    }

    pub(super) fn prepare(&self) -> Attempt<'a> {
        (self.prepare)()
    }
}
