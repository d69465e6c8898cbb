//! The copies that were asked for, in the order in which they were.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use nix::poll::PollFlags;

use super::completion::{Completion, Completions, Signaller};
use super::schedule::{Route, Started};
use super::waits::{self, Waits};
use crate::blit::Failure;
use crate::blit::copy::copier::Running;
use crate::blit::copy::frame::Frame;
use crate::blit::statistics::Counts;
use crate::blit::strategy::Strategy;
use crate::sync::{SyncFile, Syncobj};

/// The most syncobj points that one copy signals.
pub(in crate::blit) const MOST_SIGNALS: usize = 4;

/// Syncobjs and points of their timelines.
pub(in crate::blit) type Points = ArrayVec<(Syncobj, u64), MOST_SIGNALS>;

/// The points that a copy signals when it is done, even if it failed, so that nobody waits for a point for
/// ever. The drop signals those that are left.
pub(super) struct Signals(pub(super) Points);

impl Drop for Signals {
    fn drop(&mut self) {
        for (syncobj, point) in &self.0 {
            if let Err(error) = syncobj.signal(*point) {
                log::error!("the end of a copy: {error}");
            }
        }
    }
}

/// Copies of one stream happen in the order of their calls, whatever their buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(pub(in crate::blit) u64);

impl Stream {
    /// The stream of this number of the program's own, for example of a client. It is none of those that
    /// [`Blitter::stream`](crate::blit::Blitter::stream) gives. Numbers below 2^63; of others, the highest bit is not
    /// looked at.
    pub fn numbered(number: u64) -> Self {
        Self(number | 1 << 63)
    }
}

/// A copy that was asked for.
pub(super) struct Job {
    pub(super) frame: Frame,
    pub(super) waits: Waits,
    pub(super) signals: Signals,
    pub(super) signaller: Signaller,
    pub(super) stream: Option<Stream>,
    pub(super) since: Instant,
    /// Why its fence could not be left in the dma-bufs or syncobjs.
    pub(super) not_left: Option<Failure>,
}

/// A copy that was started.
pub(super) struct Begun {
    pub(super) job: Job,
    pub(super) running: Running,
    /// Signalled when the GPUs have executed the copy.
    pub(super) file: Option<Arc<SyncFile>>,
    pub(super) lane: usize,
    pub(super) route: Route,
    /// Whether some of its fences were pending when it was started.
    pub(super) is_blocked: bool,
    /// When it was started.
    pub(super) at: Instant,
}

/// Whether the blitter's thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    Awake,
    /// For a moment at most, after which it looks at the queue.
    Watching,
    /// Until it is woken.
    Parked,
}

pub(super) struct Queue {
    pub(super) waiting: VecDeque<Job>,
    /// Copies under way, in the order in which they were started.
    pub(super) started: VecDeque<Begun>,
    /// A copy that a caller saw fail. The blitter's thread is to make it again.
    pub(super) failed: Option<(Job, usize, Strategy, Failure)>,
    /// How many copies some thread has taken off the queue. While this is not zero, callers must not start
    /// later copies themselves.
    pub(super) in_hand: usize,
    /// Whether some thread waits for the ends of copies. Only that thread may end them.
    pub(super) is_driven: bool,
    /// Threads that sleep until a copy is done.
    pub(super) sleepers: usize,
    pub(super) sleep: Sleep,
    pub(super) last_use: Instant,
    /// When a copy of the GPUs' was last seen to end.
    pub(super) last_end: Instant,
    pub(super) closing: bool,
    /// The staging memory that was kept when somebody last asked.
    pub(super) staging_bytes: u64,
    pub(super) completions: Completions,
    pub(super) counts: Counts,
}

impl Job {
    /// Whether this copy has to come after an earlier one.
    pub(super) fn comes_after(&self, earlier: &Job) -> bool {
        self.is_of_stream(earlier) || self.frame.conflicts(&earlier.frame)
    }

    /// Whether both are of one stream: the one that was named, or, if neither names one, the copies into
    /// one destination.
    pub(super) fn is_of_stream(&self, other: &Job) -> bool {
        match (self.stream, other.stream) {
            (Some(one), Some(other)) => one == other,
            (None, None) => {
                let id = |job: &Job| job.frame.destination.objects()[0].id();
                id(self) == id(other)
            }
            _ => false,
        }
    }

    /// What it waits for.
    pub(super) fn inputs(&self) -> ArrayVec<(BorrowedFd<'_>, PollFlags), { waits::MOST }> {
        waits::polled(&self.frame, &self.waits)
    }

    /// Drops the buffers, signals the points, and then completes the copy.
    pub(super) fn end(self, result: Result<(), Failure>) {
        let Self {
            frame,
            signaller,
            signals,
            not_left,
            ..
        } = self;
        drop(frame);
        drop(signals);
        signaller.complete(result.and(not_left.map_or(Ok(()), Err)));
    }
}

impl Queue {
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len() + self.started.len() + self.in_hand
    }

    /// The copies under way, as the schedule wants to know them for a new copy.
    pub(super) fn seen_from<'a>(
        &'a self,
        job: &'a Job,
    ) -> impl Iterator<Item = Started> + Clone + 'a {
        self.started.iter().map(|begun| Started {
            lane: begun.lane,
            route: begun.route,
            is_before: job.comes_after(&begun.job),
            feeds: begun.job.frame.feeds(&job.frame),
            is_blocked: begun.is_blocked,
            is_of_stream: job.is_of_stream(&begun.job),
        })
    }

    /// Whether no copy in its lane was started before this one.
    pub(super) fn is_first_of_lane(&self, at: usize) -> bool {
        let lane = self.started.get(at).map(|begun| begun.lane);
        let mut before = self.started.iter().take(at);
        !before.any(|begun| Some(begun.lane) == lane)
    }

    /// Takes back copies that are in hand, at their places in the order in which all were asked for.
    pub(super) fn take_back(&mut self, jobs: Vec<Job>) {
        self.in_hand -= jobs.len();
        for job in jobs {
            let at = self.waiting.partition_point(|one| one.since <= job.since);
            self.waiting.insert(at, job);
        }
    }

    /// Whether this copy has to come after one of the first `earlier` copies that have not begun.
    pub(super) fn has_to_wait(&self, job: &Job, earlier: usize) -> bool {
        self.waiting
            .iter()
            .take(earlier)
            .any(|before| job.comes_after(before))
    }

    /// Whether this copy has to come after one that waits for fences on a GPU.
    pub(super) fn is_behind_a_blocked(&self, job: &Job) -> bool {
        let is_blocked = |begun: &Begun| begun.is_blocked && job.comes_after(&begun.job);
        self.started.iter().any(is_blocked)
    }

    /// Whether the thread has to start or end copies. `old`: a copy that was asked for before this time
    /// needs the thread even if nobody waits for it.
    pub(super) fn needs_driver(&self, old: Instant) -> bool {
        let needs = |begun: &Begun| {
            begun.route == Route::ByHand
                || begun.job.signaller.is_watched()
                || !begun.job.signals.0.is_empty()
                || begun.job.since < old
                || self.sleepers > 0
                || self.closing
        };
        !self.waiting.is_empty() || self.failed.is_some() || self.started.iter().any(needs)
    }

    /// How long the GPUs took for a copy: since it was started, or since the copy before it ended. `None`
    /// if the copy waited for fences, or if nobody was waiting when it ended.
    pub(super) fn took(
        &mut self,
        since: Instant,
        was_blocked: bool,
        was_waited_for: bool,
        now: Instant,
    ) -> Option<Duration> {
        let before = std::mem::replace(&mut self.last_end, now);
        let begun = since.max(before);
        (was_waited_for && !was_blocked).then(|| now.saturating_duration_since(begun))
    }

    /// A copy has ended.
    pub(super) fn count(&mut self, job: &Job, made: Option<Strategy>, now: Instant) {
        if let Some(strategy) = made {
            self.counts.made(strategy, job.frame.bytes());
        }
        let latency = now.saturating_duration_since(job.since);
        self.counts.ended(made.is_some(), latency);
    }

    pub(super) fn make_completion(&mut self) -> Result<(Completion, Signaller), crate::Errno> {
        self.completions.make()
    }
}
