//! Debian's own kernel, with an initramfs that has the drivers and as little else as can be.
//!
//! The kernel goes to QEMU unpacked, since unpacking itself would take an emulated processor a second. So are its
//! modules, in the order in which they are to be loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Entry;
use crate::guest::debian;
use crate::guest::kind::Kind;
use crate::progress::{Log, Step};

/// To be raised when this module makes something else of the same packages.
const RECIPE: &str = "1";

const INIT: &str = include_str!("../../../../guest/qemu-init");

/// What the initramfs' script says on the console when all modules are loaded.
pub(in crate::guest) const UP: &str = "primeshare guest: up";

/// Modules to load, in this order, and their parameters; what they depend on is loaded before them.
const MODULES: &[(&str, &str)] = &[
    ("9pnet_virtio", ""),
    ("9p", ""),
    ("configfs", ""),
    // A console on every display would take its time to draw.
    ("drm_kms_helper", "fbdev_emulation=0"),
    ("vgem", ""),
    ("virtio-gpu", ""),
    ("bochs", ""),
    ("qxl", ""),
    ("cirrus", ""),
];

/// What the initramfs' script has besides.
const BUSYBOX: &str = "busybox-static";

/// The cache's entry for the kernel.
pub(super) fn entry(kind: Kind, package: &str) -> Result<Entry> {
    let modules = format!("{MODULES:?}");
    let inputs = [RECIPE, debian::SUITE, package, BUSYBOX, INIT, UP, &modules];
    Entry::new(&kind.name_of("kernel"), &inputs)
}

/// The unpacked kernel, and the initramfs, in the entry.
pub(in crate::guest) fn files(entry: &Path) -> (PathBuf, PathBuf) {
    (entry.join("vmlinux"), entry.join("initramfs"))
}

/// Makes both in `directory`.
pub(super) fn make(kind: Kind, package: &str, directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start(format!("{}, kernel", kind.title()));
    let work = directory.join("build");
    fs::create_dir(&work)?;
    let pick = [
        "--wildcards",
        "./boot/vmlinuz-*",
        "./usr/lib/modules/*",
        "./usr/bin/busybox",
    ];
    let part = step.part(0.0..0.8);
    debian::unpack(kind, &[package, BUSYBOX], &pick, &work, log, &part)?;
    let release = only_entry(&work.join("usr/lib/modules"))?;
    let (kernel, initramfs) = files(directory);
    step.note("kernel".to_owned());
    unpack_kernel(
        &work.join(format!("boot/vmlinuz-{release}")),
        &kernel,
        &work,
        log,
    )?;
    step.note("initramfs".to_owned());
    let tree = work.join("initramfs");
    fill(&tree, &work, &release, log)?;
    let mut cpio = Command::new("sh");
    cpio.args([
        "-c",
        "find . | cpio --quiet --create --format=newc --owner=+0:+0 --file=\"$0\"",
    ]);
    log.run(cpio.arg(&initramfs).current_dir(&tree), |_| {})?;
    fs::write(directory.join("release"), format!("{release}\n"))?;
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

fn only_entry(directory: &Path) -> Result<String> {
    let mut entries = fs::read_dir(directory)?;
    match (entries.next().transpose()?, entries.next()) {
        (Some(entry), None) => Ok(entry.file_name().to_string_lossy().into_owned()),
        _ => bail!("expected exactly one entry in {}", directory.display()),
    }
}

/// The ELF file in a bzImage.
fn unpack_kernel(image: &Path, kernel: &Path, work: &Path, log: &mut Log) -> Result<()> {
    let image = fs::read(image).with_context(|| format!("no kernel {}", image.display()))?;
    let payload = payload(&image).context("this kernel is no bzImage")?;
    if !payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        bail!("this kernel is not compressed by zstd");
    }
    let compressed = work.join("vmlinux.zst");
    fs::write(&compressed, payload)?;
    let mut zstd = Command::new("zstd");
    zstd.args(["--quiet", "--decompress", "-o"]).arg(kernel);
    log.run(zstd.arg(&compressed), |_| {})
}

/// The compressed kernel in a bzImage (`Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header").
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup_sectors = usize::from(*image.get(0x1f1)?);
    let (offset, length) = (word(0x248)?, word(0x24c)?);
    let start = (setup_sectors + 1) * 512 + offset;
    // The last four bytes are the length of what is compressed.
    image.get(start..start.checked_add(length.checked_sub(4)?)?)
}

/// The initramfs' files.
fn fill(tree: &Path, work: &Path, release: &str, log: &mut Log) -> Result<()> {
    for directory in ["bin", "host", "modules"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    fs::copy(work.join("usr/bin/busybox"), tree.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh"))?;
    let mut load = String::new();
    for (number, (module, parameters)) in in_order(work, release, log)?.iter().enumerate() {
        log.run(Command::new("xz").arg("--decompress").arg(module), |_| {})?;
        let module = module.with_extension("");
        let name = format!("modules/{number:02}.ko");
        fs::rename(&module, tree.join(&name))
            .with_context(|| format!("no module {}", module.display()))?;
        load += &format!("busybox insmod /{name} {parameters}\n");
    }
    fs::write(tree.join("modules/load"), load)?;
    let init = tree.join("init");
    fs::write(&init, INIT.replace("@UP@", UP))?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&init, executable)?;
    Ok(())
}

/// The modules to load and those that they depend on, with parameters.
fn in_order(work: &Path, release: &str, log: &mut Log) -> Result<Vec<(PathBuf, &'static str)>> {
    // The tools look in either place, as they were built.
    std::os::unix::fs::symlink("usr/lib", work.join("lib"))?;
    let mut depmod = Command::new(tool("depmod"));
    log.run(depmod.arg("--basedir").arg(work).arg(release), |_| {})?;
    let mut modules: Vec<(PathBuf, &str)> = Vec::new();
    for &(name, parameters) in MODULES {
        let mut modprobe = Command::new(tool("modprobe"));
        // Not as this machine's own configuration has it.
        modprobe.args(["--config", "/dev/null", "--show-depends"]);
        modprobe.arg("--dirname").arg(work);
        modprobe.args(["--set-version", release, name]);
        // The module itself comes last.
        let mut last = PathBuf::new();
        log.run(&mut modprobe, |line| {
            // "insmod /path/to/module.ko.xz "
            let Some(path) = line.strip_prefix("insmod ") else {
                return;
            };
            last = path.trim_end().into();
            if modules.iter().all(|(known, _)| *known != last) {
                modules.push((last.clone(), ""));
            }
        })?;
        match modules.iter_mut().find(|(path, _)| *path == last) {
            Some((_, set)) => *set = parameters,
            None => bail!("this kernel has no module {name}"),
        }
    }
    Ok(modules)
}

/// Where an ordinary user's PATH does not lead.
fn tool(name: &str) -> PathBuf {
    ["/usr/sbin", "/sbin"]
        .map(|directory| Path::new(directory).join(name))
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_where_the_header_says() {
        let mut image = vec![0; 0x800];
        image[0x1f1] = 2;
        image[0x248] = 0x10;
        image[0x24c] = 8;
        image[0x610..0x618].copy_from_slice(b"gzip\x01\x02\x03\x04");
        assert_eq!(payload(&image), Some(&b"gzip"[..]));
        for (at, wrong) in [(0x24c, 3), (0x24b, 0xff), (0x24f, 0xff)] {
            let mut image = image.clone();
            image[at] = wrong;
            assert_eq!(payload(&image), None);
        }
        assert_eq!(payload(&image[..0x24e]), None);
    }
}
