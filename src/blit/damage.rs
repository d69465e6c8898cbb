//! What of a picture has changed. Pure.

use arrayvec::ArrayVec;

/// More rectangles than this are merged, since each is a command to the GPU.
pub(super) const MAX_RECTS: usize = 16;

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

pub(super) type Rects = ArrayVec<Rect, MAX_RECTS>;

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

    /// Pixels in it.
    pub fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }

    fn between(x: u32, y: u32, right: u32, bottom: u32) -> Self {
        Self {
            x,
            y,
            width: right.saturating_sub(x),
            height: bottom.saturating_sub(y),
        }
    }

    /// The smallest rectangle around both.
    fn around(&self, other: &Self) -> Self {
        Self::between(
            self.x.min(other.x),
            self.y.min(other.y),
            self.right().max(other.right()),
            self.bottom().max(other.bottom()),
        )
    }

    fn shared_area(&self, other: &Self) -> u64 {
        let shared = Self::between(
            self.x.max(other.x),
            self.y.max(other.y),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        );
        shared.area()
    }

    /// Pixels that a merge of both adds to them.
    fn waste(&self, other: &Self) -> u64 {
        let sum = self.area() + other.area() - self.shared_area(other);
        self.around(other).area() - sum
    }

    /// The part inside a picture of this size, grown to whole steps of a grid (at least 1x1). The
    /// picture's edge ends a step.
    fn snapped(&self, (width, height): (u32, u32), (across, down): (u32, u32)) -> Self {
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

/// The rectangles to copy for these changes of a picture of this size: inside the picture, on a
/// grid that the queue and the format can copy, and none of them empty.
///
/// Two become one where that adds no pixels, and beyond [`MAX_RECTS`] where it adds the fewest;
/// pixels that nobody named are copied in that case only, and where the grid is coarser than a
/// pixel. An empty list of changes stands for all of the picture.
pub(super) fn prepare(changes: &[Rect], size: (u32, u32), grid: (u32, u32)) -> Rects {
    let whole = Rect::whole(size.0, size.1);
    let mut rects = Rects::new();
    if changes.is_empty() {
        rects.push(whole);
        return rects;
    }
    let grid = (grid.0.max(1), grid.1.max(1));
    for change in changes {
        let mut new = change.snapped(size, grid);
        if new.area() == 0 {
            continue;
        }
        // A merged one may fit to another that did not fit before.
        while let Some(at) = rects.iter().position(|known| known.waste(&new) == 0) {
            new = rects.swap_remove(at).around(&new);
        }
        if rects.is_full() {
            let at = (0..rects.len()).min_by_key(|&at| rects[at].waste(&new));
            new = rects.swap_remove(at.unwrap_or(0)).around(&new);
        }
        rects.push(new);
    }
    rects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    fn covers(rects: &[Rect], x: u32, y: u32) -> bool {
        let inside = |r: &Rect| x >= r.x && x < r.right() && y >= r.y && y < r.bottom();
        rects.iter().any(inside)
    }

    #[test]
    fn no_changes_given_stand_for_all_of_the_picture() {
        assert_eq!(prepare(&[], (5, 7), (1, 1))[..], [rect(0, 0, 5, 7)]);
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let changes = [rect(3, 3, 9, 9), rect(50, 0, 4, 4), rect(0, 0, 0, 9)];
        assert_eq!(prepare(&changes, (5, 7), (1, 1))[..], [rect(3, 3, 2, 4)]);
        let huge = [
            rect(u32::MAX, 0, u32::MAX, 1),
            rect(4, 6, u32::MAX, u32::MAX),
        ];
        assert_eq!(prepare(&huge, (5, 7), (1, 1))[..], [rect(4, 6, 1, 1)]);
    }

    #[test]
    fn a_coarse_grid_makes_them_grow_but_not_past_the_edge() {
        let changes = [rect(3, 3, 2, 1)];
        assert_eq!(prepare(&changes, (7, 9), (4, 2))[..], [rect(0, 2, 7, 2)]);
    }

    #[test]
    fn neighbours_and_parts_of_others_are_merged_without_adding_pixels() {
        let neighbours = [rect(0, 0, 4, 4), rect(4, 0, 4, 4), rect(0, 4, 8, 2)];
        assert_eq!(
            prepare(&neighbours, (64, 64), (1, 1))[..],
            [rect(0, 0, 8, 6)]
        );
        let inside = [rect(0, 0, 9, 9), rect(2, 2, 3, 3)];
        assert_eq!(prepare(&inside, (64, 64), (1, 1))[..], [rect(0, 0, 9, 9)]);
        let apart = [rect(0, 0, 2, 2), rect(3, 3, 2, 2)];
        assert_eq!(prepare(&apart, (64, 64), (1, 1))[..], apart);
    }

    #[test]
    fn every_changed_pixel_is_copied_and_up_to_sixteen_add_none() {
        // A simple generator instead of random numbers: the same every time.
        let mut state = 7_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for count in [1, 5, 16, 17, 60] {
            for _ in 0..40 {
                let changes: Vec<Rect> = (0..count)
                    .map(|_| rect(next(40), next(40), next(9), next(9)))
                    .collect();
                let rects = prepare(&changes, (37, 41), (1, 1));
                for (x, y) in (0..37).flat_map(|x| (0..41).map(move |y| (x, y))) {
                    let changed = covers(&changes, x, y);
                    assert!(!changed || covers(&rects, x, y), "{x},{y} of {changes:?}");
                    if count <= MAX_RECTS {
                        assert!(changed || !covers(&rects, x, y), "{x},{y} of {changes:?}");
                    }
                }
            }
        }
    }
}
