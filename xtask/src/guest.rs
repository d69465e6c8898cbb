//! The guest: a Linux kernel with the drivers vgem, vkms and udmabuf that runs as an ordinary process, with a Debian
//! root file system that has Mesa. There are four: a current one, one as old as is supported, and two that run in
//! QEMU because their drivers need devices: see [`kind`].

mod accelerator;
mod clients;
mod clock;
mod compositors;
mod console;
mod debian;
mod emulator;
mod gbm;
pub(crate) mod init;
mod job;
mod judge;
mod kernel;
pub(crate) mod kind;
mod launch;
mod left;
mod limits;
mod mappings;
mod named;
pub(crate) mod outcome;
mod paths;
mod qemu;
mod rootfs;
mod scratch;
mod serial;
mod swiftshader;
mod tree;
mod uml;
mod visible;
mod vkms;
pub(crate) mod watch;

use anyhow::Result;

use crate::cli::RunArguments;
use crate::{host, jobs};
use accelerator::Accelerator;
use emulator::Emulator;
use kind::Kind;
use limits::Limits;

/// A guest that can be started.
pub(crate) struct Guest {
    /// The directory with the kernel and what belongs to it.
    kernel: std::path::PathBuf,
    /// The directory with the root file system.
    root: std::path::PathBuf,
    /// QEMU, if the kernel needs it.
    emulator: Option<Emulator>,
    /// How QEMU runs the kernel.
    accelerator: Option<Accelerator>,
}

/// Builds what the cache lacks, or everything.
pub(crate) fn build(kinds: &[Kind], force: bool) -> Result<u8> {
    for kind in kinds {
        let guest = prepare(*kind, force)?;
        println!("{}", kind.title());
        println!("    kernel: {}", guest.kernel.display());
        println!("    root:   {}", guest.root.display());
        if let Some(accelerator) = guest.accelerator {
            println!("    runs by {}", accelerator.name());
        }
    }
    Ok(0)
}

/// A guest that is ready to start, built first if need be.
pub(crate) fn prepare(kind: Kind, force: bool) -> Result<Guest> {
    let (kernel, root) = (kernel::entry(kind)?, rootfs::entry(kind.root())?);
    let emulator = emulator::entry()?;
    let lacks_emulator = kind.in_qemu() && emulator.get().is_none();
    if force || kernel.get().is_none() || root.get().is_none() || lacks_emulator {
        host::prepare_to_build_guest(kind)?;
    }
    // A part that this guest shares with another is only built anew for the other one.
    let force_root = force && kind.root() == kind;
    let force_kernel = force && kind.kernel_of() == kind;
    // Both at the same time, since both wait for the network, and mostly keep only one processor busy.
    let (root, kernel) = jobs::both(
        || root.get_or_make(force_root, |at, log| rootfs::make(kind.root(), at, log)),
        || kernel.get_or_make(force_kernel, |at, log| kernel::make(kind, at, log)),
    )?;
    let mut guest = Guest {
        kernel,
        root,
        emulator: None,
        accelerator: None,
    };
    if kind.in_qemu() {
        let emulator =
            Emulator::new(emulator.get_or_make(force && kind == Kind::Gpu, emulator::make)?);
        guest.accelerator = Some(accelerator::choose(
            kind,
            &qemu::trial(&emulator, &guest.kernel),
        )?);
        guest.emulator = Some(emulator);
    }
    Ok(guest)
}

/// As [`prepare`], with the parts that only tests need.
pub(crate) fn prepare_for_tests(kind: Kind) -> Result<Guest> {
    if kind == Kind::Current {
        let entry = swiftshader::entry()?;
        if entry.get().is_none() {
            host::prepare_to_build_guest(kind)?;
        }
        entry.get_or_make(false, swiftshader::make)?;
    }
    let drivers = gbm::entry()?;
    if drivers.get().is_none() {
        host::prepare_to_compile()?;
    }
    drivers.get_or_make(false, gbm::make)?;
    prepare(kind, false)
}

/// The compositors that tests run, fetched first if need be.
pub(crate) fn prepare_compositors() -> Result<std::path::PathBuf> {
    // Libraries that the guests have are not taken a second time.
    for kind in [Kind::Current, Kind::Compat] {
        prepare(kind, false)?;
    }
    let entry = compositors::entry()?;
    if entry.get().is_none() {
        host::prepare_to_build_guest(Kind::Current)?;
    }
    entry.get_or_make(false, compositors::make)
}

/// The Wayland clients that tests run, fetched first if need be.
pub(crate) fn prepare_clients() -> Result<std::path::PathBuf> {
    let entry = clients::entry()?;
    if entry.get().is_none() {
        host::prepare_to_build_guest(Kind::Current)?;
    }
    entry.get_or_make(false, clients::make)
}

/// Runs a program in the guest.
pub(crate) fn run(arguments: RunArguments) -> Result<u8> {
    let kind = arguments.guest.map_or_else(Kind::from_environment, Ok)?;
    let limits = Limits::new(arguments.timeout)?;
    let mut command = arguments.command.into_iter();
    let program = command.next().unwrap_or_default();
    let job = visible::job(
        kind,
        program,
        command.collect(),
        &arguments.environment,
        &arguments.share,
    )?;
    launch::run(&prepare(kind, false)?, job, &limits, arguments.verbose)
}

/// Runs a program that cargo built in the guest that the environment asks for, with the caller's environment.
pub(crate) fn run_program(
    program: &std::path::Path,
    arguments: Vec<std::ffi::OsString>,
    is_test: bool,
) -> Result<u8> {
    let kind = Kind::from_environment()?;
    let guest = match is_test {
        true => prepare_for_tests(kind)?,
        false => prepare(kind, false)?,
    };
    let job = visible::job(kind, program.as_os_str().to_owned(), arguments, &[], &[])?;
    launch::run(&guest, job, &Limits::new(None)?, false)
}
