//! The rectangles that a copy is made of. Pure.

use arrayvec::ArrayVec;

pub(super) use crate::buffer::{Damage, DamageBox, Rect};

/// More rectangles than this are merged, since each is a command to the GPU.
pub(super) const MAX_RECTS: usize = 16;

pub(super) type Rects = ArrayVec<Rect, MAX_RECTS>;

/// The rectangles to copy for these changes of a picture of this size: inside the picture, on a
/// grid that the queue and the format can copy, and none of them empty.
///
/// Two become one if that adds no pixels. If there are more than [`MAX_RECTS`], those are merged that add
/// the fewest. So pixels that have not changed are copied only in this case, or if the grid is coarser than
/// a pixel.
pub(super) fn prepare(damage: Damage<'_>, size: (u32, u32), grid: (u32, u32)) -> Rects {
    match damage {
        Damage::Full => [Rect::whole(size.0, size.1)].into_iter().collect(),
        Damage::Boxes(boxes) => snap(boxes.iter().map(|part| Rect::from(*part)), size, grid),
    }
}

/// As [`prepare`], for rectangles that have to suit another grid.
pub(super) fn snap(
    changes: impl Iterator<Item = Rect>,
    size: (u32, u32),
    grid: (u32, u32),
) -> Rects {
    let mut rects = Rects::new();
    let grid = (grid.0.max(1), grid.1.max(1));
    for change in changes {
        let mut new = change.snapped(size, grid);
        if new.area() == 0 {
            continue;
        }
        // A merged rectangle may fit to one that did not fit before.
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

    fn prepare(changes: &[Rect], size: (u32, u32), grid: (u32, u32)) -> Rects {
        let boxes: Vec<DamageBox> = changes.iter().map(|rect| (*rect).into()).collect();
        super::prepare(Damage::Boxes(&boxes), size, grid)
    }

    #[test]
    fn all_of_the_picture_is_not_nothing() {
        let all = super::prepare(Damage::Full, (5, 7), (1, 1));
        assert_eq!(all[..], [rect(0, 0, 5, 7)]);
        assert!(prepare(&[], (5, 7), (1, 1)).is_empty());
    }

    #[test]
    fn boxes_that_begin_before_the_picture_or_end_before_they_begin_are_cut() {
        let boxes = [(-3, -2, 2, 1), (4, 4, 2, 9), (i32::MIN, 5, i32::MAX, 6)];
        let boxes = boxes.map(|(x1, y1, x2, y2)| DamageBox { x1, y1, x2, y2 });
        let rects = super::prepare(Damage::Boxes(&boxes), (5, 7), (1, 1));
        assert_eq!(rects[..], [rect(0, 0, 2, 1), rect(0, 5, 5, 1)]);
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
