//! Whether the library compiles for other kinds of machine.

use std::process::{Command, Stdio};

use crate::cargo;
use crate::jobs::Job;

/// The targets, and how to install each: one of 32 bits, on which `off_t`, `usize` and structures of the kernel have
/// another size; one of another processor, on which system calls have other numbers; and one with another C library.
const TARGETS: &[(&str, &str)] = &[
    (
        "i686-unknown-linux-gnu",
        "rustup target add i686-unknown-linux-gnu",
    ),
    (
        "aarch64-unknown-linux-gnu",
        "rustup target add aarch64-unknown-linux-gnu",
    ),
    (
        "x86_64-unknown-linux-musl",
        "rustup target add x86_64-unknown-linux-musl",
    ),
];

/// A job for each target. Each needs that target's standard library, which the machine may lack.
pub(crate) fn jobs() -> impl Iterator<Item = Job> {
    TARGETS.iter().map(|(target, how)| {
        let mut check = cargo::command();
        check.args(["check", "--lib", "--target", target]);
        // Cargo has a lock for each target directory, so the other jobs do not wait for this one.
        check.args(["--target-dir", "target/targets"]);
        Job::new(*target, check).lacks((!is_installed(target)).then_some(*how))
    })
}

/// Whether the compiler has a standard library for it.
fn is_installed(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let Ok(output) = rustc.stderr(Stdio::null()).output() else {
        return false;
    };
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.file_name().into_string().ok())
        .any(|name| name.starts_with("libstd-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_without_a_standard_library_is_not_installed() {
        let host = if cfg!(target_arch = "x86_64") {
            "x86_64-unknown-linux-gnu"
        } else {
            "aarch64-unknown-linux-gnu"
        };
        assert!(is_installed(host));
        assert!(!is_installed("riscv32imc-unknown-none-elf"));
    }
}
