//! Which layers of a frame go on planes of their own, and which are drawn into one picture. Pure.
//!
//! The idea is libliftoff's: what display controllers can do is in no list, so every step is tried. Here the trial is
//! the caller's, in most programs [`Output::test`](super::Output::test); the search only decides what to try next.

use super::{Plane, PlaneId, PlaneKind, Position};
use crate::buffer::{Fourcc, Modifier};

/// A layer of a frame that may go on a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The buffer's format.
    pub fourcc: Fourcc,
    /// The buffer's modifier.
    pub modifier: Modifier,
    /// Where it is on the screen.
    pub position: Position,
    /// How much is won if it need not be drawn: its pixels times its frames in a second, for example. 0: it is to be
    /// drawn in any case.
    pub gain: u64,
}

impl Candidate {
    /// A layer whose gain is its pixels.
    pub fn new(fourcc: Fourcc, modifier: Modifier, position: Position) -> Self {
        Self {
            fourcc,
            modifier,
            position,
            gain: u64::from(position.width) * u64::from(position.height),
        }
    }

    /// The same with another gain.
    #[must_use]
    pub fn gain(mut self, gain: u64) -> Self {
        self.gain = gain;
        self
    }
}

/// What [`assign`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The plane of each candidate. `None`: it is drawn into the picture on the primary plane.
    pub planes: Vec<Option<PlaneId>>,
    /// Whether there is such a picture. Otherwise the lowest candidate is on the primary plane.
    pub is_composed: bool,
}

impl Assignment {
    /// Everything drawn into one picture.
    fn nothing(candidates: usize) -> Self {
        Self {
            planes: vec![None; candidates],
            is_composed: true,
        }
    }

    fn gain(&self, candidates: &[Candidate]) -> u64 {
        let of = candidates.iter().zip(&self.planes);
        let on_planes = of.filter(|(_, plane)| plane.is_some());
        on_planes.fold(0, |sum, (candidate, _)| candidate.gain.saturating_add(sum))
    }
}

/// Finds planes for the layers of a frame, so that the most is won.
///
/// `candidates` are ordered from the lowest to the highest. `planes` are those of the CRTC
/// ([`Screens::planes_of`](super::Screens::planes_of)); `primary` is for the picture into which the rest is drawn, or for
/// the lowest candidate if there is no rest. A candidate below a drawn one that overlaps with it is drawn too.
///
/// `test` says whether the screen could show a part of the answer; it is asked at most `tests` times, then the best that
/// was found is taken. Nothing is asked about everything being drawn, which always works.
pub fn assign(
    candidates: &[Candidate],
    planes: &[&Plane],
    primary: PlaneId,
    tests: usize,
    test: impl FnMut(&Assignment) -> bool,
) -> Assignment {
    let mut above: Vec<&Plane> = planes.iter().copied().filter(|p| p.id != primary).collect();
    // From the highest to the lowest.
    above.sort_by_key(|plane| std::cmp::Reverse(height(plane)));
    let primary = planes.iter().copied().find(|plane| plane.id == primary);
    let mut search = Search {
        candidates,
        above,
        primary,
        left: tests,
        test,
        best: Assignment::nothing(candidates.len()),
        best_gain: 0,
    };
    let mut now = Assignment::nothing(candidates.len());
    search.place(candidates.len(), 0, &mut now);
    search.best
}

/// Where a plane is in the stack: its `zpos`, else what its kind says.
fn height(plane: &Plane) -> (u64, u8, PlaneId) {
    let kind = match plane.kind {
        PlaneKind::Primary => 0,
        PlaneKind::Overlay => 1,
        PlaneKind::Cursor => 2,
    };
    (
        plane.properties.value("zpos").unwrap_or(kind.into()),
        kind,
        plane.id,
    )
}

struct Search<'a, T> {
    candidates: &'a [Candidate],
    above: Vec<&'a Plane>,
    primary: Option<&'a Plane>,
    /// How often `test` may be asked yet.
    left: usize,
    test: T,
    best: Assignment,
    best_gain: u64,
}

impl<T: FnMut(&Assignment) -> bool> Search<'_, T> {
    /// Places the candidates below `end` on planes from `first` on, and keeps the best that works.
    fn place(&mut self, end: usize, first: usize, now: &mut Assignment) {
        let Some(index) = end.checked_sub(1) else {
            return;
        };
        let rest: u64 = self.candidates[..end]
            .iter()
            .map(|candidate| candidate.gain)
            .sum();
        let could_be = now.gain(self.candidates).saturating_add(rest);
        if could_be <= self.best_gain || self.left == 0 {
            return;
        }
        let candidate = self.candidates[index];
        let is_covered = (end..self.candidates.len()).any(|higher| {
            now.planes[higher].is_none()
                && overlap(candidate.position, self.candidates[higher].position)
        });
        if candidate.gain > 0 && !is_covered {
            if index == 0 {
                self.place_lowest(now);
            }
            for at in first..self.above.len() {
                let plane = self.above[at];
                if !plane.takes(candidate.fourcc, candidate.modifier) {
                    continue;
                }
                now.planes[index] = Some(plane.id);
                if self.works(now) {
                    self.keep(now);
                    self.place(index, at + 1, now);
                }
                now.planes[index] = None;
            }
        }
        // Drawn.
        self.place(index, first, now);
    }

    /// The lowest goes on the primary plane, if nothing is drawn.
    fn place_lowest(&mut self, now: &mut Assignment) {
        let is_drawn = |plane: &Option<PlaneId>| plane.is_none();
        let Some(primary) = self
            .primary
            .filter(|_| !now.planes[1..].iter().any(is_drawn))
        else {
            return;
        };
        let lowest = self.candidates[0];
        if !primary.takes(lowest.fourcc, lowest.modifier) {
            return;
        }
        now.planes[0] = Some(primary.id);
        now.is_composed = false;
        if self.works(now) {
            self.keep(now);
        }
        now.planes[0] = None;
        now.is_composed = true;
    }

    fn works(&mut self, now: &Assignment) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        (self.test)(now)
    }

    fn keep(&mut self, now: &Assignment) {
        let gain = now.gain(self.candidates);
        if gain > self.best_gain {
            self.best_gain = gain;
            self.best = now.clone();
        }
    }
}

fn overlap(one: Position, other: Position) -> bool {
    let apart = |a: i32, length: u32, b: i32| i64::from(a) + i64::from(length) <= i64::from(b);
    !(apart(one.x, one.width, other.x)
        || apart(other.x, other.width, one.x)
        || apart(one.y, one.height, other.y)
        || apart(other.y, other.height, one.y))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Properties;
    use super::*;

    const FOURCC: Fourcc = Fourcc::XRGB8888;

    fn plane(id: u32, kind: PlaneKind, formats: &[Fourcc]) -> Plane {
        let formats = formats.iter().map(|&fourcc| (fourcc, Modifier::LINEAR));
        Plane {
            id: PlaneId(id),
            kind,
            possible_crtcs: 1,
            formats: formats.collect(),
            async_formats: None,
            properties: Properties::default(),
        }
    }

    fn at(x: i32, size: u32) -> Candidate {
        let position = Position {
            x,
            y: 0,
            width: size,
            height: size,
        };
        Candidate::new(FOURCC, Modifier::LINEAR, position)
    }

    fn ids(assignment: &Assignment) -> Vec<u32> {
        let id = |plane: &Option<PlaneId>| plane.map_or(0, |plane| plane.0);
        assignment.planes.iter().map(id).collect()
    }

    /// A primary plane 1, overlays 2 and 3, and a cursor 4.
    fn planes() -> [Plane; 4] {
        [
            plane(1, PlaneKind::Primary, &[FOURCC]),
            plane(2, PlaneKind::Overlay, &[FOURCC, Fourcc::NV12]),
            plane(3, PlaneKind::Overlay, &[FOURCC]),
            plane(4, PlaneKind::Cursor, &[Fourcc::ARGB8888]),
        ]
    }

    fn find(candidates: &[Candidate], test: impl FnMut(&Assignment) -> bool) -> Assignment {
        let planes = planes();
        let planes: Vec<&Plane> = planes.iter().collect();
        assign(candidates, &planes, PlaneId(1), 1000, test)
    }

    #[test]
    fn a_frame_that_fits_needs_no_drawing_and_keeps_its_order() {
        let found = find(&[at(0, 100), at(10, 20), at(15, 5)], |_| true);
        assert_eq!(ids(&found), [1, 2, 3]);
        assert!(!found.is_composed);
    }

    #[test]
    fn what_lies_below_something_drawn_is_drawn_too() {
        // The highest has a format of no plane, and covers the second only.
        let mut highest = at(10, 5);
        highest.fourcc = Fourcc::RGB565;
        let found = find(&[at(0, 100), at(12, 5), at(50, 5), highest], |_| true);
        assert_eq!(ids(&found), [0, 0, 3, 0]);
        assert!(found.is_composed);
    }

    #[test]
    fn what_the_screen_refuses_is_drawn_and_the_most_is_won() {
        let one_overlay = |now: &Assignment| {
            let above = now.planes.iter().flatten().filter(|plane| plane.0 != 1);
            above.count() <= 1
        };
        let found = find(&[at(0, 100).gain(0), at(0, 10), at(50, 30)], one_overlay);
        assert_eq!(ids(&found), [0, 0, 3]);
        assert_eq!(find(&[at(0, 9)], |_| false), Assignment::nothing(1));
    }

    #[test]
    fn a_video_goes_on_the_plane_that_takes_it() {
        let mut video = at(0, 50);
        video.fourcc = Fourcc::NV12;
        let found = find(&[at(0, 100).gain(0), video], |_| true);
        assert_eq!(ids(&found), [0, 2]);
    }

    proptest! {
        /// Against every way there is.
        #[test]
        fn nothing_better_was_left_out(
            places in prop::collection::vec((0i32..40, 1u32..30, 0u64..9), 1..5),
            refused in prop::collection::vec((0usize..4, 2u32..4), 0..4),
        ) {
            let candidates: Vec<_> =
                places.iter().map(|&(x, size, gain)| at(x, size).gain(gain)).collect();
            let works = |now: &Assignment| {
                let is_on = |&(index, plane): &(usize, u32)| {
                    now.planes.get(index) == Some(&Some(PlaneId(plane)))
                };
                !refused.iter().any(is_on)
            };
            let found = find(&candidates, works);
            prop_assert!(found == Assignment::nothing(candidates.len()) || works(&found));
            let mut best = 0;
            for number in 0..4_u32.pow(candidates.len() as u32) {
                let planes: Vec<_> = (0..candidates.len() as u32)
                    .map(|index| match number / 4_u32.pow(index) % 4 {
                        0 => None,
                        plane => Some(PlaneId(plane)),
                    })
                    .collect();
                let is_composed = planes.contains(&None);
                let now = Assignment { planes, is_composed };
                if is_right(&now, &candidates) && works(&now) {
                    best = best.max(now.gain(&candidates));
                }
            }
            prop_assert_eq!(found.gain(&candidates), best);
        }
    }

    /// Whether it shows the picture that all layers make.
    fn is_right(now: &Assignment, candidates: &[Candidate]) -> bool {
        let used: Vec<u32> = now.planes.iter().flatten().map(|plane| plane.0).collect();
        let ascends = used.windows(2).all(|pair| pair[0] < pair[1]);
        let primary = used.iter().position(|plane| *plane == 1);
        let has_primary = match now.is_composed {
            true => primary.is_none(),
            false => now.planes[0] == Some(PlaneId(1)),
        };
        let wanted = now.planes.iter().zip(candidates);
        let needless = wanted
            .clone()
            .any(|(plane, of)| plane.is_some() && of.gain == 0);
        let hidden = wanted.clone().enumerate().any(|(index, (plane, of))| {
            let above = now.planes.iter().zip(candidates).skip(index + 1);
            let mut drawn = above.filter(|(plane, _)| plane.is_none());
            plane.is_some() && drawn.any(|(_, other)| overlap(of.position, other.position))
        });
        ascends && has_primary && !needless && !hidden
    }
}
