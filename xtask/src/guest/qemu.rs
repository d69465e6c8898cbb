//! The command line of QEMU.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::accelerator::Accelerator;
use super::emulator::Emulator;
use super::job::Job;
use super::kernel::stock;
use super::kind::Kind;
use super::limits::Limits;
use super::{Guest, clock, init};

/// Display devices, each with another driver. They have memory for a few large pictures, and no firmware, since it would
/// be run.
const DISPLAYS: &[&str] = &[
    "virtio-gpu-pci",
    "bochs-display,vgamem=128M,romfile=",
    "qxl,ram_size=134217728,vram_size=134217728,romfile=",
    "cirrus-vga,romfile=",
];

/// A GPU, a display that imports no foreign memory, and one that imports all. `hostmem` is the size of the window in
/// which the guest maps memory that the host allocates for it, and so the limit of that memory.
const GPU_AND_DISPLAYS: &[&str] = &[
    "virtio-gpu-gl-pci,blob=on,venus=on,hostmem=1G",
    "bochs-display,vgamem=128M,romfile=",
    "cirrus-vga,romfile=",
];

/// The kernel's command line.
const KERNEL: &[&str] = &[
    "console=ttyS0",
    "hostname=guest",
    "oops=panic",
    "panic=-1",
    "udmabuf.size_limit_mb=1024",
    // Nothing here needs these protections, and setting them up takes an emulated processor a second.
    "apparmor=0",
    "audit=0",
    "cryptomgr.notests",
    "mitigations=off",
    // On a busy host an emulated processor stands still for seconds, at which no watchdog must complain.
    "no_timer_check",
    "nowatchdog",
    "rcupdate.rcu_cpu_stall_timeout=300",
    // The kernel must not spend time on watching this clock: no other one is better.
    "tsc=reliable",
];

/// A machine that boots the kernel without a job, and switches itself off.
pub(super) fn machine(
    emulator: &Emulator,
    kernel: &Path,
    accelerator: Accelerator,
    memory: u64,
    processors: u32,
    parameters: &str,
) -> Command {
    let (kernel, initramfs) = stock::files(kernel);
    let mut command = emulator.command();
    command
        .args(["-no-user-config", "-nodefaults", "-no-reboot"])
        .args(["-vga", "none", "-serial", "stdio"])
        .args(["-machine", "pc"])
        .args(["-accel", accelerator.option(), "-cpu", "max"])
        .args(["-m", &format!("{}M", memory >> 20)])
        .args(["-smp", &processors.to_string()])
        // The first virtio device, from which its ports have their names: see `Kind::lines`.
        .args(["-device", "virtio-serial-pci"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("{} {parameters}", KERNEL.join(" "))]);
    command
}

/// Its display devices.
fn add_displays(command: &mut Command, kind: Kind) {
    let (back_end, displays) = match kind {
        Kind::Gpu => ("sdl,gl=on", GPU_AND_DISPLAYS),
        _ => ("none", DISPLAYS),
    };
    command.args(["-display", back_end]);
    for display in displays {
        command.args(["-device", display]);
    }
}

/// The machine on which KVM is tried out: with the displays that every guest has.
pub(super) fn trial(emulator: &Emulator, kernel: &Path) -> Command {
    let mut command = machine(emulator, kernel, Accelerator::Kvm, 512 << 20, 2, "");
    add_displays(&mut command, Kind::Qemu);
    command
}

/// The machine with a job; the program's output goes to `lines`, and what the clock says to the last of them.
pub(super) fn command(
    guest: &Guest,
    emulator: &Emulator,
    job: &Job,
    directory: &Path,
    limits: &Limits,
    lines: &[&impl AsRawFd],
) -> Result<Command> {
    let accelerator = guest.accelerator.unwrap_or(Accelerator::Emulation);
    let mut parameters = format!("{}={}", init::JOB, directory.join("job").display());
    #[cfg(target_arch = "x86_64")]
    if accelerator == Accelerator::Emulation {
        // An emulated processor has the host's time stamp counter. Linux would measure it against an emulated timer,
        // which goes wrong on a busy host.
        parameters += &format!(" tsc_early_khz={}", clock::counter_rate());
    }
    if let Some(asked) = &limits.parameters {
        parameters = format!("{parameters} {asked}");
    }
    let mut command = machine(
        emulator,
        &guest.kernel,
        accelerator,
        limits.memory,
        limits.processors,
        &parameters,
    );
    add_displays(&mut command, job.guest);
    if job.guest == Kind::Gpu {
        emulator.let_draw(&mut command, directory)?;
    }
    // The whole of the host's file system, as hostfs has it, with the rights of the user.
    let host = "local,path=/,mount_tag=host,security_model=none,multidevs=remap";
    command.args(["-virtfs", host]);
    // Port 0 is for consoles.
    for (line, port) in lines.iter().zip(1..) {
        let fd = line.as_raw_fd();
        command.args(["-chardev", &format!("file,id=line{port},path=/dev/fd/{fd}")]);
        command.args([
            "-device",
            &format!("virtserialport,chardev=line{port},nr={port}"),
        ]);
    }
    Ok(command)
}
