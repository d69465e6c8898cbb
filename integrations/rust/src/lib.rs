//! How five kinds of hosts use primeshare, each in one file to copy from.
//!
//! | module | the host | feature |
//! | --- | --- | --- |
//! | [`table`] | has GEM code of its own and takes the handle table alone | |
#![cfg_attr(
    feature = "drm",
    doc = "| [`drm_host`] | makes framebuffers and flips pages by the crate `drm` | `drm` |"
)]
//!
//! The library is built without its default features. The tests run on vgem and vkms, in the project's guests.

#[cfg(feature = "drm")]
pub mod drm_host;
pub mod table;
