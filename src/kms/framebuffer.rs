//! Framebuffers: one for each buffer and device, kept for as long as the buffer lives.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::{Error, Operation, failed};
use crate::Errno;
use crate::buffer::{BufferFlags, DmaBuf, FormatInfo, Fourcc, Modifier, PerBuffer, Refusal};
use crate::device::Device;
use crate::import::Imported;
use crate::sys::kms::{self, drm_mode_fb_cmd2};
use crate::sys::process::Owner;

/// How a buffer becomes a framebuffer. The default: as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FramebufferOptions {
    /// Shown as this format, which has the same bytes: a format with alpha as its
    /// [opaque twin](FormatInfo::opaque_twin), if the plane takes no alpha or is to ignore it, or the other way round.
    pub format: Option<Fourcc>,
    /// Whether a buffer with an implicit layout ([`Modifier::INVALID`]) is taken: the caller says by this that the
    /// memory was allocated on this very device, whose driver alone knows the layout.
    pub implicit: bool,
}

impl FramebufferOptions {
    /// Shown as this format.
    #[must_use]
    pub fn format(mut self, format: Fourcc) -> Self {
        self.format = Some(format);
        self
    }

    /// Memory of this device, also if its layout is implicit.
    #[must_use]
    pub fn implicit(mut self) -> Self {
        self.implicit = true;
        self
    }
}

/// The framebuffers of a device.
///
/// One for each buffer and each [`FramebufferOptions`], made when it is first asked for, and kept until the buffer
/// goes: ADDFB2 costs an import and a walk through the driver, and a compositor flips between three buffers. That a
/// buffer is refused is remembered too. The numbers are of this device alone: on another one the same number is
/// another picture.
///
/// They are made on the `Device`'s own file description. If the program's code works on its file description as well
/// (gbm, PRIME ioctls, Smithay), make this of a [`private_copy`](Device::private_copy): the program's commits can show
/// framebuffers of any file description of the device. Clones share the framebuffers. Thread-safe; waits for no GPU.
#[derive(Clone)]
pub struct Framebuffers(Arc<Inner>);

struct Inner {
    device: Device,
    /// Sizes of framebuffers in pixels.
    min: (u32, u32),
    max: (u32, u32),
    takes_modifiers: bool,
    of_buffers: Mutex<FxHashMap<FramebufferOptions, PerBuffer<Framebuffer, Error>>>,
}

/// A framebuffer: a buffer that a plane can show.
///
/// It ends, by CLOSEFB, with its last `Arc`, of which [`Framebuffers`] keeps one until the buffer goes. A screen that
/// still shows it goes on showing it (before Linux 6.8 there is only RMFB, and the screen goes dark: keep the `Arc` for
/// as long as it is shown, as [`Output`](super::Output) does).
pub struct Framebuffer {
    device: Device,
    id: u32,
    format: Fourcc,
    size: (u32, u32),
    owner: Owner,
}

impl Framebuffers {
    /// For this device. Asks it for its limits.
    pub fn new(device: &Device) -> Result<Self, Error> {
        let limits = kms::resources(device.as_fd());
        let limits = limits.map_err(failed(device, Operation::GetResources))?;
        let modifiers = kms::cap(device.as_fd(), kms::ADDFB2_MODIFIERS);
        let modifiers = modifiers.map_err(failed(device, Operation::GetCap))?;
        Ok(Self(Arc::new(Inner {
            device: device.clone(),
            min: limits.min,
            max: limits.max,
            takes_modifiers: modifiers != 0,
            of_buffers: Mutex::default(),
        })))
    }

    /// The device whose framebuffers they are.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The framebuffer of a buffer. Only the first call for each buffer asks the kernel, also if it refuses; later
    /// ones are look-ups.
    ///
    /// Checked before the kernel is asked, since drivers do not check it: sizes, whole pixels
    /// ([`DmaBuf::check_whole_pixels`]), flags, and that the planes lie inside of their dma-bufs, which every `DmaBuf`
    /// has been checked for.
    pub fn get(
        &self,
        buffer: &DmaBuf,
        options: FramebufferOptions,
    ) -> Result<Arc<Framebuffer>, Arc<Error>> {
        let table = {
            let mut tables = self
                .0
                .of_buffers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tables.entry(options).or_default().clone()
        };
        table.get_or_make(buffer, || {
            let made = self.0.make(buffer, options);
            made.map_err(|error| match &error {
                // The next try may be after a resume or a switch of the session.
                Error::Lost { .. } => Refusal::Transient(error),
                _ => Refusal::of(error.kind(), error),
            })
        })
    }

    /// Forgets what is known of a buffer. Its framebuffer ends when nobody shows it any more.
    pub fn forget(&self, buffer: &DmaBuf) {
        let tables = self
            .0
            .of_buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let tables: Vec<_> = tables.values().cloned().collect();
        tables.iter().for_each(|table| table.forget(buffer));
    }

    /// Buffers of which something is known or was.
    pub fn len(&self) -> usize {
        let tables = self
            .0
            .of_buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tables.values().map(PerBuffer::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn make(&self, buffer: &DmaBuf, options: FramebufferOptions) -> Result<Framebuffer, Error> {
        let shape = self.check(buffer, options)?;
        let imported = self.device.import(buffer)?;
        let id = kms::add_fb2(self.device.as_fd(), &command(buffer, &imported, &shape));
        let refused = |errno| match failed(&self.device, Operation::AddFramebuffer)(errno) {
            Error::Kernel { device, errno, .. } => Error::AddFramebuffer {
                device,
                fourcc: shape.format,
                modifier: buffer.modifier(),
                size: (buffer.width(), buffer.height()),
                errno,
            },
            error => error,
        };
        // The framebuffer keeps the objects, so that `imported` may go, and with it the handles.
        Ok(Framebuffer {
            id: id.map_err(refused)?,
            device: self.device.clone(),
            format: shape.format,
            size: (buffer.width(), buffer.height()),
            owner: Owner::current(),
        })
    }

    fn check(&self, buffer: &DmaBuf, options: FramebufferOptions) -> Result<Shape, Error> {
        let (width, height) = (buffer.width(), buffer.height());
        let fits = |size: u32, min: u32, max: u32| (min..=max).contains(&size);
        if !fits(width, self.min.0, self.max.0) || !fits(height, self.min.1, self.max.1) {
            return Err(Error::FramebufferSize {
                device: self.device.to_string(),
                width,
                height,
                min: self.min,
                max: self.max,
            });
        }
        let flags = buffer.flags();
        if !(flags - BufferFlags::INTERLACED).is_empty() {
            return Err(Error::Flags(flags));
        }
        buffer.check_whole_pixels()?;
        let modifier = match buffer.modifier() {
            Modifier::INVALID if options.implicit => None,
            Modifier::INVALID => return Err(Error::ImplicitLayout),
            modifier if self.takes_modifiers => Some(modifier),
            Modifier::LINEAR => None,
            modifier => {
                return Err(Error::NoModifiers {
                    device: self.device.to_string(),
                    modifier,
                });
            }
        };
        Ok(Shape {
            format: shown_as(buffer.fourcc(), options.format)?,
            modifier,
            is_interlaced: flags.contains(BufferFlags::INTERLACED),
        })
    }
}

/// What the kernel is told of a buffer beside its planes.
struct Shape {
    format: Fourcc,
    /// `None`: the driver is left to know.
    modifier: Option<Modifier>,
    is_interlaced: bool,
}

/// The format in which a buffer is shown: its own, or one with the same bytes.
fn shown_as(own: Fourcc, wanted: Option<Fourcc>) -> Result<Fourcc, Error> {
    let Some(wanted) = wanted.filter(|wanted| *wanted != own) else {
        return Ok(own);
    };
    let info = FormatInfo::of(own);
    let twins = info.map(|info| [info.opaque_twin(), info.alpha_twin()]);
    match twins
        .into_iter()
        .flatten()
        .flatten()
        .any(|twin| twin == wanted)
    {
        true => Ok(wanted),
        false => Err(Error::Format {
            from: own,
            to: wanted,
        }),
    }
}

fn command(buffer: &DmaBuf, imported: &Imported, shape: &Shape) -> drm_mode_fb_cmd2 {
    let mut flags = 0;
    let mut modifiers = [0; 4];
    if let Some(modifier) = shape.modifier {
        flags |= kms::FB_MODIFIERS;
        // The kernel wants zeroes past the last plane.
        modifiers[..buffer.planes().len()].fill(modifier.0);
    }
    if shape.is_interlaced {
        flags |= kms::FB_INTERLACED;
    }
    drm_mode_fb_cmd2 {
        fb_id: 0,
        width: buffer.width(),
        height: buffer.height(),
        pixel_format: shape.format.0,
        flags,
        handles: imported
            .handles()
            .map(|handle| handle.map_or(0, |handle| handle.raw())),
        pitches: buffer.strides(),
        offsets: buffer.offsets(),
        modifier: modifiers,
    }
}

impl Framebuffer {
    /// Its number on the device, for the property `FB_ID` and for page flips.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The format that planes take it for.
    pub fn format(&self) -> Fourcc {
        self.format
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }
}

impl Drop for Framebuffer {
    fn drop(&mut self) {
        // A forked child shares the parent's file description.
        if !self.owner.is_here() {
            return;
        }
        match kms::close_fb(self.device.as_fd(), self.id) {
            // Unplugged: the kernel ends it with the file description. Gone: the device was reset.
            Ok(()) | Err(Errno::ENODEV | Errno::ENOENT) => {}
            Err(errno) => log::error!(
                "{}: cannot close framebuffer {}: {errno}",
                self.device,
                self.id
            ),
        }
    }
}

impl fmt::Debug for Framebuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        write!(
            f,
            "framebuffer {} of {}, {width}x{height} {}",
            self.id, self.device, self.format
        )
    }
}

impl fmt::Debug for Framebuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framebuffers")
            .field("device", &self.0.device.to_string())
            .field("buffers", &self.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_shown_as_its_twin_and_as_no_other() {
        let shown = |wanted| shown_as(Fourcc::ARGB8888, wanted);
        assert_eq!(shown(None), Ok(Fourcc::ARGB8888));
        assert_eq!(shown(Some(Fourcc::XRGB8888)), Ok(Fourcc::XRGB8888));
        let (from, to) = (Fourcc::ARGB8888, Fourcc::XBGR8888);
        assert_eq!(shown(Some(to)), Err(Error::Format { from, to }));
        let back = shown_as(Fourcc::XRGB8888, Some(Fourcc::ARGB8888));
        assert_eq!(back, Ok(Fourcc::ARGB8888));
    }
}
