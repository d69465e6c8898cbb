//! How four kinds of hosts use primeshare, each in one file to copy from.
//!
//! | module | the host | feature |
//! | --- | --- | --- |
//! | [`table`] | has GEM code of its own and takes the handle table alone | |
#![cfg_attr(
    feature = "drm",
    doc = "| [`drm_host`] | makes framebuffers and flips pages by the crate `drm` | `drm` |"
)]
#![cfg_attr(
    feature = "wayland",
    doc = "| [`wayland`] | serves linux-dmabuf by the crate `wayland-server` | `wayland` |"
)]
#![cfg_attr(
    feature = "loops",
    doc = "| [`loops`] | waits in calloop, in epoll or in tokio | `loops` |"
)]
//!
//! Hosts on Smithay have a crate of their own, `primeshare-smithay`, which is tested here as well.
//!
//! The library is built without its default features, but for the copies that `loops` waits for. The tests run on vgem
//! and vkms, in the project's guests.

#[cfg(feature = "drm")]
pub mod drm_host;
#[cfg(feature = "loops")]
pub mod loops;
pub mod table;
#[cfg(feature = "wayland")]
pub mod wayland;
