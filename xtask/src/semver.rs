//! Whether a change of the public interface breaks callers of the last release, by cargo-semver-checks.
//!
//! `interface` shows every change to reviewers; this job says which of them need a new version.

use std::process::{Command, Stdio};

use crate::jobs::Job;
use crate::repository;

/// Slow: it documents both versions.
pub(crate) fn job() -> Job {
    let release = last_release();
    let mut command = Command::new("cargo");
    command.args(["semver-checks", "check-release", "--package=primeshare"]);
    command.args(["--all-features", "--baseline-rev"]);
    command.arg(release.as_deref().unwrap_or("HEAD"));
    command.current_dir(repository::root());
    let lacks = match release {
        None => Some("a release to compare with: a tag such as v0.1.0"),
        Some(_) if !is_installed() => Some("cargo install --locked cargo-semver-checks"),
        Some(_) => None,
    };
    Job::new("semver", command).lacks(lacks).extra()
}

fn last_release() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--tags", "--abbrev=0", "--match=v[0-9]*"]);
    let output = git.current_dir(repository::root()).output().ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

fn is_installed() -> bool {
    let mut version = Command::new("cargo");
    version.args(["semver-checks", "--version"]);
    let version = version.stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
