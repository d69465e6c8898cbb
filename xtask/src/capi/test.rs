//! The tests in C, `capi/tests`: compiled against an installed library that pkg-config finds, and run in a guest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Layer, install};
use crate::guest::kind::Kind;
use crate::jobs::{self, Job};
use crate::{cargo, guest, host, repository};

/// Writes the headers, or says whether they are up to date.
pub(crate) fn header(check: bool) -> Result<u8> {
    let mut command = cargo::command();
    command.args(["run", "--quiet", "--package=primeshare-header"]);
    if check {
        command.args(["--", "--check"]);
    }
    // A program that only translates needs no guest.
    command.env("PRIMESHARE_RUN", "host");
    Ok(cargo::code(cargo::run(&mut command)?))
}

/// The jobs of `cargo xtask test`.
pub(crate) fn jobs() -> [Job; 6] {
    let own = |arguments: &[&str]| {
        let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
        command.args(arguments).current_dir(repository::root());
        jobs::limit(&mut command);
        command
    };
    [
        Job::new("C headers", own(&["header", "--check"])),
        Job::new("C interface", own(&["c"])),
        Job::new("wlroots", own(&["wlroots"])),
        Job::new("C interface, sanitizers", own(&["c", "--sanitize"])).extra(),
        Job::new("C layers", own(&["c-layers"])).extra(),
        cargo_c(),
    ]
}

/// Packages of distributions are made by cargo-c. Slow: it compiles the library once more.
fn cargo_c() -> Job {
    let mut command = cargo::command();
    command.args(["cinstall", "--package=primeshare-capi", "--prefix=/usr"]);
    command.arg("--profile=packaged");
    let place = repository::root().join("target/capi/cargo-c");
    command.arg("--destdir").arg(place);
    jobs::limit(&mut command);
    let mut version = cargo::command();
    version.args(["cinstall", "--version"]);
    let version = version.stdout(Stdio::null()).stderr(Stdio::null());
    let is_installed = version.status().is_ok_and(|status| status.success());
    let lacks = (!is_installed).then_some("cargo install --locked cargo-c");
    Job::new("cargo-c", command).lacks(lacks).extra()
}

/// Installs, compiles and runs everything. Returns the exit status.
pub(crate) fn run(kind: Kind, sanitize: bool) -> Result<u8> {
    host::prepare_for_c()?;
    guest::prepare(kind, false)?;
    let (name, flags) = match sanitize {
        true => ("sanitized", SANITIZERS),
        false => ("tests", ""),
    };
    // Both kinds of tests may run at a time.
    let prefix = install_for_tests(&format!("c-{name}"))?;
    let sources = repository::root().join("capi");
    let build = repository::root().join("target/capi").join(name);
    std::fs::create_dir_all(&build)?;
    make(&sources, &build, &prefix, flags)?;
    let xtask = std::env::current_exe()?;
    let is_left_out = |test: &PathBuf| sanitize && test.file_name().is_some_and(is_not_sanitized);
    let mut runs: Vec<Vec<PathBuf>> = programs(&build)?
        .into_iter()
        .filter(|test| !is_left_out(test))
        .map(|test| vec![test])
        .collect();
    if !sanitize {
        runs.extend(examples(&sources, &build, &prefix)?);
    }
    let mut status = 0;
    for run in runs {
        let mut command = Command::new(&xtask);
        command
            .args(["guest", "run", "--guest", kind.name(), "--"])
            .args(&run);
        jobs::limit(&mut command);
        let code = cargo::code(cargo::run(&mut command)?);
        if code != 0 {
            eprintln!("{}: exit status {code}", run[0].display());
            status = code;
        }
    }
    if !sanitize {
        check_picture(&build.join("blit.png"))?;
    }
    Ok(status)
}

/// Linked statically: the guest has no libraries of the compiler's. The first report ends the test.
const SANITIZERS: &str = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
                          -fno-sanitize-recover=undefined -static-libasan -static-libubsan";

/// `cost` counts allocations by a `malloc` of its own.
fn is_not_sanitized(test: &std::ffi::OsStr) -> bool {
    test == "cost"
}

/// Installs a debug build into a place of its own, and returns its prefix.
pub(super) fn install_for_tests(name: &str) -> Result<PathBuf> {
    let prefix = repository::root().join("target/capi/prefix").join(name);
    if prefix.exists() {
        // What an older version has installed is not to be found.
        std::fs::remove_dir_all(&prefix)?;
    }
    let arguments = install::Arguments {
        prefix: prefix.clone(),
        libdir: "lib".into(),
        destdir: None,
        layers: Some(Layer::ALL.to_vec()),
        debug: true,
        without_tool: true,
    };
    install::run(&arguments)?;
    Ok(prefix)
}

/// Compiles by capi/tests/Makefile, as a program of somebody else's would be.
fn make(sources: &Path, build: &Path, prefix: &Path, flags: &str) -> Result<()> {
    let mut make = Command::new("make");
    make.arg("--directory").arg(sources.join("tests"));
    make.arg(format!("BUILD={}", build.display()));
    if !flags.is_empty() {
        make.env("CFLAGS", flags);
    }
    make.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let status = cargo::run(&mut make)?;
    ensure!(
        status.success(),
        "the tests in C were not compiled: {status}"
    );
    Ok(())
}

fn programs(build: &Path) -> Result<Vec<PathBuf>> {
    let list = build.join("tests.list");
    let text = std::fs::read_to_string(&list);
    let text = text.with_context(|| format!("cannot read {}", list.display()))?;
    Ok(text
        .split_whitespace()
        .map(|name| build.join(name))
        .collect())
}

/// The examples with arguments, compiled as their readers would.
fn examples(sources: &Path, build: &Path, prefix: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let mut make = Command::new("make");
    make.arg("--always-make")
        .arg("--directory")
        .arg(sources.join("examples"));
    make.arg(format!("BUILD={}", build.display()));
    make.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let status = cargo::run(&mut make)?;
    ensure!(
        status.success(),
        "the examples in C were not compiled: {status}"
    );
    let by_meson = build.join("meson");
    if by_meson.exists() {
        std::fs::remove_dir_all(&by_meson)?;
    }
    let mut meson = Command::new("meson");
    meson.args(["setup", "--werror"]);
    meson
        .arg(&by_meson)
        .arg(sources.join("examples"))
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let mut ninja = Command::new("ninja");
    ninja.arg("-C").arg(&by_meson);
    for step in [&mut meson, &mut ninja] {
        let status = cargo::run(step)?;
        ensure!(status.success(), "{step:?}: {status}");
    }
    // vgem, and vkms with its screen.
    let [source, screen] = ["/dev/dri/card0", "/dev/dri/card1"].map(PathBuf::from);
    Ok(vec![
        vec![build.join("table"), screen.clone()],
        vec![
            build.join("blit"),
            source.clone(),
            screen.clone(),
            build.join("blit.png"),
        ],
        vec![build.join("show"), source, screen, "30".into()],
    ])
}

/// Whether what the example wrote is a picture of its size.
fn check_picture(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let header = [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(),
        &320_u32.to_be_bytes(),
        &240_u32.to_be_bytes(),
    ]
    .concat();
    ensure!(
        bytes.starts_with(&header),
        "{} is no picture of 320 by 240 pixels",
        path.display()
    );
    Ok(())
}
