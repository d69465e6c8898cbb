//! linux-drm-syncobj-v1: the points of a surface's commits.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sync::{self, Stage, SyncFile, Syncobj};
use crate::sys::process::Owner;

/// What a client has set since its last commit (`wp_linux_drm_syncobj_surface_v1`).
///
/// A timeline is a [`Syncobj`] that was imported from the client's fd: [`Syncobj::import`] on a device with
/// [timelines](Syncobj::support). If the import fails, the client is told
/// [`INVALID_TIMELINE`](PointsError::INVALID_TIMELINE). Offer the protocol only if the device has timelines and
/// [`Syncobj::eventfd`] works.
#[derive(Debug, Default)]
pub struct SurfacePoints {
    acquire: Option<(Syncobj, u64)>,
    release: Option<(Syncobj, u64)>,
}

/// Both points of a commit.
#[derive(Clone, Debug)]
pub struct Points {
    acquire: (Syncobj, u64),
    release: Arc<Release>,
}

/// What a commit broke (`wp_linux_drm_syncobj_surface_v1.error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointsError {
    /// The buffer is no dma-buf.
    #[error("explicit synchronization is for dma-bufs")]
    UnsupportedBuffer,
    /// Points without a buffer.
    #[error("a point was set and no buffer is attached")]
    NoBuffer,
    /// A buffer without an acquire point.
    #[error("no acquire point was set")]
    NoAcquirePoint,
    /// A buffer without a release point.
    #[error("no release point was set")]
    NoReleasePoint,
    /// The release point would come before the acquire point, on the same timeline.
    #[error("the release point is not behind the acquire point")]
    ConflictingPoints,
}

impl PointsError {
    /// `wp_linux_drm_syncobj_manager_v1.error.invalid_timeline`, an error of another object.
    pub const INVALID_TIMELINE: u32 = 1;

    /// The number that the client is told.
    pub fn code(self) -> u32 {
        match self {
            Self::UnsupportedBuffer => 2,
            Self::NoBuffer => 3,
            Self::NoAcquirePoint => 4,
            Self::NoReleasePoint => 5,
            Self::ConflictingPoints => 6,
        }
    }
}

impl SurfacePoints {
    /// No points.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request `set_acquire_point`: high and low half of the point.
    pub fn set_acquire(&mut self, timeline: Syncobj, high: u32, low: u32) {
        self.acquire = Some((timeline, point(high, low)));
    }

    /// The request `set_release_point`: high and low half of the point.
    pub fn set_release(&mut self, timeline: Syncobj, high: u32, low: u32) {
        self.release = Some((timeline, point(high, low)));
    }

    /// At `wl_surface.commit`: takes the points. `buffer` is whether this commit attaches one, and whether it is a
    /// dma-buf. `None`: the commit has neither a buffer nor points.
    pub fn commit(&mut self, buffer: Option<bool>) -> Result<Option<Points>, PointsError> {
        let (acquire, release) = (self.acquire.take(), self.release.take());
        let place = |set: &Option<(Syncobj, u64)>| {
            set.as_ref()
                .map(|(timeline, point)| (timeline.identity(), *point))
        };
        check(buffer, place(&acquire), place(&release))?;
        Ok(acquire.zip(release).map(|(acquire, (timeline, point))| {
            let after = Mutex::new(None);
            let release = Release {
                timeline,
                point,
                after,
                owner: Owner::current(),
            };
            Points {
                acquire,
                release: Arc::new(release),
            }
        }))
    }
}

fn point(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The rules, for timelines of any kind.
fn check<T: PartialEq>(
    buffer: Option<bool>,
    acquire: Option<(T, u64)>,
    release: Option<(T, u64)>,
) -> Result<(), PointsError> {
    match (buffer, acquire, release) {
        (None, None, None) => Ok(()),
        (None, _, _) => Err(PointsError::NoBuffer),
        (Some(false), _, _) => Err(PointsError::UnsupportedBuffer),
        (Some(true), None, _) => Err(PointsError::NoAcquirePoint),
        (Some(true), Some(_), None) => Err(PointsError::NoReleasePoint),
        (Some(true), Some(acquire), Some(release)) => {
            match acquire.0 == release.0 && release.1 <= acquire.1 {
                true => Err(PointsError::ConflictingPoints),
                false => Ok(()),
            }
        }
    }
}

impl Points {
    /// The fence that the client's work signals. `None`: it is not submitted yet; [`Self::acquire_eventfd`] tells when it
    /// is. A client may never submit it: do not apply the commit before, and go on with the surface's last one.
    pub fn acquire_fence(&self) -> Result<Option<SyncFile>, sync::Error> {
        let (timeline, point) = &self.acquire;
        match timeline.export_sync_file(*point) {
            Ok(fence) => Ok(Some(fence)),
            Err(sync::Error::NotSubmitted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An eventfd that is readable once the acquire point has reached the stage.
    pub fn acquire_eventfd(&self, stage: Stage) -> Result<OwnedFd, sync::Error> {
        let (timeline, point) = &self.acquire;
        timeline.eventfd(*point, stage)
    }

    /// Has the release point wait for this fence as well, before it is signalled: of a GPU or of a display controller that
    /// reads the buffer.
    pub fn release_after(&self, fence: &SyncFile) -> Result<(), sync::Error> {
        let mut after = self.release.after();
        let merged = match after.as_ref() {
            Some(before) => before.merge(fence)?,
            None => fence.try_clone()?,
        };
        *after = Some(merged);
        Ok(())
    }
}

/// Signals the release point with the last clone of the [`Points`], so that no client waits for a compositor that has
/// dropped its frame.
#[derive(Debug)]
struct Release {
    timeline: Syncobj,
    point: u64,
    after: Mutex<Option<SyncFile>>,
    owner: Owner,
}

impl Release {
    fn after(&self) -> std::sync::MutexGuard<'_, Option<SyncFile>> {
        self.after.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        // The point is the parent's to signal.
        if !self.owner.is_here() {
            return;
        }
        let after = self.after().take();
        let signalled = match &after {
            Some(fence) => self.timeline.import_sync_file(self.point, fence),
            None => self.timeline.signal(self.point),
        };
        if let Err(error) = signalled {
            log::warn!("a client's release point is not signalled: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_has_a_dma_buf_and_both_points_in_order_or_nothing() {
        let dma_buf = Some(true);
        let at = |point| Some((1, point));
        let cases = [
            (None, None, None, Ok(())),
            (None, at(1), None, Err(PointsError::NoBuffer)),
            (None, None, at(1), Err(PointsError::NoBuffer)),
            (
                Some(false),
                at(1),
                at(2),
                Err(PointsError::UnsupportedBuffer),
            ),
            (dma_buf, None, None, Err(PointsError::NoAcquirePoint)),
            (dma_buf, None, at(2), Err(PointsError::NoAcquirePoint)),
            (dma_buf, at(1), None, Err(PointsError::NoReleasePoint)),
            (dma_buf, at(2), at(2), Err(PointsError::ConflictingPoints)),
            (dma_buf, at(3), at(2), Err(PointsError::ConflictingPoints)),
            (dma_buf, at(3), Some((2, 1)), Ok(())),
            (dma_buf, at(1), at(2), Ok(())),
        ];
        for (buffer, acquire, release, expected) in cases {
            let found = check(buffer, acquire, release);
            assert_eq!(found, expected, "{buffer:?} {acquire:?} {release:?}");
        }
    }

    #[test]
    fn halves_of_a_point_are_put_together() {
        assert_eq!(point(1, 2), 0x1_0000_0002);
        assert_eq!(point(u32::MAX, u32::MAX), u64::MAX);
    }
}
