//! Copies: by a GPU, by the CPU, and the memory that a copy in two steps goes through.

pub(super) mod cpu;
pub(super) mod frame;
pub(super) mod gpu;
pub(super) mod host;
pub(super) mod pixels;
pub(super) mod regions;
pub(super) mod staging;
