//! `primeshare man`: the manual page, for packages.

use std::io::{self, Write};

use anyhow::Result;
use clap::CommandFactory;

/// Prints it in the format of man(7).
pub(crate) fn run() -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(super::Cli::command()).render(&mut page)?;
    Ok(io::stdout().write_all(&page)?)
}
