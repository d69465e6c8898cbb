//! [`DmaBuf`]: the dma-bufs of a picture and how it lies in them, checked once and never changed.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arrayvec::ArrayVec;

use super::layout::{self, Placed};
use super::per_buffer::{Key, Watcher};
use super::{BufferDesc, BufferFlags, BufferId, Error, FormatInfo, Fourcc, MAX_PLANES, Modifier};
use crate::Errno;
use crate::sys;
use crate::sys::process::Owner;

/// A buffer that any device, API or process can be given: dma-bufs, and how the picture lies in
/// them.
///
/// Cheap to clone; the fds are closed, once each, when the last clone goes. A dma-buf fd keeps
/// the memory alive on its own, so a `DmaBuf` may outlive the allocator and the `Device` it came
/// from. (One that was exported here also keeps its GEM handle, and with it the file description,
/// so that it is found again at home.) It knows the identity of its dma-bufs, which is why
/// importing it a second time needs no system call.
#[derive(Clone)]
pub struct DmaBuf(Arc<Inner>);

struct Inner {
    layout: BufferDesc,
    planes: ArrayVec<Plane, MAX_PLANES>,
    objects: ArrayVec<PlaneObject, MAX_PLANES>,
    owner: Owner,
    /// The caches that know of this buffer.
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    /// What the exporter wants kept until the buffer goes, such as its GEM handle.
    keep: Option<Box<dyn Any + Send + Sync>>,
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
    /// The same plane, whose fd stays here.
    pub fn borrow(&self) -> PlaneRef<'_> {
        PlaneRef {
            fd: self.fd.as_fd(),
            offset: self.offset,
            stride: self.stride,
        }
    }

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

/// A memory plane whose fd stays the caller's: for [`DmaBuf::from_borrowed`].
#[derive(Clone, Copy, Debug)]
pub struct PlaneRef<'fd> {
    /// The dma-buf. Planes may carry fds of one and the same dma-buf.
    pub fd: BorrowedFd<'fd>,
    /// First byte of the plane.
    pub offset: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
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
pub struct PlaneObject {
    fd: OwnedFd,
    id: BufferId,
    size: u64,
    /// The exporter's name, asked for once, since asking costs four system calls.
    exporter: OnceLock<String>,
}

impl PlaneObject {
    /// Checks that an fd is a dma-buf and asks for its identity and size.
    fn examine(plane: usize, fd: OwnedFd) -> Result<Self, Error> {
        let id = identify(plane, fd.as_fd())?;
        Self::of_id(plane, fd, id)
    }

    fn of_id(plane: usize, fd: OwnedFd, id: BufferId) -> Result<Self, Error> {
        let size = sys::file::size(fd.as_fd());
        let size = size.map_err(|errno| Error::Examine { plane, errno })?;
        Ok(Self {
            fd,
            id,
            size,
            exporter: OnceLock::new(),
        })
    }

    /// Which dma-buf this is.
    pub fn id(&self) -> BufferId {
        self.id
    }

    /// Its size in bytes, as the kernel says.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The name of the module that exported it (`exp_name` in fdinfo). `None` without a `/proc` to ask.
    pub(crate) fn exporter(&self) -> Result<Option<&str>, Errno> {
        if let Some(known) = self.exporter.get() {
            return Ok(Some(known));
        }
        let found = sys::dma_buf::exporter(self.fd.as_fd())?;
        Ok(found.map(|found| self.exporter.get_or_init(|| found).as_str()))
    }

    /// Whether virtio-gpu exported it. `None` without a `/proc` to ask.
    pub(crate) fn is_of_virtio_gpu(&self) -> Result<Option<bool>, Errno> {
        let exporter = self.exporter()?;
        Ok(exporter.map(|name| name == sys::virtgpu::DRIVER))
    }
}

fn identify(plane: usize, fd: BorrowedFd<'_>) -> Result<BufferId, Error> {
    BufferId::of(fd).map_err(|errno| match errno {
        Errno::EINVAL => Error::NotADmaBuf { plane },
        errno => Error::Examine { plane, errno },
    })
}

/// A weak reference to a [`DmaBuf`]. It says whether the buffer is still there, and keeps no fd open.
#[derive(Clone, Debug, Default)]
pub struct WeakDmaBuf(Weak<Inner>);

impl WeakDmaBuf {
    /// Refers to no buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer, while one of its clones lives.
    pub fn upgrade(&self) -> Option<DmaBuf> {
        self.0.upgrade().map(DmaBuf)
    }

    /// Whether the last clone has gone.
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// The same [`DmaBuf`] and its clones, not only one of the same memory.
impl PartialEq for WeakDmaBuf {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for WeakDmaBuf {}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("desc", &self.layout)
            .field("planes", &self.planes)
            .field("objects", &self.objects)
            .finish()
    }
}

impl fmt::Debug for PlaneObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaneObject")
            .field("fd", &self.fd)
            .field("id", &self.id)
            .field("size", &self.size)
            .finish()
    }
}

impl AsRawFd for PlaneObject {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PlaneObject {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl DmaBuf {
    /// Describes a buffer that came from outside.
    ///
    /// Takes the fds: they are closed with the buffer, or before an error returns. Nothing is
    /// trusted: each fd must be a dma-buf, and every plane must lie inside its own.
    ///
    /// The rows of LINEAR formats that [`FormatInfo`](super::FormatInfo) knows are checked one and
    /// all: they lie inside the dma-buf, and planes in one dma-buf have no byte in common (planes
    /// side by side in one stride have none). Of other layouts only the driver knows the rows. They
    /// are bounded as servers of Wayland's linux-dmabuf do it: strides are not zero, offset + stride
    /// lies inside the dma-buf, and so does offset + stride x height of the first plane; no offset +
    /// stride x rows is 2^32 or more. Two modifiers are excepted: AFBC may have a stride of zero,
    /// since its blocks are found through a header, and Amlogic's FBC with the scatter layout may be
    /// smaller, since its content is in other memory.
    ///
    /// Costs a `fstat` and an `lseek` per plane; does not block.
    pub fn new(
        layout: BufferDesc,
        planes: impl IntoIterator<Item = PlaneFd>,
    ) -> Result<Self, Error> {
        Self::new_keeping(layout, planes, None)
    }

    /// As [`Self::new`], for fds that stay the caller's. One fd of each distinct dma-buf is duplicated.
    pub fn from_borrowed<'fd>(
        layout: BufferDesc,
        planes: impl IntoIterator<Item = PlaneRef<'fd>>,
    ) -> Result<Self, Error> {
        let mut planes = planes.into_iter();
        let given: ArrayVec<_, MAX_PLANES> = planes.by_ref().take(MAX_PLANES).collect();
        let more = planes.count();
        if more > 0 {
            return Err(Error::PlaneCount(MAX_PLANES + more));
        }
        let mut objects = ArrayVec::<PlaneObject, MAX_PLANES>::new();
        let mut places = ArrayVec::<Plane, MAX_PLANES>::new();
        for (plane, given) in given.iter().enumerate() {
            let id = identify(plane, given.fd)?;
            let known = objects.iter().position(|known| known.id == id);
            let object = match known {
                Some(known) => known,
                None => {
                    let dup = given.fd.try_clone_to_owned();
                    let dup = dup.map_err(|error| Error::Examine {
                        plane,
                        errno: sys::errno(error),
                    })?;
                    objects.push(PlaneObject::of_id(plane, dup, id)?);
                    objects.len() - 1
                }
            };
            places.push(Plane {
                object,
                offset: given.offset,
                stride: given.stride,
            });
        }
        Self::build(layout, objects, places, None)
    }

    /// As [`Self::new`], for dma-bufs that are listed apart from the planes, as FFmpeg
    /// (`AVDRMFrameDescriptor`) and VA-API (`VADRMPRIMESurfaceDescriptor`) list them: [`Plane::object`]
    /// is an index into `fds`. Planes of one dma-buf need no fds of their own.
    ///
    /// Takes the fds: they are closed with the buffer, or before an error returns.
    pub fn from_objects(
        layout: BufferDesc,
        fds: impl IntoIterator<Item = OwnedFd>,
        planes: &[Plane],
    ) -> Result<Self, Error> {
        let fds: Vec<OwnedFd> = fds.into_iter().collect();
        let plane = |plane: &Plane| {
            let fd = fds.get(plane.object).ok_or(Error::NoSuchObject {
                object: plane.object,
                objects: fds.len(),
            })?;
            Ok(PlaneRef {
                fd: fd.as_fd(),
                offset: plane.offset,
                stride: plane.stride,
            })
        };
        let planes = planes.iter().map(plane).collect::<Result<Vec<_>, _>>()?;
        Self::from_borrowed(layout, planes)
    }

    /// A reference that does not keep the buffer.
    pub fn downgrade(&self) -> WeakDmaBuf {
        WeakDmaBuf(Arc::downgrade(&self.0))
    }

    /// As [`Self::new`]. `keep` is dropped with the buffer's last clone, or before an error
    /// returns.
    pub(crate) fn new_keeping(
        layout: BufferDesc,
        planes: impl IntoIterator<Item = PlaneFd>,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, Error> {
        let mut objects = ArrayVec::<PlaneObject, MAX_PLANES>::new();
        let mut places = ArrayVec::<Plane, MAX_PLANES>::new();
        let mut planes = planes.into_iter();
        for plane in planes.by_ref().take(MAX_PLANES) {
            let object = PlaneObject::examine(places.len(), plane.fd)?;
            // Planes of one dma-buf keep one fd; the spare is closed here.
            let known = objects.iter().position(|known| known.id == object.id);
            let object = known.unwrap_or_else(|| {
                objects.push(object);
                objects.len() - 1
            });
            places.push(Plane {
                object,
                offset: plane.offset,
                stride: plane.stride,
            });
        }
        match planes.count() {
            0 => Self::build(layout, objects, places, keep),
            more => Err(Error::PlaneCount(MAX_PLANES + more)),
        }
    }

    /// Describes one dma-buf of our own making that holds all planes, given as offset and stride.
    /// `keep` is dropped with the buffer's last clone.
    pub(crate) fn of_one(
        layout: BufferDesc,
        fd: OwnedFd,
        planes: impl IntoIterator<Item = (u32, u32)>,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, Error> {
        let planes: Vec<(u32, u32)> = planes.into_iter().collect();
        if planes.len() > MAX_PLANES {
            return Err(Error::PlaneCount(planes.len()));
        }
        let place = |(offset, stride)| Plane {
            object: 0,
            offset,
            stride,
        };
        let places = planes.into_iter().map(place).collect();
        let objects = ArrayVec::from_iter([PlaneObject::examine(0, fd)?]);
        Self::build(layout, objects, places, keep)
    }

    fn build(
        layout: BufferDesc,
        objects: ArrayVec<PlaneObject, MAX_PLANES>,
        planes: ArrayVec<Plane, MAX_PLANES>,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, Error> {
        let placed: ArrayVec<Placed, MAX_PLANES> = planes
            .iter()
            .map(|plane| Placed {
                object: plane.object,
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
            owner: Owner::current(),
            watchers: Mutex::default(),
            keep,
        })))
    }

    /// What the exporter has kept with the buffer, if it is of this type.
    pub(crate) fn kept<T: Any>(&self) -> Option<&T> {
        self.0.keep.as_deref()?.downcast_ref()
    }

    /// Size, format, modifier and flags.
    pub fn desc(&self) -> &BufferDesc {
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

    /// How the rows make the picture.
    pub fn flags(&self) -> BufferFlags {
        self.0.layout.flags
    }

    /// The memory planes, in order.
    pub fn planes(&self) -> &[Plane] {
        &self.0.planes
    }

    /// Offset of each plane in bytes, 0 past the last one: as `DRM_IOCTL_MODE_ADDFB2` and EGL take them.
    pub fn offsets(&self) -> [u32; MAX_PLANES] {
        self.of_planes(|plane| plane.offset)
    }

    /// Stride of each plane in bytes, 0 past the last one.
    pub fn strides(&self) -> [u32; MAX_PLANES] {
        self.of_planes(|plane| plane.stride)
    }

    fn of_planes(&self, value: impl Fn(&Plane) -> u32) -> [u32; MAX_PLANES] {
        std::array::from_fn(|plane| self.planes().get(plane).map_or(0, &value))
    }

    /// The distinct dma-bufs the planes lie in.
    pub fn objects(&self) -> &[PlaneObject] {
        &self.0.objects
    }

    /// The fd a plane lies in, borrowed. `None` past the last plane.
    pub fn plane_fd(&self, plane: usize) -> Option<BorrowedFd<'_>> {
        let plane = self.0.planes.get(plane)?;
        Some(self.0.objects[plane.object].as_fd())
    }

    /// Checks that the pixels of a LINEAR buffer lie at multiples of their own size: offset and
    /// stride of each plane. [`Error::Misaligned`] if they do not.
    ///
    /// Images of Vulkan and framebuffers are made of whole pixels, so both imports refuse a buffer
    /// with this error. The CPU and a `VkBuffer`, which is bytes, take it. Layouts other than LINEAR
    /// are the driver's to judge, and are not refused. No system call.
    pub fn check_whole_pixels(&self) -> Result<(), Error> {
        match FormatInfo::of(self.fourcc()) {
            Some(info) if self.modifier() == Modifier::LINEAR => {
                layout::check_whole_pixels(info.planes, self.planes())
            }
            _ => Ok(()),
        }
    }

    /// Identity of the first plane's dma-buf: that of the buffer, where it has but one.
    pub fn id(&self) -> BufferId {
        self.0.objects[0].id
    }
}

impl Inner {
    fn key(&self) -> Key {
        let place = |plane: &Plane| (self.objects[plane.object].id, plane.offset, plane.stride);
        Key {
            layout: self.layout,
            planes: self.planes.iter().map(place).collect(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a forked child, a watcher's lock may be held by a thread that does not exist there.
        if !self.owner.is_here() {
            return;
        }
        let watchers = self.watchers.get_mut();
        let watchers = std::mem::take(watchers.unwrap_or_else(PoisonError::into_inner));
        if watchers.is_empty() {
            return;
        }
        let key = self.key();
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.buffer_gone(&key);
        }
    }
}

impl DmaBuf {
    pub(super) fn key(&self) -> Key {
        self.0.key()
    }

    /// Has the watcher told of this buffer's end. `false` if it was watching already.
    pub(super) fn watch(&self, watcher: &Arc<dyn Watcher>) -> bool {
        let mut watchers = self
            .0
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let watcher = Arc::downgrade(watcher);
        let is_new = !watchers.iter().any(|known| known.ptr_eq(&watcher));
        if is_new {
            watchers.retain(|known| known.strong_count() > 0);
            watchers.push(watcher);
        }
        is_new
    }
}

impl Hash for DmaBuf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for DmaBuf {
    /// The same memory with the same layout.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.key() == other.key()
    }
}

impl Eq for DmaBuf {}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
