//! `zwp_linux_buffer_params_v1`: what a client sends becomes a buffer, or the answer that the protocol asks for.

use crate::buffer::{self, BufferDesc, BufferFlags, LinuxDmabufAnswer, MAX_PLANES, PlaneFd};
use crate::kind::into_io_error;
use crate::negotiate::{self, FormatTable};
use crate::{DmaBuf, Errno, ErrorKind, Fourcc, Modifier};

/// The planes that a client has sent, until it asks for a buffer.
///
/// A params object makes one buffer: after [`Self::create`], also one that failed, only `destroy` is legal. Fds that are
/// not in a buffer are closed with this value.
#[derive(Debug, Default)]
pub struct Params {
    planes: [Option<(PlaneFd, Modifier)>; MAX_PLANES],
    sampling_device: Option<u64>,
    is_used: bool,
}

/// Why a client gets no buffer. Every fd that came with it has been closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// A buffer was asked for before.
    #[error("the params object has been used already")]
    AlreadyUsed,
    /// Planes have the indices 0 to 3.
    #[error("there is no plane {0}: a buffer has at most {MAX_PLANES}")]
    PlaneIndex(u32),
    /// The plane was sent before.
    #[error("plane {0} is set already")]
    PlaneSet(u32),
    /// No plane was sent, or one that is followed by another is missing.
    #[error("plane {0} is missing")]
    PlaneMissing(usize),
    /// All planes have one modifier.
    #[error("plane {plane} has the modifier {modifier}, and plane 0 has {first}")]
    Modifiers {
        /// Plane index.
        plane: usize,
        /// Its modifier.
        modifier: Modifier,
        /// That of the first plane.
        first: Modifier,
    },
    /// The pair is not in the feedback.
    #[error("{fourcc} with {modifier} was not offered")]
    NotOffered {
        /// Format.
        fourcc: Fourcc,
        /// Arrangement in memory.
        modifier: Modifier,
    },
    /// A device number is of another size than `dev_t`.
    #[error(transparent)]
    SamplingDevice(negotiate::Error),
    /// The library refuses the buffer.
    #[error(transparent)]
    Buffer(#[from] buffer::Error),
}

impl ParamsError {
    /// What the client is told.
    pub fn answer(&self) -> LinuxDmabufAnswer {
        let code = match self {
            Self::AlreadyUsed => 0,
            Self::PlaneIndex(_) => 1,
            Self::PlaneSet(_) => 2,
            Self::PlaneMissing(_) => 3,
            Self::Modifiers { .. } | Self::NotOffered { .. } => 4,
            Self::SamplingDevice(_) => 8,
            Self::Buffer(error) => return error.linux_dmabuf_answer(),
        };
        LinuxDmabufAnswer::ProtocolError(code)
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Buffer(error) => error.kind(),
            _ => ErrorKind::Invalid,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Buffer(error) => error.errno(),
            _ => None,
        }
    }
}

into_io_error!(ParamsError);

impl Params {
    /// No planes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request `add`. Takes ownership of the fd, and closes it if the plane is refused.
    pub fn add(
        &mut self,
        index: u32,
        plane: PlaneFd,
        modifier: Modifier,
    ) -> Result<(), ParamsError> {
        if self.is_used {
            return Err(ParamsError::AlreadyUsed);
        }
        let place = self.planes.get_mut(index as usize);
        let place = place.ok_or(ParamsError::PlaneIndex(index))?;
        match place {
            Some(_) => Err(ParamsError::PlaneSet(index)),
            None => {
                *place = Some((plane, modifier));
                Ok(())
            }
        }
    }

    /// The request `set_sampling_device` (version 6): an array with a `dev_t`.
    pub fn set_sampling_device(&mut self, device: &[u8]) -> Result<(), ParamsError> {
        if self.is_used {
            return Err(ParamsError::AlreadyUsed);
        }
        let device = FormatTable::device(device).map_err(ParamsError::SamplingDevice)?;
        self.sampling_device = Some(device);
        Ok(())
    }

    /// The device (`dev_t`) that is to sample the buffer, if the client has said one.
    pub fn sampling_device(&self) -> Option<u64> {
        self.sampling_device
    }

    /// The requests `create` and `create_immed`. `is_offered` says whether the compositor lists a pair, for example in
    /// [`FeedbackEvents::pairs`](super::FeedbackEvents::pairs).
    ///
    /// If `answer()` of an error is [`LinuxDmabufAnswer::Failed`], `create` is answered by the event `failed`, and
    /// `create_immed` by that event or by the error [`LinuxDmabufAnswer::INVALID_WL_BUFFER`], as the compositor likes.
    /// Whether a GPU takes the buffer is asked afterwards.
    pub fn create(
        &mut self,
        (width, height): (i32, i32),
        fourcc: Fourcc,
        flags: u32,
        is_offered: impl FnOnce(Fourcc, Modifier) -> bool,
    ) -> Result<DmaBuf, ParamsError> {
        if std::mem::replace(&mut self.is_used, true) {
            return Err(ParamsError::AlreadyUsed);
        }
        let planes = std::mem::take(&mut self.planes);
        let end = planes.iter().rposition(Option::is_some);
        let end = end.ok_or(ParamsError::PlaneMissing(0))?;
        if let Some(missing) = planes[..end].iter().position(Option::is_none) {
            return Err(ParamsError::PlaneMissing(missing));
        }
        let mut modifiers = planes.iter().flatten().map(|plane| plane.1);
        let modifier = modifiers.next().unwrap_or(Modifier::INVALID);
        let other = (1..).zip(modifiers).find(|(_, other)| *other != modifier);
        if let Some((plane, other)) = other {
            return Err(ParamsError::Modifiers {
                plane,
                modifier: other,
                first: modifier,
            });
        }
        if !is_offered(fourcc, modifier) {
            return Err(ParamsError::NotOffered { fourcc, modifier });
        }
        let desc = BufferDesc::from_signed(width, height, fourcc, modifier)?;
        // Before the fds are looked at: a client that breaks a rule is told so, whatever it has sent.
        if desc.width == 0 || desc.height == 0 {
            let (width, height) = (desc.width, desc.height);
            return Err(buffer::Error::Empty { width, height }.into());
        }
        let desc = desc.with_flags(BufferFlags::from_bits_retain(flags));
        let planes = planes.into_iter().flatten().map(|(plane, _)| plane);
        Ok(DmaBuf::new(desc, planes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn plane() -> PlaneFd {
        PlaneFd {
            fd: File::open("/dev/null").unwrap().into(),
            offset: 0,
            stride: 256,
        }
    }

    fn create(params: &mut Params) -> LinuxDmabufAnswer {
        let created = params.create((64, 64), Fourcc::XRGB8888, 0, |_, modifier| modifier.0 == 0);
        created.unwrap_err().answer()
    }

    #[test]
    fn every_breach_of_the_protocol_has_its_own_number() {
        use LinuxDmabufAnswer::{Failed, ProtocolError};
        let (linear, other) = (Modifier::LINEAR, Modifier(7));
        let mut params = Params::new();
        assert_eq!(create(&mut params), ProtocolError(3));
        assert_eq!(create(&mut params), ProtocolError(0));
        let added = params.add(0, plane(), linear);
        assert_eq!(added, Err(ParamsError::AlreadyUsed));

        let mut params = Params::new();
        let far = params.add(4, plane(), linear).unwrap_err();
        assert_eq!(far.answer(), ProtocolError(1));
        params.add(1, plane(), linear).unwrap();
        let twice = params.add(1, plane(), linear).unwrap_err();
        assert_eq!(twice.answer(), ProtocolError(2));
        assert_eq!(create(&mut params), ProtocolError(3), "a gap");

        let mut params = Params::new();
        params.add(0, plane(), linear).unwrap();
        params.add(1, plane(), other).unwrap();
        assert_eq!(create(&mut params), ProtocolError(4), "two modifiers");

        let mut params = Params::new();
        params.add(0, plane(), other).unwrap();
        assert_eq!(create(&mut params), ProtocolError(4), "not offered");

        let mut params = Params::new();
        params.add(0, plane(), linear).unwrap();
        assert_eq!(create(&mut params), Failed, "no dma-buf");

        for size in [(0, 64), (64, 0), (64, -1), (i32::MIN, 0)] {
            let mut params = Params::new();
            params.add(0, plane(), linear).unwrap();
            let refused = params.create(size, Fourcc::XRGB8888, 0, |_, _| true);
            let refused = refused.unwrap_err();
            assert_eq!(refused.answer(), ProtocolError(5), "{size:?}");
        }

        let mut params = Params::new();
        let short = params.set_sampling_device(&[0; 4]).unwrap_err();
        assert_eq!(short.answer(), ProtocolError(8));
        params
            .set_sampling_device(&0xe280_u64.to_ne_bytes())
            .unwrap();
        assert_eq!(params.sampling_device(), Some(0xe280));
    }

    #[test]
    fn fds_that_were_refused_are_closed() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut params = Params::new();
        let fd = writer.try_clone().unwrap().into();
        let (offset, stride) = (0, 256);
        let of_pipe = PlaneFd { fd, offset, stride };
        params.add(0, of_pipe, Modifier::LINEAR).unwrap();
        let fd = writer.into();
        let again = PlaneFd { fd, offset, stride };
        params.add(0, again, Modifier::LINEAR).unwrap_err();
        create(&mut params);
        // The last writer is gone: reading ends.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
}
