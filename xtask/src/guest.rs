//! The guest: a Linux kernel with the drivers vgem, vkms and udmabuf that runs as an ordinary process, with a Debian
//! root file system that has current Mesa.

mod console;
mod debian;
pub(crate) mod init;
mod job;
mod judge;
mod kernel;
mod launch;
mod limits;
pub(crate) mod outcome;
mod rootfs;
mod scratch;
mod serial;
mod tree;
mod visible;
mod vkms;
pub(crate) mod watch;

use anyhow::Result;

use crate::cli::RunArguments;
use limits::Limits;

/// What a guest is started from.
pub(crate) struct Guest {
    kernel: std::path::PathBuf,
    root: std::path::PathBuf,
}

/// Builds what the cache lacks, or everything.
pub(crate) fn build(force: bool) -> Result<u8> {
    let guest = prepare(force)?;
    println!("kernel: {}", guest.kernel.display());
    println!("root:   {}", guest.root.display());
    Ok(0)
}

/// A guest that is ready to start, built first if need be.
pub(crate) fn prepare(force: bool) -> Result<Guest> {
    let (kernel, root) = (kernel::entry()?, rootfs::entry()?);
    if force || kernel.get().is_none() || root.get().is_none() {
        crate::host::prepare_for_guest()?;
    }
    let root = root.get_or_make(force, rootfs::make)?;
    let kernel = kernel.get_or_make(force, kernel::make)?;
    Ok(Guest {
        kernel: kernel.join("linux"),
        root,
    })
}

/// Runs a program in the guest.
pub(crate) fn run(arguments: RunArguments) -> Result<u8> {
    let limits = Limits::new(arguments.timeout)?;
    let mut command = arguments.command.into_iter();
    let program = command.next().unwrap_or_default();
    let job = visible::job(program, command.collect(), &arguments.environment)?;
    launch::run(&prepare(false)?, job, &limits, arguments.verbose)
}

/// Runs a program that cargo built in the guest, with the caller's environment.
pub(crate) fn run_program(
    program: &std::path::Path,
    arguments: Vec<std::ffi::OsString>,
) -> Result<u8> {
    let job = visible::job(program.as_os_str().to_owned(), arguments, &[])?;
    launch::run(&prepare(false)?, job, &Limits::new(None)?, false)
}
