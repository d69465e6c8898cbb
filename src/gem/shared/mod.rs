//! The synchronisation that the table is made of: std's; or loom's, where all interleavings are
//! explored (`--cfg loom`); or one that a thread sanitizer can follow (`--cfg tsan`).

#[cfg(any(loom, tsan))]
mod counted;
#[cfg(tsan)]
mod visible;

#[cfg(not(any(loom, tsan)))]
pub(super) use std::sync::{Arc, Mutex, MutexGuard, Weak};

#[cfg(any(loom, tsan))]
pub(super) use counted::{Arc, Weak};
#[cfg(loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(tsan)]
pub(super) use visible::{Mutex, MutexGuard};
