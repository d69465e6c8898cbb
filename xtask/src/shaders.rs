//! The library's shader: its source, and the SPIR-V that the library is built with.
//!
//! Both are in the repository, so that nobody needs a compiler of shaders to build the library. A note beside them says
//! of which source the SPIR-V is, and by which compiler.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::jobs::Job;
use crate::{cargo, repository};

const COMPILER: &str = "glslangValidator";
/// What to install where the compiler is missing.
const PACKAGE: &str = "glslangValidator (apt-get install glslang-tools)";
/// Without names for debuggers. Vulkan 1.1 is what the library asks for.
const ARGUMENTS: [&str; 3] = ["-g0", "--target-env", "vulkan1.1"];

fn file(extension: &str) -> PathBuf {
    let shader = repository::root().join("src/blit/copy/shader/resample");
    shader.with_extension(extension)
}

/// Compiles the shader, or only checks that the compiled one is up to date.
pub(crate) fn run(check: bool) -> Result<u8> {
    let by = version().with_context(|| format!("needs {PACKAGE}"))?;
    let made = compile()?;
    let [source, spirv, note] = ["comp", "spv", "sum"].map(file);
    if !check {
        fs::write(&spirv, &made).with_context(|| format!("cannot write {}", spirv.display()))?;
        let text = describe(&fs::read(&source)?, &made, &by);
        fs::write(&note, text).with_context(|| format!("cannot write {}", note.display()))?;
        eprintln!("{}: {} bytes", spirv.display(), made.len());
        return Ok(0);
    }
    verify()?;
    if !fs::read_to_string(&note)?.contains(&by) {
        eprintln!("the source compiles; not compared, for this is another compiler: {by}");
        return Ok(0);
    }
    let is_same = fs::read(&spirv)? == made;
    ensure!(
        is_same,
        "resample.spv is not of resample.comp: cargo xtask shaders"
    );
    eprintln!("resample.spv is of resample.comp");
    Ok(0)
}

/// The check among the tests.
pub(crate) fn job() -> Job {
    let mut check = cargo::command();
    check.args(["xtask", "shaders", "--check"]);
    Job::new("shaders", check).lacks(version().is_err().then_some(PACKAGE))
}

/// The compiler's version, from the first line that it prints about itself.
fn version() -> Result<String> {
    let output = Command::new(COMPILER).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().context("no version")?;
    Ok(line.trim().to_owned())
}

fn compile() -> Result<Vec<u8>> {
    let directory = std::env::temp_dir().join(format!("primeshare-shader-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let into = directory.join("resample.spv");
    let mut compiler = Command::new(COMPILER);
    compiler
        .args(ARGUMENTS)
        .arg("-o")
        .arg(&into)
        .arg(file("comp"));
    let output = compiler.output();
    let made = fs::read(&into);
    fs::remove_dir_all(&directory)?;
    let output = output.with_context(|| format!("cannot run {COMPILER}"))?;
    if !output.status.success() {
        bail!("{COMPILER}: {}", String::from_utf8_lossy(&output.stdout));
    }
    made.context("the compiler has left nothing")
}

/// The note: sums of both files, and the compiler.
fn describe(source: &[u8], spirv: &[u8], compiler: &str) -> String {
    let [source, spirv] = [source, spirv].map(sum);
    format!("resample.comp {source}\nresample.spv {spirv}\n{compiler}\n")
}

fn sum(bytes: &[u8]) -> String {
    let bytes = Sha256::digest(bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that the note belongs to the files.
fn verify() -> Result<()> {
    let note = fs::read_to_string(file("sum"))?;
    let compiler = note.lines().last().unwrap_or_default();
    let wanted = describe(&fs::read(file("comp"))?, &fs::read(file("spv"))?, compiler);
    ensure!(
        note == wanted,
        "resample.comp or resample.spv has been changed without the other: cargo xtask shaders"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_shader_is_of_the_source() -> Result<()> {
        verify()?;
        match version() {
            Ok(_) => run(true).map(drop),
            Err(_) => {
                eprintln!("not compiled again: needs {PACKAGE}");
                Ok(())
            }
        }
    }

    #[test]
    fn a_note_changes_with_each_of_the_files() {
        let note = describe(b"a", b"b", "c");
        assert_ne!(note, describe(b"x", b"b", "c"));
        assert_ne!(note, describe(b"a", b"x", "c"));
        assert!(note.ends_with("\nc\n"));
    }
}
