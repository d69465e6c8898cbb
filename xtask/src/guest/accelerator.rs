//! Whether QEMU runs the guest's processors by KVM or emulates them.
//!
//! That `/dev/kvm` can be opened proves little: if the machine itself is virtual, QEMU can fail at its first call, and a
//! kernel can hang at its first instruction. So the guest's own kernel is booted once, and the result is remembered.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::kernel::stock;
use super::kind::Kind;
use crate::cache::Entry;
use crate::progress::{Log, Step};

/// The environment variable that chooses the accelerator.
const VARIABLE: &str = "PRIMESHARE_GUEST_ACCEL";

/// How long the kernel may take to come up by KVM. It takes a second, and an emulated one three.
const PATIENCE: &str = "15";

/// How QEMU runs the guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    Emulation,
}

impl Accelerator {
    /// As the environment has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Emulation => "tcg",
        }
    }

    /// For QEMU's option `-accel`.
    pub(super) fn option(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Emulation => "tcg,thread=multi",
        }
    }

    fn named(name: &str) -> Result<Self> {
        let mut all = [Accelerator::Kvm, Accelerator::Emulation].into_iter();
        all.find(|accelerator| accelerator.name() == name)
            .with_context(|| format!("{VARIABLE} must be kvm or tcg, not {name:?}"))
    }
}

/// KVM if it works with the guest's kernel, else emulation. `machine` is the QEMU command that boots this kernel
/// by KVM.
pub(super) fn choose(kind: Kind, machine: &Command) -> Result<Accelerator> {
    if let Some(asked) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return Accelerator::named(&asked.to_string_lossy());
    }
    if kind == Kind::Gpu {
        // This guest maps memory of the host's, which the trial does not cover.
        return Ok(Accelerator::Emulation);
    }
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    if kvm.is_err() {
        return Ok(Accelerator::Emulation);
    }
    let verdict = Entry::new("kvm", &[&format!("{machine:?}"), &host()?])?;
    let verdict = verdict.get_or_make(false, |at, log| try_out(machine, at, log))?;
    let verdict = fs::read_to_string(verdict.join("accelerator"))?;
    Accelerator::named(&verdict)
}

/// The host's kernel and processor, on which the result depends, too.
fn host() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find(|line| line.starts_with("model name"));
    Ok(format!(
        "{}{}",
        fs::read_to_string("/proc/version")?,
        model.unwrap_or_default()
    ))
}

/// Boots the machine, and writes into `directory` which accelerator is to be used.
fn try_out(machine: &Command, directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start("QEMU guest: trying KVM");
    // QEMU aborts if KVM refuses something. No core dump is needed then.
    let mut bounded = Command::new("prlimit");
    bounded
        .args(["--core=0", "timeout", "--kill-after=2", PATIENCE])
        .arg(machine.get_program())
        .args(machine.get_args());
    for (name, value) in machine.get_envs() {
        value.map(|value| bounded.env(name, value));
    }
    let mut up = false;
    let ended = log.run(&mut bounded, |line| up |= line.trim() == stock::UP);
    let found = match up && ended.is_ok() {
        true => Accelerator::Kvm,
        false => Accelerator::Emulation,
    };
    fs::write(directory.join("accelerator"), found.name())?;
    step.done();
    eprintln!("QEMU guest: runs by {}", found.name());
    Ok(())
}
