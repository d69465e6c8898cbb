//! How far a plane scales. Display controllers say it nowhere, so it is found out by test commits.

use super::{Error, Layer, Output, PlaneId, Position};
use crate::ErrorKind;
use crate::buffer::{Fourcc, Modifier};

/// The sizes in which a plane shows a picture, in pixels of the screen. Those of the picture itself if it does not scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScalingLimits {
    /// The narrowest, with the picture's own height.
    pub min_width: u32,
    /// The widest, with the picture's own height: not wider than the screen or the picture.
    pub max_width: u32,
    /// The lowest, with the picture's own width.
    pub min_height: u32,
    /// The highest, with the picture's own width: not higher than the screen or the picture.
    pub max_height: u32,
}

impl ScalingLimits {
    /// Whether this size is within them. A commit may be refused all the same, for the sake of both directions together
    /// or of what else is on the screen.
    pub fn contains(&self, width: u32, height: u32) -> bool {
        (self.min_width..=self.max_width).contains(&width)
            && (self.min_height..=self.max_height).contains(&height)
    }
}

/// What limits are remembered of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    plane: PlaneId,
    fourcc: Fourcc,
    modifier: Modifier,
    size: (u32, u32),
}

/// The limits that were found out last.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<(Key, ScalingLimits)>);

/// How many are remembered.
const CAPACITY: usize = 32;

impl Known {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn get(&self, key: &Key) -> Option<ScalingLimits> {
        let known = self.0.iter().find(|(known, _)| known == key);
        known.map(|(_, limits)| *limits)
    }

    fn insert(&mut self, key: Key, limits: ScalingLimits) {
        if self.0.len() == CAPACITY {
            self.0.remove(0);
        }
        self.0.push((key, limits));
    }
}

impl Output {
    /// Finds out how far a plane scales a picture, by up to some forty test commits. What the screen shows does not
    /// change. `others` are the layers beside it: some drivers show nothing on overlays without a primary plane that is
    /// on.
    ///
    /// The answer is remembered for pictures of this size, format and modifier on this plane, whatever the others, until
    /// [`Self::reset`] or another mode.
    ///
    /// An error if the plane does not show the picture in its own size, or if the device has no atomic commits.
    pub fn scaling_limits(
        &mut self,
        layer: &Layer<'_>,
        others: &[Layer<'_>],
    ) -> Result<ScalingLimits, Error> {
        if !self.card().is_atomic() {
            return Err(Error::NotAtomic {
                device: self.card().to_string(),
                what: "asking for limits",
            });
        }
        let source = layer.source_or_all();
        let (width, height) = (source.width, source.height);
        let key = Key {
            plane: layer.plane.unwrap_or(self.primary()),
            fourcc: layer.options.format.unwrap_or(layer.buffer.fourcc()),
            modifier: layer.buffer.modifier(),
            size: (width, height),
        };
        if let Some(known) = self.limits.get(&key) {
            return Ok(known);
        }
        let mut layers = others.to_vec();
        let own = layers.len();
        layers.push(layer.clone());
        let mut test = |output: &mut Self, width, height| {
            let at = Position {
                x: 0,
                y: 0,
                width,
                height,
            };
            layers[own].position = Some(at);
            output.test(&layers)
        };
        test(self, width, height)?;
        let screen = self.mode().size();
        let mut takes = |width, height| match test(self, width, height) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Refused => Ok(false),
            Err(error) => Err(error),
        };
        let limits = ScalingLimits {
            min_width: furthest(width, 1, |width| takes(width, height))?,
            max_width: furthest(width, screen.0.max(width), |width| takes(width, height))?,
            min_height: furthest(height, 1, |height| takes(width, height))?,
            max_height: furthest(height, screen.1.max(height), |height| takes(width, height))?,
        };
        self.limits.insert(key, limits);
        Ok(limits)
    }
}

/// The number nearest to `end` that is taken, if all between it and `start` are. `start` is taken.
fn furthest<E>(
    start: u32,
    end: u32,
    mut takes: impl FnMut(u32) -> Result<bool, E>,
) -> Result<u32, E> {
    if start == end || takes(end)? {
        return Ok(end);
    }
    let (mut taken, mut refused) = (start, end);
    // Most planes do not scale at all.
    let next = if end > start { start + 1 } else { start - 1 };
    if next == refused || !takes(next)? {
        return Ok(taken);
    }
    taken = next;
    while taken.abs_diff(refused) > 1 {
        let middle = taken.midpoint(refused);
        match takes(middle)? {
            true => taken = middle,
            false => refused = middle,
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What is found of a plane that takes these, and how often it was asked.
    fn found(start: u32, end: u32, takes: impl Fn(u32) -> bool) -> (u32, u32) {
        let mut asked = 0;
        let answer = furthest(start, end, |number| {
            asked += 1;
            Ok::<_, Infallible>(takes(number))
        });
        let Ok(answer) = answer;
        (answer, asked)
    }

    #[test]
    fn the_furthest_size_is_found_in_both_directions() {
        for limit in [641, 642, 700, 1279, 1918, 1919] {
            let (answer, asked) = found(640, 1920, |width| width <= limit);
            assert_eq!(answer, limit);
            assert!(asked <= 13, "{asked}");
        }
        for limit in [2, 3, 320, 638, 639] {
            assert_eq!(found(640, 1, |width| width >= limit).0, limit);
        }
    }

    #[test]
    fn a_plane_that_does_not_scale_or_scales_to_everything_is_asked_twice_at_most() {
        assert_eq!(found(640, 1920, |width| width == 640), (640, 2));
        assert_eq!(found(640, 1, |width| width == 640), (640, 2));
        assert_eq!(found(640, 1920, |_| true), (1920, 1));
        assert_eq!(found(640, 640, |_| true), (640, 0));
        assert_eq!(found(1, 1, |_| true), (1, 0));
        assert_eq!(found(1, 2, |width| width == 1), (1, 1));
    }

    #[test]
    fn the_oldest_limits_are_forgotten_first() {
        let limits = |width| ScalingLimits {
            min_width: width,
            max_width: width,
            min_height: 1,
            max_height: 1,
        };
        let key = |width| Key {
            plane: PlaneId(1),
            fourcc: Fourcc::XRGB8888,
            modifier: Modifier::LINEAR,
            size: (width, 1),
        };
        let mut known = Known::default();
        for width in 0..=CAPACITY as u32 {
            known.insert(key(width), limits(width));
        }
        assert_eq!(known.get(&key(0)), None);
        assert_eq!(known.get(&key(1)), Some(limits(1)));
        assert!(limits(7).contains(7, 1) && !limits(7).contains(8, 1));
    }
}
