use std::path::PathBuf;
use std::str::FromStr;

/// Sends a picture from one DRM device to another through Vulkan and checks every pixel.
///
/// A device is a driver's name (vgem), a driver's n-th device (vkms:1) or a node
/// (/dev/dri/card0).
#[derive(Debug, clap::Parser)]
#[command(name = "cross_gpu_blit", version)]
pub(crate) struct Options {
    /// Where the picture comes from. Default: one of the two most different devices.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) source: Option<String>,
    /// Where it goes. Default: the other of the two most different devices.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) destination: Option<String>,
    /// Size of the test pattern in pixels.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1920x1080")]
    pub(crate) size: Size,
    /// Send this PNG file instead of the test pattern.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Write what arrived as a PNG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
    /// Copies to make and time.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) frames: u32,
    /// Copies under way at a time.
    #[arg(long, default_value_t = 3)]
    pub(crate) in_flight: usize,
    /// Use the Vulkan device whose name contains this, for both ends.
    #[arg(long, value_name = "NAME")]
    pub(crate) vulkan: Option<String>,
    /// Load the Khronos validation layer; any message fails the run.
    #[arg(long)]
    pub(crate) validate: bool,
    /// List the devices and stop.
    #[arg(long)]
    pub(crate) list: bool,
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| part.parse().ok().filter(|&n| n > 0);
        text.split_once('x')
            .and_then(|(width, height)| {
                Some(Self {
                    width: parse(width)?,
                    height: parse(height)?,
                })
            })
            .ok_or_else(|| format!("{text:?} is not a size such as 1920x1080"))
    }
}
