//! Debian's kernel source, built for User-Mode Linux.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::fixes;
use crate::cache::Entry;
use crate::guest::debian;
use crate::guest::kind::Kind;
use crate::progress::{Log, Part, Step};

/// To be raised when this module makes something else of the same configuration.
const RECIPE: &str = "3";

const CONFIG: &str = include_str!("../../../../guest/kernel.config");

/// Options without which the guest is of no use. If one of the others is missing, a newer kernel may have renamed it.
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

/// Files that are not unpacked, which are most of a kernel's source: whole trees, and the code in trees of which only
/// the Kconfig files and make files are read.
const UNNEEDED: &[&str] = &[
    "Documentation/[a-z]*",
    "tools/[a-z]*",
    "arch/*.dts*",
    // All but um and x86.
    "arch/[a-tvwyz]*/*.[chS]",
    "drivers/accel/*.[ch]",
    "drivers/clk/*.[ch]",
    "drivers/gpu/drm/amd/*.[ch]",
    "drivers/iio/*.[ch]",
    "drivers/infiniband/*.[ch]",
    "drivers/media/*.[ch]",
    "drivers/net/*/*.[ch]",
    "drivers/pinctrl/*.[ch]",
    "drivers/scsi/*.[ch]",
    "drivers/staging/*.[ch]",
    "drivers/usb/*.[ch]",
    "sound/*.[ch]",
];

/// About how many objects a kernel is linked from, to say how much of it is built.
const OBJECTS: u32 = 820;

/// The cache's entry for the kernel.
pub(super) fn entry(kind: Kind, package: &str, config: &str) -> Result<Entry> {
    let mut inputs = vec![RECIPE, debian::SUITE, CONFIG];
    if kind != Kind::Current {
        inputs.extend([package, config]);
    }
    let fixes: Vec<&str> = fixes::inputs(kind).collect();
    inputs.extend(&fixes);
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
    let source = fetch(kind, package, &work, log, &step.part(0.0..1.0))?;
    for file in fixes::apply(kind, &source)? {
        eprintln!("xtask: the kernel source's {file} is not as it was known, and left alone");
    }
    step.done();

    let step = Step::start(format!("{}, kernel: build", kind.title()));
    let objects = work.join("objects");
    step.part(0.0..1.0).at(0.0, "configuration");
    configure(kind, config, &source, &objects, log)?;
    compile(&source, &objects, log, &step.part(0.02..1.0))?;
    fs::copy(objects.join("linux"), file(directory))?;
    fs::copy(objects.join(".config"), directory.join("config"))?;
    let release = fs::read(objects.join("include/config/kernel.release"))?;
    fs::write(directory.join("release"), release)?;
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

/// The unpacked source.
fn fetch(kind: Kind, package: &str, work: &Path, log: &mut Log, part: &Part) -> Result<PathBuf> {
    let pick = ["--wildcards", "./usr/src/*"];
    debian::unpack(kind, &[package], &pick, work, log, &part.part(0.0..0.4))?;
    let archive = only_entry(&work.join("usr/src"))?;
    let mut size = None;
    let mut list = Command::new("xz");
    log.run(list.args(["--robot", "--list"]).arg(&archive), |line| {
        size = size.or(unpacked_size(line));
    })?;
    let size = size.context("xz does not say how large the kernel source is")?;
    let source = work.join("source");
    fs::create_dir(&source)?;
    let mut tar = Command::new("tar");
    // Debian compresses it in blocks, which xz unpacks beside each other.
    tar.args(["--extract", "--use-compress-program=xz --threads=0"])
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&source)
        .arg("--strip-components=1")
        .args(["--anchored", "--wildcards"]);
    tar.args(
        UNNEEDED
            .iter()
            .map(|pattern| format!("--exclude=linux-source-*/{pattern}")),
    );
    debian::untar(&mut tar, size, log, &part.part(0.4..1.0))?;
    fs::remove_file(&archive)?;
    Ok(source)
}

/// The size in a line of `xz --robot --list`, if it is the one with the totals: "totals STREAMS BLOCKS COMPRESSED SIZE".
fn unpacked_size(line: &str) -> Option<u64> {
    let mut fields = line.split('\t');
    (fields.next() == Some("totals"))
        .then(|| fields.nth(3)?.parse().ok())
        .flatten()
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

fn compile(source: &Path, objects: &Path, log: &mut Log, part: &Part) -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut state, mut shown) = (Compiled::default(), Instant::now());
    let mut make = make_command(source, objects);
    make.arg(format!("-j{processors}")).arg("linux");
    log.run(&mut make, |line| {
        state.take(line);
        if shown.elapsed().as_millis() > 100 {
            part.at(state.share(), &format!("{} objects", state.objects));
            shown = Instant::now();
        }
    })
}

/// What make has said about how far it is.
#[derive(Default)]
struct Compiled {
    objects: u32,
    is_linking: bool,
}

impl Compiled {
    fn take(&mut self, line: &str) {
        // "  CC      drivers/dma-buf/udmabuf.o"
        self.objects += u32::from(line.starts_with("  ") && line.ends_with(".o"));
        self.is_linking |= line.starts_with("  LD ") && line.ends_with(" vmlinux.o");
    }

    /// How much is done, from 0 to 1. Kernels and compilers differ, so neither more objects nor fewer than expected may
    /// do harm: until all are linked they count for no more than 97 %.
    fn share(&self) -> f64 {
        if self.is_linking {
            return 0.97;
        }
        0.97 * (f64::from(self.objects) / f64::from(OBJECTS)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_among_the_totals() {
        let lines = [
            "name\tlinux-source-7.3.tar.xz",
            "file\t1\t69\t165795560\t1718804480\t0.096\tCRC64\t0",
            "totals\t1\t69\t165795560\t1718804480\t0.096\tCRC64\t0\t1",
        ];
        assert_eq!(lines.map(unpacked_size), [None, None, Some(1_718_804_480)]);
        assert_eq!(unpacked_size("totals\t1"), None);
    }

    #[test]
    fn share_of_the_build_bears_other_counts() {
        let mut state = Compiled::default();
        state.take("  UPD     include/generated/utsrelease.h");
        assert_eq!(state.share(), 0.0);
        for _ in 0..OBJECTS / 2 {
            state.take("  CC      drivers/dma-buf/udmabuf.o");
        }
        assert!((state.share() - 0.485).abs() < 0.001);
        for _ in 0..OBJECTS {
            state.take("  CC      more/than/expected.o");
        }
        assert_eq!(state.share(), 0.97);
        let mut few = Compiled::default();
        few.take("  LD      vmlinux.o");
        assert_eq!(few.share(), 0.97);
    }
}
