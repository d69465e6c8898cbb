//! The guide: chapters for those who adopt the library, one task after another.
//!
//! | chapter | |
//! | --- | --- |
//! | [`concepts`] | the kernel's words: file description, handle, GEM object, dma-buf, identity, modifier, fence |
//! | [`handles`] | only the handle table, beside existing GEM code |
//! | [`allocation`] | allocators, and what all users of a buffer can share |
//! | [`vulkan`] | Vulkan and wgpu |
//! | [`blitter`] | copies between devices |
//! | [`screens`] | framebuffers, screens, page flips, hot plug |
//! | [`compositor`] | a Wayland compositor, part by part |
//! | [`fences`] | fences, event loops, CPU access |
//! | [`processes`] | buffers and fences for another process |
//! | [`troubleshooting`] | what errors and refusals mean |
//! | [`tool`] | the command-line tool and its JSON reports |
//! | [`environment`] | environment variables |
//!
//! The modules are empty: their documentation is the text. The files are `docs/guide/*.md` in the repository.

// The names that the chapters link to.
#![allow(unused_imports)]

#[cfg(feature = "blit")]
use crate::blit;
#[cfg(feature = "blit")]
use crate::blit::{
    Blit, BlitDevice, BlitInfo, Blitter, Completion, Push, Statistics, Strategy, Stream, SyncFiles,
    Verdict, WhyNot,
};
use crate::buffer::{BufferId, PerBuffer, WeakPerBuffer};
#[cfg(feature = "gbm")]
use crate::gbm;
#[cfg(feature = "kms")]
use crate::kms;
use crate::negotiate::{
    Choice, Endpoint, Feedback, FormatTable, negotiate, negotiate_one_of, parse_in_formats,
};
use crate::sync::{Deadline, SyncFile, Syncobj};
#[cfg(feature = "vulkan")]
use crate::vk;
#[cfg(feature = "wayland")]
use crate::wayland;
#[cfg(feature = "wgpu")]
use crate::wgpu;
use crate::{
    Allocator, Device, DmaBuf, ErrorKind, Fourcc, Modifier, Request, alloc, buffer, device, export,
    gem, import, negotiate, sync,
};

#[doc = include_str!("../../docs/guide/concepts.md")]
pub mod concepts {}

#[doc = include_str!("../../docs/guide/handles.md")]
pub mod handles {}

#[doc = include_str!("../../docs/guide/allocation.md")]
pub mod allocation {}

#[cfg_attr(feature = "vulkan", doc = include_str!("../../docs/guide/vulkan.md"))]
#[cfg_attr(not(feature = "vulkan"), doc = "Needs the feature `vulkan`.")]
pub mod vulkan {}

#[cfg_attr(feature = "blit", doc = include_str!("../../docs/guide/blitter.md"))]
#[cfg_attr(not(feature = "blit"), doc = "Needs the feature `blit`.")]
pub mod blitter {}

#[cfg_attr(feature = "kms", doc = include_str!("../../docs/guide/screens.md"))]
#[cfg_attr(not(feature = "kms"), doc = "Needs the feature `kms`.")]
pub mod screens {}

#[cfg_attr(
    all(feature = "blit", feature = "kms", feature = "wayland", feature = "wgpu"),
    doc = include_str!("../../docs/guide/compositor.md")
)]
#[cfg_attr(
    not(all(
        feature = "blit",
        feature = "kms",
        feature = "wayland",
        feature = "wgpu"
    )),
    doc = "Needs the features `blit`, `kms`, `wayland` and `wgpu`."
)]
pub mod compositor {}

#[doc = include_str!("../../docs/guide/fences.md")]
pub mod fences {}

#[doc = include_str!("../../docs/guide/processes.md")]
pub mod processes {}

#[doc = include_str!("../../docs/guide/troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("../../docs/guide/tool.md")]
pub mod tool {}

#[doc = include_str!("../../docs/guide/environment.md")]
pub mod environment {}
