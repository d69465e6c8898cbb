//! `cargo xtask demo`: a picture travels between two DRM devices of the guest, three times.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::guest::kind::{self, Kind};
use crate::progress::{Log, Step};
use crate::{cargo, guest, host, jobs, repository, runner};

/// The guest for the demo. Its kernel is Debian's own, which need not be compiled.
const GUEST: Kind = Kind::Qemu;

/// (source, destination). The other drivers of the guest take no foreign buffers.
const JOURNEYS: &[(&str, &str)] = &[
    ("virtio_gpu", "cirrus"),
    ("vgem", "cirrus"),
    ("cirrus", "vgem"),
];

const DIRECTORY: &str = "target/demo";

/// Builds the example.
fn build(log: &Path) -> Result<()> {
    let step = Step::start("Example: build");
    let part = step.part(0.0..1.0);
    let mut cargo = cargo::command();
    cargo.args(["build", "--profile=demo", "--example", "cross_gpu_blit"]);
    // Cargo prints its progress bar even without a terminal, and so says how far it is.
    cargo.envs([
        ("CARGO_TERM_COLOR", "never"),
        ("CARGO_TERM_PROGRESS_WHEN", "always"),
        ("CARGO_TERM_PROGRESS_WIDTH", "80"),
    ]);
    Log::create(log.to_owned())?.run(&mut cargo, |line| {
        if let Some(share) = share(line) {
            part.at(share, "");
        }
    })?;
    step.done();
    Ok(())
}

/// The share in a line of cargo's with its bar: "    Building [=====>      ] 12/48: ash, clap".
fn share(line: &str) -> Option<f64> {
    let (_, counts) = line.split_once("] ")?;
    let (done, all) = counts.split(": ").next()?.split_once('/')?;
    let (done, all): (u32, u32) = (done.parse().ok()?, all.trim_end().parse().ok()?);
    Some(f64::from(done) / f64::from(all))
}

/// Runs the example for each journey; not zero if one failed.
pub(crate) fn run() -> Result<u8> {
    host::prepare_for_library()?;
    let directory = repository::root().join(DIRECTORY);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    jobs::both(
        || build(&directory.join("build.log")),
        || guest::prepare(GUEST, false),
    )?;
    let (mut failed, mut pictures) = (Vec::new(), Vec::new());
    for (source, destination) in JOURNEYS {
        let heading = format!("{source} -> {destination}");
        println!("\n== {heading}");
        let picture = directory.join(format!("{source}-to-{destination}.png"));
        // A picture of an earlier run must not be taken for this run's.
        let _ = fs::remove_file(&picture);
        let mut example = cargo::command();
        example.args([
            "run",
            "--quiet",
            "--profile=demo",
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
        example
            .arg(&picture)
            .env("PRIMESHARE_RUN", "guest")
            .env(kind::VARIABLE, GUEST.name());
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

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn share_of_cargo() {
        assert_eq!(
            share("    Building [===>    ] 12/48: ash, clap"),
            Some(0.25)
        );
        assert_eq!(share("    Building [=======>] 47/47"), Some(1.0));
        for line in ["   Compiling ash v0.38.0", "warning: [x] a/b: c", "", "] /"] {
            assert_eq!(share(line), None, "{line}");
        }
    }
}
