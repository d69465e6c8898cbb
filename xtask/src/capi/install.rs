//! `cargo xtask install`: the C library as distributions install it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::pkg_config::{self, Paths};
use super::{Layer, symbols};
use crate::{cargo, host, repository};

/// What to install, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where programs will find it.
    #[arg(long, default_value = "/usr/local")]
    pub(crate) prefix: PathBuf,
    /// Libraries, under the prefix.
    #[arg(long, default_value = "lib")]
    pub(crate) libdir: PathBuf,
    /// Put everything under this directory instead of the root: for packages.
    #[arg(long)]
    pub(crate) destdir: Option<PathBuf>,
    /// Layers to build; without this, all.
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0..)]
    pub(crate) layers: Option<Vec<Layer>>,
    /// A debug build, which ends the process if it is given a pointer that is no living object.
    #[arg(long)]
    pub(crate) debug: bool,
    /// Leave out the command-line tool and its manual page.
    #[arg(long)]
    pub(crate) without_tool: bool,
}

/// The version in file names and symbols: before 1.0 every minor version is another interface.
fn interface_version() -> String {
    let mut parts = env!("CARGO_PKG_VERSION").split('.');
    let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
    match major {
        "0" => format!("0.{minor}"),
        major => major.to_owned(),
    }
}

/// Builds and installs. Returns the exit status.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    host::prepare_for_library()?;
    host::prepare_to_compile()?;
    let layers = Layer::with_needs(arguments.layers.as_deref().unwrap_or(&Layer::ALL));
    let place = Place::new(arguments)?;
    let headers = headers(&layers)?;
    let functions: BTreeSet<String> = headers
        .iter()
        .flat_map(|(_, text)| symbols::declared(text))
        .collect();
    let archive = build(&layers, arguments.debug)?;
    install_libraries(&archive, &place, &functions, &layers)?;
    for (name, text) in &headers {
        place.write("include", name, text)?;
    }
    for one in pkg_config::descriptions(env!("CARGO_PKG_VERSION"), &place.seen()?, &layers) {
        let directory = place.libdir.join("pkgconfig");
        place.write(directory, &format!("{}.pc", one.name), &one.contents)?;
    }
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = fs::read_to_string(repository::root().join(name))?;
        place.write("share/licenses/primeshare", name, &text)?;
    }
    if !arguments.without_tool {
        install_tool(&place)?;
    }
    eprintln!("installed in {}", place.root.display());
    Ok(0)
}

/// Where files are put.
struct Place {
    /// The prefix, under `--destdir` if there is one.
    root: PathBuf,
    prefix: PathBuf,
    libdir: PathBuf,
}

impl Place {
    fn new(arguments: &Arguments) -> Result<Self> {
        let prefix = std::path::absolute(&arguments.prefix)?;
        ensure!(
            arguments.libdir.is_relative(),
            "--libdir is relative to the prefix"
        );
        let root = match &arguments.destdir {
            Some(directory) => directory.join(prefix.strip_prefix("/").unwrap_or(&prefix)),
            None => prefix.clone(),
        };
        Ok(Self {
            root,
            prefix,
            libdir: arguments.libdir.clone(),
        })
    }

    fn directory(&self, relative: impl AsRef<Path>) -> Result<PathBuf> {
        let directory = self.root.join(relative);
        let made = fs::create_dir_all(&directory);
        made.with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    fn write(&self, directory: impl AsRef<Path>, name: &str, text: &str) -> Result<()> {
        let path = self.directory(directory)?.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn copy(&self, from: &Path, directory: impl AsRef<Path>, name: &str) -> Result<()> {
        let path = self.directory(directory)?.join(name);
        let copied = fs::copy(from, &path);
        copied.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    fn seen(&self) -> Result<Paths> {
        let text = |path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .context("a path is not UTF-8")
        };
        Ok(Paths {
            prefix: text(&self.prefix)?,
            libdir: format!("${{prefix}}/{}", text(&self.libdir)?),
            includedir: "${prefix}/include".to_owned(),
        })
    }
}

/// The headers of these layers.
fn headers(layers: &[Layer]) -> Result<Vec<(String, String)>> {
    let names = layers.iter().map(|layer| layer.header());
    let names = std::iter::once("primeshare.h".to_owned()).chain(names);
    let read = |name: String| {
        let path = repository::root().join("capi/include").join(&name);
        let text = fs::read_to_string(&path);
        Ok((
            name,
            text.with_context(|| format!("cannot read {}", path.display()))?,
        ))
    };
    names.map(read).collect()
}

/// Compiles the library with these layers; returns its archive.
fn build(layers: &[Layer], debug: bool) -> Result<PathBuf> {
    let features = layers
        .iter()
        .map(Layer::to_string)
        .collect::<Vec<_>>()
        .join(",");
    // A place of its own: features of other members of the workspace are not to be in it. Builds without all layers have
    // another one, since they may run beside those with all.
    let target = match layers == Layer::ALL {
        true => repository::root().join("target/capi"),
        false => repository::root().join("target/capi/partial"),
    };
    let mut command = cargo::command();
    command.args([
        "rustc",
        "--package=primeshare-capi",
        "--crate-type=staticlib",
    ]);
    command.args(["--no-default-features", "--features", &features]);
    command.arg("--target-dir").arg(&target);
    if !debug {
        command.arg("--profile=packaged");
    }
    let status = cargo::run(&mut command)?;
    ensure!(status.success(), "the C library was not built: {status}");
    let profile = if debug { "debug" } else { "packaged" };
    Ok(target.join(profile).join("libprimeshare_c.a"))
}

fn install_libraries(
    archive: &Path,
    place: &Place,
    functions: &BTreeSet<String>,
    layers: &[Layer],
) -> Result<()> {
    let libdir = place.directory(&place.libdir)?;
    let interface = interface_version();
    let soname = format!("libprimeshare.so.{interface}");
    let real = format!("libprimeshare.so.{}", env!("CARGO_PKG_VERSION"));
    let script = archive.with_file_name("primeshare.map");
    fs::write(&script, symbols::script(&interface, functions))?;
    // Not rustc's own cdylib: the linker takes one version script only, and rustc gives it one without versions.
    let mut link = Command::new("cc");
    link.args(["-shared", "-o"]).arg(libdir.join(&real));
    link.arg(format!("-Wl,-soname,{soname}"));
    link.arg(format!("-Wl,--version-script,{}", script.display()));
    link.args([
        "-Wl,--gc-sections",
        "-Wl,-z,defs,-z,relro,-z,now",
        "-Wl,--as-needed",
    ]);
    link.arg("-Wl,--whole-archive")
        .arg(archive)
        .arg("-Wl,--no-whole-archive");
    if layers.contains(&Layer::Gbm) {
        link.arg("-lgbm");
    }
    link.args(pkg_config::STATIC.split(' '));
    let status = cargo::run(&mut link)?;
    ensure!(
        status.success(),
        "the shared library was not linked: {status}"
    );
    for (name, target) in [(&soname, &real), (&"libprimeshare.so".to_owned(), &soname)] {
        let path = libdir.join(name);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path)?;
        }
        symlink(target, &path)?;
    }
    let exported = symbols::exported(&libdir.join(&real))?;
    let names = |symbols: &BTreeSet<String>| -> BTreeSet<String> {
        let name = |symbol: &String| symbol.split('@').next().unwrap_or(symbol).to_owned();
        symbols.iter().map(name).collect()
    };
    let differ: Vec<_> = names(&exported)
        .symmetric_difference(functions)
        .cloned()
        .collect();
    if !differ.is_empty() {
        bail!(
            "in the library or in the headers, and not in both: {}",
            differ.join(", ")
        );
    }
    place.copy(archive, &place.libdir, "libprimeshare.a")
}

/// The command-line tool and its manual page.
fn install_tool(place: &Place) -> Result<()> {
    let target = repository::root().join("target/capi");
    let mut command = cargo::command();
    command.args([
        "build",
        "--package=primeshare",
        "--bin=primeshare",
        "--features=cli",
        "--release",
    ]);
    command.arg("--target-dir").arg(&target);
    let status = cargo::run(&mut command)?;
    ensure!(status.success(), "the tool was not built: {status}");
    let tool = target.join("release/primeshare");
    place.copy(&tool, "bin", "primeshare")?;
    let page = Command::new(&tool)
        .arg("man")
        .output()
        .context("cannot start the tool")?;
    ensure!(page.status.success(), "the tool printed no manual page");
    place.write(
        "share/man/man1",
        "primeshare.1",
        &String::from_utf8(page.stdout)?,
    )
}
