//! Shares GPU buffers between DRM devices, Vulkan and processes on Linux, from userspace.
//!
//! The library is for programs that show or process pictures on more than one device: compositors, video
//! pipelines, remote desktops. It allocates a buffer once and passes it around as a dma-buf. It keeps one
//! handle table for each open file description of a DRM node, it knows buffers by their identity, and it says
//! for every refusal which operation failed, on which device, and why. The [`guide`] has a chapter for each
//! task.
//!
//! # Cargo features
//!
//! | feature | default | what it adds | what it needs |
//! | --- | --- | --- | --- |
//! | `gbm` | yes | allocation by Mesa's gbm | `libgbm-dev` and `pkg-config` to build |
//! | `vulkan` | yes | import into Vulkan, export from it | the Vulkan loader at run time |
//! | `blit` | yes | copies between devices; includes `vulkan` | |
//! | `kms` | no | framebuffers, screens and page flips | |
//! | `wayland` | no | what a Wayland compositor needs of linux-dmabuf, linux-drm-syncobj, wl_shm and screen capture | |
//! | `wgpu` | no | wgpu 30 textures that are shared buffers; includes `vulkan` | |
//! | `nix_0_31` | no | conversions between [`Errno`] and that of nix 0.31 | |
//! | `cli` | no | the command-line tool `primeshare`; includes `gbm`, `blit` and `kms` | |
//!
//! ```toml
//! [dependencies]
//! primeshare = { version = "0.1", default-features = false }   # the handle table and what is below it
//! ```
//!
//! Without the default features the library links neither libgbm nor Vulkan, and shows no type of another
//! crate whose version is below 1.
//!
//! # Tasks
//!
//! | task | items | chapter |
//! | --- | --- | --- |
//! | open and find devices | [`Device`], [`device::open_all`], [`Device::find`] | [handles](guide::handles) |
//! | allocate | [`Allocator`], [`Request`], [`alloc::Dumb`], [`alloc::Udmabuf`], [`alloc::DmaHeap`] | [allocation](guide::allocation) |
//! | describe a buffer from outside | [`DmaBuf::new`], [`DmaBuf::from_borrowed`] | [concepts](guide::concepts) |
//! | import, and keep what was made of a buffer | [`Device::import`], [`buffer::PerBuffer`] | [handles](guide::handles) |
//! | map for the CPU | [`sync::BufferMapping`], [`sync::Mapping`] | [fences](guide::fences) |
//! | wait, in an event loop or not | [`sync::implicit`], [`sync::SyncFile`], [`sync::Syncobj`] | [fences](guide::fences) |
//! | send to another process | [`DmaBuf::send`], [`DmaBuf::receive`] | [processes](guide::processes) |
//! | agree on a format and modifiers | [`negotiate::negotiate`] | [allocation](guide::allocation) |
#![cfg_attr(
    feature = "gbm",
    doc = "| allocate by gbm | [`gbm::Gbm`] | [allocation](guide::allocation) |"
)]
#![cfg_attr(
    feature = "vulkan",
    doc = "| Vulkan images and semaphores | [`vk::Device`], [`vk::Commands`] | [vulkan](guide::vulkan) |"
)]
#![cfg_attr(
    feature = "blit",
    doc = "| copy between devices | [`blit::Blitter`] | [blitter](guide::blitter) |"
)]
#![cfg_attr(
    feature = "kms",
    doc = "| show on a screen | [`kms::Framebuffers`], [`kms::Output`], [`mod@kms`] | [screens](guide::screens) |\n\
           | learn that a screen was plugged in | [`kms::Hotplug`] | [screens](guide::screens) |"
)]
#![cfg_attr(
    feature = "wayland",
    doc = "| serve Wayland clients | [`mod@wayland`] | [compositor](guide::compositor) |"
)]
#![cfg_attr(
    feature = "wgpu",
    doc = "| wgpu textures | [`mod@wgpu`] | [vulkan](guide::vulkan) |"
)]
//!
//! ## Allocate, import, look
//!
//! ```no_run
//! use primeshare::alloc::Dumb;
//! use primeshare::{Allocator, Device, Fourcc, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (gpu, display) = (Device::open("/dev/dri/card0")?, Device::open("/dev/dri/card1")?);
//! let buffer = Dumb::new(&gpu).allocate(&Request::new(1920, 1080, Fourcc::XRGB8888))?;
//! let shown = display.import(&buffer)?; // PRIME_FD_TO_HANDLE
//! let again = display.import(&buffer)?; // a lookup, without a system call
//! assert_eq!(again.object(), shown.object()); // one handle, closed when both are dropped
//! println!("{buffer:?} has handle {} on {display}", shown.object().handle().raw());
//! println!("{display:?}"); // with all open handles and their users
//! # Ok(())
//! # }
//! ```
//!
//! ## Take a buffer from a client
//!
//! [`DmaBuf::new`] trusts nothing: it checks fds, sizes, offsets and strides, and closes the fds if it refuses.
//!
//! ```no_run
//! use std::os::fd::OwnedFd;
//!
//! use primeshare::buffer::{Error, PlaneFd};
//! use primeshare::{BufferDesc, DmaBuf, Fourcc};
//!
//! fn of_client(fd: OwnedFd, width: u32, height: u32, stride: u32) -> Result<DmaBuf, Error> {
//!     let layout = BufferDesc::linear(width, height, Fourcc::XRGB8888);
//!     let plane = PlaneFd { fd, offset: 0, stride };
//!     DmaBuf::new(layout, [plane]).inspect_err(|error| {
//!         eprintln!("for the client: {:?} ({error})", error.linux_dmabuf_answer());
//!     })
//! }
//! ```
//!
//! ## Map for the CPU
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use primeshare::DmaBuf;
//! use primeshare::sync::{Access, BufferMapping};
//!
//! fn blacken(buffer: &DmaBuf) -> Result<(), primeshare::sync::Error> {
//!     let mut mapping = BufferMapping::new(buffer)?;
//!     let mut access = mapping.begin_wait(Access::Write, Duration::from_secs(1))?;
//!     for mut row in access.plane_mut(0)?.into_rows() {
//!         let black = vec![0; row.bytes()];
//!         row.write(0, &black)?;
//!     }
//!     access.end()
//! }
//! ```
//!
//! ## Wait in an event loop
//!
//! ```no_run
//! use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
//! use primeshare::DmaBuf;
//! use primeshare::sync::{Access, Fence, implicit};
//!
//! /// The fd of the fence is readable once it is worth asking `is_signalled`.
//! fn watch(epoll: &Epoll, buffer: &DmaBuf) -> Result<Fence, Box<dyn std::error::Error>> {
//!     let fence = implicit::fence(buffer, Access::Read)?;
//!     epoll.add(&fence, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
//!     Ok(fence)
//! }
//! ```
//!
//! ## Send to another process
//!
//! ```no_run
//! use std::os::fd::AsFd;
//!
//! use primeshare::DmaBuf;
//!
//! fn both_ends(here: impl AsFd, there: impl AsFd, buffer: &DmaBuf) -> Result<DmaBuf, Box<dyn std::error::Error>> {
//!     buffer.send(here)?; // over a Unix socket of the kind SOCK_SEQPACKET
//!     let received = DmaBuf::receive(there)?; // in the other process; checked as `DmaBuf::new` checks
//!     assert_eq!(received.id(), buffer.id());
//!     Ok(received)
//! }
//! ```
//!
//! The examples for gbm, Vulkan, the blitter and wgpu are in their modules and in the [`guide`];
//! [`negotiate`] begins with one.
//!
//! # What every module promises
//!
//! - **Threads.** Every type that stands for a device, a buffer, an allocator or a fence is `Send` and `Sync`,
//!   and clones share one object. No call waits for a GPU unless its name says `wait`; every wait takes a
//!   [`sync::Deadline`] or a timeout.
//! - **Fds.** A call that takes an `OwnedFd` owns the fd from then on, and closes it also if it fails. A call that
//!   takes `AsFd` borrows the fd and keeps a dup if it needs one. All fds are close-on-exec.
//! - **Forks.** In a forked child, objects of the parent may be dropped, which closes nothing; what needs the
//!   kernel fails, mostly with [`gem::Error::Forked`]. [`Device::reopen`] gives the child a device of its own.
//! - **Other code on the fd.** A program whose own code, gbm, EGL or Vulkan driver works on a file description
//!   gives the library another one: [`Device::private_copy`].
//! - **Errors.** Every error has `kind()` ([`ErrorKind`]) and `errno()` ([`Errno`]). After an error nothing is
//!   leaked, unless the error says so.
//! - **Panics.** Input and driver errors cause none. Threads of the library block the program's signals.
//! - **Logging.** The library logs through the crate `log`, also in places where it holds a lock. A program's logger
//!   must not call the library, nor wait for a lock that the program holds when it calls the library.
//! - **Environment.** The library reads `PRIMESHARE_BLIT` and no other variable: see [`guide::environment`].
//!
//! # Requirements
//!
//! Linux 5.3 or newer, whose dma-bufs have an identity. Features of newer kernels are found by trying, and their
//! absence is an error with [`ErrorKind::Unsupported`]. The repository tests Linux 6.12 and newer on x86-64.
// What only some of the features use is there without them, too.
#![cfg_attr(
    not(all(feature = "gbm", feature = "blit")),
    allow(dead_code, unused_imports)
)]

pub mod alloc;
#[cfg(feature = "blit")]
pub mod blit;
pub mod buffer;
pub mod device;
mod errno;
pub mod export;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "gbm")]
pub mod gbm;
pub mod gem;
pub mod guide;
pub mod import;
mod kind;
#[cfg(feature = "kms")]
pub mod kms;
pub mod negotiate;
pub mod sync;
mod sys;
#[cfg(feature = "vulkan")]
pub mod vk;
#[cfg(feature = "wayland")]
pub mod wayland;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use alloc::{Allocator, Request};
pub use buffer::{BufferDesc, DmaBuf, Fourcc, Modifier};
pub use device::Device;
pub use errno::Errno;
pub use kind::ErrorKind;

/// Has the examples of README.md compiled and run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
