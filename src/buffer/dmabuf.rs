use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::layout::{self, Placed};
use super::{BufferId, Error, Fourcc, Layout, MAX_PLANES, Modifier};
use crate::sys;

/// A buffer that any device, API or process can be given: dma-bufs, and how the picture lies in
/// them.
///
/// Cheap to clone; the fds are closed, once each, when the last clone goes. A dma-buf fd keeps
/// the memory alive on its own, so a `DmaBuf` may outlive the device that allocated it. It knows
/// the identity of its dma-bufs, which is why importing it a second time needs no system call.
#[derive(Clone)]
pub struct DmaBuf(Arc<Inner>);

struct Inner {
    layout: Layout,
    planes: ArrayVec<Plane, MAX_PLANES>,
    objects: ArrayVec<Object, MAX_PLANES>,
    /// What the exporter wants kept until the buffer goes, such as its GEM handle.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

/// A memory plane as it comes from outside: its own fd, and where it lies in that dma-buf.
#[derive(Debug)]
pub struct PlaneFd {
    /// The dma-buf. Planes may carry fds of one and the same dma-buf.
    pub fd: OwnedFd,
    /// First byte of the plane.
    pub offset: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
}

impl PlaneFd {
    /// Takes a plane from an interface that speaks of fds as numbers, such as C.
    ///
    /// # Safety
    /// A number other than a negative one must be an open fd, and it is the library's from now
    /// on: nobody else may close it.
    pub unsafe fn from_raw(fd: RawFd, offset: u32, stride: u32) -> Result<Self, Error> {
        if fd < 0 {
            return Err(Error::BadFd(fd));
        }
        Ok(Self {
            // SAFETY: the caller hands the open fd over.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            offset,
            stride,
        })
    }
}

/// A memory plane of a [`DmaBuf`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plane {
    /// Index into [`DmaBuf::objects`].
    pub object: usize,
    /// First byte of the plane in that dma-buf.
    pub offset: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
}

/// One dma-buf of a [`DmaBuf`]. Planes in the same dma-buf share it.
#[derive(Debug)]
pub struct Object {
    fd: OwnedFd,
    id: BufferId,
    size: u64,
}

impl Object {
    /// Which dma-buf this is.
    pub fn id(&self) -> BufferId {
        self.id
    }

    /// Its size in bytes, as the kernel says.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl DmaBuf {
    /// Describes a buffer that came from outside.
    ///
    /// Takes the fds: they are closed with the buffer, or before an error returns. Nothing is
    /// trusted: each fd must be a dma-buf, and the planes must lie inside. Costs a `fstat`, a
    /// `fstatfs` and an `lseek` per plane; does not block.
    pub fn new(layout: Layout, planes: impl IntoIterator<Item = PlaneFd>) -> Result<Self, Error> {
        Self::with_keep(layout, planes, None)
    }

    /// As [`Self::new`], and `keep` is dropped with the buffer's last clone.
    pub(crate) fn with_keep(
        layout: Layout,
        planes: impl IntoIterator<Item = PlaneFd>,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, Error> {
        let given: Vec<PlaneFd> = planes.into_iter().collect();
        if given.is_empty() || given.len() > MAX_PLANES {
            return Err(Error::PlaneCount(given.len()));
        }
        let mut planes = ArrayVec::<Plane, MAX_PLANES>::new();
        let mut objects = ArrayVec::<Object, MAX_PLANES>::new();
        for (index, plane) in given.into_iter().enumerate() {
            let object = examine(index, plane.fd)?;
            // Planes of one dma-buf keep one fd; the spare is closed here.
            let object = match objects.iter().position(|known| known.id == object.id) {
                Some(known) => known,
                None => {
                    objects.push(object);
                    objects.len() - 1
                }
            };
            planes.push(Plane {
                object,
                offset: plane.offset,
                stride: plane.stride,
            });
        }
        let placed: ArrayVec<Placed, MAX_PLANES> = planes
            .iter()
            .map(|plane| Placed {
                offset: plane.offset,
                stride: plane.stride,
                size: objects[plane.object].size,
            })
            .collect();
        layout::check(&layout, &placed)?;
        Ok(Self(Arc::new(Inner {
            layout,
            planes,
            objects,
            _keep: keep,
        })))
    }

    /// Size, format and modifier.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.0.layout.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.0.layout.height
    }

    /// Pixel format.
    pub fn fourcc(&self) -> Fourcc {
        self.0.layout.fourcc
    }

    /// Arrangement in memory.
    pub fn modifier(&self) -> Modifier {
        self.0.layout.modifier
    }

    /// The memory planes, in order.
    pub fn planes(&self) -> &[Plane] {
        &self.0.planes
    }

    /// The distinct dma-bufs the planes lie in.
    pub fn objects(&self) -> &[Object] {
        &self.0.objects
    }

    /// The fd a plane lies in, borrowed. `None` past the last plane.
    pub fn plane_fd(&self, plane: usize) -> Option<BorrowedFd<'_>> {
        let plane = self.0.planes.get(plane)?;
        Some(self.0.objects[plane.object].as_fd())
    }

    /// Identity of the first plane's dma-buf: that of the buffer, where it has but one.
    pub fn id(&self) -> BufferId {
        self.0.objects[0].id
    }
}

/// Checks that an fd is a dma-buf and asks for its identity and size.
fn examine(plane: usize, fd: OwnedFd) -> Result<Object, Error> {
    let failed = |errno| Error::Examine { plane, errno };
    if !sys::dma_buf::is_dma_buf(fd.as_fd()).map_err(failed)? {
        return Err(Error::NotADmaBuf { plane });
    }
    let id = BufferId::of(&fd).map_err(failed)?;
    let size = sys::file::size(fd.as_fd()).map_err(failed)?;
    Ok(Object { fd, id, size })
}

impl PartialEq for DmaBuf {
    /// The same memory with the same layout.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.layout == other.0.layout
                && self.0.planes == other.0.planes
                && self
                    .0
                    .objects
                    .iter()
                    .map(Object::id)
                    .eq(other.0.objects.iter().map(Object::id)))
    }
}

impl Eq for DmaBuf {}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("layout", self.layout())
            .field("planes", &self.planes())
            .field("objects", &self.objects())
            .finish()
    }
}
