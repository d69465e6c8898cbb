//! Development tasks of primeshare: `cargo xtask --help`.
//!
//! The same binary is also the first process of the guest (see [`guest::init`]).

mod bench;
mod cache;
mod capi;
mod cargo;
mod cli;
mod compositor;
mod demo;
mod features;
mod fuzz;
mod guest;
mod host;
mod interface;
mod jobs;
mod libtest;
mod matrix;
mod progress;
mod repository;
mod runner;
mod sanitize;
mod semver;
mod shaders;
mod shell;
mod soak;
mod summary;
mod targets;
mod test;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, GuestCommand};

fn main() -> ExitCode {
    if guest::init::is_wanted() {
        guest::init::main();
    }
    match dispatch(Cli::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(guest::outcome::GUEST_FAILED)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Guest(GuestCommand::Build { guest, force }) => guest::build(guest.kinds(), force),
        Command::Guest(GuestCommand::Run(run)) => guest::run(run),
        Command::Runner { program, arguments } => runner::run(&program, arguments),
        Command::Watch => guest::watch::main(),
        Command::Test { all, arguments } => test::run(all, &arguments),
        Command::Demo => demo::run(),
        Command::Soak { arguments } => soak::run(&arguments),
        Command::Sanitize => sanitize::run(),
        Command::Bench { name, arguments } => bench::run(name.as_deref(), &arguments),
        Command::Matrix => matrix::run(matrix::SHARING),
        Command::Drivers => matrix::run(matrix::DRIVERS),
        Command::Features { toolchain } => features::run(toolchain.as_deref()),
        Command::Fuzz { target, runs } => fuzz::run(target.as_deref(), runs),
        Command::Header { check } => capi::test::header(check),
        Command::Install(arguments) => capi::install::run(&arguments),
        Command::C { guest, sanitize } => capi::test::run(guest, sanitize),
        Command::CLayers => capi::layers::run(),
        Command::Wlroots { guest } => capi::wlroots::run(guest),
        Command::Compositor { guest, arguments } => compositor::run(guest, &arguments),
        Command::Interface { check } => interface::run(check),
        Command::Shaders { check } => shaders::run(check),
    }
}
