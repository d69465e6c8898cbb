//! `cargo xtask demo`: a picture travels between two DRM devices of the guest, three times.

use std::fs;

use anyhow::{Context, Result};

use crate::guest::kind::{self, Kind};
use crate::{cargo, guest, host, repository, runner};

/// (heading, source, destination, name of the picture).
const JOURNEYS: &[(&str, &str, &str, &str)] = &[
    ("vgem -> vkms", "vgem", "vkms", "vgem-to-vkms"),
    ("vkms -> vgem", "vkms", "vgem", "vkms-to-vgem"),
    (
        "vkms -> a second vkms",
        "vkms:0",
        "vkms:1",
        "vkms-to-second-vkms",
    ),
];

const DIRECTORY: &str = "target/demo";

/// Runs the example for each journey; not zero if one failed.
pub(crate) fn run() -> Result<u8> {
    host::prepare_for_library()?;
    guest::prepare(Kind::Current, false)?;
    cargo::build(&["build", "--release", "--example", "cross_gpu_blit"])?;
    let directory = repository::root().join(DIRECTORY);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let (mut failed, mut pictures) = (Vec::new(), Vec::new());
    for (heading, source, destination, name) in JOURNEYS {
        println!("\n== {heading}");
        let picture = directory.join(format!("{name}.png"));
        // One from an earlier run must not pass for this run's.
        let _ = fs::remove_file(&picture);
        let mut example = cargo::command();
        example.args([
            "run",
            "--quiet",
            "--release",
            "--example",
            "cross_gpu_blit",
            "--",
        ]);
        example.args([
            "--source",
            source,
            "--destination",
            destination,
            "--image",
            "examples/picture.png",
            "--png",
        ]);
        // Only the current guest has a second vkms.
        example
            .arg(&picture)
            .env("PRIMESHARE_RUN", "guest")
            .env(kind::VARIABLE, Kind::Current.name());
        let status = cargo::run(&mut example)?;
        let is_there = fs::metadata(&picture).is_ok_and(|metadata| metadata.len() > 0);
        match (status.success(), is_there) {
            (true, true) => pictures.push(picture),
            (true, false) => failed.push(format!("{heading}: no picture at {}", picture.display())),
            (false, _) => failed.push(format!("{heading}: {status}")),
        }
    }
    println!("\n== Pictures");
    pictures
        .iter()
        .for_each(|picture| println!("{}", picture.display()));
    failed.iter().for_each(|line| eprintln!("FAILED: {line}"));
    if runner::has_usable_device() {
        println!("\nThis machine has DRM devices of its own. To use them:");
        println!("    cargo run --release --example cross_gpu_blit -- --list");
    }
    Ok(u8::from(!failed.is_empty()))
}
