//! Packages of Debian, whatever distribution the host is: unpacked by mmdebstrap, not installed.
//!
//! Unpacking needs neither mounts nor maintainer scripts, so it works as root, as an ordinary user and in containers.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::kind::Kind;
use crate::progress::{Log, Step};

/// The release everything comes from.
pub(crate) const SUITE: &str = "trixie";

/// Takes the mirror that mmdebstrap has chosen for the suite, and adds the suite's backports from there.
///
/// On one line, because mmdebstrap takes a hook for a file name first and says so when that has line ends.
const ADD_BACKPORTS: &str = r#"set -e; list="$1/etc/apt/sources.list"; backports="$list.d/backports.list"; sed -n 's/^\(deb .*\) trixie main.*$/\1 trixie-backports main/p' "$list" > "$backports"; test -s "$backports""#;

/// Unpacks `packages` and all they depend on into `directory`, as this guest has them; `pick` are options for tar.
pub(crate) fn unpack(
    kind: Kind,
    packages: &[&str],
    pick: &[&str],
    directory: &Path,
    log: &mut Log,
    step: &Step,
) -> Result<()> {
    // By way of an archive: tar makes the files belong to the caller and can leave out what only root may make.
    let archive = directory.join("packages.tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=extract", "--format=tar"]);
    mmdebstrap.args(
        packages
            .iter()
            .map(|package| format!("--include={package}")),
    );
    mmdebstrap.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Retries \"3\"",
    ]);
    for unneeded in ["doc", "man", "info", "locale", "lintian", "bug"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{unneeded}/*"));
    }
    if kind.has_backports() {
        mmdebstrap.arg(format!(
            "--aptopt=APT::Default-Release \"{SUITE}-backports\""
        ));
        mmdebstrap.arg(format!("--setup-hook={ADD_BACKPORTS}"));
    }
    mmdebstrap.arg(SUITE).arg(&archive);
    log.run(&mut mmdebstrap, |line| step.note(line.to_owned()))?;

    step.note("unpacking".to_owned());
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(directory);
    log.run(tar.args(pick), |_| {})?;
    std::fs::remove_file(&archive)?;
    Ok(())
}
