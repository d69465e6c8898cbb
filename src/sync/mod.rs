//! Ordering of access to a buffer: so far, the CPU's.

mod cpu;

pub use cpu::{Access, Error, Mapping, MappingGuard};
