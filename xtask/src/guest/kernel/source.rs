//! Debian's kernel source, built for User-Mode Linux.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cache::Entry;
use crate::guest::debian;
use crate::guest::kind::Kind;
use crate::progress::{Log, Step};

/// To be raised when this module makes something else of the same configuration.
const RECIPE: &str = "1";

const CONFIG: &str = include_str!("../../../../guest/kernel.config");

/// Without these there is no point in starting; an option less of the rest can be a newer kernel's renaming.
const INDISPENSABLE: &[&str] = &[
    "CONFIG_HOSTFS",
    "CONFIG_DEVTMPFS",
    "CONFIG_SYSCTL",
    "CONFIG_SSL",
    "CONFIG_DRM_VKMS",
    "CONFIG_DRM_VGEM",
    "CONFIG_UDMABUF",
    "CONFIG_DMABUF_HEAPS_SYSTEM",
    "CONFIG_SW_SYNC",
    "CONFIG_FAILSLAB",
];

/// The cache's entry for the kernel.
pub(super) fn entry(kind: Kind, package: &str, config: &str) -> Result<Entry> {
    let mut inputs = vec![RECIPE, debian::SUITE, CONFIG];
    if kind != Kind::Current {
        inputs.extend([package, config]);
    }
    Entry::new(&kind.name_of("kernel"), &inputs)
}

/// The kernel in the entry.
pub(in crate::guest) fn file(entry: &Path) -> PathBuf {
    entry.join("linux")
}

/// Makes it in `directory`.
pub(super) fn make(
    kind: Kind,
    package: &str,
    config: &str,
    directory: &Path,
    log: &mut Log,
) -> Result<()> {
    let work = directory.join("build");
    fs::create_dir(&work)?;
    let step = Step::start(format!("{}, kernel: source", kind.title()));
    let source = fetch(kind, package, &work, log, &step)?;
    step.done();

    let step = Step::start(format!("{}, kernel: build", kind.title()));
    let objects = work.join("objects");
    configure(kind, config, &source, &objects, log)?;
    compile(&source, &objects, log, &step)?;
    fs::copy(objects.join("linux"), file(directory))?;
    fs::copy(objects.join(".config"), directory.join("config"))?;
    let release = fs::read(objects.join("include/config/kernel.release"))?;
    fs::write(directory.join("release"), release)?;
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

/// The unpacked source.
fn fetch(kind: Kind, package: &str, work: &Path, log: &mut Log, step: &Step) -> Result<PathBuf> {
    debian::unpack(
        kind,
        &[package],
        &["--wildcards", "./usr/src/*"],
        work,
        log,
        step,
    )?;
    let archive = only_entry(&work.join("usr/src"))?;
    let source = work.join("source");
    fs::create_dir(&source)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&source)
        .arg("--strip-components=1");
    log.run(&mut tar, |_| {})?;
    fs::remove_file(&archive)?;
    Ok(source)
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory)?;
    match (entries.next().transpose()?, entries.next()) {
        (Some(entry), None) => Ok(entry.path()),
        _ => bail!(
            "expected exactly one kernel source in {}",
            directory.display()
        ),
    }
}

fn make_command(source: &Path, objects: &Path) -> Command {
    let mut make = Command::new("make");
    // The caller's own settings for make and the compiler are for the caller's own programs.
    for name in [
        "MAKEFLAGS",
        "MFLAGS",
        "CFLAGS",
        "LDFLAGS",
        "CC",
        "LD",
        "ARCH",
        "CROSS_COMPILE",
        "KCFLAGS",
    ] {
        make.env_remove(name);
    }
    make.env("LC_ALL", "C")
        .arg("-C")
        .arg(source)
        .arg("ARCH=um")
        .arg(format!("O={}", objects.display()));
    make
}

fn configure(kind: Kind, config: &str, source: &Path, objects: &Path, log: &mut Log) -> Result<()> {
    fs::create_dir(objects)?;
    let fragment = objects.join("fragment");
    fs::write(&fragment, [CONFIG, config].concat())?;
    log.run(
        make_command(source, objects)
            .env("KCONFIG_ALLCONFIG", &fragment)
            .arg("allnoconfig"),
        |_| {},
    )?;
    let taken =
        fs::read_to_string(objects.join(".config")).context("the kernel has no configuration")?;
    let several_cpus = kind.has_several_cpus().then_some("CONFIG_SMP");
    for option in INDISPENSABLE.iter().copied().chain(several_cpus) {
        if !taken
            .lines()
            .any(|line| line.strip_prefix(option) == Some("=y"))
        {
            bail!("this kernel source does not take {option}: guest/*.config needs an update");
        }
    }
    Ok(())
}

fn compile(source: &Path, objects: &Path, log: &mut Log, step: &Step) -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut count, mut shown) = (0, Instant::now());
    let mut make = make_command(source, objects);
    log.run(make.arg(format!("-j{processors}")).arg("linux"), |line| {
        // "  CC      drivers/dma-buf/udmabuf.o"
        count += usize::from(line.starts_with("  ") && line.ends_with(".o"));
        if shown.elapsed().as_millis() > 100 {
            step.note(format!("{count} objects"));
            shown = Instant::now();
        }
    })
}
