//! Which strategy makes a frame. Pure: nothing here touches a buffer or a device.
//!
//! [`plan`] says which strategies there are for a pair of buffers, [`trials`] keeps what is known of
//! each, [`cost`] estimates what a copy takes by its bytes, and [`pick`] decides.

pub(super) mod cost;
mod pick;
pub(super) mod plan;
#[cfg(test)]
mod regret;
pub(super) mod trials;

pub(super) use pick::Choice;
