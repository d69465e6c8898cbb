//! Packages of Debian, whatever distribution the host is: unpacked by mmdebstrap, not installed.
//!
//! Unpacking needs neither mounts nor maintainer scripts, so it works as root, as an ordinary user and in containers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::kind::Kind;
use crate::progress::{Log, Part};

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
    part: &Part,
) -> Result<()> {
    // By way of an archive: tar makes the files belong to the caller and can leave out what only root may make.
    let archive = directory.join("packages.tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    // Only with `--debug` does it say which package it is at.
    mmdebstrap.args(["--variant=extract", "--format=tar", "--debug"]);
    mmdebstrap.args(
        packages
            .iter()
            .map(|package| format!("--include={package}")),
    );
    mmdebstrap.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Retries \"3\"",
    ]);
    if kind.has_backports() {
        mmdebstrap.arg(format!(
            "--aptopt=APT::Default-Release \"{SUITE}-backports\""
        ));
        mmdebstrap.arg(format!("--setup-hook={ADD_BACKPORTS}"));
    }
    mmdebstrap.arg(SUITE).arg(&archive);
    let (mut state, fetching) = (Mmdebstrap::default(), part.part(0.0..0.9));
    fetching.at(0.0, "packages");
    log.run(&mut mmdebstrap, |line| {
        if state.take(line) {
            fetching.at(state.share(), "packages");
        }
    })?;

    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(directory)
        .args(pick);
    let size = std::fs::metadata(&archive)
        .context("mmdebstrap has made no archive")?
        .len();
    untar(&mut tar, size, log, &part.part(0.9..1.0))?;
    std::fs::remove_file(&archive)?;
    Ok(())
}

/// Adds the packages' sources to the mirrors that mmdebstrap has chosen.
const ADD_SOURCES: &str = r#"set -e; list="$1/etc/apt/sources.list"; sed -n 's/^deb /deb-src /p' "$list" > "$list.d/sources.list""#;

/// Takes a file from the source of a package, as upstream has it. Gives its path, somewhere in `directory`.
pub(super) fn source_file(
    package: &str,
    file: &str,
    directory: &Path,
    log: &mut Log,
) -> Result<PathBuf> {
    let place = directory.join("source");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=extract", "--format=tar", "--include=base-files"]);
    mmdebstrap.arg("--aptopt=Acquire::Retries \"3\"");
    mmdebstrap.arg(format!("--setup-hook={ADD_SOURCES}"));
    mmdebstrap.arg(format!(
        "--extract-hook=mkdir \"$1/source\" && cd \"$1/source\" && APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" \
         apt-get source --download-only {package}"
    ));
    // Hooks of an ordinary user run as somebody who may not write here: mmdebstrap itself copies.
    mmdebstrap.arg(format!(
        "--extract-hook=copy-out /source '{}'",
        directory.display()
    ));
    // What it makes beside the download is not used.
    let nothing = directory.join("nothing.tar");
    mmdebstrap.arg(SUITE).arg(&nothing);
    log.run(&mut mmdebstrap, |_| {})?;
    std::fs::remove_file(&nothing)?;
    let names = std::fs::read_dir(&place)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_upstreams = |path: &PathBuf| path.to_string_lossy().contains(".orig.tar.");
    let archive = names.into_iter().find(is_upstreams);
    let archive = archive.with_context(|| format!("{package} has no source archive"))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--strip-components=1"]);
    tar.args(["--wildcards", "--file"]).arg(&archive);
    tar.arg("--directory").arg(&place);
    log.run(tar.arg(format!("*/{file}")), |_| {})?;
    Ok(place.join(file))
}

/// Runs tar, which unpacks an archive of `size` bytes.
pub(super) fn untar(tar: &mut Command, size: u64, log: &mut Log, part: &Part) -> Result<()> {
    // "tar: 1000", in records of 10 KiB, whether or not anything of them is unpacked.
    tar.args(["--checkpoint=1000", "--checkpoint-action=echo=%u"]);
    log.run(tar, |line| {
        let records = line.strip_prefix("tar: ").unwrap_or_default();
        if let Ok(records) = records.parse::<u32>() {
            part.at(f64::from(records) * 10240.0 / size as f64, "unpacking");
        }
    })
}

/// What mmdebstrap has said about how far it is.
#[derive(Default)]
struct Mmdebstrap {
    packages: u32,
    fetched: u32,
    unpacked: u32,
    at_end: bool,
}

impl Mmdebstrap {
    /// Takes a line, and says whether it told something.
    fn take(&mut self, line: &str) -> bool {
        // "0 upgraded, 108 newly installed, 0 to remove and 0 not upgraded."
        if let Some((before, _)) = line.split_once(" newly installed")
            && let Some(count) = before.rsplit(' ').next()
        {
            self.packages = count.parse().unwrap_or(0);
        } else if line.starts_with("Get:") && self.packages > 0 {
            self.fetched += 1;
        } else if line.contains("running dpkg-deb --fsys-tarfile ") {
            self.unpacked += 1;
        } else if line.contains("creating tarball") {
            self.at_end = true;
        } else {
            return false;
        }
        true
    }

    /// How much is done, from 0 to 1. The steps' shares are those of the root file system's build, roughly.
    fn share(&self) -> f64 {
        if self.at_end {
            return 0.8;
        }
        let of_all = |count: u32| f64::from(count) / f64::from(self.packages.max(1));
        match self.packages {
            0 => 0.0,
            _ => 0.2 + 0.1 * of_all(self.fetched) + 0.5 * of_all(self.unpacked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mmdebstrap;

    #[test]
    fn share_of_mmdebstrap() {
        let mut state = Mmdebstrap::default();
        let lines = [
            ("I: 14888 2358 running apt-get update...", false, 0.0),
            (
                "Get:1 http://mirror.invalid/debian trixie InRelease [140 kB]",
                false,
                0.0,
            ),
            (
                "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
                true,
                0.2,
            ),
            (
                "Get:1 http://mirror.invalid/debian trixie/main amd64 cpio [49 kB]",
                true,
                0.25,
            ),
            (
                "Get:2 http://mirror.invalid/debian trixie/main amd64 xz [49 kB]",
                true,
                0.3,
            ),
            (
                "D: 1 2 running dpkg-deb --fsys-tarfile /tmp/cpio.deb",
                true,
                0.55,
            ),
            (
                "D: 1 2 running dpkg-deb --fsys-tarfile /tmp/xz.deb",
                true,
                0.8,
            ),
            ("I: 14888 5953 creating tarball...", true, 0.8),
        ];
        for (line, tells, share) in lines {
            assert_eq!(state.take(line), tells, "{line}");
            assert!((state.share() - share).abs() < 1e-9, "{line}");
        }
    }
}
