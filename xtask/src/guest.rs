//! The guest: a Linux kernel with the drivers vgem, vkms and udmabuf that runs as an ordinary process, with a Debian
//! root file system that has Mesa. There are several, a current one, one as old as is supported, and one that runs in
//! QEMU because its drivers need devices: see [`kind`].

mod accelerator;
mod console;
mod debian;
pub(crate) mod init;
mod job;
mod judge;
mod kernel;
pub(crate) mod kind;
mod launch;
mod limits;
mod mappings;
pub(crate) mod outcome;
mod qemu;
mod rootfs;
mod scratch;
mod serial;
mod tree;
mod uml;
mod visible;
mod vkms;
pub(crate) mod watch;

use anyhow::Result;

use crate::cli::RunArguments;
use crate::{host, jobs};
use accelerator::Accelerator;
use kind::Kind;
use limits::Limits;

/// What a guest is started from.
pub(crate) struct Guest {
    /// The directory with the kernel and what belongs to it.
    kernel: std::path::PathBuf,
    /// The directory with the root file system.
    root: std::path::PathBuf,
    /// How QEMU runs the kernel; none where the kernel runs by itself.
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
    if kind.in_qemu() {
        // Unlike the guest, it is not in the cache.
        host::prepare_for_qemu()?;
    }
    if force || kernel.get().is_none() || root.get().is_none() {
        host::prepare_to_build_guest(kind)?;
    }
    // A root file system that it shares is the other guest's to build anew.
    let force_root = force && kind.root() == kind;
    // Beside each other, since both wait for the network, and much of either keeps only one processor busy.
    let (root, kernel) = jobs::both(
        || root.get_or_make(force_root, |at, log| rootfs::make(kind.root(), at, log)),
        || kernel.get_or_make(force, |at, log| kernel::make(kind, at, log)),
    )?;
    let accelerator = match kind.in_qemu() {
        true => Some(accelerator::choose(&kernel)?),
        false => None,
    };
    Ok(Guest {
        kernel,
        root,
        accelerator,
    })
}

/// Runs a program in the guest.
pub(crate) fn run(arguments: RunArguments) -> Result<u8> {
    let kind = arguments.guest.map_or_else(Kind::from_environment, Ok)?;
    let limits = Limits::new(arguments.timeout)?;
    let mut command = arguments.command.into_iter();
    let program = command.next().unwrap_or_default();
    let job = visible::job(kind, program, command.collect(), &arguments.environment)?;
    launch::run(&prepare(kind, false)?, job, &limits, arguments.verbose)
}

/// Runs a program that cargo built in the guest that the environment asks for, with the caller's environment.
pub(crate) fn run_program(
    program: &std::path::Path,
    arguments: Vec<std::ffi::OsString>,
) -> Result<u8> {
    let kind = Kind::from_environment()?;
    let job = visible::job(kind, program.as_os_str().to_owned(), arguments, &[])?;
    launch::run(&prepare(kind, false)?, job, &Limits::new(None)?, false)
}
