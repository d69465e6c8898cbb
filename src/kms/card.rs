//! The program's place at a device that has screens.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrayvec::ArrayVec;
use drm_ffi::drm_sys;
use nix::fcntl::OFlag;

use super::{Connector, ConnectorId, CrtcId, Error, Framebuffers, Operation, Screens, failed};
use crate::Errno;
use crate::device::{self, Device};
use crate::sys::{self, kms, poll};

/// A device that has screens, by the program's own fd: whoever is DRM master on it says what they show.
///
/// Opening the device, becoming master and giving that up stay the program's, or its session manager's (libseat,
/// logind) or its lessor's. While the program is not the master, what changes a screen fails with
/// [`Error::NotMaster`], and nothing is tried by the library itself.
///
/// Framebuffers are made on a private file description ([`Device::private_copy`]), so that the program may use its fd
/// for gbm, PRIME or Smithay.
///
/// [`AsFd`] gives the fd to wait at: it is readable when there are [events](Self::read_events). Clones share
/// everything. Thread-safe.
#[derive(Clone)]
pub struct Card(Arc<Inner>);

struct Inner {
    /// A dup of the program's.
    master: OwnedFd,
    framebuffers: Framebuffers,
    is_atomic: bool,
    /// Reading events would wait for one.
    may_block: bool,
    /// Found out when it is asked for.
    needs_contiguous: OnceLock<bool>,
}

/// A frame that is on the screen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFlip {
    /// Whose screen.
    pub crtc: CrtcId,
    /// The number of the vertical blank since when it is shown.
    pub sequence: u32,
    /// When that was, by `CLOCK_MONOTONIC`.
    pub time: Duration,
}

impl Card {
    /// For the fd that the program has open. It is borrowed, and a dup is kept.
    ///
    /// Sets the client capabilities UNIVERSAL_PLANES and, if the driver has it, ATOMIC on the program's file description:
    /// its own code sees all planes, and properties of atomic commits, from then on.
    pub fn new(master: impl AsFd) -> Result<Self, Error> {
        Self::with(master.as_fd(), true)
    }

    /// As [`Self::new`], without atomic commits, also if the driver has them: screens are set by the older calls
    /// (SETCRTC, PAGE_FLIP), as wlroots does with `WLR_DRM_NO_ATOMIC`. For drivers whose atomic commits are broken.
    pub fn without_atomic(master: impl AsFd) -> Result<Self, Error> {
        Self::with(master.as_fd(), false)
    }

    fn with(master: BorrowedFd<'_>, may_be_atomic: bool) -> Result<Self, Error> {
        let device = Device::private_copy_of(master)?;
        let is_atomic = {
            let set = |cap| kms::set_client_cap(master, cap);
            let failed = failed(&device, Operation::SetClientCap);
            set(kms::UNIVERSAL_PLANES).map_err(|errno| match errno {
                Errno::EOPNOTSUPP | Errno::EACCES => Error::NoScreens {
                    device: device.to_string(),
                    errno,
                },
                errno => failed(errno),
            })?;
            match may_be_atomic.then(|| set(kms::ATOMIC)) {
                Some(Ok(())) => true,
                None | Some(Err(Errno::EOPNOTSUPP | Errno::EINVAL)) => false,
                Some(Err(errno)) => return Err(failed(errno)),
            }
        };
        let flags = nix::fcntl::fcntl(master, nix::fcntl::FcntlArg::F_GETFL);
        let flags = flags.map_err(|error| failed(&device, Operation::GetCap)(sys::errno(error)))?;
        let may_block = !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK);
        let dup = master.try_clone_to_owned();
        let dup = dup.map_err(|error| device::Error::Duplicate {
            errno: sys::errno(error),
        });
        Ok(Self(Arc::new(Inner {
            master: dup?,
            framebuffers: Framebuffers::new(&device)?,
            is_atomic,
            may_block,
            needs_contiguous: OnceLock::new(),
        })))
    }

    /// The library's file description of the device.
    pub fn device(&self) -> &Device {
        self.0.framebuffers.device()
    }

    /// The framebuffers of the device.
    pub fn framebuffers(&self) -> &Framebuffers {
        &self.0.framebuffers
    }

    /// Whether what a screen shows is set by atomic commits: tested beforehand, several planes at once, with fences.
    /// Else it is one picture for each screen, by the older calls.
    pub fn is_atomic(&self) -> bool {
        self.0.is_atomic
    }

    /// Whether the device takes only memory whose pages follow each other: a display controller without an IOMMU. Found
    /// out by imports of small buffers, once.
    pub fn needs_contiguous(&self) -> Result<bool, Error> {
        if let Some(known) = self.0.needs_contiguous.get() {
            return Ok(*known);
        }
        let can = self.device().capabilities()?;
        let needs = can.import_scattered == Some(false);
        Ok(*self.0.needs_contiguous.get_or_init(|| needs))
    }

    /// Makes writeback connectors visible on the program's file description (`DRM_CLIENT_CAP_WRITEBACK_CONNECTORS`):
    /// they write into memory what a CRTC shows. The program's own code sees them from then on too.
    pub fn show_writeback(&self) -> Result<(), Error> {
        let set = kms::set_client_cap(self.as_fd(), kms::WRITEBACK_CONNECTORS);
        set.map_err(failed(self.device(), Operation::SetClientCap))
    }

    /// All connectors, CRTCs and planes. Some hundred system calls: to be asked at the start, and when something was
    /// plugged in.
    ///
    /// `probe`: the screens are asked, which takes up to a second each and needs DRM master. Else the kernel says what
    /// it knew last.
    pub fn screens(&self, probe: bool) -> Result<Screens, Error> {
        Screens::read(self, probe)
    }

    /// One connector anew.
    pub fn connector(&self, id: ConnectorId, probe: bool) -> Result<Connector, Error> {
        Connector::read(self, id.0, probe)
    }

    /// Page flips that have happened, in order; none if there were none. Does not wait. What does not fit comes with the
    /// next call: the fd stays readable.
    ///
    /// Give each to the [`Output`](super::Output) of its CRTC. A program that reads the events of its fd by itself does
    /// the same with those, and does not call this.
    pub fn read_events(&self) -> Result<PageFlips, Error> {
        let failed = |errno| match errno {
            Errno::ENODEV => Error::Lost {
                device: self.device().to_string(),
            },
            errno => Error::Events {
                device: self.device().to_string(),
                errno,
            },
        };
        let mut bytes = [0; BYTES];
        let is_readable = || poll::wait(self.as_fd(), poll::Event::In, Some(Duration::ZERO));
        if self.0.may_block && !is_readable().map_err(failed)? {
            return Ok(PageFlips::default());
        }
        match sys::uninterrupted(|| nix::unistd::read(self.as_fd(), &mut bytes)) {
            Ok(length) => Ok(page_flips(&bytes[..length])),
            Err(Errno::EAGAIN) => Ok(PageFlips::default()),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// What one read takes, and how many events that are at most.
const BYTES: usize = 1024;
const MOST: usize = BYTES / 32;

/// Page flips, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageFlips(ArrayVec<PageFlip, MOST>);

impl PageFlips {
    /// Each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &PageFlip> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for PageFlips {
    type Item = PageFlip;
    type IntoIter = arrayvec::IntoIter<PageFlip, MOST>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// `struct drm_event` and `struct drm_event_vblank` of `include/uapi/drm/drm.h`, in the host's order.
fn page_flips(mut bytes: &[u8]) -> PageFlips {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let mut flips = ArrayVec::new();
    while let (Some(kind), Some(length)) = (word(bytes, 0), word(bytes, 4)) {
        let length = length as usize;
        if length < 8 || length > bytes.len() {
            break;
        }
        let event = &bytes[..length];
        let fields = [16, 20, 24, 28].map(|at| word(event, at));
        if let [Some(seconds), Some(micros), Some(sequence), Some(crtc)] = fields
            && kind == drm_sys::DRM_EVENT_FLIP_COMPLETE
            && !flips.is_full()
        {
            flips.push(PageFlip {
                crtc: CrtcId(crtc),
                sequence,
                time: Duration::new(seconds.into(), micros % 1_000_000 * 1000),
            });
        }
        bytes = &bytes[length..];
    }
    PageFlips(flips)
}

impl AsFd for Card {
    /// The program's file description.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.master.as_fd()
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card")
            .field("device", &self.device().to_string())
            .field("fd", &self.0.master.as_raw_fd())
            .field("is_atomic", &self.0.is_atomic)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, words: [u32; 6]) -> Vec<u8> {
        let words = [kind, 32].into_iter().chain(words);
        words.flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn page_flips_are_found_among_other_events() {
        let flip = event(2, [0, 0, 7, 500_000, 3, 41]);
        let bytes = [event(1, [0; 6]), flip.clone(), flip[..20].to_vec()].concat();
        let expected = PageFlip {
            crtc: CrtcId(41),
            sequence: 3,
            time: Duration::from_millis(7500),
        };
        assert!(page_flips(&bytes).iter().eq([&expected]));
        let mut endless = flip;
        endless[4..8].fill(0);
        assert!(page_flips(&endless).is_empty());
    }
}
