//! Which strategy makes a frame. Pure: nothing here touches a buffer or a device.
//!
//! [`plan`] says which strategies there are for a pair of buffers, [`records`] keeps what is known of
//! each, [`cost`] estimates how long a copy takes by its bytes, [`drift`] notices when the estimates are no
//! longer right, [`pick`] decides, and [`saved`] turns the records into text and back.

pub(super) mod cost;
mod drift;
pub(super) mod pick;
pub(super) mod plan;
pub(super) mod records;
#[cfg(test)]
mod regret;
mod saved;

pub use saved::SavedError;

use arrayvec::ArrayVec;

use super::strategy::Strategy;

/// The strategies that may be used, in order of trust.
pub(super) type Allowed = ArrayVec<Strategy, { Strategy::LIST.len() }>;
