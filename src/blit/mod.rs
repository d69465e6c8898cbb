//! Getting pictures from the buffers of one device into those of another.
//!
//! [`Blitter`] does it between any two devices, by the best way that truly works: it tries what is
//! possible on buffers and devices of its own, beside the copies that it makes, measures, falls back when
//! something fails, and can say why it does what it does ([`Verdict`]). [`Blit`] is one prepared copy by
//! one GPU, for those who know what works.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Options};
//! use primeshare::vk::{Instance, Select, Validation};
//! use primeshare::{Allocator, Device, Fourcc, Request, alloc::Dumb};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (gpu, display) = (Device::open("/dev/dri/card0")?, Device::open("/dev/dri/card1")?);
//! let instance = Instance::new(Validation::Off)?;
//! let vulkan = |device| instance.select(&Select::Drm(device)).ok();
//! let blitter = Blitter::new(
//!     BlitDevice::new(&gpu, vulkan(&gpu).as_ref()),
//!     BlitDevice::new(&display, vulkan(&display).as_ref()),
//!     &Options::default(),
//! )?;
//! let request = Request::new(1920, 1080, Fourcc::XRGB8888);
//! let drawn = Dumb::new(&gpu).allocate(&request)?;
//! let shown = Dumb::new(&display).allocate(&request)?;
//! let copy = blitter.blit(&drawn, &shown, &BlitInfo::default())?;
//! match copy.sync_file() {
//!     Some(fence) => println!("for IN_FENCE_FD: {fence:?}"),
//!     None => copy.wait(Duration::from_secs(1))?,
//! }
//! println!("{}", blitter.statistics());
//! # Ok(())
//! # }
//! ```

mod blitter;
mod choose;
mod copy;
mod damage;
mod error;
mod options;
mod prepared;
mod run;
mod scale;
mod shadow;
mod statistics;
mod strategy;
mod upright;
mod verdict;
mod ycbcr;

pub use crate::buffer::{Damage, DamageBox, Rect};
pub use blitter::{BlitInfo, Blitter};
pub use choose::SavedError;
pub use choose::pick::HeldBack;
pub use choose::plan::WhyNot;
pub use error::{Error, Failure};
use error::{check, check_flags, check_sizes};
pub use options::{BlitDevice, Gpu, Options, Push, SyncFiles};
pub use prepared::Blit;
pub use run::completion::Completion;
pub use run::queue::Stream;
pub use run::trials_end::TrialsEnd;
pub use scale::{Filter, Scaling, ScalingError, Transform};
pub use shadow::{Readable, Shadow, ShadowError, ShadowFrame};
pub use statistics::{Statistics, StrategyStatistics};
pub use strategy::{End, StagingSource, Strategy, UnknownStrategy};
pub use verdict::{Attempt, Outcome, Verdict};
pub use ycbcr::{Matrix, Range, YcbcrEncoding};
