//! A frame of any device on a screen: as it is if the screen takes it, else copied.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::epoll::Epoll;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{
    CommitOptions, Error, FramebufferOptions, Layer, Operation, Output, PageFlip, Position,
    Screens, Swapchain, SwapchainBuffer,
};
use crate::Errno;
use crate::blit::{self, BlitInfo, Blitter, Completion, Scaling, Stream};
use crate::buffer::{Damage, DamageBox, DmaBuf, FormatInfo, Fourcc, PerBuffer, Refusal};
use crate::sync::Deadline;
use crate::sys::{self, poll};

/// How a frame gets on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// The display controller reads the frame's own buffer.
    Direct,
    /// It is copied into a buffer of the screen's device, because the screen does not take it as it is.
    Copied(Arc<Error>),
}

/// What belongs to one frame besides its buffer. The default: all of it, at once.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PresentInfo<'a> {
    /// What differs from the frame before, in pixels of this frame.
    pub damage: Damage<'a>,
    /// A sync file, or another fd that becomes readable: the frame is shown after that. It is borrowed; a dup is kept.
    pub fence: Option<BorrowedFd<'a>>,
    /// The frame is left out if it is not ready by then: its fence has not come, or its copy is not made. `None`: it
    /// is waited for as long as it takes, while the screen shows the frame before. With a deadline, the CPU waits for
    /// the fence before a frame is copied: what a GPU was handed cannot be called back.
    pub deadline: Option<Instant>,
    /// How it is shown.
    pub options: CommitOptions,
}

impl<'a> PresentInfo<'a> {
    /// With these changes since the frame before.
    #[must_use]
    pub fn damage(mut self, damage: Damage<'a>) -> Self {
        self.damage = damage;
        self
    }

    /// When this fd is readable.
    #[must_use]
    pub fn fence(mut self, fence: BorrowedFd<'a>) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Or not at all, after this time.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// In this manner.
    #[must_use]
    pub fn options(mut self, options: CommitOptions) -> Self {
        self.options = options;
        self
    }
}

/// What became of a frame.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// It is on the screen.
    Shown {
        /// The number that [`Presenter::present`] gave it.
        frame: u64,
        /// Since when.
        flip: PageFlip,
        /// How it got there.
        way: Way,
    },
    /// It will not be shown: the screen goes on showing the frame before.
    Dropped {
        /// The number that [`Presenter::present`] gave it.
        frame: u64,
        /// Why not.
        why: Dropped,
    },
}

/// Why a frame is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// Its fence had not come at its deadline, or its copy was not made.
    #[error("the frame was not ready at its deadline")]
    Late,
    /// The copy failed.
    #[error("the copy failed: {0}")]
    Copy(blit::Failure),
    /// The screen refused it.
    #[error(transparent)]
    Screen(Error),
}

/// Shows frames of one device on a screen of another, or of the same.
///
/// A frame goes to the screen as it is if the driver says in a TEST_ONLY commit that it could show it, else it is
/// copied by a [`Blitter`] into a buffer of a [`Swapchain`]. Either way it fills the screen: a frame of another size is
/// scaled, and its aspect ratio is not kept. What was found out of a buffer is remembered until the
/// buffer goes, so that a frame that is shown directly costs one atomic commit and nothing else. If a commit is refused
/// all the same, the frame is copied.
///
/// Nothing waits. [`AsFd`] gives an fd that is readable when there is something to [`dispatch`](Self::dispatch), and the
/// program gives it the page flips of its CRTC ([`Card::read_events`](super::Card::read_events)).
///
/// Frames are shown in their order. One may be on its way to the screen and a second one be waiting for its fence or
/// being copied meanwhile; a third is refused with [`Error::Pending`].
pub struct Presenter {
    output: Output,
    blitter: Blitter,
    stream: Stream,
    swapchain: Swapchain,
    /// What the screen said of a buffer; `Refused` is why it is copied.
    verdicts: PerBuffer<(), Error>,
    wakes: Wakes,
    next: Option<Frame>,
    /// The frame of the commit that is pending, and its way.
    committed: Option<(u64, Way)>,
    frames: u64,
    /// The size of the frame before. `None`: that frame was not shown, so nothing is known of what differs from it.
    size: Option<(u32, u32)>,
    /// What has to be told, and was not asked for yet.
    events: Vec<Event>,
    /// Memory of damage, used again.
    boxes: Vec<DamageBox>,
}

/// A frame that was not handed to the screen yet.
struct Frame {
    number: u64,
    buffer: DmaBuf,
    damage: Option<Vec<DamageBox>>,
    deadline: Option<Instant>,
    options: CommitOptions,
    stage: Stage,
}

impl Frame {
    /// As it was presented, without the fence, which has come.
    fn info(&self) -> PresentInfo<'_> {
        PresentInfo {
            damage: damage_of(&self.damage),
            fence: None,
            deadline: self.deadline,
            options: self.options,
        }
    }
}

/// What a frame waits for.
enum Stage {
    /// Its fence, before it is shown as it is, or copied.
    Fence(OwnedFd),
    /// Its copy.
    Copy(Box<Copying>),
    /// The page flip before it.
    Ready,
}

struct Copying {
    completion: Completion,
    into: SwapchainBuffer,
    why: Arc<Error>,
    /// Its sync file goes to the display controller along with it.
    by_fence: bool,
    /// The epoll has the completion.
    is_watched: bool,
}

/// What wakes the program up.
struct Wakes {
    epoll: Epoll,
    timer: TimerFd,
}

/// Numbers in the epoll.
const FENCE: u64 = 1;
const TIMER: u64 = 2;

impl Wakes {
    fn new() -> Result<Self, Errno> {
        let epoll = poll::epoll()?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(sys::errno)?;
        poll::add(&epoll, &timer, poll::Event::In, TIMER)?;
        Ok(Self { epoll, timer })
    }

    fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        poll::add(&self.epoll, fd, poll::Event::In, FENCE)
    }

    fn forget(&self, fd: BorrowedFd<'_>) {
        // It may have gone already, with its last fd.
        let _ = self.epoll.delete(fd);
    }

    fn set_deadline(&self, deadline: Option<Instant>) -> Result<(), Errno> {
        let Some(deadline) = deadline else {
            return self.timer.unset().map_err(sys::errno);
        };
        let left = Deadline::At(deadline).left().unwrap_or_default();
        // Zero would mean never.
        let left = left.max(std::time::Duration::from_nanos(1));
        let at = Expiration::OneShot(TimeSpec::from_duration(left));
        self.timer
            .set(at, TimerSetTimeFlags::empty())
            .map_err(sys::errno)
    }
}

impl Presenter {
    /// Shows frames on this output. `blitter` copies from the frames' device to the screen's; `swapchain` allocates what
    /// it copies into: buffers of the screen's size, in a format that the primary plane takes
    /// ([`Swapchain::negotiated`]).
    ///
    /// [`Error::SwapchainSize`] and [`Error::OtherDevice`] if the three do not go together. All are dropped then: the
    /// screen is as it was before the output.
    pub fn new(output: Output, blitter: Blitter, swapchain: Swapchain) -> Result<Self, Error> {
        let made = (swapchain.request().width, swapchain.request().height);
        let screen = output.mode().size();
        if made != screen {
            return Err(Error::SwapchainSize { made, screen });
        }
        let device = output.card().device();
        if let Some(to) = blitter.destination()
            && !to.is_same_device(device)
        {
            return Err(Error::OtherDevice {
                blitter: to.to_string(),
                device: device.to_string(),
            });
        }
        let wakes = Wakes::new().map_err(|errno| Error::Events {
            device: output.card().to_string(),
            errno,
        })?;
        Ok(Self {
            stream: blitter.stream(),
            output,
            blitter,
            swapchain,
            verdicts: PerBuffer::new(),
            wakes,
            next: None,
            committed: None,
            frames: 0,
            size: None,
            events: Vec::new(),
            boxes: Vec::new(),
        })
    }

    /// The screen.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The copies.
    pub fn blitter(&self) -> &Blitter {
        &self.blitter
    }

    /// Whether [`Self::present`] takes another frame now.
    pub fn is_ready(&self) -> bool {
        self.next.is_none()
    }

    /// Gives it all back: the output, the blitter and the swapchain. A frame that is not on the screen yet is left out.
    pub fn into_parts(self) -> (Output, Blitter, Swapchain) {
        (self.output, self.blitter, self.swapchain)
    }

    /// As [`Output::reset`]: the program is the device's master again. Frames that were on their way are left out
    /// ([`Event::Dropped`]), and nothing that the screen said of buffers is relied on.
    pub fn reset(&mut self, screens: &Screens) {
        self.output.reset(screens);
        self.reconsider();
        let why = || Error::NotMaster {
            device: self.output.card().to_string(),
            operation: Operation::Commit,
        };
        let waiting = self.next.take();
        if let Some(frame) = &waiting {
            self.stop_waiting(&frame.stage);
        }
        let committed = self.committed.take().map(|(frame, _)| frame);
        for frame in committed
            .into_iter()
            .chain(waiting.map(|frame| frame.number))
        {
            let why = Dropped::Screen(why());
            self.events.push(Event::Dropped { frame, why });
        }
        self.size = None;
    }

    /// Forgets what the screen said of buffers, after a change that may make it say something else: another mode, planes
    /// that another output has freed, a cable that was plugged in.
    pub fn reconsider(&mut self) {
        self.verdicts = PerBuffer::new();
    }

    /// How a buffer gets on the screen, and why. An error if nothing does: the device is gone, or the program is not its
    /// DRM master.
    pub fn way(&mut self, buffer: &DmaBuf) -> Result<Way, Error> {
        let (output, verdicts) = (&mut self.output, &self.verdicts);
        let tested = verdicts.get_or_make(buffer, || {
            let layer = whole_screen(output, buffer);
            let tested = output.test(&[layer]);
            tested.map_err(|error| Refusal::of(error.kind(), not_shown(error, output, buffer)))
        });
        match tested {
            Ok(_) => Ok(Way::Direct),
            Err(why) => is_of_device(&why).map_or(Ok(Way::Copied(why)), Err),
        }
    }

    /// Shows a frame as soon as it can be: after its fence and the frame before. Returns its number at once.
    ///
    /// The frame must not be drawn into until [`Event::Shown`] of the frame after it. Damage counts from the frame that
    /// was presented before, also if that one was refused or left out.
    pub fn present(&mut self, buffer: &DmaBuf, info: &PresentInfo<'_>) -> Result<u64, Error> {
        if self.next.is_some() {
            return Err(Error::Pending);
        }
        let size = size_of(buffer);
        // Of the frame before, other pixels were meant or were never shown.
        let info = match self.size == Some(size) {
            true => *info,
            false => info.damage(Damage::Full),
        };
        self.size = Some(size);
        let way = self.way(buffer);
        let presented = way.and_then(|way| self.present_by(way, buffer, &info));
        if presented.is_err() {
            self.size = None;
        }
        presented
    }

    fn present_by(
        &mut self,
        way: Way,
        buffer: &DmaBuf,
        info: &PresentInfo<'_>,
    ) -> Result<u64, Error> {
        let number = self.frames + 1;
        match way {
            Way::Direct => self.present_directly(number, buffer, info)?,
            Way::Copied(why) => {
                let fence = match info.deadline {
                    Some(_) => self.pending(info.fence)?,
                    None => None,
                };
                match fence {
                    Some(fence) => self.wait_for(number, buffer, info, Stage::Fence(fence))?,
                    None => self.copy(number, buffer, info, why)?,
                }
            }
        }
        self.frames = number;
        Ok(number)
    }

    fn present_directly(
        &mut self,
        number: u64,
        buffer: &DmaBuf,
        info: &PresentInfo<'_>,
    ) -> Result<(), Error> {
        let pending = self.pending(info.fence)?;
        if pending.is_none() && !self.output.is_pending() {
            let layer = whole_screen(&self.output, buffer).damage(info.damage);
            match self.output.commit(&[layer], info.options) {
                Ok(_) => {
                    self.swapchain.passed(info.damage);
                    self.committed = Some((number, Way::Direct));
                    return Ok(());
                }
                Err(Error::Pending) => {}
                Err(error) => return self.copy_instead(number, buffer, info, error),
            }
        }
        let stage = pending.map_or(Stage::Ready, Stage::Fence);
        self.wait_for(number, buffer, info, stage)
    }

    /// A dup of the fence, if it has not come yet.
    fn pending(&self, fence: Option<BorrowedFd<'_>>) -> Result<Option<OwnedFd>, Error> {
        let Some(fence) = fence else {
            return Ok(None);
        };
        match is_signalled(fence).map_err(self.failed())? {
            true => Ok(None),
            false => match fence.try_clone_to_owned() {
                Ok(dup) => Ok(Some(dup)),
                Err(error) => Err(self.failed()(sys::errno(error))),
            },
        }
    }

    /// Makes a frame the next one.
    fn wait_for(
        &mut self,
        number: u64,
        buffer: &DmaBuf,
        info: &PresentInfo<'_>,
        stage: Stage,
    ) -> Result<(), Error> {
        let watched = match &stage {
            Stage::Fence(fence) => Some(fence.as_fd()),
            Stage::Copy(copying) if copying.is_watched => Some(copying.completion.as_fd()),
            _ => None,
        };
        if let Some(fd) = watched {
            self.wakes.watch(fd).map_err(self.failed())?;
            if let Err(errno) = self.wakes.set_deadline(info.deadline) {
                self.wakes.forget(fd);
                return Err(self.failed()(errno));
            }
        }
        self.next = Some(Frame {
            number,
            buffer: buffer.clone(),
            damage: boxes_of(info.damage),
            deadline: info.deadline,
            options: info.options,
            stage,
        });
        Ok(())
    }

    /// What was to be shown as it is, and was refused.
    fn copy_instead(
        &mut self,
        number: u64,
        buffer: &DmaBuf,
        info: &PresentInfo<'_>,
        error: Error,
    ) -> Result<(), Error> {
        if let Some(lasting) = is_of_device(&error) {
            return Err(lasting);
        }
        log::debug!("{}: copied, since {error}", self.output.card());
        self.verdicts.forget(buffer);
        let why = self
            .verdicts
            .get_or_make(buffer, || Err(Refusal::Permanent(error)));
        match why {
            Err(why) => self.copy(number, buffer, info, why),
            // Another thread cannot have made it: the table is this presenter's.
            Ok(_) => Err(Error::Pending),
        }
    }

    fn copy(
        &mut self,
        number: u64,
        buffer: &DmaBuf,
        info: &PresentInfo<'_>,
        why: Arc<Error>,
    ) -> Result<(), Error> {
        let into = self.swapchain.acquire()?;
        let (from, to) = (size_of(buffer), size_of(into.buffer()));
        let scaling = (from != to).then(|| Scaling::whole(from, to));
        let damage = self
            .swapchain
            .damage_since(into.age(), info.damage, &mut self.boxes);
        let after = info.fence.as_slice();
        let blit_info = BlitInfo::default()
            .damage(damage)
            .after(after)
            .scaling(scaling)
            .stream(self.stream);
        let completion = self.blitter.blit(buffer, into.buffer(), &blit_info);
        let completion = completion.map_err(Error::Blit)?;
        // A screen that was handed a fence waits for it without a deadline.
        let has_fence = completion.sync_file().is_some() && self.output.takes_fences();
        let by_fence = has_fence && info.deadline.is_none();
        let copying = Copying {
            completion,
            into,
            why,
            by_fence,
            is_watched: !by_fence,
        };
        self.wait_for(number, buffer, info, Stage::Copy(Box::new(copying)))?;
        self.advance();
        Ok(())
    }

    /// Goes on with the frame that waits, and says what became of frames. To be called when the fd is readable, and
    /// after [`Self::page_flip`].
    pub fn dispatch(&mut self) -> impl ExactSizeIterator<Item = Event> + '_ {
        self.advance();
        self.events.drain(..)
    }

    /// Tells it that a frame is on the screen; `false` if the event is of another screen.
    pub fn page_flip(&mut self, event: &PageFlip) -> bool {
        if !self.output.page_flip(event) {
            return false;
        }
        if let Some((frame, way)) = self.committed.take() {
            self.events.push(Event::Shown {
                frame,
                flip: *event,
                way,
            });
        }
        self.advance();
        true
    }

    fn advance(&mut self) {
        // Read, so that it is not readable any more.
        let is_late = matches!(self.timer_fired(), Ok(true));
        let Some(mut frame) = self.next.take() else {
            return;
        };
        let number = frame.number;
        match self.step(&mut frame, is_late) {
            Ok(true) => self.next = Some(frame),
            Ok(false) => {}
            Err(why) => {
                self.stop_waiting(&frame.stage);
                self.events.push(Event::Dropped { frame: number, why });
                self.size = None;
            }
        }
    }

    /// Whether the frame waits on.
    fn step(&mut self, frame: &mut Frame, is_late: bool) -> Result<bool, Dropped> {
        let screen = Dropped::Screen;
        if let Stage::Fence(fence) = &frame.stage {
            let has_come = is_signalled(fence.as_fd());
            if !has_come.map_err(self.failed()).map_err(screen)? {
                return match is_late {
                    true => Err(Dropped::Late),
                    false => Ok(true),
                };
            }
            self.stop_waiting(&frame.stage);
            frame.stage = Stage::Ready;
        }
        if let Stage::Ready = frame.stage
            && let Way::Copied(why) = self.way(&frame.buffer).map_err(screen)?
        {
            let info = frame.info();
            return match self.copy(frame.number, &frame.buffer, &info, why) {
                // `copy` has made it the next one again.
                Ok(()) => Ok(false),
                // A page flip frees a buffer.
                Err(Error::NoBuffer(_)) if self.output.is_pending() => Ok(true),
                Err(error) => Err(screen(error)),
            };
        }
        if let Stage::Copy(copying) = &mut frame.stage
            && copying.is_watched
        {
            match copying.completion.result() {
                None if is_late => return Err(Dropped::Late),
                None => return Ok(true),
                Some(Err(failure)) => return Err(Dropped::Copy(failure)),
                Some(Ok(())) => {}
            }
            // Readable from now on, while the frame may have to wait for a page flip.
            self.stop_waiting(&frame.stage);
            if let Stage::Copy(copying) = &mut frame.stage {
                copying.is_watched = false;
            }
        }
        if self.output.is_pending() {
            return Ok(true);
        }
        let damage = damage_of(&frame.damage);
        if let Stage::Copy(copying) = &mut frame.stage {
            let mut layer = whole_screen(&self.output, copying.into.buffer());
            // Damage is in pixels of the frame.
            if size_of(&frame.buffer) == size_of(copying.into.buffer()) {
                layer = layer.damage(damage);
            }
            layer = layer.keep(copying.into.keep());
            let file = match copying.by_fence {
                true => copying.completion.sync_file(),
                false => None,
            };
            if let Some(file) = file {
                layer = layer.fence(file.as_fd());
            }
            match self.output.commit(&[layer], frame.options) {
                Ok(_) => {
                    self.swapchain.presented(&mut copying.into, damage);
                    self.committed = Some((frame.number, Way::Copied(copying.why.clone())));
                    return Ok(false);
                }
                Err(Error::Pending) => return Ok(true),
                Err(error) => return Err(screen(error)),
            }
        }
        let layer = whole_screen(&self.output, &frame.buffer).damage(damage);
        match self.output.commit(&[layer], frame.options) {
            Ok(_) => {
                self.swapchain.passed(damage);
                self.committed = Some((frame.number, Way::Direct));
                Ok(false)
            }
            Err(Error::Pending) => Ok(true),
            Err(error) => {
                let info = frame.info();
                // `copy_instead` makes it the next one again.
                let copied = self.copy_instead(frame.number, &frame.buffer, &info, error);
                copied.map(|()| false).map_err(screen)
            }
        }
    }

    fn stop_waiting(&self, stage: &Stage) {
        match stage {
            Stage::Fence(fence) => self.wakes.forget(fence.as_fd()),
            Stage::Copy(copying) if copying.is_watched => {
                self.wakes.forget(copying.completion.as_fd());
            }
            _ => return,
        }
        if let Err(errno) = self.wakes.set_deadline(None) {
            log::warn!("{}: {errno}", self.output.card());
        }
    }

    fn timer_fired(&self) -> Result<bool, Errno> {
        let now = Some(std::time::Duration::ZERO);
        if self.next.is_none() || !poll::wait(self.wakes.timer.as_fd(), poll::Event::In, now)? {
            return Ok(false);
        }
        match self.wakes.timer.wait().map_err(sys::errno) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn failed(&self) -> impl Fn(Errno) -> Error + use<> {
        let device = self.output.card().to_string();
        move |errno| Error::Events {
            device: device.clone(),
            errno,
        }
    }
}

fn size_of(buffer: &DmaBuf) -> (u32, u32) {
    (buffer.width(), buffer.height())
}

/// Of damage, what is kept; `None` is all.
fn boxes_of(damage: Damage<'_>) -> Option<Vec<DamageBox>> {
    match damage {
        Damage::Full => None,
        Damage::Boxes(boxes) => Some(boxes.to_vec()),
    }
}

fn damage_of(boxes: &Option<Vec<DamageBox>>) -> Damage<'_> {
    match boxes {
        Some(boxes) => Damage::Boxes(boxes),
        None => Damage::Full,
    }
}

/// Whether the fence has come.
fn is_signalled(fence: BorrowedFd<'_>) -> Result<bool, Errno> {
    poll::wait(fence, poll::Event::In, Some(std::time::Duration::ZERO))
}

/// The format without alpha, if there is one.
fn opaque(fourcc: Fourcc) -> Fourcc {
    let twin = FormatInfo::of(fourcc).and_then(|info| info.opaque_twin());
    twin.unwrap_or(fourcc)
}

/// A buffer on the primary plane, as large as the screen, in a format that ignores alpha: nothing is behind it.
fn whole_screen<'a>(output: &Output, buffer: &'a DmaBuf) -> Layer<'a> {
    let (width, height) = output.mode().size();
    let options = FramebufferOptions::default().format(opaque(buffer.fourcc()));
    let layer = Layer::new(buffer).options(options);
    layer.position(Position {
        x: 0,
        y: 0,
        width,
        height,
    })
}

/// What was tested, where the kernel says only that it was refused.
fn not_shown(error: Error, output: &Output, buffer: &DmaBuf) -> Error {
    match error {
        Error::Kernel {
            device,
            operation: Operation::Test,
            errno: errno @ (Errno::EINVAL | Errno::ERANGE | Errno::ENOSPC),
        } => Error::NotShown {
            device,
            fourcc: opaque(buffer.fourcc()),
            modifier: buffer.modifier(),
            size: size_of(buffer),
            shown: output.mode().size(),
            errno,
        },
        error => error,
    }
}

/// Errors that a copy does not help against.
fn is_of_device(error: &Error) -> Option<Error> {
    match error {
        Error::Lost { .. } | Error::NotMaster { .. } => Some(error.clone()),
        _ => None,
    }
}

impl AsFd for Presenter {
    /// Readable when there is something to [dispatch](Self::dispatch).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakes.epoll.0.as_fd()
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presenter")
            .field("output", &self.output)
            .field("blitter", &self.blitter)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}
