//! Where the repository is.

use std::path::{Path, PathBuf};

/// The root of the repository this binary belongs to.
pub(crate) fn root() -> PathBuf {
    // A repository that was moved keeps its built binary, so the path from compile time comes second.
    let beside = std::env::current_exe().ok().and_then(|exe| {
        let root = exe
            .ancestors()
            .find(|dir| dir.join("xtask/Cargo.toml").is_file());
        root.map(Path::to_path_buf)
    });
    beside.unwrap_or_else(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        manifest.parent().unwrap_or(manifest).to_path_buf()
    })
}
