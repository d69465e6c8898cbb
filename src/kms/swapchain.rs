//! Buffers that take turns on a screen.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, Output, Screens};
use crate::alloc::{self, Allocator, Request};
use crate::buffer::{Damage, DamageBox, DmaBuf, Fourcc, Usage};
use crate::negotiate::{Endpoint, Substitute, Wanted, negotiate};

/// Buffers of one size and format that take turns: one is shown, one is about to be, one is drawn into.
///
/// [`acquire`](Self::acquire) gives one that nobody uses, with its age; [`SwapchainBuffer::keep`] goes with it into a
/// [`Layer`](super::Layer), so that it comes back when the screen does not show it any more. Memory is allocated when it
/// is first needed.
pub struct Swapchain {
    allocator: Box<dyn Allocator>,
    request: Request,
    slots: Vec<Slot>,
    most: usize,
    /// Frames that were presented.
    frames: u64,
    /// What changed in each of the last frames, the newest first.
    history: Vec<Change>,
}

/// What differs between a frame and the one before it.
#[derive(Default)]
struct Change {
    is_all: bool,
    boxes: Vec<DamageBox>,
}

struct Slot {
    buffer: DmaBuf,
    /// Whoever draws into the buffer or shows it has a clone.
    users: Arc<Users>,
    /// The number of the frame that was presented in it, from 1 on.
    frame: Option<u64>,
}

/// Set if the picture in the buffer cannot be relied on any more.
#[derive(Debug, Default)]
struct Users {
    is_spoilt: AtomicBool,
}

/// A buffer of a [`Swapchain`] to draw into. Dropped without [`Swapchain::presented`] it is free again, and its contents
/// count as undefined.
pub struct SwapchainBuffer {
    buffer: DmaBuf,
    users: Arc<Users>,
    age: u32,
    index: usize,
    is_presented: bool,
}

impl Swapchain {
    /// Up to `most` buffers (at least two) that the allocator makes for this request.
    pub fn new(allocator: impl Allocator + 'static, request: Request, most: usize) -> Self {
        Self {
            allocator: Box::new(allocator),
            request,
            slots: Vec::new(),
            most: most.max(2),
            frames: 0,
            history: Vec::new(),
        }
    }

    /// Up to `most` buffers of the output's size for its primary plane, in the first of these formats that suits it, with
    /// the modifiers that it and the allocator share. `makes` is what the allocator makes, such as
    /// [`Dumb::endpoint`](crate::alloc::Dumb::endpoint) and `Gbm::endpoint` say.
    ///
    /// A format with alpha stands in for its opaque twin, since nothing is behind the picture.
    /// [`Error::NothingInCommon`] says why nothing suits.
    pub fn negotiated(
        allocator: impl Allocator + 'static,
        makes: &Endpoint,
        output: &Output,
        screens: &Screens,
        formats: impl IntoIterator<Item = Fourcc>,
        most: usize,
    ) -> Result<Self, Error> {
        let no_plane = || Error::NoObject {
            device: output.card().to_string(),
            kind: "plane",
            id: output.primary().0,
        };
        let plane = screens.plane(output.primary()).ok_or_else(no_plane)?;
        let shows = plane.endpoint(output.card())?;
        let (width, height) = output.mode().size();
        let wanted = Wanted::new(width, height)
            .in_formats(formats)
            .substituting(Substitute::Opaque);
        let agreement = negotiate(&[makes, &shows], &wanted);
        let best = agreement.best().map_err(Error::NothingInCommon)?;
        let request = Request::new(width, height, best.fourcc)
            .modifiers(best.modifiers.iter().copied())
            .usage(Usage::SCANOUT | Usage::COPY_TO);
        Ok(Self::new(allocator, request, most))
    }

    /// What the buffers are.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// A buffer that nobody uses: the one that was shown last of those, so that the least has to be drawn.
    /// [`Error::NoBuffer`] if all are in use: try again after the next page flip.
    pub fn acquire(&mut self) -> Result<SwapchainBuffer, Error> {
        let is_free = |slot: &(usize, &Slot)| Arc::strong_count(&slot.1.users) == 1;
        let free = self.slots.iter().enumerate().filter(is_free);
        let index = match free
            .max_by_key(|(_, slot)| slot.frame)
            .map(|(index, _)| index)
        {
            Some(index) => index,
            None if self.slots.len() < self.most => {
                let buffer = self.allocator.allocate(&self.request)?;
                self.slots.push(Slot {
                    buffer,
                    users: Arc::default(),
                    frame: None,
                });
                self.slots.len() - 1
            }
            None => return Err(Error::NoBuffer(self.most)),
        };
        let slot = &mut self.slots[index];
        // Whoever had it has not finished it.
        if slot.users.is_spoilt.swap(false, Ordering::Relaxed) {
            slot.frame = None;
        }
        let age = slot.frame.map_or(0, |frame| self.frames - frame + 1);
        Ok(SwapchainBuffer {
            buffer: slot.buffer.clone(),
            users: slot.users.clone(),
            // Nothing is known of so old a picture that the numbers end.
            age: u32::try_from(age).unwrap_or(0),
            index,
            is_presented: false,
        })
    }

    /// Counts a frame that was handed to the screen in this buffer, with what differs from the frame before.
    pub fn presented(&mut self, buffer: &mut SwapchainBuffer, damage: Damage<'_>) {
        buffer.is_presented = true;
        self.passed(damage);
        let is_it = |slot: &&mut Slot| Arc::ptr_eq(&slot.users, &buffer.users);
        // Not after `replace`.
        if let Some(slot) = self.slots.get_mut(buffer.index).filter(is_it) {
            slot.frame = Some(self.frames);
        }
    }

    /// Counts a frame that was shown from a buffer of somebody else's, with what differs from the frame before.
    pub fn passed(&mut self, damage: Damage<'_>) {
        self.frames += 1;
        // The memory of the oldest is used again.
        let mut newest = match self.history.len() > self.most {
            true => self.history.pop().unwrap_or_default(),
            false => Change::default(),
        };
        newest.boxes.clear();
        newest.is_all = matches!(damage, Damage::Full);
        if let Damage::Boxes(boxes) = damage {
            newest.boxes.extend_from_slice(boxes);
        }
        self.history.insert(0, newest);
    }

    /// What has to be drawn into a buffer of this age, if `damage` is what differs from the frame before. Written into
    /// `boxes`; [`Damage::Full`] if the buffer is new or too old, or if one of the frames since differed everywhere.
    pub fn damage_since<'a>(
        &self,
        age: u32,
        damage: Damage<'_>,
        boxes: &'a mut Vec<DamageBox>,
    ) -> Damage<'a> {
        boxes.clear();
        let Damage::Boxes(own) = damage else {
            return Damage::Full;
        };
        let frames = (age as usize).checked_sub(1);
        let Some(since) = frames.and_then(|frames| self.history.get(..frames)) else {
            return Damage::Full;
        };
        if since.iter().any(|change| change.is_all) {
            return Damage::Full;
        }
        boxes.extend_from_slice(own);
        for change in since {
            boxes.extend_from_slice(&change.boxes);
        }
        Damage::Boxes(boxes)
    }

    /// Lets go of all buffers, after a change of the mode or the format, and makes new ones for this request.
    pub fn replace(&mut self, request: Request) {
        self.request = request;
        self.slots.clear();
        self.history.clear();
        self.frames = 0;
    }
}

impl SwapchainBuffer {
    /// What to draw into.
    pub fn buffer(&self) -> &DmaBuf {
        &self.buffer
    }

    /// How many frames ago its picture was presented, as `EGL_EXT_buffer_age` counts: 1 is the frame before. 0: its
    /// contents are undefined.
    pub fn age(&self) -> u32 {
        self.age
    }

    /// What a [`Layer`](super::Layer) keeps while the buffer is shown.
    pub fn keep(&self) -> Arc<dyn std::any::Any + Send + Sync> {
        self.users.clone()
    }
}

impl Drop for SwapchainBuffer {
    fn drop(&mut self) {
        if !self.is_presented {
            self.users.is_spoilt.store(true, Ordering::Relaxed);
        }
    }
}

impl From<alloc::Error> for Error {
    fn from(error: alloc::Error) -> Self {
        Self::Allocate(error)
    }
}

impl fmt::Debug for Swapchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swapchain")
            .field("allocator", &self.allocator.name())
            .field("request", &self.request)
            .field("buffers", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SwapchainBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwapchainBuffer")
            .field("buffer", &self.buffer)
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}
