use std::fmt;
use std::path::Path;
use std::time::Duration;

use primeshare::blit::{Statistics, Verdict};
use primeshare::gem::ImportOrigin;
use primeshare::import::Imported;
use primeshare::vk::PhysicalDevice;
use primeshare::{Device, DmaBuf};

use crate::picture::Difference;

/// What happened, for people.
pub(crate) struct Report<'a> {
    pub(crate) source: &'a Device,
    pub(crate) destination: &'a Device,
    pub(crate) from: &'a DmaBuf,
    pub(crate) from_allocator: &'static str,
    pub(crate) to_allocator: &'static str,
    pub(crate) filler: &'a PhysicalDevice,
    pub(crate) shared: &'a Imported,
    pub(crate) verdict: &'a Verdict,
    pub(crate) statistics: &'a Statistics,
    pub(crate) frames: u32,
    pub(crate) in_flight: usize,
    pub(crate) time: Duration,
    pub(crate) read_through: &'static str,
    pub(crate) pixels: usize,
    pub(crate) difference: Option<Difference>,
    pub(crate) png: Option<&'a Path>,
    /// Validation messages; `None` without the layer.
    pub(crate) complaints: Option<usize>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from;
        let bytes = f64::from(from.planes()[0].stride) * f64::from(from.height());
        let per_frame = self.time.as_secs_f64() / f64::from(self.frames);
        end(f, "source", self.source, self.from_allocator)?;
        end(f, "destination", self.destination, self.to_allocator)?;
        writeln!(
            f,
            "picture      {}x{} {} {}, {:.1} MiB",
            from.width(),
            from.height(),
            from.fourcc(),
            from.modifier(),
            bytes / MIB,
        )?;
        writeln!(f, "filled by    {}", self.filler.name())?;
        writeln!(
            f,
            "shared as    {} dma-buf, GEM handle {} on the destination ({})",
            from.objects().len(),
            self.shared.object().handle().raw(),
            match self.shared.origin() {
                ImportOrigin::New => "imported",
                ImportOrigin::AlreadyImported => "imported before",
                ImportOrigin::SelfImport => "its own object",
            }
        )?;
        writeln!(f, "tried        {}", self.verdict)?;
        for of in &self.statistics.strategies {
            let (strategy, frames) = (of.strategy, of.frames);
            writeln!(f, "copied by    {strategy}, {frames} frames")?;
        }
        writeln!(
            f,
            "speed        {:.3} ms per frame, {:.2} GiB/s ({} frames, {} in flight)",
            per_frame * 1e3,
            bytes / per_frame / (MIB * 1024.0),
            self.frames,
            self.in_flight,
        )?;
        writeln!(f, "read back    through {}", self.read_through)?;
        match self.complaints {
            None => {}
            Some(0) => writeln!(f, "validation   silent")?,
            Some(count) => writeln!(f, "validation   {count} messages")?,
        }
        match self.difference {
            None => writeln!(f, "verified     all {} pixels are as sent", self.pixels)?,
            Some(d) => writeln!(
                f,
                "NOT VERIFIED at x={} y={}: sent rgb {:?}, arrived {:?}",
                d.x, d.y, d.sent, d.arrived
            )?,
        }
        match self.png {
            Some(path) => writeln!(f, "written to   {}", path.display()),
            None => Ok(()),
        }
    }
}

const MIB: f64 = 1024.0 * 1024.0;

fn end(f: &mut fmt::Formatter<'_>, what: &str, device: &Device, by: &str) -> fmt::Result {
    let bus = device.node().bus.as_ref();
    let bus = bus.map(|bus| format!(" on {bus}")).unwrap_or_default();
    writeln!(f, "{what:<12} {device}{bus}, allocated by {by}")
}
