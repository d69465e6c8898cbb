//! Imitations of gbm drivers that no guest has: libraries that tests preload over Mesa's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cache::Entry;
use crate::progress::Log;

/// Where programs in the guest find the libraries.
pub(super) const VARIABLE: &str = "PRIMESHARE_GBM_DRIVERS";

/// To be raised when this module makes something else of the same sources.
const RECIPE: &str = "1";

/// What each is called, and its source, which says what it imitates.
const SOURCES: [(&str, &str); 4] = [
    ("cache", include_str!("../../../guest/gbm/cache.c")),
    ("nvidia", include_str!("../../../guest/gbm/nvidia.c")),
    ("planes", include_str!("../../../guest/gbm/planes.c")),
    ("screen", include_str!("../../../guest/gbm/screen.c")),
];

/// The cache's entry for them.
pub(super) fn entry() -> Result<Entry> {
    let mut inputs = vec![RECIPE];
    inputs.extend(SOURCES.iter().map(|(_, source)| source));
    Entry::new("gbm-drivers", &inputs)
}

/// Makes them in `directory`, by the host's compiler: they need nothing of its C library that the guests' lack.
pub(super) fn make(directory: &Path, log: &mut Log) -> Result<()> {
    for (name, text) in SOURCES {
        let source = directory.join(name).with_extension("c");
        fs::write(&source, text)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(source.with_extension("so"))
            .arg(&source)
            .arg("-ldl");
        log.run(&mut cc, |_| {})?;
    }
    Ok(())
}
