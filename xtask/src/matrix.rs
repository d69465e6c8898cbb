//! `cargo xtask matrix` and `cargo xtask drivers`: what goes into Vulkan and back, and what each driver refuses, as a
//! table for each guest.

use anyhow::Result;

use crate::guest::kind::{Kind, VARIABLE};
use crate::{cargo, guest, host};

/// The test that fills the table of allocators, formats and sizes.
pub(crate) const SHARING: &str = "vulkan::matrix::every_cell_is_exact_or_refused_as_expected";
/// The test that fills the table of drivers.
pub(crate) const DRIVERS: &str =
    "drivers::table::every_driver_does_and_refuses_what_is_written_down";

/// Runs the test in every guest. Gives the first exit status that is not 0.
pub(crate) fn run(test: &str) -> Result<u8> {
    host::prepare_for_library()?;
    for kind in Kind::ALL {
        guest::prepare_for_tests(kind)?;
        let mut command = cargo::command();
        command
            .args(["test", "--quiet", "--test", "guest", "--"])
            .args([test, "--exact", "--nocapture"])
            .env("PRIMESHARE_RUN", "guest")
            .env(VARIABLE, kind.name());
        match cargo::code(cargo::run(&mut command)?) {
            0 => {}
            code => return Ok(code),
        }
    }
    Ok(0)
}
