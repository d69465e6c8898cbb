//! # Screens
//!
//! The program keeps the DRM master's fd, the modes and the policy.

use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use primeshare::alloc::Dumb;
use primeshare::buffer::Damage;
use primeshare::kms::{
    self, Card, CommitOptions, ConnectorId, CrtcId, Dropped, Event, Framebuffer,
    FramebufferOptions, Framebuffers, Output, OutputConfig, PageFlip, PresentInfo, Presenter,
    Screens, Status, Swapchain, Way,
};
use primeshare::{Errno, ErrorKind, Fourcc};

use crate::arguments::{Growing, array, dup, fd, options, out, room, write};
use crate::blit::{blitter, boxes, primeshare_blitter_options, primeshare_box, print};
use crate::buffer::primeshare_buffer;
use crate::device::primeshare_device;
use crate::failure::{Failure, call, value};
use crate::object::{
    Object, give, give_exclusive, of, of_mut, reference, take_exclusive, unreference,
};

impl From<kms::Error> for Failure {
    fn from(error: kms::Error) -> Self {
        Self::from(&error)
    }
}

impl From<Arc<kms::Error>> for Failure {
    fn from(error: Arc<kms::Error>) -> Self {
        Self::from(&*error)
    }
}

impl From<&kms::Error> for Failure {
    fn from(error: &kms::Error) -> Self {
        let errno = match error {
            // As the kernel says it. -EBUSY would promise an event.
            kms::Error::NotMaster { .. } => Some(Errno::EACCES),
            _ => error.errno(),
        };
        Self::of(error.kind(), errno, error)
    }
}

/// The framebuffers of a device: one for each buffer, kept until the buffer goes. All calls are thread-safe.
pub struct primeshare_framebuffers(Framebuffers);

impl Object for primeshare_framebuffers {
    const NAME: &'static str = "primeshare_framebuffers";
}

/// Keeps the framebuffers of a device. For a program that commits by itself: with
/// primeshare_device_private_copy_of(its fd) for `device`, framebuffers live on a file description of the library's own,
/// and the program's commits show them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_framebuffers_create(
    device: Option<&primeshare_device>,
    framebuffers: Option<&mut MaybeUninit<*mut primeshare_framebuffers>>,
) -> c_int {
    call(c"primeshare_framebuffers_create", || {
        let device = of(device, "device")?;
        let place = out(framebuffers, "framebuffers")?;
        let framebuffers = Framebuffers::new(&device.device)?;
        place.write(give(Arc::new(primeshare_framebuffers(framebuffers))));
        Ok(())
    })
}

/// Adds a reference, and returns the framebuffers. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_framebuffers_ref(
    framebuffers: *const primeshare_framebuffers,
) -> *mut primeshare_framebuffers {
    // SAFETY: as the header asks.
    unsafe { reference(framebuffers) }
}

/// Takes a reference back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_framebuffers_unref(framebuffers: *mut primeshare_framebuffers) {
    // SAFETY: as the header asks.
    unsafe { unreference(framebuffers) }
}

/// A framebuffer: its id is the kernel's, valid on its device alone, as long as the framebuffer lives.
// The same in memory, so that a lookup of a framebuffer allocates nothing. The header's writer is not to see it.
#[cfg_attr(all(), repr(transparent))]
pub struct primeshare_framebuffer(Framebuffer);

impl Object for primeshare_framebuffer {
    const NAME: &'static str = "primeshare_framebuffer";
}

/// The framebuffer of a buffer. Made with the first call (ADDFB2, after checks of its own), and a lookup from then on;
/// a refusal is remembered, too. A framebuffer on a screen must be kept until it is not shown any more.
///
/// `format`: 0, or a format of the same bytes to show the buffer as, such as DRM_FORMAT_XRGB8888 for
/// DRM_FORMAT_ARGB8888.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_framebuffers_get(
    framebuffers: Option<&primeshare_framebuffers>,
    buffer: Option<&primeshare_buffer>,
    format: u32,
    framebuffer: Option<&mut MaybeUninit<*mut primeshare_framebuffer>>,
) -> c_int {
    call(c"primeshare_framebuffers_get", || {
        let framebuffers = of(framebuffers, "framebuffers")?;
        let buffer = of(buffer, "buffer")?;
        let place = out(framebuffer, "framebuffer")?;
        let mut options = FramebufferOptions::default();
        if format != 0 {
            options = options.format(Fourcc(format));
        }
        let framebuffer = Arc::into_raw(framebuffers.0.get(&buffer.0, options)?);
        // SAFETY: both types are the same in memory.
        let framebuffer = unsafe { Arc::from_raw(framebuffer.cast::<primeshare_framebuffer>()) };
        place.write(give(framebuffer));
        Ok(())
    })
}

/// Adds a reference, and returns the framebuffer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_framebuffer_ref(
    framebuffer: *const primeshare_framebuffer,
) -> *mut primeshare_framebuffer {
    // SAFETY: as the header asks.
    unsafe { reference(framebuffer) }
}

/// Takes a reference back. The framebuffer is closed when its buffer has gone as well. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_framebuffer_unref(framebuffer: *mut primeshare_framebuffer) {
    // SAFETY: as the header asks.
    unsafe { unreference(framebuffer) }
}

/// The kernel's id; 0, which is none, if `framebuffer` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_framebuffer_id(framebuffer: Option<&primeshare_framebuffer>) -> u32 {
    of(framebuffer, "framebuffer").map_or(0, |framebuffer| framebuffer.0.id())
}

/// A device that has screens, by the program's fd, which is or will be DRM master. All calls are thread-safe.
pub struct primeshare_card {
    card: Card,
    /// One for all who ask, so that they share imports.
    device: Arc<primeshare_device>,
}

impl Object for primeshare_card {
    const NAME: &'static str = "primeshare_card";
}

/// Works with the screens of the device that the program has open as `drm_fd`. Borrows the fd and keeps a dup. Sets the
/// client capabilities UNIVERSAL_PLANES and ATOMIC on the program's file description. Framebuffers are made on
/// another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_card_create(
    drm_fd: c_int,
    card: Option<&mut MaybeUninit<*mut primeshare_card>>,
) -> c_int {
    call(c"primeshare_card_create", || {
        let drm_fd = fd(drm_fd, "drm_fd")?;
        let place = out(card, "card")?;
        let card = Card::new(drm_fd)?;
        let device = Arc::new(primeshare_device::from(card.device().clone()));
        place.write(give(Arc::new(primeshare_card { card, device })));
        Ok(())
    })
}

/// Adds a reference, and returns the card. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_card_ref(card: *const primeshare_card) -> *mut primeshare_card {
    // SAFETY: as the header asks.
    unsafe { reference(card) }
}

/// Takes a reference back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_card_unref(card: *mut primeshare_card) {
    // SAFETY: as the header asks.
    unsafe { unreference(card) }
}

/// The library's own file description of the card's device: to allocate on, and to import into.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_card_get_device(
    card: Option<&primeshare_card>,
    device: Option<&mut MaybeUninit<*mut primeshare_device>>,
) -> c_int {
    call(c"primeshare_card_get_device", || {
        let card = of(card, "card")?;
        let place = out(device, "device")?;
        place.write(give(card.device.clone()));
        Ok(())
    })
}

/// A frame that is on a screen now.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_page_flip {
    /// The CRTC of the screen.
    pub crtc: u32,
    /// The number of the vertical blank since when it is shown.
    pub sequence: u32,
    /// When that was, in nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
}

impl From<&PageFlip> for primeshare_page_flip {
    fn from(flip: &PageFlip) -> Self {
        Self {
            crtc: flip.crtc.0,
            sequence: flip.sequence,
            time_ns: u64::try_from(flip.time.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// The most page flips that primeshare_card_read_page_flips writes.
pub const PRIMESHARE_MAX_PAGE_FLIPS: usize = 32;

/// Reads the page flips that have happened from the program's fd, and returns how many there were. Does not wait. To be
/// called when that fd is readable; give each to the presenter of its CRTC. A program that reads the events of its
/// fd by itself (drmHandleEvent) does not call this, and gives its own to primeshare_presenter_page_flip.
///
/// `flips` has room for PRIMESHARE_MAX_PAGE_FLIPS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_card_read_page_flips(
    card: Option<&primeshare_card>,
    flips: *mut primeshare_page_flip,
) -> c_int {
    value(c"primeshare_card_read_page_flips", || {
        let card = of(card, "card")?;
        // SAFETY: as the header asks.
        let room = unsafe { room(flips, PRIMESHARE_MAX_PAGE_FLIPS, "flips") }?;
        let flips = card.card.read_events()?;
        let written = room.iter_mut().zip(flips.iter()).map(|(place, flip)| {
            place.write(flip.into());
        });
        Ok(c_int::try_from(written.count()).unwrap_or(0))
    })
}

/// How frames are shown.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_presenter_options {
    /// sizeof(struct primeshare_presenter_options)
    pub size: usize,
    /// The number of the connector; 0: the first that has a screen.
    pub connector: u32,
    /// The number of the CRTC; 0: the one that feeds the connector, else one that feeds nothing.
    pub crtc: u32,
    /// The mode, by its size; 0: the one that the screen prefers.
    pub width: u32,
    /// See `width`.
    pub height: u32,
    /// Buffers for frames that are copied, at least 2; 0: 3. They are allocated when they are needed.
    pub buffers: u32,
    /// How frames are copied; NULL: as the default of a blitter.
    pub blitter: *const primeshare_blitter_options,
}

// SAFETY: repr(C), the size first, numbers and a pointer that may be NULL.
unsafe impl Growing for primeshare_presenter_options {
    const NAME: &'static str = "primeshare_presenter_options";
}

/// Shows frames of one device on a screen of another, or of the same: as they are where the screen takes them, else
/// copied. It belongs to one thread at a time.
pub struct primeshare_presenter {
    presenter: Presenter,
    /// What there was no room for.
    events: VecDeque<primeshare_present_event>,
}

impl Object for primeshare_presenter {
    const NAME: &'static str = "primeshare_presenter";
}

fn output(
    card: &Card,
    screens: &Screens,
    wanted: &primeshare_presenter_options,
) -> Result<Output, Failure> {
    let has_screen = |connector: &&kms::Connector| match wanted.connector {
        0 => connector.status == Status::Connected && !connector.is_writeback,
        number => connector.id == ConnectorId(number),
    };
    let connector = screens.connectors.iter().find(has_screen).ok_or_else(|| {
        let message = match wanted.connector {
            0 => format!("{card} has no connector with a screen"),
            number => format!("{card} has no connector {number}"),
        };
        Failure::new(ErrorKind::Invalid, Errno::ENOENT, message)
    })?;
    let mut config = OutputConfig::new(connector.id);
    if wanted.crtc != 0 {
        config = config.crtc(CrtcId(wanted.crtc));
    }
    if wanted.width != 0 || wanted.height != 0 {
        let size = (wanted.width, wanted.height);
        let mode = connector.modes.iter().find(|mode| mode.size() == size);
        let mode = mode.ok_or_else(|| {
            let message = format!("{} has no mode of {}x{}", connector.name, size.0, size.1);
            Failure::new(ErrorKind::Invalid, Errno::ENOENT, message)
        })?;
        config = config.mode(*mode);
    }
    Ok(Output::new(card, screens, &config)?)
}

/// Shows frames of `source` on a screen of `card`. The screen changes with the first frame. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_create(
    card: Option<&primeshare_card>,
    source: Option<&primeshare_device>,
    options: *const primeshare_presenter_options,
    presenter: Option<&mut MaybeUninit<*mut primeshare_presenter>>,
) -> c_int {
    call(c"primeshare_presenter_create", || {
        let card = of(card, "card")?;
        let source = of(source, "source")?;
        let place = out(presenter, "presenter")?;
        // SAFETY: as the header asks.
        let wanted = unsafe { self::options(options) }?;
        let screens = card.card.screens(true)?;
        let output = output(&card.card, &screens, &wanted)?;
        // SAFETY: as the header asks.
        let blitter = unsafe { blitter(source, &card.device, wanted.blitter) }?;
        let buffers = match wanted.buffers {
            0 => 3,
            1 => return Err(Failure::invalid("one buffer for copies is not enough")),
            count => count as usize,
        };
        let dumb = Dumb::new(card.card.device());
        let formats = [Fourcc::XRGB8888, Fourcc::XBGR8888, Fourcc::RGB565];
        let makes = dumb.endpoint(formats)?;
        let swapchain = Swapchain::negotiated(dumb, &makes, &output, &screens, formats, buffers)?;
        let presenter = Presenter::new(output, blitter, swapchain)?;
        place.write(give_exclusive(primeshare_presenter {
            presenter,
            events: VecDeque::new(),
        }));
        Ok(())
    })
}

/// Stops, and brings back what the screen showed before the first frame, or turns it off. Waits for copies that are under way, at most ten seconds. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_destroy_wait(presenter: *mut primeshare_presenter) {
    // SAFETY: as the header asks.
    drop(unsafe { take_exclusive(presenter) });
}

/// Writes the screen's size in pixels, and its CRTC; each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_get_mode(
    presenter: Option<&primeshare_presenter>,
    width: Option<&mut MaybeUninit<u32>>,
    height: Option<&mut MaybeUninit<u32>>,
    crtc: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    call(c"primeshare_presenter_get_mode", || {
        let output = of(presenter, "presenter")?.presenter.output();
        let size = output.mode().size();
        write(width, size.0);
        write(height, size.1);
        write(crtc, output.crtc().0);
        Ok(())
    })
}

/// What belongs to a frame. All zeros: all of it, at once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_present_info {
    /// sizeof(struct primeshare_present_info)
    pub size: usize,
    /// What differs from the frame before, in pixels of this one. NULL is everything; an array with no elements is
    /// nothing.
    pub damage: *const primeshare_box,
    /// How many.
    pub damage_count: usize,
    /// Fences (sync files, or one other fd that becomes readable) after which the frame is shown. They are borrowed.
    pub fences: *const c_int,
    /// How many.
    pub fence_count: usize,
    /// If the fences, or the copy that the frame needs, take longer than so many nanoseconds from now, the frame is left
    /// out; 0: however long.
    pub timeout_ns: u64,
    /// 1: it need not wait for the vertical blank, and may tear.
    pub tearing: u32,
}

// SAFETY: repr(C), the size first, numbers and pointers that may be NULL.
unsafe impl Growing for primeshare_present_info {
    const NAME: &'static str = "primeshare_present_info";
}

/// Shows a frame as soon as it can be: after its fences and the frame before. Does not wait. `frame`, which may be
/// NULL, is its number in events. The buffer must not be drawn into until the next frame is shown; the library keeps
/// it as long as it needs it. `info` may be NULL.
///
/// -EBUSY: a frame waits already; try again after the next event. -EACCES: the program is not the DRM master.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_present(
    presenter: Option<&mut primeshare_presenter>,
    buffer: Option<&primeshare_buffer>,
    info: *const primeshare_present_info,
    frame: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    call(c"primeshare_presenter_present", || {
        let presenter = &mut of_mut(presenter, "presenter")?.presenter;
        let buffer = of(buffer, "buffer")?;
        // SAFETY: as the header asks.
        let info = unsafe { options(info) }?;
        // SAFETY: as the header asks.
        let damage = unsafe { array(info.damage, info.damage_count, "damage") }?;
        // SAFETY: as the header asks.
        let fences = unsafe { array(info.fences, info.fence_count, "fences") }?;
        let boxes = boxes(damage);
        let fence = merged(fences)?;
        let mut options = CommitOptions::default();
        if info.tearing != 0 {
            options = options.tearing();
        }
        let mut present = PresentInfo::default().options(options);
        if !info.damage.is_null() {
            present = present.damage(Damage::Boxes(&boxes));
        }
        if let Some(fence) = &fence {
            present = present.fence(fence.as_fd());
        }
        if info.timeout_ns != 0
            && let Some(end) = Instant::now().checked_add(Duration::from_nanos(info.timeout_ns))
        {
            present = present.deadline(end);
        }
        write(frame, presenter.present(&buffer.0, &present)?);
        Ok(())
    })
}

/// An fd for an event loop: when it is readable, call primeshare_presenter_dispatch. It stays the presenter's.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_presenter_fd(presenter: Option<&primeshare_presenter>) -> c_int {
    value(c"primeshare_presenter_fd", || {
        Ok(of(presenter, "presenter")?.presenter.as_fd().as_raw_fd())
    })
}

/// Tells the presenter that a frame is on the screen. Returns 1 if the page flip is of its screen, 0 if it is not. Call
/// primeshare_presenter_dispatch afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_page_flip(
    presenter: Option<&mut primeshare_presenter>,
    flip: Option<&primeshare_page_flip>,
) -> c_int {
    value(c"primeshare_presenter_page_flip", || {
        let presenter = &mut of_mut(presenter, "presenter")?.presenter;
        let flip = flip.ok_or_else(|| crate::object::is_null("flip"))?;
        let flip = PageFlip {
            crtc: CrtcId(flip.crtc),
            sequence: flip.sequence,
            time: Duration::from_nanos(flip.time_ns),
        };
        Ok(c_int::from(presenter.page_flip(&flip)))
    })
}

/// What became of a frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_present_event {
    /// The number that primeshare_presenter_present gave it.
    pub frame: u64,
    /// Since when it is on the screen, in nanoseconds of CLOCK_MONOTONIC; 0 if that is not known, as for the frame that
    /// turns some screens on, and if the frame was left out.
    pub time_ns: u64,
    /// 0 if it is on the screen; why it was left out, a negative errno: -ETIMEDOUT if its fences took too long.
    pub error: i32,
    /// 1 if the screen reads the frame's own buffer, 0 if it was copied.
    pub is_direct: i32,
}

/// Goes on with frames that wait, and writes what became of frames: as many events as there is room for, the others
/// with the next call. Returns how many. To be called when primeshare_presenter_fd is readable, and after page flips.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_dispatch(
    presenter: Option<&mut primeshare_presenter>,
    events: *mut primeshare_present_event,
    capacity: usize,
) -> c_int {
    value(c"primeshare_presenter_dispatch", || {
        let primeshare_presenter {
            presenter,
            events: told,
        } = of_mut(presenter, "presenter")?;
        // SAFETY: as the header asks.
        let places = unsafe { room(events, capacity, "events") }?;
        told.extend(presenter.dispatch().map(|event| tell(&event)));
        let count = told.len().min(places.len());
        for (place, event) in places.iter_mut().zip(told.drain(..count)) {
            place.write(event);
        }
        Ok(c_int::try_from(count).unwrap_or(c_int::MAX))
    })
}

fn tell(event: &Event) -> primeshare_present_event {
    match event {
        Event::Shown { frame, flip, way } => primeshare_present_event {
            frame: *frame,
            time_ns: primeshare_page_flip::from(flip).time_ns,
            error: 0,
            is_direct: i32::from(*way == Way::Direct),
        },
        Event::Dropped { frame, why } => primeshare_present_event {
            frame: *frame,
            time_ns: 0,
            error: -number(why).raw(),
            is_direct: 0,
        },
        _ => primeshare_present_event {
            frame: 0,
            time_ns: 0,
            error: -Errno::EIO.raw(),
            is_direct: 0,
        },
    }
}

fn number(why: &Dropped) -> Errno {
    let failure = match why {
        Dropped::Late => return Errno::ETIMEDOUT,
        Dropped::Copy(failure) => Failure::from(failure.clone()),
        Dropped::Screen(error) => Failure::from(error),
        _ => return Errno::EIO,
    };
    failure.errno
}

/// Writes how a buffer gets on the screen, and why it is copied if it is: text for people. Returns its length without
/// the zero at the end, as snprintf does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_describe(
    presenter: Option<&mut primeshare_presenter>,
    buffer: Option<&primeshare_buffer>,
    text: *mut c_char,
    text_size: usize,
) -> c_int {
    value(c"primeshare_presenter_describe", || {
        let presenter = &mut of_mut(presenter, "presenter")?.presenter;
        let buffer = of(buffer, "buffer")?;
        // SAFETY: as the header asks.
        let text = unsafe { room(text, text_size, "text") }?;
        let way = match presenter.way(&buffer.0)? {
            Way::Copied(why) => format!("copied: {why}"),
            _ => "direct".to_owned(),
        };
        Ok(print(&way, text))
    })
}

/// The program is DRM master again, after it was not: frames that were on their way are left out, and the next frame
/// sets the whole screen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_presenter_reset(
    presenter: Option<&mut primeshare_presenter>,
) -> c_int {
    call(c"primeshare_presenter_reset", || {
        let presenter = &mut of_mut(presenter, "presenter")?.presenter;
        let screens = presenter.output().card().screens(false)?;
        presenter.reset(&screens);
        Ok(())
    })
}

/// One fence of several, or none.
fn merged(fences: &[c_int]) -> Result<Option<OwnedFd>, Failure> {
    let mut given = Vec::with_capacity(fences.len());
    for number in fences.iter().filter(|number| **number != -1) {
        given.push(fd(*number, "one of fences")?);
    }
    let one = |fd: BorrowedFd<'_>| crate::fence::sync_file(fd);
    match given[..] {
        [] => Ok(None),
        // Not only sync files: whatever becomes readable.
        [fd] => dup(fd).map(Some),
        _ => {
            let fences = given.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
            Ok(primeshare::sync::SyncFile::merge_all(fences)?.map(Into::into))
        }
    }
}
