//! Whether the library compiles with every set of its features, and with the oldest Rust that it promises.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::jobs::Job;
use crate::{cargo, repository};

/// A set of features, with all features that they imply.
type Set = BTreeSet<String>;

/// The features that each feature implies, from the text of a Cargo.toml.
fn parse(manifest: &str) -> BTreeMap<String, Set> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]");
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    let feature = |line: &str| {
        let (name, list) = line.split_once('=')?;
        let quoted = list.split('"').skip(1).step_by(2);
        let others = quoted.filter(|item| !item.contains(':'));
        let name = name.trim();
        (name != "default" && !name.starts_with('#'))
            .then(|| (name.to_owned(), others.map(str::to_owned).collect()))
    };
    lines.filter_map(feature).collect()
}

/// Whether a feature implies no other and is implied by none, as far as the manifest says.
fn is_apart(name: &String, features: &BTreeMap<String, Set>) -> bool {
    features[name].is_empty() && !features.values().any(|implied| implied.contains(name))
}

/// The sets of features that are checked: all different sets of those that belong together, which contain all features
/// that their members imply; each feature apart from them alone; and all features. (Each feature that is apart would
/// double the number of sets.)
fn sets_to_check(features: &BTreeMap<String, Set>) -> Vec<Set> {
    let mut together = features.clone();
    together.retain(|name, _| !is_apart(name, features));
    let apart = features.keys().filter(|name| is_apart(name, features));
    let mut all = sets(&together);
    all.extend(apart.map(|name| Set::from([name.clone()])));
    all.push(features.keys().cloned().collect());
    all
}

/// All different sets of features: those that contain all features that their members imply.
fn sets(features: &BTreeMap<String, Set>) -> Vec<Set> {
    let names: Vec<_> = features.keys().collect();
    let all = (0..1_u32 << names.len()).map(|bits| -> Set {
        let chosen = names.iter().enumerate();
        let chosen = chosen.filter(|(bit, _)| bits & 1 << bit != 0);
        chosen.map(|(_, name)| (*name).clone()).collect()
    });
    all.filter(|set| set.iter().all(|name| features[name].is_subset(set)))
        .collect()
}

/// Checks the library alone with each set, by the toolchain of that name or by the one in use.
pub(crate) fn run(toolchain: Option<&str>) -> Result<u8> {
    let manifest = repository::root().join("Cargo.toml");
    let manifest = fs::read_to_string(&manifest).context("cannot read Cargo.toml")?;
    let sets = sets_to_check(&parse(&manifest));
    for set in &sets {
        let list = set.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let mut check = match toolchain {
            None => cargo::command(),
            Some(toolchain) => {
                let mut cargo = Command::new("cargo");
                cargo.arg(format!("+{toolchain}"));
                // These variables are set for the toolchain that runs this program.
                cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
                cargo.current_dir(repository::root());
                cargo
            }
        };
        check.args(["check", "--quiet", "--lib", "--no-default-features"]);
        check.args(["--features", &list, "--target-dir", "target/features"]);
        check.env("RUSTFLAGS", "-D warnings");
        let status = cargo::run(&mut check)?;
        if !status.success() {
            bail!("the library does not compile with the features {list:?}");
        }
    }
    eprintln!("{} sets of features compile", sets.len());
    Ok(0)
}

/// The job for the toolchain in use, and one for the oldest.
pub(crate) fn jobs() -> [Job; 2] {
    let own = |arguments: &[&str]| {
        let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
        command.args(arguments).current_dir(repository::root());
        command
    };
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let lacks = (!has_toolchain(oldest)).then_some(concat!(
        "rustup toolchain install ",
        env!("CARGO_PKG_RUST_VERSION")
    ));
    [
        Job::new("features", own(&["features"])),
        Job::new(
            format!("features, Rust {oldest}"),
            own(&["features", "--toolchain", oldest]),
        )
        .lacks(lacks)
        .extra(),
    ]
}

/// The parts that need no devices, under the interpreter that finds undefined behaviour.
pub(crate) fn miri() -> Job {
    let mut miri = Command::new("cargo");
    miri.args(["+nightly", "miri", "test", "--lib", "--manifest-path"]);
    miri.arg(repository::root().join("Cargo.toml"));
    miri.arg("--target-dir")
        .arg(repository::root().join("target/miri"));
    // Neither system calls nor Vulkan: the table runs on the model of the kernel. (Negotiation is safe code only.)
    miri.args(["--no-default-features", "--", "buffer::", "gem::"]);
    miri.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    miri.env("PROPTEST_CASES", "8")
        .env("PRIMESHARE_RUN", "host");
    miri.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    // The runner in the repository's configuration is for programs that the machine can run, and Miri has one of its own:
    // cargo reads the configuration of the directory that it is called in.
    miri.current_dir(std::env::temp_dir());
    let lacks = (!has_miri()).then_some("rustup +nightly component add miri rust-src");
    Job::new("miri", miri).lacks(lacks).extra()
}

fn has_toolchain(version: &str) -> bool {
    succeeds(Command::new("rustc").args([&format!("+{version}"), "--version"]))
}

fn has_miri() -> bool {
    let source = Path::new("lib/rustlib/src/rust/library/Cargo.lock");
    let mut sysroot = Command::new("rustc");
    sysroot.args(["+nightly", "--print", "sysroot"]);
    let sysroot = sysroot.env_remove("RUSTUP_TOOLCHAIN").stderr(Stdio::null());
    let has_source = sysroot.output().is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot).join(source).exists()
    });
    has_source && succeeds(Command::new("cargo").args(["+nightly", "miri", "--version"]))
}

/// Whether a command succeeds. It fails without rustup, whose `+` selects a toolchain.
fn succeeds(command: &mut Command) -> bool {
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_its_features_bring_along() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\ndefault = [\"a\"]\n# Text.\na = []\n\
                        b = [\"a\", \"dep:other\"]\n\n[dependencies]\nc = \"1\"\n";
        let features = parse(manifest);
        let names: Vec<_> = features.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b"]);
        let sets = sets(&features);
        let set = |names: &[&str]| -> Set { names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(sets, [set(&[]), set(&["a"]), set(&["a", "b"])]);
    }

    #[test]
    fn features_that_stand_apart_are_checked_alone_and_with_all() {
        let manifest = "[features]\na = []\nb = [\"a\"]\nc = []\nd = []\n";
        let set = |names: &[&str]| -> Set { names.iter().map(|name| (*name).to_owned()).collect() };
        let all = set(&["a", "b", "c", "d"]);
        let expected = [
            set(&[]),
            set(&["a"]),
            set(&["a", "b"]),
            set(&["c"]),
            set(&["d"]),
            all,
        ];
        assert_eq!(sets_to_check(&parse(manifest)), expected);
    }

    #[test]
    fn the_librarys_features_are_found() {
        let manifest = repository::root().join("Cargo.toml");
        let features = parse(&fs::read_to_string(manifest).unwrap());
        for feature in ["gbm", "vulkan", "blit", "wgpu", "cli"] {
            assert!(features.contains_key(feature), "{feature}");
        }
        assert!(features["blit"].contains("vulkan"));
    }
}
