//! Parts of pictures, and which of them have changed.

/// What of a picture has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage<'a> {
    /// All of it.
    #[default]
    Full,
    /// These boxes. If there are none, nothing has changed, and nothing is copied.
    Boxes(&'a [DamageBox]),
}

/// A changed part, in pixels from the top left corner, as pixman (`pixman_box32`) and the kernel
/// (`struct drm_mode_rect`) have boxes. The part of a box outside of the picture is ignored. A box that ends
/// before it begins is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DamageBox {
    /// First column.
    pub x1: i32,
    /// First row.
    pub y1: i32,
    /// The column after the last.
    pub x2: i32,
    /// The row after the last.
    pub y2: i32,
}

impl From<DamageBox> for Rect {
    fn from(DamageBox { x1, y1, x2, y2 }: DamageBox) -> Self {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(|at| u32::try_from(at).unwrap_or(0));
        Self::between(x1, y1, x2, y2)
    }
}

impl From<Rect> for DamageBox {
    /// Numbers that do not fit are beyond every picture.
    fn from(rect: Rect) -> Self {
        let at = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        Self {
            x1: at(rect.x),
            y1: at(rect.y),
            x2: at(rect.right()),
            y2: at(rect.bottom()),
        }
    }
}

/// A part of a picture, in pixels from its top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// All of a picture of this size.
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// How many pixels it has.
    pub fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    pub(crate) fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    pub(crate) fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }

    pub(crate) fn between(x: u32, y: u32, right: u32, bottom: u32) -> Self {
        Self {
            x,
            y,
            width: right.saturating_sub(x),
            height: bottom.saturating_sub(y),
        }
    }

    /// The smallest rectangle around both.
    pub(crate) fn around(&self, other: &Self) -> Self {
        Self::between(
            self.x.min(other.x),
            self.y.min(other.y),
            self.right().max(other.right()),
            self.bottom().max(other.bottom()),
        )
    }

    pub(crate) fn shared_area(&self, other: &Self) -> u64 {
        let shared = Self::between(
            self.x.max(other.x),
            self.y.max(other.y),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        );
        shared.area()
    }

    /// Pixels that a merge of both adds to them.
    pub(crate) fn waste(&self, other: &Self) -> u64 {
        let sum = self.area() + other.area() - self.shared_area(other);
        self.around(other).area() - sum
    }

    /// The part inside a picture of this size, grown to whole steps of a grid (at least 1x1). The
    /// picture's edge ends a step.
    pub(crate) fn snapped(&self, (width, height): (u32, u32), (across, down): (u32, u32)) -> Self {
        let up = |value: u32, step: u32, end: u32| {
            value.checked_next_multiple_of(step).unwrap_or(end).min(end)
        };
        let (right, bottom) = (self.right().min(width), self.bottom().min(height));
        if self.x >= right || self.y >= bottom {
            return Self::whole(0, 0);
        }
        Self::between(
            self.x - self.x % across,
            self.y - self.y % down,
            up(right, across, width),
            up(bottom, down, height),
        )
    }
}
