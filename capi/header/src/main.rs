//! Writes the C headers from the declarations in `capi/src`: `cargo xtask header`, and `--check` to say only whether they
//! are up to date.
//!
//! cbindgen translates the declarations, all together, so that each knows the types of the others. This program puts
//! them in the order of their files, a header for each layer.

mod blocks;
mod layers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use blocks::Block;
use layers::{LAYERS, Layer};

fn main() -> Result<ExitCode> {
    let check = std::env::args().any(|argument| argument == "--check");
    let capi = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = capi.join("src");
    let blocks = blocks::of(&translated(&sources)?);
    let mut is_stale = false;
    let mut placed = 0;
    for layer in LAYERS {
        let (header, count) = header(layer, &sources, &blocks)?;
        placed += count;
        let path = capi.join("include").join(layer.header);
        if fs::read_to_string(&path).ok().as_ref() == Some(&header) {
            continue;
        }
        is_stale = true;
        if check {
            eprintln!(
                "{} is not what capi/src declares: cargo xtask header",
                layer.header
            );
        } else {
            fs::write(&path, header).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    anyhow::ensure!(
        placed == blocks.len(),
        "{placed} of {} declarations were found in capi/src",
        blocks.len()
    );
    Ok(match check && is_stale {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn source_of(sources: &Path, file: &str) -> PathBuf {
    sources.join(format!("{file}.rs"))
}

/// All declarations in C.
fn translated(sources: &Path) -> Result<String> {
    let files = LAYERS.iter().flat_map(|layer| layer.files);
    let builder = files.fold(cbindgen::Builder::new(), |builder, file| {
        builder.with_src(source_of(sources, file))
    });
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Tag,
        usize_is_size_t: true,
        no_includes: true,
        line_length: 110,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        ..Default::default()
    };
    let mut text = Vec::new();
    builder.with_config(config).generate()?.write(&mut text);
    Ok(String::from_utf8(text)?)
}

/// One header, and how many declarations it has.
fn header(layer: &Layer, sources: &Path, blocks: &[Block]) -> Result<(String, usize)> {
    let mut out = String::from("/* SPDX-License-Identifier: MIT OR Apache-2.0 */\n");
    if layer.is_core() {
        out += &blocks::comment(include_str!("../conventions.txt"));
    }
    let guard = layer.header.to_uppercase().replace(['.', '-'], "_");
    out += &format!("#ifndef {guard}\n#define {guard}\n\n");
    for include in layer.includes {
        out += &format!("#include {include}\n");
    }
    out += "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
    let mut count = 0;
    for file in layer.files {
        let source = fs::read_to_string(source_of(sources, file))?;
        out += "\n";
        out += &blocks::section(&source);
        let of_file = blocks
            .iter()
            .filter_map(|block| Some((block.place_in(&source)?, block)));
        let mut of_file: Vec<_> = of_file.collect();
        of_file.sort_by_key(|(place, _)| *place);
        count += of_file.len();
        for (_, block) in of_file {
            out += "\n";
            out += &block.text;
        }
    }
    out += "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n";
    Ok((out, count))
}
