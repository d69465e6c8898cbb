//! When a copy starts, on which thread, and how its end is signalled.
//!
//! [`worker`] is the centre: it takes copies from the [`queue`], asks [`schedule`] what may start when, has
//! the [`engine`] start it, and signals the [`completion`]. A [`pair`] of devices has one thread for
//! [`trials`], beside the copies.

pub(super) mod completion;
pub(super) mod engine;
pub(super) mod pair;
pub(super) mod queue;
mod schedule;
pub(super) mod thread;
mod trials;
pub(super) mod trials_end;
pub(super) mod waits;
pub(super) mod worker;
