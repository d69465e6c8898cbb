//! The command-line tool: what this machine's devices can do for each other, and who holds which buffers.

mod check;
mod devices;
mod machine;
mod man;
mod matrix;
mod print;
mod top;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tells what the GPUs and displays of this machine can do for each other.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List DRM and Vulkan devices, and what they can do for sharing.
    Devices,
    /// Try, for every ordered pair of DRM devices, every way of getting a picture across.
    Matrix(matrix::Arguments),
    /// Find out, for every ordered pair of DRM devices, at which stage a picture gets stuck on its way to the screen.
    Check(check::Arguments),
    /// Show which processes hold which dma-bufs, and how much memory of each GPU.
    Top(top::Arguments),
    /// Print this program's manual page.
    #[command(hide = true)]
    Man,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Devices => devices::run(cli.json).map(|()| true),
        Command::Matrix(arguments) => matrix::run(&arguments, cli.json).map(|()| true),
        Command::Check(arguments) => check::run(&arguments, cli.json),
        Command::Top(arguments) => top::run(&arguments, cli.json).map(|()| true),
        Command::Man => man::run().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // The output says what is wrong.
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads our output has had enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("primeshare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
