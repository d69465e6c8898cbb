//! Receives frames of the compositor, and writes the last one as a PNG file.
//!
//! The frames are the very buffers that the screen shows: nothing is copied before this program reads them.

#[path = "../picture.rs"]
mod picture;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use primeshare::sync::{Access, implicit};
use primeshare::{DmaBuf, ErrorKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Receives frames of the compositor, and writes the last one as a PNG file.
#[derive(Parser)]
#[command(name = "viewer", version)]
struct Options {
    /// The socket that the compositor was given with `--share`.
    socket: PathBuf,
    /// How many frames to receive.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Where the last one is written.
    #[arg(long, value_name = "FILE", default_value = "viewer.png")]
    out: PathBuf,
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let place = options.socket.display().to_string();
    net::connect(&socket, &SocketAddrUnix::new(&options.socket)?).with_context(|| place.clone())?;
    for n in 1..=options.frames {
        poll(&mut [PollFd::new(&socket, PollFlags::IN)], None)?;
        let frame = match DmaBuf::receive(&socket) {
            Ok(frame) => frame,
            Err(error) if error.kind() == ErrorKind::Lost => anyhow::bail!("{place}: the compositor has ended"),
            Err(error) => return Err(error.into()),
        };
        // The fence came in the buffer.
        implicit::fence(&frame, Access::Read)?.wait(Duration::from_secs(10))?;
        println!("frame {n}: {frame:?}");
        if n == options.frames {
            picture::save(&frame, &options.out)?;
        }
        // It may be drawn into from now on.
        rustix::io::write(&socket, b"read")?;
    }
    Ok(())
}
