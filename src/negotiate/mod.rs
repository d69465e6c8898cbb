//! Which format and modifiers do for everybody who will use a buffer, who should allocate it, and
//! why. Pure: nothing here asks a device anything.
//!
//! Every user of a buffer is an [`Endpoint`]: what it can do with which formats and modifiers, and
//! what it needs. [`negotiate`] takes some endpoints and what is [`Wanted`], and gives an
//! [`Agreement`]: choices, best first, and a reason for everything that dropped out.
//!
//! ```
//! use primeshare::alloc::Request;
//! use primeshare::negotiate::{DeviceKey, Endpoint, FormatSet, Usage, Wanted, negotiate};
//! use primeshare::{Fourcc, Modifier};
//!
//! let (gpu, display) = (DeviceKey(226 << 8 | 128), DeviceKey(226 << 8 | 1));
//! let tiled = Modifier(0x0200_0000_0000_0901);
//! let both = [
//!     (Fourcc::XRGB8888, tiled),
//!     (Fourcc::XRGB8888, Modifier::LINEAR),
//!     (Fourcc::XRGB8888, Modifier::INVALID),
//! ];
//! let gbm = Endpoint::gbm("gbm", gpu, Usage::RENDER, FormatSet::from_iter(both));
//! let linear = FormatSet::from_iter([(Fourcc::XRGB8888, Modifier::LINEAR)]);
//! let plane = Endpoint::plane("plane 31", display, linear);
//!
//! let agreement = negotiate(&[&gbm, &plane], &Wanted::new(1920, 1080));
//! let choice = agreement.best()?;
//! assert_eq!((choice.allocator, choice.only_linear()), (0, true));
//! let request = Request::new(1920, 1080, choice.fourcc).modifiers(choice.modifiers.clone());
//! assert_eq!(request.modifiers, [Modifier::LINEAR]);
//! println!("{agreement}");
//! # let text = agreement.to_string();
//! # assert!(text.contains("XR24 with 0x0200000000000901: plane 31 does not list it"), "{text}");
//! # Ok::<(), primeshare::negotiate::Nothing>(())
//! ```
//!
//! # The rules
//!
//! - A format and modifier is agreed on if every endpoint lists it, for its use and the size, and
//!   if one endpoint can allocate it and all others import it.
//! - [`Modifier::INVALID`](crate::Modifier::INVALID), the layout that only a driver knows, is
//!   agreed on among endpoints of one device only, and only where every one lists it. Endpoints
//!   whose device is not known are of different ones. [`key_of`](crate::device::key_of) says which
//!   device a node is of.
//! - Where an endpoint [needs contiguous memory](Endpoint::needs_contiguous), only one that
//!   [allocates it](Endpoint::allocates_contiguous) can be the allocator.
//! - A format stands in for its opaque or alpha twin only where that is [asked
//!   for](Wanted::substitute).
//!
//! # The order
//!
//! Formats come first: in the order that was wanted, else `XRGB8888`, `ARGB8888`, then other RGB,
//! 8 bits before more, then everything else; equal ones by their codes. Then allocators, by the
//! best modifier that each can allocate; then those that render, since memory is best near its
//! writer; then those with more modifiers to choose from; then by name.
//!
//! Modifiers: explicit ones, then INVALID, then LINEAR. Explicit ones go by number, which means
//! nothing: modifiers are opaque (`drm_fourcc.h`), and only the allocating driver knows which of its
//! own is fastest. So give the allocator all of [`Choice::modifiers`] and let it choose.
//!
//! A Wayland compositor's preferences are between its tranches, each for a device of its own:
//! [`Feedback::endpoints`] and [`negotiate_one_of`].
//!
//! Nothing depends on the order of endpoints or of their lists; only [`Choice::allocator`] counts
//! in it. What is agreed on never shrinks when an endpoint lists more, and never grows when it
//! lists less.

mod agree;
mod agreement;
mod endpoint;
mod error;
mod feedback;
mod formats;
mod in_formats;
#[cfg(test)]
mod tests;
mod wanted;

pub use agree::{negotiate, negotiate_one_of};
pub use agreement::{Agreement, Choice, Nothing, Reason, Why};
pub use endpoint::{DeviceKey, Endpoint};
pub use error::Error;
pub use feedback::{Encoded, EncodedTranche, Feedback, FormatTable, Tranche, TrancheFlags};
pub use formats::{FormatSet, Support};

pub use crate::buffer::Usage;
pub use in_formats::parse_in_formats;
pub use wanted::{Substitute, Wanted};
