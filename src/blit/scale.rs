//! Which pixels of the source each pixel of the destination shows. Pure.

use super::damage::Rect;
use super::strategy::End;
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// How a picture is turned, in the meaning of Wayland's `wl_output.transform`: the flipped values
/// first flip the picture around a vertical axis (left becomes right), then it is rotated
/// counter-clockwise.
///
/// [`Scaling`] applies the transform to the source. The content of a `wl_buffer` with
/// `wl_surface.set_buffer_transform` has the transform already: to show it upright, apply the
/// [inverse](Self::inverse).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transform {
    /// As it is.
    #[default]
    Normal,
    /// 90 degrees counter-clockwise.
    Rotate90,
    /// 180 degrees.
    Rotate180,
    /// 270 degrees counter-clockwise.
    Rotate270,
    /// Left becomes right.
    Flipped,
    /// Left becomes right, then 90 degrees counter-clockwise.
    Flipped90,
    /// Left becomes right, then 180 degrees: top becomes bottom.
    Flipped180,
    /// Left becomes right, then 270 degrees counter-clockwise.
    Flipped270,
}

impl Transform {
    /// All eight.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Rotate90,
        Self::Rotate180,
        Self::Rotate270,
        Self::Flipped,
        Self::Flipped90,
        Self::Flipped180,
        Self::Flipped270,
    ];

    /// Whether rows become columns.
    pub fn swaps_axes(self) -> bool {
        matches!(
            self,
            Self::Rotate90 | Self::Rotate270 | Self::Flipped90 | Self::Flipped270
        )
    }

    /// The transform that undoes this one.
    pub fn inverse(self) -> Self {
        match self {
            Self::Rotate90 => Self::Rotate270,
            Self::Rotate270 => Self::Rotate90,
            // The others undo themselves.
            other => other,
        }
    }

    /// The transform that does this one, then `next`.
    pub fn then(self, next: Self) -> Self {
        // Rotating, then flipping is flipping, then rotating the other way.
        let (flips, turns) = (self.flips() != next.flips(), next.turns());
        let turned = match next.flips() {
            false => self.turns() + turns,
            true => 4 - self.turns() + turns,
        };
        Self::ALL[turned % 4 + 4 * usize::from(flips)]
    }

    fn flips(self) -> bool {
        self as usize >= 4
    }

    /// In steps of 90 degrees counter-clockwise.
    fn turns(self) -> usize {
        self as usize % 4
    }

    /// Whether the source's columns, and its rows, are read from the last to the first.
    pub(super) fn mirrors(self) -> (bool, bool) {
        match self {
            Self::Normal | Self::Flipped90 => (false, false),
            Self::Rotate90 | Self::Flipped => (true, false),
            Self::Rotate180 | Self::Flipped270 => (true, true),
            Self::Rotate270 | Self::Flipped180 => (false, true),
        }
    }
}

/// What a pixel of the destination shows where pixels of the source do not fall on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Filter {
    /// The pixel whose centre is nearest.
    Nearest,
    /// The four pixels around it, weighted by their distance; at the box's edge, its last pixels.
    /// Far smaller destinations pass over pixels: there are no mipmaps.
    #[default]
    Linear,
}

/// Which part of the source is shown in which part of the destination.
///
/// The source's box is transformed, then scaled onto the destination's box. Pixels of the
/// destination outside of its box stay as they are. Coordinates follow `vkCmdBlitImage` (Vulkan
/// specification, "Image Copies With Scaling"): the centre of pixel x is at x + 1/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scaling {
    /// The part that is shown, in pixels of the source.
    pub source: Rect,
    /// Where it is shown, in pixels of the destination.
    pub destination: Rect,
    /// How it is turned.
    pub transform: Transform,
    /// How pixels are mixed where sizes differ.
    pub filter: Filter,
}

/// Why a [`Scaling`] does not fit two pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScalingError {
    /// A box has no pixels.
    #[error("the box in the {} is empty", name(*.end))]
    Empty {
        /// Whose box.
        end: End,
    },
    /// A box is not inside of its picture.
    #[error(
        "the box in the {} is {}x{} at {},{} and lies outside of the picture, which is {}x{}",
        name(*.end), .rect.width, .rect.height, .rect.x, .rect.y, .width, .height
    )]
    Outside {
        /// Whose box.
        end: End,
        /// The box.
        rect: Rect,
        /// Width of the picture in pixels.
        width: u32,
        /// Height of the picture in pixels.
        height: u32,
    },
    /// The destination's box cuts through pixels that share bytes.
    #[error(
        "the destination's format has steps of {across}x{down} pixels, its box is {}x{} at {},{}",
        .rect.width, .rect.height, .rect.x, .rect.y
    )]
    Grid {
        /// The box.
        rect: Rect,
        /// Pixels side by side that can be written together only.
        across: u32,
        /// Pixels one above the other that can be written together only.
        down: u32,
    },
}

impl ScalingError {
    /// What can be done about it: they are all of what was passed in.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// None: no system call was made.
    pub fn errno(&self) -> Option<Errno> {
        None
    }
}

into_io_error!(ScalingError);

fn name(end: End) -> &'static str {
    match end {
        End::Source => "source",
        End::Destination => "destination",
    }
}

impl Scaling {
    /// All of a picture of one size shown in all of a picture of another.
    pub fn whole(source: (u32, u32), destination: (u32, u32)) -> Self {
        Self {
            source: Rect::whole(source.0, source.1),
            destination: Rect::whole(destination.0, destination.1),
            transform: Transform::default(),
            filter: Filter::default(),
        }
    }

    /// Whether it fits pictures of these sizes, in pixels. `grid`: the pixels across and down that
    /// can be written together only, of the destination's format: a box begins and ends at
    /// multiples of it, or at the picture's edge.
    pub fn check(
        &self,
        source: (u32, u32),
        destination: (u32, u32),
        grid: (u32, u32),
    ) -> Result<(), ScalingError> {
        let ends = [
            (End::Source, self.source, source),
            (End::Destination, self.destination, destination),
        ];
        for (end, rect, (width, height)) in ends {
            if rect.area() == 0 {
                return Err(ScalingError::Empty { end });
            }
            let inside = |start: u32, length: u32, size: u32| {
                start.checked_add(length).is_some_and(|end| end <= size)
            };
            if !inside(rect.x, rect.width, width) || !inside(rect.y, rect.height, height) {
                return Err(ScalingError::Outside {
                    end,
                    rect,
                    width,
                    height,
                });
            }
        }
        let rect = self.destination;
        let (across, down) = (grid.0.max(1), grid.1.max(1));
        let on_grid = |start: u32, length: u32, size: u32, step: u32| {
            let end = start + length;
            start.is_multiple_of(step) && (end.is_multiple_of(step) || end == size)
        };
        if !on_grid(rect.x, rect.width, destination.0, across)
            || !on_grid(rect.y, rect.height, destination.1, down)
        {
            return Err(ScalingError::Grid { rect, across, down });
        }
        Ok(())
    }

    /// Whether pixels are copied one to one, neither scaled nor turned. They may move.
    pub fn is_plain(&self) -> bool {
        self.transform == Transform::Normal && !self.scales()
    }

    /// Whether the source's box, turned, is of another size than the destination's.
    pub(super) fn scales(&self) -> bool {
        let Rect { width, height, .. } = self.source;
        let turned = match self.transform.swaps_axes() {
            false => (width, height),
            true => (height, width),
        };
        turned != (self.destination.width, self.destination.height)
    }

    /// Whether sizes change or rows become columns.
    pub(super) fn reshapes(&self) -> bool {
        self.scales() || self.transform.swaps_axes()
    }

    /// The part of the destination that shows a changed part of the source: never less, and up to
    /// what the filter reaches and one pixel of the source more, since GPUs round positions in ways
    /// of their own. Inside of the destination's box; empty where the change is outside of the
    /// source's.
    pub fn damaged(&self, rect_in_source: Rect) -> Rect {
        let [across, down] = self.axes();
        let mut changed = [
            (rect_in_source.x, rect_in_source.width),
            (rect_in_source.y, rect_in_source.height),
        ];
        if self.transform.swaps_axes() {
            changed.reverse();
        }
        let (columns, rows) = (across.showing(changed[0]), down.showing(changed[1]));
        let (Some(columns), Some(rows)) = (columns, rows) else {
            return Rect {
                width: 0,
                height: 0,
                ..self.destination
            };
        };
        Rect {
            x: self.destination.x.saturating_add(columns.0),
            y: self.destination.y.saturating_add(rows.0),
            width: columns.1 - columns.0,
            height: rows.1 - rows.0,
        }
    }

    /// What the destination's columns and its rows show: columns and rows of the source or, if the transform
    /// [swaps axes](Transform::swaps_axes), rows and columns.
    pub(super) fn axes(&self) -> [Axis; 2] {
        let (mirror_columns, mirror_rows) = self.transform.mirrors();
        let columns = |length| Axis {
            start: self.source.x,
            from: self.source.width,
            to: length,
            mirrored: mirror_columns,
            filter: self.filter,
        };
        let rows = |length| Axis {
            start: self.source.y,
            from: self.source.height,
            to: length,
            mirrored: mirror_rows,
            filter: self.filter,
        };
        let Rect { width, height, .. } = self.destination;
        match self.transform.swaps_axes() {
            false => [columns(width), rows(height)],
            true => [rows(width), columns(height)],
        }
    }
}

/// What a column or row of the destination's box shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    /// Two columns or rows of the source. Both are the same if only one is shown.
    pub(super) first: u32,
    pub(super) second: u32,
    /// The weight of the second, below 1.
    pub(super) weight: f32,
}

/// Positions up to here are computed without overflow.
const MAX_LENGTH: u32 = 1 << 30;

/// One direction of a [`Scaling`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Where the source's box begins, and its length.
    pub(super) start: u32,
    pub(super) from: u32,
    /// The length of the destination's box.
    pub(super) to: u32,
    pub(super) mirrored: bool,
    pub(super) filter: Filter,
}

impl Axis {
    /// What position `at` of the destination's box shows. It is computed exactly, in fractions of twice the
    /// destination's length.
    pub(super) fn tap(&self, at: u32) -> Tap {
        let at = match self.mirrored {
            false => at,
            true => self.to - 1 - at,
        };
        let (from, to) = (i64::from(self.from), i64::from(self.to));
        let last = from - 1;
        let centre = (2 * i64::from(at) + 1) * from;
        let place = |index: i64| self.start + index.clamp(0, last) as u32;
        match self.filter {
            Filter::Nearest => {
                let nearest = place(centre / (2 * to));
                Tap {
                    first: nearest,
                    second: nearest,
                    weight: 0.0,
                }
            }
            Filter::Linear => {
                let position = centre - to;
                let below = position.div_euclid(2 * to);
                let rest = position.rem_euclid(2 * to);
                let first = place(below);
                match rest {
                    0 => Tap {
                        first,
                        second: first,
                        weight: 0.0,
                    },
                    rest => Tap {
                        first,
                        second: place(below + 1),
                        weight: rest as f32 / (2 * to) as f32,
                    },
                }
            }
        }
    }

    /// The positions of the destination that show a changed part of the source: the first one, and the one
    /// after the last.
    fn showing(&self, (start, length): (u32, u32)) -> Option<(u32, u32)> {
        let (box_start, box_end) = (self.start, self.start.saturating_add(self.from));
        let (mut start, mut end) = (start, start.saturating_add(length));
        if self.from == 0 || length == 0 || start >= box_end || end <= box_start {
            return None;
        }
        // No picture is so large, but the boxes may not have been checked.
        if self.from.max(self.to).max(box_end) > MAX_LENGTH {
            return Some((0, self.to));
        }
        if self.from != self.to {
            (start, end) = (start.saturating_sub(1), end.saturating_add(1));
        }
        // The first position for which `is_past` holds.
        let first = |is_past: &dyn Fn(Tap) -> bool| {
            let (mut low, mut high) = (0, self.to);
            while low < high {
                let middle = low + (high - low) / 2;
                match is_past(self.tap(middle)) {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            low
        };
        let (begin, stop) = match self.mirrored {
            false => (
                first(&|tap| tap.second >= start),
                first(&|tap| tap.first >= end),
            ),
            true => (
                first(&|tap| tap.first < end),
                first(&|tap| tap.second < start),
            ),
        };
        (begin < stop).then_some((begin, stop))
    }
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

    fn scaling(source: Rect, destination: Rect, transform: Transform, filter: Filter) -> Scaling {
        Scaling {
            source,
            destination,
            transform,
            filter,
        }
    }

    /// The source's pixel that each of the destination shows, as letters.
    fn turned(transform: Transform) -> Vec<String> {
        // abc
        // def
        let picture = ["abc", "def"];
        let size = match transform.swaps_axes() {
            false => (3, 2),
            true => (2, 3),
        };
        let scaling = scaling(
            Rect::whole(3, 2),
            Rect::whole(size.0, size.1),
            transform,
            Filter::Linear,
        );
        let [across, down] = scaling.axes();
        let row = |y| {
            let pixel = |x| {
                let (a, b) = (across.tap(x), down.tap(y));
                assert_eq!((a.weight, b.weight), (0.0, 0.0));
                let (column, row) = match transform.swaps_axes() {
                    false => (a.first, b.first),
                    true => (b.first, a.first),
                };
                picture[row as usize].as_bytes()[column as usize] as char
            };
            (0..size.0).map(pixel).collect()
        };
        (0..size.1).map(row).collect()
    }

    #[test]
    fn rotations_are_counter_clockwise_and_follow_the_flip() {
        use Transform::*;
        for (transform, expected) in [
            (Normal, &["abc", "def"][..]),
            (Rotate90, &["cf", "be", "ad"]),
            (Rotate180, &["fed", "cba"]),
            (Rotate270, &["da", "eb", "fc"]),
            (Flipped, &["cba", "fed"]),
            (Flipped90, &["ad", "be", "cf"]),
            (Flipped180, &["def", "abc"]),
            (Flipped270, &["fc", "eb", "da"]),
        ] {
            assert_eq!(turned(transform), expected, "{transform:?}");
        }
    }

    /// Where (x, y) of a square comes from.
    fn from(transform: Transform, (x, y): (u32, u32)) -> (u32, u32) {
        let square = Rect::whole(5, 5);
        let [across, down] = scaling(square, square, transform, Filter::Nearest).axes();
        let (a, b) = (across.tap(x).first, down.tap(y).first);
        match transform.swaps_axes() {
            true => (b, a),
            false => (a, b),
        }
    }

    const PLACES: [(u32, u32); 3] = [(0, 0), (1, 3), (4, 2)];

    #[test]
    fn the_inverse_undoes_a_transform() {
        for transform in Transform::ALL {
            for at in PLACES {
                assert_eq!(from(transform, from(transform.inverse(), at)), at);
            }
            assert_eq!(transform.then(transform.inverse()), Transform::Normal);
        }
    }

    #[test]
    fn one_transform_does_what_two_in_turn_do() {
        for first in Transform::ALL {
            for second in Transform::ALL {
                for at in PLACES {
                    let in_turn = from(first, from(second, at));
                    assert_eq!(
                        from(first.then(second), at),
                        in_turn,
                        "{first:?}, {second:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn pixel_centres_are_at_halves() {
        let axis = |from, to, filter| {
            let scaling = scaling(
                rect(10, 0, from, 1),
                Rect::whole(to, 1),
                Transform::Normal,
                filter,
            );
            let [across, _] = scaling.axes();
            (0..to).map(|at| across.tap(at)).collect::<Vec<_>>()
        };
        let tap = |first, second, weight| Tap {
            first,
            second,
            weight,
        };
        assert_eq!(
            axis(2, 4, Filter::Linear),
            [
                // -1/4: before the first centre.
                tap(10, 10, 0.75),
                tap(10, 11, 0.25),
                tap(10, 11, 0.75),
                tap(11, 11, 0.25)
            ]
        );
        let nearest = axis(3, 5, Filter::Nearest);
        assert_eq!(
            nearest.iter().map(|tap| tap.first).collect::<Vec<_>>(),
            [10, 10, 11, 12, 12]
        );
        // Half the size: between two pixels.
        assert_eq!(
            axis(4, 2, Filter::Linear),
            [tap(10, 11, 0.5), tap(12, 13, 0.5)]
        );
    }

    #[test]
    fn boxes_are_not_empty_inside_of_the_pictures_and_on_the_grid() {
        let whole = Scaling::whole((8, 6), (16, 12));
        assert_eq!(whole.check((8, 6), (16, 12), (2, 2)), Ok(()));
        let with_source = |source| Scaling { source, ..whole };
        let end = End::Source;
        assert_eq!(
            with_source(rect(1, 1, 0, 4)).check((8, 6), (16, 12), (1, 1)),
            Err(ScalingError::Empty { end })
        );
        for outside in [rect(1, 0, 8, 6), rect(0, 3, 8, u32::MAX)] {
            let refused = with_source(outside).check((8, 6), (16, 12), (1, 1));
            let expected = ScalingError::Outside {
                end,
                rect: outside,
                width: 8,
                height: 6,
            };
            assert_eq!(refused, Err(expected));
        }
        let with_destination = |destination| Scaling {
            destination,
            ..whole
        };
        let odd = with_destination(rect(2, 1, 4, 4));
        assert_eq!(odd.check((8, 6), (16, 12), (1, 1)), Ok(()));
        assert!(matches!(
            odd.check((8, 6), (16, 12), (2, 2)),
            Err(ScalingError::Grid { .. })
        ));
        // The picture's edge ends a step.
        let edge = with_destination(rect(2, 2, 13, 9));
        assert_eq!(edge.check((8, 6), (15, 11), (2, 2)), Ok(()));
        assert!(edge.check((8, 6), (16, 12), (2, 2)).is_err());
    }

    #[test]
    fn a_plain_copy_neither_scales_nor_turns() {
        let size = |width, transform| {
            scaling(
                rect(1, 1, 4, 4),
                rect(2, 0, width, 4),
                transform,
                Filter::Linear,
            )
        };
        assert!(size(4, Transform::Normal).is_plain());
        assert!(!size(5, Transform::Normal).is_plain());
        assert!(!size(4, Transform::Flipped).is_plain());
        assert!(size(5, Transform::Normal).reshapes());
        assert!(!size(4, Transform::Flipped).reshapes());
        assert!(size(4, Transform::Rotate90).reshapes());
        let turned = Scaling {
            transform: Transform::Flipped90,
            ..Scaling::whole((4, 3), (3, 4))
        };
        assert!(!turned.scales() && turned.reshapes());
    }

    /// Whether the destination's pixel shows one of the changed ones.
    fn shows(scaling: &Scaling, changed: Rect, (x, y): (u32, u32)) -> bool {
        let [across, down] = scaling.axes();
        let (a, b) = (across.tap(x), down.tap(y));
        let (columns, rows) = match scaling.transform.swaps_axes() {
            false => (a, b),
            true => (b, a),
        };
        let within = |tap: Tap, start: u32, length: u32| {
            [tap.first, tap.second]
                .iter()
                .any(|at| (start..start + length).contains(at))
        };
        within(columns, changed.x, changed.width) && within(rows, changed.y, changed.height)
    }

    #[test]
    fn every_pixel_that_shows_a_change_is_in_the_damage() {
        let source = rect(2, 1, 6, 5);
        for transform in Transform::ALL {
            for filter in [Filter::Nearest, Filter::Linear] {
                for (width, height) in [(6, 5), (5, 6), (11, 9), (3, 2), (1, 1)] {
                    let destination = rect(3, 4, width, height);
                    let scaling = scaling(source, destination, transform, filter);
                    for (x, y) in (0..9).flat_map(|x| (0..7).map(move |y| (x, y))) {
                        let changed = rect(x, y, 2, 1);
                        let damaged = scaling.damaged(changed);
                        assert!(damaged.x >= 3 && damaged.x + damaged.width <= 3 + width);
                        assert!(damaged.y >= 4 && damaged.y + damaged.height <= 4 + height);
                        let all = (0..width).flat_map(|x| (0..height).map(move |y| (x, y)));
                        for at in all.filter(|at| shows(&scaling, changed, *at)) {
                            let (x, y) = (at.0 + 3, at.1 + 4);
                            let columns = damaged.x..damaged.x + damaged.width;
                            let rows = damaged.y..damaged.y + damaged.height;
                            assert!(
                                columns.contains(&x) && rows.contains(&y),
                                "{scaling:?} {changed:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn damage_of_what_is_not_scaled_does_not_grow() {
        let plain = scaling(
            rect(2, 2, 8, 8),
            rect(0, 4, 8, 8),
            Transform::Flipped,
            Filter::Linear,
        );
        assert_eq!(plain.damaged(rect(3, 4, 2, 1)), rect(5, 6, 2, 1));
        assert_eq!(plain.damaged(rect(0, 0, 2, 9)).area(), 0);
        assert_eq!(plain.damaged(rect(0, 0, 3, 99)), rect(7, 4, 1, 8));
        let unchecked = |source| scaling(source, source, Transform::Flipped, Filter::Linear);
        assert_eq!(
            unchecked(Rect::whole(0, 5))
                .damaged(rect(0, 0, 1, 1))
                .area(),
            0
        );
        let huge = rect(9, 9, u32::MAX, u32::MAX);
        assert_eq!(unchecked(huge).damaged(huge), huge);
        // Twice the size: two pixels each, half a pixel of the filter's and one for rounding.
        let twice = Scaling::whole((8, 1), (16, 1));
        assert_eq!(twice.damaged(rect(4, 0, 1, 1)), rect(5, 0, 8, 1));
    }
}
