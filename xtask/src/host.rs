//! System packages that the machine needs. Whether one is there is seen by the files that it provides.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::guest::kind::{Kernel, Kind};
use crate::progress::{Log, Step};

/// How to see that a package is there. A package manager is not asked, since there may be none.
enum Sign {
    Tool(&'static str),
    File(&'static str),
    PkgConfig(&'static str),
}

/// Something that has to be there: how to see it, and the package that has it in Debian and Ubuntu.
struct Need {
    sign: Sign,
    package: &'static str,
}

const fn need(sign: Sign, package: &'static str) -> Need {
    Need { sign, package }
}

/// To build any guest.
const GUEST: &[Need] = &[
    need(Sign::Tool("cpio"), "cpio"),
    need(Sign::Tool("tar"), "tar"),
    need(Sign::Tool("xz"), "xz-utils"),
    need(Sign::Tool("mmdebstrap"), "mmdebstrap"),
    need(
        Sign::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "debian-archive-keyring",
    ),
];

/// To build a kernel from its source.
const KERNEL_SOURCE: &[Need] = &[
    need(Sign::Tool("gcc"), "gcc"),
    need(
        Sign::File("/usr/include/x86_64-linux-gnu/sys/types.h"),
        "libc6-dev",
    ),
    need(Sign::Tool("make"), "make"),
    need(Sign::Tool("meson"), "meson"),
    need(Sign::Tool("flex"), "flex"),
    need(Sign::Tool("bison"), "bison"),
    need(Sign::Tool("bc"), "bc"),
    need(Sign::Tool("perl"), "perl"),
];

/// To unpack Debian's own kernel, and to compile the library that is preloaded into QEMU.
const KERNEL_STOCK: &[Need] = &[
    need(Sign::Tool("cc"), "gcc"),
    need(Sign::File("/usr/include/linux/udmabuf.h"), "linux-libc-dev"),
    need(
        Sign::File("/usr/include/x86_64-linux-gnu/sys/types.h"),
        "libc6-dev",
    ),
    need(Sign::Tool("depmod"), "kmod"),
    need(Sign::Tool("zstd"), "zstd"),
];

/// To compile what tests preload.
const COMPILER: &[Need] = &[
    need(Sign::Tool("cc"), "gcc"),
    need(
        Sign::File("/usr/include/x86_64-linux-gnu/sys/types.h"),
        "libc6-dev",
    ),
];

/// To compile the tests in C.
const C_TESTS: &[Need] = &[
    need(Sign::Tool("c++"), "g++"),
    need(Sign::Tool("make"), "make"),
    need(Sign::Tool("nm"), "binutils"),
    need(Sign::File("/usr/include/vulkan/vulkan.h"), "libvulkan-dev"),
];

/// To compile programs for wlroots.
const WLROOTS: &[Need] = &[
    need(Sign::Tool("make"), "make"),
    need(Sign::Tool("wayland-scanner"), "libwayland-bin"),
];

/// To build the guest's root file system as an ordinary user.
const UNPRIVILEGED: &[Need] = &[need(Sign::Tool("newuidmap"), "uidmap")];

/// To build the library and its tests.
const LIBRARY: &[Need] = &[
    need(Sign::Tool("pkg-config"), "pkg-config"),
    need(Sign::PkgConfig("gbm"), "libgbm-dev"),
];

/// To link a program with Smithay, which depends on libxkbcommon whatever its features are.
const SMITHAY: &[Need] = &[need(Sign::PkgConfig("xkbcommon"), "libxkbcommon-dev")];

/// Makes sure that the guest can be built here.
pub(crate) fn prepare_to_build_guest(kind: Kind) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "the guest is a Linux kernel that runs as an x86-64 Linux process: it needs an x86-64 Linux machine"
        );
    }
    let kernel = match kind.kernel() {
        Kernel::Source { .. } => KERNEL_SOURCE,
        Kernel::Stock { .. } => KERNEL_STOCK,
    };
    let mut needs: Vec<&Need> = GUEST.iter().chain(kernel).collect();
    if !is_root() {
        needs.extend(UNPRIVILEGED);
    }
    provide(&needs)
}

/// Makes sure that C can be compiled here.
pub(crate) fn prepare_to_compile() -> Result<()> {
    provide(&COMPILER.iter().collect::<Vec<_>>())
}

/// Makes sure that plugs for wlroots, and tinywl, can be compiled here.
pub(crate) fn prepare_for_wlroots() -> Result<()> {
    provide(&COMPILER.iter().chain(WLROOTS).collect::<Vec<_>>())
}

/// Makes sure that the tests in C can be compiled here.
pub(crate) fn prepare_for_c() -> Result<()> {
    provide(
        &LIBRARY
            .iter()
            .chain(COMPILER)
            .chain(C_TESTS)
            .collect::<Vec<_>>(),
    )
}

/// Makes sure that the library can be built here.
pub(crate) fn prepare_for_library() -> Result<()> {
    provide(&LIBRARY.iter().collect::<Vec<_>>())
}

/// Makes sure that the hosts in `integrations/rust` can be built here, with all their features.
pub(crate) fn prepare_for_integrations() -> Result<()> {
    provide(&LIBRARY.iter().chain(SMITHAY).collect::<Vec<_>>())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn provide(needs: &[&Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !has_tool("apt-get") {
        bail!(
            "this machine lacks {}; it has no apt-get, so please install what your distribution calls these packages",
            packages.join(", ")
        );
    }
    let by_hand = format!(
        "apt-get update && apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    );
    if !is_root() && !may_sudo() {
        bail!("system packages are missing; please install them:\n    sudo sh -c '{by_hand}'");
    }
    install(&packages)
        .with_context(|| format!("installing packages failed; by hand: {by_hand}"))?;
    let still = self::missing(needs);
    if !still.is_empty() {
        let names: Vec<&str> = still.iter().map(|need| need.package).collect();
        bail!("installed, yet not found: {}", names.join(", "));
    }
    Ok(())
}

fn missing<'a>(needs: &[&'a Need]) -> Vec<&'a Need> {
    needs
        .iter()
        .copied()
        .filter(|need| !is_there(&need.sign))
        .collect()
}

fn is_there(sign: &Sign) -> bool {
    match sign {
        Sign::Tool(name) => has_tool(name),
        Sign::File(path) => Path::new(path).exists(),
        Sign::PkgConfig(name) => succeeds(Command::new("pkg-config").args(["--exists", name])),
    }
}

fn has_tool(name: &str) -> bool {
    // An ordinary user's PATH often lacks the directories for administration, where some of these tools are.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.any(|directory| directory.join(name).is_file())
}

fn may_sudo() -> bool {
    has_tool("sudo") && succeeds(Command::new("sudo").args(["-n", "true"]))
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn install(packages: &[&str]) -> Result<()> {
    let directory = cache::directory()?;
    std::fs::create_dir_all(&directory)?;
    let mut log = Log::create(directory.join("packages.log"))?;
    let step = Step::start(format!("Installing {}", packages.join(" ")));
    let (update, download, unpack) = (
        step.part(0.0..0.2),
        step.part(0.2..0.4),
        step.part(0.4..1.0),
    );
    // Errors are ignored: if one source cannot be reached, the others may have the packages.
    let _ = log.run(apt_get().arg("update"), |line| {
        if let Some((_, share, note)) = apt_status(line) {
            update.at(share, note);
        }
    });
    let options = ["install", "-y", "--no-install-recommends"];
    log.run(
        apt_get().args(options).args(packages),
        |line| match apt_status(line) {
            Some(("dlstatus", share, note)) => download.at(share, note),
            Some((_, share, note)) => unpack.at(share, note),
            None => {}
        },
    )?;
    step.done();
    Ok(())
}

/// The step, its share and its note, from a status line of apt's: "pmstatus:bc:33.3:Unpacking bc".
fn apt_status(line: &str) -> Option<(&str, f64, &str)> {
    let mut fields = line.splitn(4, ':');
    let what = fields
        .next()
        .filter(|what| ["dlstatus", "pmstatus"].contains(what))?;
    let percent: f64 = fields.nth(1)?.parse().ok()?;
    Some((what, percent / 100.0, fields.next()?))
}

fn apt_get() -> Command {
    // `env` after sudo, because sudo drops most of the environment.
    let mut command = if is_root() {
        Command::new("env")
    } else {
        Command::new("sudo")
    };
    if !is_root() {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command.args(["-o", "APT::Status-Fd=1"]);
    command
}

#[cfg(test)]
mod tests {
    use super::apt_status;

    #[test]
    fn share_of_apt() {
        let lines = [
            (
                "dlstatus:1:25:Retrieving file 1 of 4",
                Some(("dlstatus", 0.25, "Retrieving file 1 of 4")),
            ),
            ("pmstatus:libc6:amd64:50.0:Unpacking", None),
            (
                "pmstatus:bc:50.0:Unpacking bc (1:1.2)",
                Some(("pmstatus", 0.5, "Unpacking bc (1:1.2)")),
            ),
            ("Unpacking bc ...", None),
        ];
        for (line, status) in lines {
            assert_eq!(apt_status(line), status, "{line}");
        }
    }
}
