//! `zwp_linux_dmabuf_feedback_v1`: the events of a feedback, and which feedback a surface has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::negotiate::{Encoded, Feedback};
use crate::sys::memfd;
use crate::{Fourcc, Modifier};

/// A feedback that is ready to be sent, to clients of any version.
///
/// The format table is in a memfd that nobody can change any more (`F_SEAL_SHRINK`, `F_SEAL_GROW`, `F_SEAL_WRITE` and
/// `F_SEAL_SEAL`), so that all clients share one.
#[derive(Debug)]
pub struct FeedbackEvents {
    /// For versions before 6, and from 6 on.
    encoded: [Encoded; 2],
    table: OwnedFd,
    pairs: Vec<(Fourcc, Modifier)>,
}

/// An event of `zwp_linux_dmabuf_feedback_v1`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum FeedbackEvent<'a> {
    /// `format_table`: an fd that clients map, and its size in bytes.
    FormatTable(BorrowedFd<'a>, u32),
    /// `main_device`: an array with a `dev_t`.
    MainDevice(&'a [u8]),
    /// `tranche_target_device`: an array with a `dev_t`.
    TrancheTargetDevice(&'a [u8]),
    /// `tranche_flags`
    TrancheFlags(u32),
    /// `tranche_formats`: an array of indices of 16 bits.
    TrancheFormats(&'a [u8]),
    /// `tranche_done`
    TrancheDone,
    /// `done`
    Done,
}

/// A memfd with a format table that nobody can change any more, for those who send the bytes of
/// [`Encoded`] by themselves. Close-on-exec.
pub fn sealed_table(table: &[u8]) -> io::Result<OwnedFd> {
    Ok(memfd::sealed(c"dmabuf-feedback", table)?)
}

impl FeedbackEvents {
    /// Prepares a feedback. It needs a main device for clients before version 6, and flags in each tranche for the others.
    pub fn new(feedback: &Feedback) -> io::Result<Self> {
        let encoded = [feedback.encode(5)?, feedback.encode(6)?];
        // Both versions list the same pairs in the same order.
        let table = sealed_table(&encoded[0].table)?;
        let pairs = feedback.tranches.iter().flat_map(|tranche| &tranche.pairs);
        let mut seen = rustc_hash::FxHashSet::default();
        let pairs = pairs.copied().filter(|pair| seen.insert(*pair)).collect();
        Ok(Self {
            encoded,
            table,
            pairs,
        })
    }

    /// The events for an object of this version (4 or newer), in the order in which they are sent.
    pub fn events(&self, version: u32) -> impl Iterator<Item = FeedbackEvent<'_>> {
        let encoded = &self.encoded[usize::from(version >= 6)];
        let table = FeedbackEvent::FormatTable(self.table.as_fd(), encoded.table.len() as u32);
        let main = encoded.main_device.as_ref();
        let tranches = encoded.tranches.iter().flat_map(|tranche| {
            let formats = tranche.events().map(FeedbackEvent::TrancheFormats);
            [
                FeedbackEvent::TrancheTargetDevice(&tranche.target_device),
                FeedbackEvent::TrancheFlags(tranche.flags),
            ]
            .into_iter()
            .chain(formats)
            .chain([FeedbackEvent::TrancheDone])
        });
        std::iter::once(table)
            .chain(main.map(|device| FeedbackEvent::MainDevice(device)))
            .chain(tranches)
            .chain([FeedbackEvent::Done])
    }

    /// Every format and modifier that some tranche has, once: what `zwp_linux_dmabuf_v1` lists in its events `format` and
    /// `modifier` before version 4, and what buffers of clients may have.
    pub fn pairs(&self) -> &[(Fourcc, Modifier)] {
        &self.pairs
    }
}

/// Which feedback a surface is to have: the default one, or one with a tranche for the screen that could show its
/// buffers as they are.
///
/// A client that is told of another feedback allocates all its buffers anew, so a change is told only after it has
/// lasted for [`PATIENCE`](Self::PATIENCE) frames: an effect or a notification over a full-screen surface is no reason.
/// `K` names what could show the surface, a plane or an output for example.
#[derive(Debug)]
pub struct SurfaceFeedback<K> {
    sent: Option<K>,
    wanted: Option<K>,
    frames: u32,
}

impl<K> Default for SurfaceFeedback<K> {
    fn default() -> Self {
        Self {
            sent: None,
            wanted: None,
            frames: 0,
        }
    }
}

impl<K: Clone + PartialEq> SurfaceFeedback<K> {
    /// Frames that a change has to last.
    pub const PATIENCE: u32 = 30;

    /// A surface that has the default feedback.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be called for each frame with what could show the surface's buffers as they are if their format were right
    /// (`None`: nothing, since something is drawn over it, for example). `Some` if the surface's feedback changes with this
    /// frame: send the feedback for what is inside, and the default one for `Some(None)`.
    pub fn frame(&mut self, candidate: Option<K>) -> Option<Option<K>> {
        if candidate != self.wanted {
            self.wanted = candidate;
            self.frames = 0;
        }
        if self.wanted == self.sent {
            self.frames = 0;
            return None;
        }
        self.frames += 1;
        if self.frames < Self::PATIENCE {
            return None;
        }
        self.frames = 0;
        self.sent = self.wanted.clone();
        Some(self.sent.clone())
    }

    /// What the surface's feedback is for now. `None`: it is the default one.
    pub fn current(&self) -> Option<&K> {
        self.sent.as_ref()
    }

    /// Forgets a candidate that is gone, such as a screen that was plugged out. `true` if the surface's feedback was for it:
    /// send the default one.
    pub fn forget(&mut self, gone: &K) -> bool {
        if self.wanted.as_ref() == Some(gone) {
            self.wanted = None;
            self.frames = 0;
        }
        let had = self.sent.as_ref() == Some(gone);
        if had {
            self.sent = None;
        }
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::{FormatTable, Tranche, TrancheFlags};

    #[test]
    fn a_surfaces_feedback_changes_only_after_the_change_has_lasted() {
        let mut surface = SurfaceFeedback::new();
        for _ in 1..SurfaceFeedback::<u8>::PATIENCE {
            assert_eq!(surface.frame(Some(1)), None);
        }
        assert_eq!(surface.frame(Some(1)), Some(Some(1)));
        assert_eq!(surface.current(), Some(&1));
        // A notification for a moment.
        for _ in 1..SurfaceFeedback::<u8>::PATIENCE {
            assert_eq!(surface.frame(None), None);
        }
        assert_eq!(surface.frame(Some(1)), None);
        for _ in 1..SurfaceFeedback::<u8>::PATIENCE {
            assert_eq!(surface.frame(None), None);
        }
        assert_eq!(surface.frame(None), Some(None));
    }

    #[test]
    fn a_screen_that_is_gone_is_forgotten_at_once() {
        let mut surface = SurfaceFeedback::new();
        while surface.frame(Some(1)).is_none() {}
        assert!(!surface.forget(&2));
        assert!(surface.forget(&1));
        assert_eq!(surface.current(), None);
        assert_eq!(surface.frame(None), None);
    }

    #[test]
    fn events_come_in_the_protocols_order_and_the_table_cannot_be_changed() {
        let pair = |modifier| (Fourcc::XRGB8888, Modifier(modifier));
        let of = |flags, pairs: Vec<_>| Tranche::new(0xe280, flags, pairs);
        let feedback = Feedback::new([
            of(TrancheFlags::SCANOUT, vec![pair(0), pair(5)]),
            of(TrancheFlags::SAMPLING, vec![pair(5), pair(7)]),
        ]);
        let events = FeedbackEvents::new(&feedback.main_device(0xe280)).unwrap();
        assert_eq!(events.pairs(), [pair(0), pair(5), pair(7)]);
        let names = |version| -> String {
            let letter = |event| match event {
                FeedbackEvent::FormatTable(..) => 't',
                FeedbackEvent::MainDevice(_) => 'm',
                FeedbackEvent::TrancheTargetDevice(_) => 'd',
                FeedbackEvent::TrancheFlags(_) => 'f',
                FeedbackEvent::TrancheFormats(_) => 'i',
                FeedbackEvent::TrancheDone => 'e',
                FeedbackEvent::Done => '.',
            };
            events.events(version).map(letter).collect()
        };
        assert_eq!(names(5), "tmdfiedfie.");
        assert_eq!(names(6), "tdfiedfie.");
        let Some(FeedbackEvent::FormatTable(table, size)) = events.events(6).next() else {
            panic!("no table");
        };
        let mut bytes = vec![0; size as usize];
        rustix::io::pread(table, &mut bytes, 0).unwrap();
        assert_eq!(FormatTable::parse(&bytes).unwrap().pairs(), events.pairs());
        let written = rustix::io::pwrite(table, &[1], 0);
        assert_eq!(written, Err(rustix::io::Errno::PERM));
        let shrunk = rustix::fs::ftruncate(table, 0);
        assert_eq!(shrunk, Err(rustix::io::Errno::PERM));
    }
}
