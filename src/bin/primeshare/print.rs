//! Output: tables for people, JSON for programs.

use std::io::{self, Write};

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

/// A table without lines, as wide as its contents.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(head);
    table
}

pub(crate) fn show(table: &Table) -> Result<()> {
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

pub(crate) fn line(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Bytes per second, for people.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    let gib = bytes_per_second / f64::from(1 << 30);
    match gib {
        0.1.. => format!("{gib:.2} GiB/s"),
        _ => format!("{:.1} MiB/s", gib * 1024.0),
    }
}
