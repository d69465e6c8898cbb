//! The command line of QEMU.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use super::accelerator::Accelerator;
use super::kernel::stock;
use super::limits::Limits;
use super::{Guest, init};
use crate::host::QEMU;

/// Display devices, each with another driver. Memory enough for a few large pictures; no firmware, which would be run.
const DISPLAYS: &[&str] = &[
    "virtio-gpu-pci",
    "bochs-display,vgamem=128M",
    "qxl,ram_size=134217728,vram_size=134217728,romfile=",
    "cirrus-vga,romfile=",
];

/// The kernel's command line.
const KERNEL: &[&str] = &[
    "console=ttyS0",
    "hostname=guest",
    "oops=panic",
    "panic=-1",
    "udmabuf.size_limit_mb=1024",
    // Nothing here needs protection, and an emulated processor takes a second for it.
    "apparmor=0",
    "audit=0",
    "cryptomgr.notests",
    "mitigations=off",
    // An emulated processor whose host is busy stands still for seconds: no watchdog is to mind.
    "no_timer_check",
    "nowatchdog",
    "rcupdate.rcu_cpu_stall_timeout=300",
    "tsc=reliable",
];

/// A machine with the kernel, but without a job: it comes up and switches off.
pub(super) fn machine(
    kernel: &Path,
    accelerator: Accelerator,
    memory: u64,
    processors: u32,
    parameters: &str,
) -> Command {
    let (kernel, initramfs) = stock::files(kernel);
    let mut command = Command::new(QEMU);
    command
        .args(["-no-user-config", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-vga", "none", "-serial", "stdio"])
        .args(["-machine", "pc"])
        .args(["-accel", accelerator.option(), "-cpu", "max"])
        .args(["-m", &format!("{}M", memory >> 20)])
        .args(["-smp", &processors.to_string()])
        // The first virtio device, from which its ports have their names: see `Kind::lines`.
        .args(["-device", "virtio-serial-pci"]);
    for display in DISPLAYS {
        command.args(["-device", display]);
    }
    command
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("{} {parameters}", KERNEL.join(" "))]);
    command
}

/// The machine with a job; the program's output goes to `lines`.
pub(super) fn command(
    guest: &Guest,
    accelerator: Accelerator,
    directory: &Path,
    limits: &Limits,
    lines: [&impl AsRawFd; 2],
) -> Command {
    let job = format!("{}={}", init::JOB, directory.join("job").display());
    let mut command = machine(
        &guest.kernel,
        accelerator,
        limits.memory,
        limits.processors,
        &job,
    );
    // The whole of the host's file system, as hostfs has it, with the rights of the user.
    let host = "local,path=/,mount_tag=host,security_model=none,multidevs=remap";
    command.args(["-virtfs", host]);
    // Port 0 is for consoles.
    for (line, port) in lines.into_iter().zip(1..) {
        let fd = line.as_raw_fd();
        command.args(["-chardev", &format!("file,id=line{port},path=/dev/fd/{fd}")]);
        command.args([
            "-device",
            &format!("virtserialport,chardev=line{port},nr={port}"),
        ]);
    }
    command
}
