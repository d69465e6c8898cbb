//! Tests of the library on real DRM drivers.
//!
//! They run in the guest, which cargo's runner starts: see guest/README.md. Every test ends with the leak
//! checks of `support`. A test that needs what some guests lack says so by `support::can_run`.

mod allocation;
mod blit;
mod caches;
mod child;
mod closing;
mod cpu;
mod debugging;
mod devices;
mod drivers;
mod example;
mod facts;
mod faults;
mod fences;
mod forks;
mod gbm;
mod gl;
mod handles;
mod handover;
mod identity;
mod kernel;
#[cfg(feature = "kms")]
mod kms;
mod memfd;
mod memory;
mod negotiation;
mod peer;
mod planes;
mod private_copy;
mod processes;
mod races;
mod refusals;
mod removal;
#[cfg(feature = "kms")]
mod show;
mod soak;
mod support;
#[cfg(feature = "cli")]
mod tool;
mod transfer;
mod unplug;
mod vkms;
mod vulkan;
#[cfg(feature = "wgpu")]
mod wgpu;
