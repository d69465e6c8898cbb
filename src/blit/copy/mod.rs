//! Copies: by a GPU, by the CPU, and the memory that a copy in two steps goes through.
//!
//! [`copier`] makes a copy by any strategy. It uses [`gpu`] and [`cpu`], which know nothing of
//! strategies. [`private`], [`pattern`] and [`likeness`] are for trials.

mod allocators;
mod convert;
pub(super) mod copier;
pub(super) mod cpu;
mod fast;
pub(super) mod frame;
pub(super) mod gpu;
mod half;
pub(super) mod host;
pub(super) mod likeness;
mod memory;
pub(super) mod method;
pub(super) mod pattern;
pub(super) mod pixels;
pub(super) mod place;
pub(super) mod private;
mod record;
pub(super) mod regions;
mod resample;
mod shader;
pub(super) mod staging;
mod threads;

pub(super) use convert::is_known;
