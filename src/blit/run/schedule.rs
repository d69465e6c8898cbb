//! What may start when. Pure: all that it knows of the copies under way is passed in.

use crate::blit::strategy::Strategy;

/// How many lanes there are. Each lane has a copier with Vulkan devices of its own. A GPU executes the
/// submissions of one queue in their order, so a copy whose fences are pending holds back what comes after
/// it in its lane.
pub(super) const MOST_LANES: usize = 3;

/// How a strategy makes a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// One submission to the queue of one end.
    OneQueue(usize),
    /// Two submissions, of which the second waits for the first on the GPU.
    TwoQueues,
    /// Two steps, of which a thread starts or makes the second when the first is done.
    ByHand,
}

/// A copy that was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) lane: usize,
    pub(super) route: Route,
    /// Whether the new copy has to come after this one: they share a stream, or memory that one of them
    /// writes.
    pub(super) is_before: bool,
    /// Whether this copy writes what the new one reads.
    pub(super) feeds: bool,
    /// Whether some of its fences were pending when it was started.
    pub(super) is_blocked: bool,
    /// Whether this copy and the new one are of one stream.
    pub(super) is_of_stream: bool,
}

/// How many copies by this route may be under way in a lane. `copies_first`: a GPU makes the first step.
pub(super) fn room(route: Route, strategy: Strategy, copies_first: bool) -> usize {
    use crate::blit::copy::staging::CAPACITY;
    match route {
        // Without a GPU at the source there is no first step that could run beside another copy.
        Route::ByHand if strategy.is_two_step() && !copies_first => 1,
        Route::ByHand => CAPACITY,
        Route::OneQueue(_) | Route::TwoQueues => usize::MAX,
    }
}

/// Whether a copy can be started in a lane while others are under way. `room` limits copies by hand.
pub(super) fn may_start(
    lane: usize,
    route: Route,
    room: usize,
    started: impl Iterator<Item = Started>,
) -> bool {
    let mut by_hand = 0;
    for earlier in started {
        by_hand += usize::from(earlier.route == Route::ByHand && earlier.lane == lane);
        if earlier.is_before && !follows(lane, route, &earlier) {
            return false;
        }
    }
    route != Route::ByHand || by_hand < room
}

/// Whether a copy in this lane is executed after an earlier one without anybody's waiting for it.
fn follows(lane: usize, route: Route, earlier: &Started) -> bool {
    if earlier.lane != lane {
        return false;
    }
    match (earlier.route, route) {
        // Both use only this queue, which executes in order.
        (Route::OneQueue(one), Route::OneQueue(other)) => one == other,
        // The earlier copy writes by the second queue. The new one reads by the first, which does not wait
        // for the second.
        (Route::TwoQueues, Route::TwoQueues) => !earlier.feeds,
        // Second steps are taken in order, and the first step of a copy only reads its source.
        (Route::ByHand, Route::ByHand) => !earlier.feeds,
        _ => false,
    }
}

/// The lane for a copy. `None` if the copy has to wait until its own fences, or those of other copies, are
/// signalled.
///
/// `is_blocked`: some of its fences are pending. A copy goes into the lane of its stream, if no copy of
/// another stream waits for fences there, and else into the first lane without such a copy. At least one
/// lane is left to copies that wait for no fences.
pub(super) fn lane(
    is_blocked: bool,
    started: impl Iterator<Item = Started> + Clone,
) -> Option<usize> {
    let is_taken = |lane: usize| {
        let of_lane = |one: &Started| one.lane == lane && one.is_blocked && !one.is_of_stream;
        started.clone().any(|one| of_lane(&one))
    };
    let blocked = (0..MOST_LANES).filter(|lane| {
        let of_lane = |one: &Started| one.lane == *lane && one.is_blocked;
        started.clone().any(|one| of_lane(&one))
    });
    let own = started.clone().filter(|one| one.is_of_stream).last();
    let own = own.map(|one| one.lane).filter(|lane| !is_taken(*lane));
    let chosen = own.or_else(|| (0..MOST_LANES).find(|lane| !is_taken(*lane)))?;
    let adds = is_blocked
        && !started
            .clone()
            .any(|one| one.lane == chosen && one.is_blocked);
    let after = blocked.count() + usize::from(adds);
    (!adds || after < MOST_LANES).then_some(chosen)
}

/// A lane for a copy that is waited for at once: one where no copy waits for fences, not even one of the
/// same stream. [`lane`] always leaves one.
pub(super) fn free_lane(started: impl Iterator<Item = Started> + Clone) -> usize {
    let is_blocked = |lane: usize| {
        let of_lane = |one: Started| one.lane == lane && one.is_blocked;
        started.clone().any(of_lane)
    };
    let free = (0..MOST_LANES).find(|lane| !is_blocked(*lane));
    free.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(lane: usize, route: Route) -> Started {
        Started {
            lane,
            route,
            is_before: true,
            feeds: false,
            is_blocked: false,
            is_of_stream: true,
        }
    }

    fn blocked(lane: usize, is_of_stream: bool) -> Started {
        Started {
            is_before: is_of_stream,
            is_blocked: true,
            is_of_stream,
            ..started(lane, Route::OneQueue(1))
        }
    }

    fn may(route: Route, earlier: &[Started]) -> bool {
        may_start(0, route, 2, earlier.iter().copied())
    }

    #[test]
    fn what_comes_after_another_copy_starts_beside_it_on_the_same_queue_only() {
        let earlier = [started(0, Route::OneQueue(1))];
        assert!(may(Route::OneQueue(1), &earlier));
        assert!(!may(Route::OneQueue(0), &earlier));
        assert!(!may(Route::TwoQueues, &earlier));
        assert!(!may(Route::ByHand, &earlier));
        let elsewhere = [started(1, Route::OneQueue(1))];
        assert!(!may(Route::OneQueue(1), &elsewhere));
    }

    #[test]
    fn what_has_nothing_to_do_with_another_copy_starts_beside_it() {
        let earlier = [Started {
            is_before: false,
            ..started(1, Route::ByHand)
        }];
        for route in [Route::OneQueue(0), Route::TwoQueues, Route::ByHand] {
            assert!(may(route, &earlier), "{route:?}");
        }
    }

    #[test]
    fn the_first_step_of_one_copy_is_beside_the_second_of_another_unless_it_reads_what_that_writes()
    {
        let earlier = started(0, Route::ByHand);
        assert!(may(Route::ByHand, &[earlier]));
        let feeds = Started {
            feeds: true,
            ..earlier
        };
        assert!(!may(Route::ByHand, &[feeds]));
    }

    #[test]
    fn copies_by_hand_are_bounded() {
        let one = Started {
            is_before: false,
            ..started(0, Route::ByHand)
        };
        assert!(may(Route::ByHand, &[one]));
        assert!(!may(Route::ByHand, &[one, one]));
        assert!(may(Route::OneQueue(1), &[one, one]));
    }

    #[test]
    fn a_stream_whose_fences_are_pending_keeps_its_lane_and_others_take_another() {
        let own = [blocked(0, true)];
        assert_eq!(lane(true, own.iter().copied()), Some(0));
        let other = [blocked(0, false)];
        assert_eq!(lane(true, other.iter().copied()), Some(1));
        assert_eq!(lane(false, other.iter().copied()), Some(1));
        assert_eq!(lane(true, [].into_iter()), Some(0));
    }

    #[test]
    fn what_is_waited_for_at_once_goes_where_nothing_waits_for_fences() {
        assert_eq!(free_lane([].into_iter()), 0);
        let own = [blocked(0, true), started(1, Route::ByHand)];
        assert_eq!(free_lane(own.iter().copied()), 1);
        let both = [blocked(0, true), blocked(1, false)];
        assert_eq!(free_lane(both.iter().copied()), 2);
    }

    #[test]
    fn one_lane_is_left_to_those_that_wait_for_nothing() {
        let others: Vec<Started> = (0..MOST_LANES - 1)
            .map(|lane| blocked(lane, false))
            .collect();
        assert_eq!(lane(true, others.iter().copied()), None);
        assert_eq!(lane(false, others.iter().copied()), Some(MOST_LANES - 1));
    }
}
