//! One ordered pair of devices, stage by stage. All buffers are made for this and end with it.

use primeshare::blit::{Blitter, Completion, Options, Outcome, Push, Strategy, SyncFiles, Verdict};
use primeshare::buffer::FormatInfo;
use primeshare::gem::ImportOrigin;
use primeshare::sync::{Access, SyncFile, implicit};
use primeshare::vk::{self, Use};
use primeshare::{DmaBuf, Fourcc, Request, alloc, gbm};
use serde::Serialize;

use super::pixels;
use super::screen::{self, Answer};
use super::step::{Reason, Stage, Step, first_failure, way};
use crate::machine::{Member, NotAllocated, PATIENCE};

#[derive(Serialize)]
pub(super) struct Pair {
    pub(super) source: String,
    pub(super) destination: String,
    /// Short names of both, for the table.
    #[serde(skip)]
    pub(super) labels: [String; 2],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) format: String,
    pub(super) modifiers_asked: Vec<String>,
    /// The source's buffer, once there is one.
    pub(super) buffer: Option<Buffer>,
    /// Every stage, in order.
    pub(super) stages: Vec<Step>,
    /// The first stage that failed, those of the copy by other means left out.
    pub(super) first_failure: Option<Stage>,
    /// A complete way to a picture, in words.
    pub(super) way: Option<&'static str>,
}

/// The buffer in numbers. Of several planes the first.
#[derive(Clone, Serialize)]
pub(super) struct Buffer {
    pub(super) allocator: &'static str,
    pub(super) modifier: String,
    pub(super) planes: usize,
    pub(super) offset: u32,
    pub(super) stride: u32,
    pub(super) inode: u64,
    pub(super) dma_buf_bytes: u64,
    /// Bytes of the dma-buf after the picture's last byte; not known of layouts that only a driver knows.
    pub(super) headroom_bytes: Option<u64>,
}

impl Buffer {
    fn of(allocator: &'static str, buffer: &DmaBuf) -> Option<Self> {
        let (plane, object) = (buffer.planes().first()?, buffer.objects().first()?);
        Some(Self {
            allocator,
            modifier: buffer.modifier().to_string(),
            planes: buffer.planes().len(),
            offset: plane.offset,
            stride: plane.stride,
            inode: object.id().inode(),
            dma_buf_bytes: object.size(),
            headroom_bytes: headroom(buffer),
        })
    }
}

/// Of the first dma-buf.
fn headroom(buffer: &DmaBuf) -> Option<u64> {
    if buffer.modifier() != primeshare::Modifier::LINEAR {
        return None;
    }
    let infos = FormatInfo::of(buffer.fourcc())?.planes;
    let planes = buffer.planes().iter().zip(infos);
    let ends = planes.filter(|(plane, _)| plane.object == 0);
    let ends = ends.map(|(plane, info)| {
        let rows = u64::from(info.rows(buffer.height()));
        let rows = u64::from(plane.stride).checked_mul(rows.checked_sub(1)?)?;
        let row = info.row_bytes(buffer.width())?;
        (u64::from(plane.offset) + u64::from(row)).checked_add(rows)
    });
    let end = ends.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
    buffer.objects().first()?.size().checked_sub(end)
}

/// Tries all stages.
pub(super) fn check(from: &Member, to: &Member, request: &Request) -> Pair {
    let mut pair = Pair {
        source: from.device.to_string(),
        destination: to.device.to_string(),
        labels: [from, to].map(|member| member.label.clone()),
        width: request.width,
        height: request.height,
        format: request.fourcc.to_string(),
        modifiers_asked: request.modifiers.iter().map(ToString::to_string).collect(),
        buffer: None,
        stages: Vec::new(),
        first_failure: None,
        way: None,
    };
    stages(from, to, request, &mut pair);
    // What a failure has left out.
    let reached = pair.stages.len();
    if let (Some(failed), true) = (first_failure(&pair.stages), reached < Stage::ALL.len()) {
        let failed = failed.stage;
        let left = Stage::ALL.into_iter().skip(reached);
        let left: Vec<Step> = left.map(|stage| Step::not_reached(stage, failed)).collect();
        pair.stages.extend(left);
    }
    pair.first_failure = first_failure(&pair.stages).map(|step| step.stage);
    pair.way = way(&pair.stages);
    pair
}

fn stages(from: &Member, to: &Member, request: &Request, pair: &mut Pair) {
    let steps = &mut pair.stages;
    let source = match from.allocate(request) {
        Ok((allocator, buffer)) => {
            pair.buffer = Buffer::of(allocator, &buffer);
            steps.push(Step::works(Stage::Allocate, format!("by {allocator}")));
            steps.push(Step::works(Stage::Export, exported(pair.buffer.as_ref())));
            buffer
        }
        Err(error) => {
            let errno = error.dumb.errno().or(error.gbm.errno());
            let stage = match is_export(&error) {
                true => {
                    steps.push(Step::works(Stage::Allocate, "not exported, see export"));
                    Stage::Export
                }
                false => Stage::Allocate,
            };
            steps.push(Step::failed(stage, Reason::new(&error, errno)));
            return;
        }
    };
    steps.push(match to.device.import(&source) {
        Ok(imported) => {
            let handle = imported.object().handle().raw();
            let origin = match imported.origin() {
                ImportOrigin::New => "imported",
                ImportOrigin::AlreadyImported => "imported before",
                ImportOrigin::SelfImport => "the device's own",
            };
            Step::works(Stage::Import, format!("GEM handle {handle}, {origin}"))
        }
        Err(error) => Step::failed(Stage::Import, Reason::new(&error, error.errno())),
    });
    // Both are the source's and the destination's own, also if these are one device.
    let destination = to.allocate(request).map(|(_, buffer)| buffer);
    let mut copies = Copies {
        from,
        to,
        source: &source,
        destination: &destination,
        best: None,
    };
    let (gpu, copied) = copies.gpu();
    steps.push(gpu);
    let copied_to = destination.as_ref().ok().filter(|_| copied.is_some());
    steps.push(fence(&source, copied_to, copied.as_ref()));
    drop(copied);
    let is_imported = steps
        .iter()
        .any(|step| step.stage == Stage::Import && step.is_working());
    steps.push(match (screen::ask(&to.device, &source), is_imported) {
        (Answer::Refused(_), false) => Step::not_reached(Stage::Screen, Stage::Import),
        (answer, _) => shown(Stage::Screen, answer),
    });
    steps.push(copies.best());
    drop(copies);
    steps.push(match &destination {
        Ok(buffer) => shown(Stage::ScreenOfCopy, screen::ask(&to.device, buffer)),
        Err(_) => Step::not_reached(Stage::ScreenOfCopy, Stage::Copy),
    });
}

/// Whether a buffer was made, and could not be exported.
fn is_export(error: &NotAllocated) -> bool {
    let of_gbm = error.gbm.of::<gbm::Error>();
    matches!(error.dumb, alloc::Error::Export(_))
        || matches!(error.gbm, alloc::Error::Export(_))
        || matches!(of_gbm, Some(gbm::Error::Export { .. }))
}

fn exported(buffer: Option<&Buffer>) -> String {
    let Some(buffer) = buffer else {
        return "a dma-buf without planes".to_owned();
    };
    format!("dma-buf with inode {}", buffer.inode)
}

fn shown(stage: Stage, answer: Answer) -> Step {
    match answer {
        Answer::NoScreens(why) => Step::does_not_apply(stage, why),
        Answer::Refused(reason) => Step::failed(stage, reason),
        Answer::Takes(what) => Step::works(stage, what),
    }
}

/// Copies from the one buffer to the other.
struct Copies<'a> {
    from: &'a Member,
    to: &'a Member,
    source: &'a DmaBuf,
    destination: &'a Result<DmaBuf, NotAllocated>,
    /// By whatever works, and what is known of that. Kept, so that others need not try again.
    best: Option<(Blitter, Verdict)>,
}

impl Copies<'_> {
    /// Without a look at PRIMESHARE_BLIT, which is for debugging.
    fn options() -> Options {
        Options::default().environment(false).push(Push::Last)
    }

    fn destination(&self) -> Result<&DmaBuf, Reason> {
        self.destination.as_ref().map_err(|error| {
            let errno = error.dumb.errno().or(error.gbm.errno());
            Reason::new(format!("no buffer of the destination: {error}"), errno)
        })
    }

    /// Has every strategy tried.
    fn settle(&mut self) -> Result<&(Blitter, Verdict), Reason> {
        let failed = |error: primeshare::blit::Error| Reason::new(&error, error.errno());
        if self.best.is_none() {
            let to = self.destination()?;
            let options = Self::options();
            let blitter = self.from.blitter_to(self.to, &options).map_err(failed)?;
            let info = Default::default();
            let verdict = blitter.settle_wait(self.source, to, &info, PATIENCE);
            let verdict = verdict.map_err(failed)?;
            self.best = Some((blitter, verdict));
        }
        self.best.as_ref().ok_or_else(Reason::default)
    }

    /// The destination's GPU reads the source's buffer, as an image or else as bytes.
    fn gpu(&mut self) -> (Step, Option<Completion>) {
        match self.pull() {
            Ok((detail, copied)) => (Step::works(Stage::Gpu, detail), Some(copied)),
            Err(reason) => (Step::failed(Stage::Gpu, reason), None),
        }
    }

    fn pull(&mut self) -> Result<(String, Completion), Reason> {
        let Some(vulkan) = self.to.vulkan.as_ref() else {
            return Err(Reason::new(
                format!("no Vulkan device for {}", self.to.device),
                None,
            ));
        };
        let (_, verdict) = self.settle()?;
        let mut failures = Vec::new();
        let mut named: Option<Reason> = None;
        let mut working = Vec::new();
        for strategy in [Strategy::Pull, Strategy::PullBytes] {
            match verdict.outcome(strategy) {
                Some(Outcome::Works { .. }) => working.push(strategy),
                Some(outcome) => {
                    failures.push(format!("{strategy}: {outcome}"));
                    let failure = match outcome {
                        Outcome::Failed(failure) | Outcome::Untestable(failure) => Some(failure),
                        _ => None,
                    };
                    named = named.or(failure.map(Reason::of_failure));
                }
                None => {}
            }
        }
        for strategy in working {
            let options = Self::options().strategies([strategy]);
            // Also of software, so that it is tried whether the driver has them.
            let options = options.sync_files(SyncFiles::Always);
            let blitter = self.from.blitter_to(self.to, &options);
            let blitter = blitter.map_err(|error| Reason::new(&error, error.errno()))?;
            match pixels::copy_and_compare(&blitter, self.source, self.destination()?) {
                Ok((copied, pixels)) => {
                    let kind = match vulkan.is_software() {
                        true => " (software)",
                        false => "",
                    };
                    let name = vulkan.name();
                    return Ok((
                        format!("{strategy} by {name}{kind}: all {pixels} pixels are as sent"),
                        copied,
                    ));
                }
                Err(error) => {
                    failures.push(format!("{strategy}: {error}"));
                    named = named.or(Some(error.reason()));
                }
            }
        }
        let reason = Reason {
            text: failures.join("; "),
            ..named.unwrap_or_default()
        };
        Err(reason.offered(offered(vulkan, self.source.fourcc())))
    }

    /// By what the blitter chooses.
    fn best(&mut self) -> Step {
        match self.copy() {
            Ok(detail) => Step::works(Stage::Copy, detail),
            Err(reason) => Step::failed(Stage::Copy, reason),
        }
    }

    fn copy(&mut self) -> Result<String, Reason> {
        self.settle()?;
        let to = self.destination()?;
        let (blitter, verdict) = self.best.as_ref().ok_or_else(Reason::default)?;
        match pixels::copy_and_compare(blitter, self.source, to) {
            Ok((_, pixels)) => {
                // It may have changed its mind since the verdict.
                let used = blitter.statistics().strategies;
                let used = used.iter().filter(|strategy| strategy.frames > 0);
                let used: Vec<_> = used.map(|strategy| strategy.strategy.name()).collect();
                Ok(format!(
                    "{}: all {pixels} pixels are as sent",
                    used.join(", ")
                ))
            }
            Err(error) => Err(Reason {
                text: format!("{error}; {}", attempts(verdict)),
                ..error.reason()
            }),
        }
    }
}

/// What is known of each strategy, in one line.
fn attempts(verdict: &Verdict) -> String {
    let lines = verdict.attempts.iter();
    let lines: Vec<_> = lines
        .map(|attempt| format!("{}: {}", attempt.strategy, attempt.outcome))
        .collect();
    lines.join("; ")
}

/// The modifiers with which a Vulkan device imports images to copy from.
fn offered(vulkan: &vk::PhysicalDevice, fourcc: Fourcc) -> Option<Vec<String>> {
    let device = vk::Device::new(vulkan).ok()?;
    let modifiers = device.importable_modifiers(fourcc, Use::Source).ok()?;
    let names = modifiers.iter().map(|(modifier, ..)| modifier.to_string());
    Some(names.collect())
}

/// Fences of both dma-bufs as sync files, and the copy's into the source's.
fn fence(source: &DmaBuf, destination: Option<&DmaBuf>, copied: Option<&Completion>) -> Step {
    let done = copied.and_then(Completion::sync_file);
    match exchange(source, destination, done) {
        Ok(detail) => Step::works(Stage::Fence, detail),
        Err(error) => Step::failed(Stage::Fence, Reason::new(&error, error.errno())),
    }
}

fn exchange(
    source: &DmaBuf,
    destination: Option<&DmaBuf>,
    done: Option<&SyncFile>,
) -> Result<String, primeshare::sync::Error> {
    let own = implicit::export_sync_file(source, Access::ReadWrite)?;
    own.wait(PATIENCE)?;
    if let Some(destination) = destination {
        // As a reader of the copy waits.
        implicit::export_sync_file(destination, Access::Read)?.wait(PATIENCE)?;
    }
    let (fence, whose) = match done {
        Some(done) => (done, "the copy's sync file"),
        None => (&own, "no copy gave a sync file; the dma-buf's own"),
    };
    implicit::import_sync_file(source, fence, Access::Read)?;
    implicit::export_sync_file(source, Access::ReadWrite)?.wait(PATIENCE)?;
    Ok(format!(
        "the dma-buf's fences as a sync file, signalled; {whose} was put into it"
    ))
}
