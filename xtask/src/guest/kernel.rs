//! The guest's kernel: built from source, or as Debian has built it.

mod fixes;
pub(super) mod source;
pub(super) mod stock;

use std::path::Path;

use anyhow::Result;

use super::kind::{Kernel, Kind};
use crate::cache::Entry;
use crate::progress::Log;

/// The cache's entry for the kernel.
pub(crate) fn entry(kind: Kind) -> Result<Entry> {
    let kind = kind.kernel_of();
    match kind.kernel() {
        Kernel::Source { package, config } => source::entry(kind, package, config),
        Kernel::Stock { package } => stock::entry(kind, package),
    }
}

/// Makes the kernel in `directory`.
pub(crate) fn make(kind: Kind, directory: &Path, log: &mut Log) -> Result<()> {
    let kind = kind.kernel_of();
    match kind.kernel() {
        Kernel::Source { package, config } => source::make(kind, package, config, directory, log),
        Kernel::Stock { package } => stock::make(kind, package, directory, log),
    }
}
