//! What is asked for of pictures, said of their rows in memory. Pure.
//!
//! Boxes count from a picture's top. With [`BufferFlags::Y_INVERT`] the first row in memory is the picture's
//! last, and all that copies count from there.

use super::damage::{Damage, DamageBox, Rect};
use super::error::check_sizes;
use super::{Error, Filter, Scaling, Transform};
use crate::buffer::{BufferFlags, DmaBuf};

/// Damage and scaling of a copy, in rows of memory.
pub(super) struct Asked<'a> {
    damage: Damage<'a>,
    /// The boxes, if they are others than those that were given.
    upright: Option<Vec<DamageBox>>,
    pub(super) scaling: Option<Scaling>,
}

impl<'a> Asked<'a> {
    pub(super) fn in_memory(
        source: &DmaBuf,
        destination: &DmaBuf,
        damage: Damage<'a>,
        scaling: Option<Scaling>,
    ) -> Result<Self, Error> {
        let [from, to] = [source, destination].map(|buffer| {
            let is_inverted = buffer.flags().contains(BufferFlags::Y_INVERT);
            is_inverted.then(|| buffer.height())
        });
        let size = |buffer: &DmaBuf| (buffer.width(), buffer.height());
        let scaling = match scaling {
            None if from.is_some() == to.is_some() => None,
            None => {
                check_sizes(source, destination)?;
                let mut whole = Scaling::whole(size(source), size(destination));
                whole.filter = Filter::Nearest;
                Some(whole)
            }
            Some(given) => {
                given.check(size(source), size(destination), (1, 1))?;
                Some(given)
            }
        };
        let upright = match (from, damage) {
            (Some(height), Damage::Boxes(boxes)) => {
                Some(boxes.iter().map(|part| flipped(*part, height)).collect())
            }
            _ => None,
        };
        Ok(Self {
            damage,
            upright,
            scaling: scaling.map(|scaling| in_rows(scaling, from, to)),
        })
    }

    pub(super) fn damage(&self) -> Damage<'_> {
        match &self.upright {
            Some(boxes) => Damage::Boxes(boxes),
            None => self.damage,
        }
    }
}

/// A scaling of pictures, of which those with a height are upside down in memory.
fn in_rows(mut scaling: Scaling, source: Option<u32>, destination: Option<u32>) -> Scaling {
    let flip = |rect: Rect, height: u32| Rect {
        y: height - rect.y - rect.height,
        ..rect
    };
    let turned = Transform::Flipped180;
    if let Some(height) = source {
        scaling.source = flip(scaling.source, height);
        scaling.transform = turned.then(scaling.transform);
    }
    if let Some(height) = destination {
        scaling.destination = flip(scaling.destination, height);
        scaling.transform = scaling.transform.then(turned);
    }
    scaling
}

fn flipped(part: DamageBox, height: u32) -> DamageBox {
    let from_below = |y: i32| {
        let y = i64::from(height) - i64::from(y);
        y.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    };
    DamageBox {
        y1: from_below(part.y2),
        y2: from_below(part.y1),
        ..part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_as_far_from_the_bottom_as_it_was_from_the_top() {
        let part = |y1, y2| DamageBox {
            x1: 1,
            y1,
            x2: 4,
            y2,
        };
        assert_eq!(flipped(part(0, 3), 10), part(7, 10));
        assert_eq!(flipped(part(-2, 1), 10), part(9, 12));
        assert_eq!(flipped(part(i32::MIN, 5), 10), part(5, i32::MAX));
    }

    #[test]
    fn two_pictures_upside_down_are_scaled_as_two_upright_ones() {
        let scaling = Scaling::whole((8, 6), (4, 3));
        assert_eq!(in_rows(scaling, Some(6), Some(3)), scaling);
        let one = in_rows(scaling, Some(6), None);
        assert_eq!(one.transform, Transform::Flipped180);
        let part = Scaling {
            source: Rect {
                x: 1,
                y: 0,
                width: 2,
                height: 2,
            },
            ..scaling
        };
        assert_eq!(in_rows(part, Some(6), None).source.y, 4);
    }
}
