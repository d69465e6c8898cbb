//! When a copy starts, on which thread, and how its end is told.

pub(super) mod engine;
pub(super) mod fence;
pub(super) mod poll;
pub(super) mod waits;
pub(super) mod worker;
