//! What the library promises, held to real DRM drivers.
//!
//! Runs in the guest, which cargo's runner starts: see README.md. Every test ends with the leak
//! checks of `support`.

mod allocation;
mod caches;
mod devices;
mod example;
mod faults;
mod handles;
mod handover;
mod identity;
mod kernel;
mod negotiation;
mod races;
mod removal;
mod soak;
mod support;
mod vkms;
mod vulkan;
#[cfg(feature = "wgpu")]
mod wgpu;
