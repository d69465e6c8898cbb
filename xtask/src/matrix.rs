//! `cargo xtask matrix`: what goes into Vulkan and back, as a table for each guest.

use anyhow::Result;

use crate::guest::kind::{Kind, VARIABLE};
use crate::{cargo, guest, host};

const TEST: &str = "vulkan::matrix::every_cell_is_exact_or_refused_as_expected";

/// Runs the test that fills the table in every guest; the first exit status that is not 0.
pub(crate) fn run() -> Result<u8> {
    host::prepare_for_library()?;
    for kind in Kind::ALL {
        guest::prepare(kind, false)?;
        let mut command = cargo::command();
        command
            .args(["test", "--quiet", "--test", "guest", "--"])
            .args([TEST, "--exact", "--nocapture"])
            .env("PRIMESHARE_RUN", "guest")
            .env(VARIABLE, kind.name());
        match cargo::code(cargo::run(&mut command)?) {
            0 => {}
            code => return Ok(code),
        }
    }
    Ok(0)
}
