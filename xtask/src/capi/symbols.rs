//! The symbols of the shared library: those that the headers declare, and no others.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The functions that a header declares.
pub(crate) fn declared(header: &str) -> BTreeSet<String> {
    let mut functions = BTreeSet::new();
    let mut is_comment = false;
    for line in header.lines() {
        is_comment |= line.trim_start().starts_with("/*");
        let is_declaration =
            !is_comment && !line.starts_with([' ', '#', '}']) && !line.starts_with("typedef");
        if line.trim_end().ends_with("*/") {
            is_comment = false;
        }
        if !is_declaration {
            continue;
        }
        let Some((before, _)) = line.split_once('(') else {
            continue;
        };
        let name = before
            .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        if let Some(name) = name.filter(|name| name.starts_with("primeshare_")) {
            functions.insert(name.to_owned());
        }
    }
    functions
}

/// The linker's script: everything else stays inside, and each symbol has a version.
pub(crate) fn script(version: &str, functions: &BTreeSet<String>) -> String {
    let globals: String = functions
        .iter()
        .map(|name| format!("    {name};\n"))
        .collect();
    format!("PRIMESHARE_{version} {{\n  global:\n{globals}  local:\n    *;\n}};\n")
}

/// The functions and data that a shared library exports, with their versions.
pub(crate) fn exported(library: &Path) -> Result<BTreeSet<String>> {
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(library);
    let output = nm.output().context("cannot start nm")?;
    if !output.status.success() {
        bail!("nm: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = String::from_utf8(output.stdout)?;
    let symbols = listed.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, kind) = (words.next()?, words.next()?);
        // The version itself is listed as an absolute symbol.
        (kind != "A").then(|| name.to_owned())
    });
    Ok(symbols.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_in_a_header() {
        let header = "/* Calls primeshare_none(). */\n\
                      int primeshare_a(int x,\n                 int y);\n\
                      /*\n * primeshare_not(this)\n */\n\
                      struct primeshare_s *primeshare_b(void);\n\
                      struct primeshare_t {\n  int primeshare_c(void);\n};\n\
                      typedef void (*primeshare_handler)(int);\n";
        let found: Vec<_> = declared(header).into_iter().collect();
        assert_eq!(found, ["primeshare_a", "primeshare_b"]);
    }

    #[test]
    fn the_script_lists_the_functions_of_a_version() {
        let functions = BTreeSet::from(["primeshare_a".to_owned()]);
        assert_eq!(
            script("0.1", &functions),
            "PRIMESHARE_0.1 {\n  global:\n    primeshare_a;\n  local:\n    *;\n};\n"
        );
    }
}
