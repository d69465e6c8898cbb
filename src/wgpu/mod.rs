//! Textures of [wgpu](https://docs.rs/wgpu) that are shared buffers. Cargo feature `wgpu`.
//!
//! wgpu leaves out what shared memory needs: the transfers of ownership from and to
//! `VK_QUEUE_FAMILY_FOREIGN_EXT`, and fences that other processes and APIs understand. A
//! [`Device`] adds both to a wgpu device, which it makes ([`Device::open`]) or is given
//! ([`Device::wrap`]):
//!
//! 1. [`Device::import`] a [`DmaBuf`](crate::DmaBuf), or [`Device::create`] a texture and its
//!    `DmaBuf`;
//! 2. [`Device::acquire`] it, after the sync files of those who write or read it;
//! 3. use [`Texture::get`] as any texture;
//! 4. [`Device::release`] it, which gives the sync file for those who come next.
//!
//! ```no_run
//! use primeshare::sync::SyncFile;
//! use primeshare::wgpu::wgpu::TextureUsages;
//! use primeshare::wgpu::{Device, Error};
//! use primeshare::{DmaBuf, Fourcc, Request};
//!
//! /// A frame that wgpu draws and others show, and the fence of its drawing.
//! fn draw(device: &Device) -> Result<(DmaBuf, Option<SyncFile>), Error> {
//!     let request = Request::new(1920, 1080, Fourcc::XRGB8888);
//!     let (texture, buffer) = device.create(&request, TextureUsages::RENDER_ATTACHMENT)?;
//!     device.acquire(&[&texture], [])?;
//!     let _view = texture.get().create_view(&Default::default());
//!     // Encode and submit a pass that draws into the view.
//!     Ok((buffer, device.release(&[&texture])?))
//! }
//! ```
//!
//! Nothing here touches wgpu's queue. Barriers are recorded into wgpu's own command buffers and
//! semaphores are given to wgpu-hal for its next submission, so that wgpu submits everything
//! itself, under its own locks (VUID-vkQueueSubmit-queue-parameter's external synchronisation), and
//! any thread may go on using the `wgpu::Queue` meanwhile.
//!
//! Read in wgpu, wgpu-core and wgpu-hal 30.0.1.

mod device;
mod error;
mod format;
mod scopes;
mod texture;
mod transfer;

pub use device::{Device, physical};
pub use error::Error;
pub use format::format_of;
pub use texture::{Texture, TextureUse};
pub use wgpu;
