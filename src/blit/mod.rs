//! Getting pictures from the buffers of one device into those of another.
//!
//! [`Blitter`] does it between any two devices, by the best way that truly works: it tries what is
//! possible, looks whether the picture arrived, measures, falls back when something fails, and can
//! say why it does what it does ([`Verdict`]). [`Blit`] is one prepared copy by one GPU, for those
//! who know what works.

mod blitter;
mod choose;
mod copy;
mod damage;
mod error;
mod prepared;
mod run;
mod strategy;
mod verdict;

pub use blitter::{Blitter, Options, Side, SyncFiles};
pub use choose::plan::WhyNot;
pub use damage::Rect;
use error::check;
pub use error::{Error, Failure};
pub use prepared::Blit;
pub use run::fence::Fence;
pub use strategy::{Carrier, End, Strategy, UnknownStrategy};
pub use verdict::{Attempt, Outcome, Verdict};
