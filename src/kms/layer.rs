//! What is shown on a plane.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{FramebufferOptions, PlaneId};
use crate::buffer::{Damage, DmaBuf, Rect};

/// A part of a CRTC's picture, in pixels from its top left corner. It may lie partly outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// First column.
    pub x: i32,
    /// First row.
    pub y: i32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A buffer on a plane, for one frame.
#[derive(Clone)]
#[non_exhaustive]
pub struct Layer<'a> {
    /// The picture.
    pub buffer: &'a DmaBuf,
    /// Where it is shown. `None`: on the output's primary plane.
    pub plane: Option<PlaneId>,
    /// Which part of the buffer. `None`: all of it.
    pub source: Option<Rect>,
    /// Where that part is in the screen's picture, scaled if sizes differ and the plane can. `None`: in the top left
    /// corner, in the size of the source.
    pub position: Option<Position>,
    /// How the buffer becomes a framebuffer.
    pub options: FramebufferOptions,
    /// A sync file whose signal the frame waits for (`IN_FENCE_FD`): the display controller waits, and nobody else. The
    /// fd is borrowed. A fence that never comes keeps the screen as it is for ever, and no later frame is shown: give
    /// only fences of work that is known to end.
    pub fence: Option<BorrowedFd<'a>>,
    /// What has changed since the frame before on this plane (`FB_DAMAGE_CLIPS`). Screens behind USB or a network, and
    /// panels that refresh themselves, transfer only this. Boxes cost two more system calls.
    pub damage: Damage<'a>,
    /// Kept until the buffer has gone from the screen.
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl<'a> Layer<'a> {
    /// All of a buffer, on the output's primary plane, in the top left corner.
    pub fn new(buffer: &'a DmaBuf) -> Self {
        Self {
            buffer,
            plane: None,
            source: None,
            position: None,
            options: FramebufferOptions::default(),
            fence: None,
            damage: Damage::Full,
            keep: None,
        }
    }

    /// On this plane.
    #[must_use]
    pub fn plane(mut self, plane: PlaneId) -> Self {
        self.plane = Some(plane);
        self
    }

    /// This part of the buffer.
    #[must_use]
    pub fn source(mut self, source: Rect) -> Self {
        self.source = Some(source);
        self
    }

    /// At this place of the screen.
    #[must_use]
    pub fn position(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// As this kind of framebuffer.
    #[must_use]
    pub fn options(mut self, options: FramebufferOptions) -> Self {
        self.options = options;
        self
    }

    /// When this sync file is signalled. The fd is borrowed: the kernel keeps the fence.
    #[must_use]
    pub fn fence(mut self, fence: BorrowedFd<'a>) -> Self {
        self.fence = Some(fence);
        self
    }

    /// With these changes.
    #[must_use]
    pub fn damage(mut self, damage: Damage<'a>) -> Self {
        self.damage = damage;
        self
    }

    /// With something that is kept until the buffer has gone from the screen.
    #[must_use]
    pub fn keep(mut self, keep: Arc<dyn Any + Send + Sync>) -> Self {
        self.keep = Some(keep);
        self
    }

    pub(super) fn source_or_all(&self) -> Rect {
        let all = Rect::whole(self.buffer.width(), self.buffer.height());
        self.source.unwrap_or(all)
    }

    pub(super) fn place(&self) -> Position {
        let Rect { width, height, .. } = self.source_or_all();
        self.position.unwrap_or(Position {
            x: 0,
            y: 0,
            width,
            height,
        })
    }
}
