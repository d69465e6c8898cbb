//! The C interface. A file is a part of a header, in the order below; `cargo xtask header` writes the headers from
//! the declarations and their comments, so the comments are for C programmers.
//!
//! Objects that programs share are counted (`object.rs`), and parameters that may be NULL are `Option`s. A parameter
//! `&T` becomes `const T *` and may be used by several threads; `&mut T` becomes `T *` and belongs to one thread at a
//! time.

#[macro_use]
mod failure;
mod arguments;
mod object;

// primeshare.h
pub mod allocator;
pub mod buffer;
pub mod device;
pub mod errors;
pub mod fence;
pub mod library;
pub mod mapping;
pub mod negotiation;
pub mod table;
pub mod wayland;

#[cfg(feature = "blit")]
pub mod blit;
#[cfg(feature = "gbm")]
pub mod gbm;
#[cfg(feature = "kms")]
pub mod kms;
#[cfg(feature = "vulkan")]
pub mod vulkan;
