//! How five kinds of hosts use primeshare, each in one file to copy from.
//!
//! | module | the host | feature |
//! | --- | --- | --- |
//! | [`table`] | has GEM code of its own and takes the handle table alone | |
//!
//! The library is built without its default features. The tests run on vgem and vkms, in the project's guests.

pub mod table;
