//! How long a wait may take.

use std::time::{Duration, Instant};

/// How long to wait.
///
/// Functions that take a deadline also take a [`Duration`] from now, or an [`Instant`]. With a deadline that
/// has passed they do not wait, but look once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as it takes.
    Never,
    /// Until then.
    At(Instant),
}

impl Deadline {
    /// The time left, zero from the deadline on. `None` for [`Self::Never`].
    pub(crate) fn left(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::At(instant) => Some(instant.saturating_duration_since(Instant::now())),
        }
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self::At(instant)
    }
}

impl From<Duration> for Deadline {
    /// From now on. [`Deadline::Never`] if the clock does not reach so far.
    fn from(duration: Duration) -> Self {
        Instant::now()
            .checked_add(duration)
            .map_or(Self::Never, Self::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clock_cannot_say_is_never() {
        assert_eq!(Deadline::from(Duration::MAX), Deadline::Never);
        assert_eq!(Deadline::Never.left(), None);
    }

    #[test]
    fn past_deadlines_leave_no_time() {
        let now = Instant::now();
        assert_eq!(Deadline::from(now).left(), Some(Duration::ZERO));
        let later = Deadline::from(Duration::from_secs(3600)).left().unwrap();
        assert!(later > Duration::ZERO && later <= Duration::from_secs(3600));
    }
}
