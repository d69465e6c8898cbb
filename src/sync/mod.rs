//! Ordering of access to a buffer: fences, and the CPU's own access.
//!
//! Nothing here waits unless its name says so, and what waits takes a [`Deadline`].

mod cpu;
mod deadline;
mod error;
mod fence;
pub(crate) mod host_copy;
pub mod implicit;
mod planes;
mod poll;
mod sync_file;
mod syncobj;

pub use cpu::{Access, Mapping, MappingGuard};
pub use deadline::Deadline;
pub use error::Error;
pub use fence::{Fence, Polled};
pub use planes::{BufferAccess, BufferMapping, MappedPlane, MappedPlaneMut, Row, RowMut};
pub use sync_file::{FenceInfo, Info, Status, SyncFile};
pub use syncobj::{Stage, Syncobj, SyncobjSupport};
