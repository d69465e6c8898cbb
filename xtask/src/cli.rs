//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::guest::kind::Kind;
use crate::repository;

/// The names of the benchmarks.
pub(crate) const BENCHMARKS: [&str; 6] = [
    "compositors",
    "sharing",
    "negotiation",
    "blit",
    "screens",
    "c",
];

/// Development tasks of primeshare.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// The guest: a Linux kernel with real DRM drivers and without a GPU, as an ordinary process or in QEMU.
    ///
    /// Programs see these directories of the host at the same paths, and what they write there is kept: the working
    /// directory with its cargo workspace, the program's directory, directories that the command names or whose
    /// files it names, and those given by --share or PRIMESHARE_GUEST_SHARE. The rest is the guest's own, /tmp
    /// and /root included: files that the command names there are copied in, and back when the program wrote
    /// them. Files that are lost are reported.
    #[command(subcommand, after_long_help = own_crate())]
    Guest(GuestCommand),
    /// Check everything: format, lints, documentation, and all tests in the guest, some of them also in the other
    /// guests.
    Test {
        /// Also run the sanitizers, which are slow and seldom fail if the tests pass.
        #[arg(long, conflicts_with = "arguments")]
        all: bool,
        /// Passed on to `cargo test`.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Show a picture travel between two DRM devices, three times.
    Demo,
    /// Run the benchmarks in the guest.
    Bench {
        /// Run this benchmark only, instead of all.
        #[arg(value_parser = BENCHMARKS)]
        name: Option<String>,
        /// Passed on to them.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Print what goes into Vulkan and back, for every allocator, format and size, in every guest.
    Matrix,
    /// Print what each Vulkan driver does and what it refuses and why, in every guest.
    Drivers,
    /// Fuzz the code that checks descriptions of buffers from outside, and requests of Wayland's clients.
    Fuzz {
        /// One of `fuzz/targets`. Default: all, one after the other.
        target: Option<String>,
        /// How many inputs for each.
        #[arg(long, default_value_t = 10_000_000)]
        runs: u64,
    },
    /// Check that the library compiles with every set of its features.
    Features {
        /// Use this toolchain of rustup's instead of the one in use.
        #[arg(long)]
        toolchain: Option<String>,
    },
    /// Write the C headers, capi/include, from the declarations in capi/src.
    Header {
        /// Only say whether the headers are up to date.
        #[arg(long)]
        check: bool,
    },
    /// Build the C library and install it: libraries, headers, pkg-config files, the tool and its manual page.
    Install(crate::capi::install::Arguments),
    /// Install a debug build of the C library inside `target/`, and run the tests in C against it, in a guest.
    C {
        /// Which guest.
        #[arg(long, value_enum, default_value_t = Kind::Current)]
        guest: Kind,
        /// Compile the tests with AddressSanitizer and UndefinedBehaviorSanitizer, and leave out what cannot run with
        /// them. `test --all` does this too.
        #[arg(long)]
        sanitize: bool,
    },
    /// Check that the C library can be built and used without each of its layers.
    CLayers,
    /// Run a compositor of Debian with `integrations/wlroots`, in a guest.
    Wlroots {
        /// Which guest.
        #[arg(long, value_enum, default_value_t = Kind::Current)]
        guest: Kind,
    },
    /// Run the example `compositor` with Wayland clients of Debian, in a guest.
    Compositor {
        /// Which guest.
        #[arg(long, value_enum, default_value_t = Kind::Current)]
        guest: Kind,
        /// Names of tests, instead of all of them.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Write the listing of the public interface, docs/interface.txt.
    Interface {
        /// Only say whether the listing is up to date.
        #[arg(long)]
        check: bool,
    },
    /// Compile the shader by which GPUs scale, turn and convert pictures; needs glslangValidator.
    Shaders {
        /// Only say whether the compiled shader belongs to its source.
        #[arg(long)]
        check: bool,
    },
    /// Run the tests that have a long form at full length, in the guest: some ten minutes.
    Soak {
        /// Names of tests, instead of all of them.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Run the tests under AddressSanitizer, in the guest, and the handle table under ThreadSanitizer; needs the
    /// nightly toolchain. `test --all` does this too where there is one.
    Sanitize,
    /// Ends a guest whose own `xtask` was killed; started by `xtask` itself.
    #[command(hide = true)]
    Watch,
    /// Cargo's runner: decides where a built program runs (PRIMESHARE_RUN=guest|host|auto), and in which guest
    /// (PRIMESHARE_GUEST_KIND=current|compat|qemu|gpu).
    #[command(hide = true)]
    Runner {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// How cargo runs another crate's programs in the guest.
fn own_crate() -> String {
    let runner = repository::root().join("xtask/runner");
    let runner = runner.display();
    format!(
        "Your own crate's `cargo test`, `cargo bench` and `cargo run` use the guest with this in its .cargo/config.toml:

    [target.x86_64-unknown-linux-gnu]
    runner = \"{runner}\"

or, for one command, with CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER={runner}.

Tests and benchmarks run in the guest; examples and binaries too where the machine has no DRM device of its own.
PRIMESHARE_RUN=guest or =host decides otherwise. The guests current and compat have no network, not even 127.0.0.1.
    PRIMESHARE_GUEST_KIND=NAME          which guest
    PRIMESHARE_GUEST_SHARE=DIR:DIR      more directories to share
    PRIMESHARE_GUEST_TIMEOUT=SECONDS    end it after that time

The guest has the libraries of Mesa, Vulkan, libdrm and libgbm. Others that your program needs have to lie in a shared
directory that LD_LIBRARY_PATH names."
    )
}

/// What to do with the guest.
#[derive(Subcommand)]
pub(crate) enum GuestCommand {
    /// Build the guests' kernels and root file systems, unless the cache has them.
    Build {
        /// Which guests.
        #[arg(long, value_enum, default_value_t = Guests::All)]
        guest: Guests,
        /// Build them even so.
        #[arg(long)]
        force: bool,
    },
    /// Run a program in the guest.
    Run(RunArguments),
}

/// Guests to build.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Guests {
    /// The newest kernel and Mesa that Debian backports.
    Current,
    /// The oldest kernel and Mesa that are supported: those of the Debian release itself.
    Compat,
    /// Debian's own kernel, for QEMU.
    Qemu,
    /// The same with a GPU.
    Gpu,
    /// All of them.
    All,
}

impl Guests {
    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Guests::Current => &[Kind::Current],
            Guests::Compat => &[Kind::Compat],
            Guests::Qemu => &[Kind::Qemu],
            Guests::Gpu => &[Kind::Gpu],
            Guests::All => &Kind::ALL,
        }
    }
}

/// A program to run in the guest.
///
/// Exit status: the program's own; 128+N after signal N; 124 after the time-out; 125 when the guest failed or its
/// kernel complained or its clock ran away; 126 not executable; 127 not found.
///
/// Environment: PRIMESHARE_GUEST_CPUS (2) and PRIMESHARE_GUEST_MEM (2G) say how large the guest is,
/// PRIMESHARE_GUEST_PARAMETERS what else its kernel's command line has, PRIMESHARE_GUEST_ACCEL (kvm or tcg) how QEMU
/// runs its processors; with PRIMESHARE_GUEST_ALLOW_SPLAT=1 the kernel may complain.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RunArguments {
    /// In which guest (default: PRIMESHARE_GUEST_KIND, else current).
    #[arg(long, visible_alias = "tier", value_enum)]
    pub(crate) guest: Option<Kind>,
    /// End the guest after this many seconds (default: PRIMESHARE_GUEST_TIMEOUT, else no limit).
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Set an environment variable of the program.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) environment: Vec<OsString>,
    /// Share another directory of the host: the program sees it, and what it writes there is kept (also:
    /// PRIMESHARE_GUEST_SHARE=DIR:DIR).
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Vec<PathBuf>,
    /// Show the guest kernel's messages afterwards, on standard error.
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// The program and its arguments; a bare name is looked for in the guest.
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}
