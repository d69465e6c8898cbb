//! OpenGL ES on a DRM device, drawing into a shared buffer as any client of a compositor would.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use gbm::AsRaw;
use khronos_egl as egl;
use primeshare::alloc::{Allocator, Request};
use primeshare::gbm::Gbm;
use primeshare::sync::{Access, BufferMapping, Fence, implicit};
use primeshare::{DmaBuf, Fourcc};

use crate::support::PATIENCE;

/// EGL_PLATFORM_GBM_KHR (EGL_KHR_platform_gbm).
const PLATFORM_GBM: egl::Enum = 0x31D7;
/// EGL_LINUX_DMA_BUF_EXT and what describes it (EGL_EXT_image_dma_buf_import).
const LINUX_DMA_BUF: egl::Enum = 0x3270;
const LINUX_DRM_FOURCC: egl::Attrib = 0x3271;
const PLANE0_FD: egl::Attrib = 0x3272;
const PLANE0_OFFSET: egl::Attrib = 0x3273;
const PLANE0_PITCH: egl::Attrib = 0x3274;

const FRAMEBUFFER: u32 = 0x8D40;
const RENDERBUFFER: u32 = 0x8D41;
const COLOR_ATTACHMENT0: u32 = 0x8CE0;
const FRAMEBUFFER_COMPLETE: u32 = 0x8CD5;
const COLOR_BUFFER_BIT: u32 = 0x4000;
const SCISSOR_TEST: u32 = 0x0C11;

/// The width and height of a [`picture`].
pub(crate) const SIZE: u32 = 2048;
pub(crate) const RED: [f32; 3] = [1.0, 0.0, 0.0];
/// Blue, green and red of XR24, as it lies in memory.
const RED_PIXEL: [u8; 3] = [0, 0, 255];

/// A picture that the GPU of the guest `gpu` can draw.
pub(crate) fn picture(gpu: &primeshare::Device) -> DmaBuf {
    let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
    Gbm::new(gpu).unwrap().allocate(&request).unwrap()
}

/// What draws on it.
pub(crate) fn gl(gpu: &primeshare::Device) -> Gl {
    let nodes = primeshare::device::enumerate().unwrap();
    let render = nodes
        .iter()
        .find(|node| node.bus == gpu.node().bus && node.path != gpu.node().path);
    Gl::on(render.map_or(Path::new(""), |node| &node.path))
}

pub(crate) fn is_red(buffer: &DmaBuf) -> bool {
    let mut mapping = BufferMapping::read_only(buffer).unwrap();
    let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
    let plane = access.plane(0).unwrap();
    let mut bytes = vec![0; plane.row_bytes()];
    plane.rows().all(|row| {
        row.read(0, &mut bytes).unwrap();
        bytes.chunks(4).all(|pixel| pixel[..3] == RED_PIXEL)
    })
}

/// OpenGL's functions that are used here.
struct Functions {
    gen_renderbuffers: unsafe extern "C" fn(i32, *mut u32),
    bind_renderbuffer: unsafe extern "C" fn(u32, u32),
    renderbuffer_of_image: unsafe extern "C" fn(u32, *mut c_void),
    gen_framebuffers: unsafe extern "C" fn(i32, *mut u32),
    bind_framebuffer: unsafe extern "C" fn(u32, u32),
    framebuffer_renderbuffer: unsafe extern "C" fn(u32, u32, u32, u32),
    check_framebuffer: unsafe extern "C" fn(u32) -> u32,
    delete_framebuffers: unsafe extern "C" fn(i32, *const u32),
    delete_renderbuffers: unsafe extern "C" fn(i32, *const u32),
    clear_color: unsafe extern "C" fn(f32, f32, f32, f32),
    clear: unsafe extern "C" fn(u32),
    color_mask: unsafe extern "C" fn(u8, u8, u8, u8),
    enable: unsafe extern "C" fn(u32),
    disable: unsafe extern "C" fn(u32),
    scissor: unsafe extern "C" fn(i32, i32, i32, i32),
    flush: unsafe extern "C" fn(),
}

/// A context that is current on this thread.
pub(crate) struct Gl {
    egl: egl::DynamicInstance<egl::EGL1_5>,
    display: egl::Display,
    context: egl::Context,
    functions: Functions,
    // Dropped after the display.
    _gbm: gbm::Device<File>,
}

impl Gl {
    /// On a node that Mesa renders to.
    pub(crate) fn on(node: &Path) -> Self {
        let file = File::options().read(true).write(true).open(node).unwrap();
        let gbm = gbm::Device::new(file).unwrap();
        // SAFETY: the system's own EGL.
        let egl = unsafe { egl::DynamicInstance::<egl::EGL1_5>::load_required() }.unwrap();
        let native = gbm.as_raw().cast_mut().cast();
        // SAFETY: a gbm device, which outlives the display.
        let display =
            unsafe { egl.get_platform_display(PLATFORM_GBM, native, &[egl::ATTRIB_NONE]) };
        let display = display.unwrap();
        egl.initialize(display).unwrap();
        egl.bind_api(egl::OPENGL_ES_API).unwrap();
        // SAFETY: EGL_NO_CONFIG_KHR (EGL_KHR_no_config_context).
        let any = unsafe { egl::Config::from_ptr(std::ptr::null_mut()) };
        let version = [egl::CONTEXT_CLIENT_VERSION, 2, egl::NONE];
        let context = egl.create_context(display, any, None, &version).unwrap();
        egl.make_current(display, None, None, Some(context))
            .unwrap();
        let functions = Functions::load(&egl);
        Self {
            egl,
            display,
            context,
            functions,
            _gbm: gbm,
        }
    }

    /// Draws a colour over all of the buffer, `times` times, and sends that to the GPU. Returns while the GPU draws.
    pub(crate) fn fill(&self, buffer: &DmaBuf, [red, green, blue]: [f32; 3], times: usize) {
        let plane = buffer.planes()[0];
        let fd = buffer.plane_fd(0).unwrap().as_raw_fd();
        let attributes = [
            egl::WIDTH as egl::Attrib,
            buffer.width() as egl::Attrib,
            egl::HEIGHT as egl::Attrib,
            buffer.height() as egl::Attrib,
            LINUX_DRM_FOURCC,
            buffer.fourcc().0 as egl::Attrib,
            PLANE0_FD,
            fd as egl::Attrib,
            PLANE0_OFFSET,
            plane.offset as egl::Attrib,
            PLANE0_PITCH,
            plane.stride as egl::Attrib,
            egl::ATTRIB_NONE,
        ];
        // SAFETY: EGL_NO_CONTEXT and no client buffer, as the extension wants it.
        let (context, client) = unsafe {
            (
                egl::Context::from_ptr(egl::NO_CONTEXT),
                egl::ClientBuffer::from_ptr(std::ptr::null_mut()),
            )
        };
        let image = self
            .egl
            .create_image(self.display, context, LINUX_DMA_BUF, client, &attributes)
            .unwrap();
        let gl = &self.functions;
        // SAFETY: the context is current; all names are made here and live until they are deleted.
        unsafe {
            let (mut renderbuffer, mut framebuffer) = (0, 0);
            (gl.gen_renderbuffers)(1, &mut renderbuffer);
            (gl.bind_renderbuffer)(RENDERBUFFER, renderbuffer);
            (gl.renderbuffer_of_image)(RENDERBUFFER, image.as_ptr());
            (gl.gen_framebuffers)(1, &mut framebuffer);
            (gl.bind_framebuffer)(FRAMEBUFFER, framebuffer);
            (gl.framebuffer_renderbuffer)(
                FRAMEBUFFER,
                COLOR_ATTACHMENT0,
                RENDERBUFFER,
                renderbuffer,
            );
            assert_eq!((gl.check_framebuffer)(FRAMEBUFFER), FRAMEBUFFER_COMPLETE);
            (gl.clear_color)(red, green, blue, 1.0);
            (gl.clear)(COLOR_BUFFER_BIT);
            // Neither all pixels nor all colours are drawn: a driver may skip drawing that is drawn over.
            (gl.scissor)(0, 0, buffer.width() as i32 - 1, buffer.height() as i32);
            (gl.enable)(SCISSOR_TEST);
            (gl.color_mask)(1, 0, 0, 0);
            (1..times).for_each(|_| (gl.clear)(COLOR_BUFFER_BIT));
            (gl.color_mask)(1, 1, 1, 1);
            (gl.disable)(SCISSOR_TEST);
            (gl.flush)();
            (gl.delete_framebuffers)(1, &framebuffer);
            (gl.delete_renderbuffers)(1, &renderbuffer);
        }
        self.egl.destroy_image(self.display, image).unwrap();
    }

    /// Draws on the buffer until a fence of it is pending, and gives this fence. A machine that draws fast has
    /// to draw much.
    pub(crate) fn keep_busy(&self, buffer: &DmaBuf) -> Fence {
        for times in [400, 1600, 6400, 25600] {
            self.fill(buffer, RED, times);
            let drawn = implicit::fence(buffer, Access::Read).unwrap();
            if !drawn.is_signalled().unwrap() {
                return drawn;
            }
        }
        panic!("the GPU draws faster than it is told to");
    }
}

impl Drop for Gl {
    fn drop(&mut self) {
        let _ = self.egl.make_current(self.display, None, None, None);
        let _ = self.egl.destroy_context(self.display, self.context);
        let _ = self.egl.terminate(self.display);
        let _ = self.egl.release_thread();
    }
}

impl Functions {
    fn load(egl: &egl::DynamicInstance<egl::EGL1_5>) -> Self {
        /// # Safety
        /// The function of that name is of that type.
        unsafe fn function<T: Copy>(egl: &egl::DynamicInstance<egl::EGL1_5>, name: &str) -> T {
            let found = egl.get_proc_address(name).expect(name);
            assert_eq!(size_of_val(&found), size_of::<T>());
            // SAFETY: as the caller promises.
            unsafe { std::mem::transmute_copy(&found) }
        }
        // SAFETY: each as OpenGL ES 2.0 and OES_EGL_image declare it.
        unsafe {
            Self {
                gen_renderbuffers: function(egl, "glGenRenderbuffers"),
                bind_renderbuffer: function(egl, "glBindRenderbuffer"),
                renderbuffer_of_image: function(egl, "glEGLImageTargetRenderbufferStorageOES"),
                gen_framebuffers: function(egl, "glGenFramebuffers"),
                bind_framebuffer: function(egl, "glBindFramebuffer"),
                framebuffer_renderbuffer: function(egl, "glFramebufferRenderbuffer"),
                check_framebuffer: function(egl, "glCheckFramebufferStatus"),
                delete_framebuffers: function(egl, "glDeleteFramebuffers"),
                delete_renderbuffers: function(egl, "glDeleteRenderbuffers"),
                clear_color: function(egl, "glClearColor"),
                clear: function(egl, "glClear"),
                color_mask: function(egl, "glColorMask"),
                enable: function(egl, "glEnable"),
                disable: function(egl, "glDisable"),
                scissor: function(egl, "glScissor"),
                flush: function(egl, "glFlush"),
            }
        }
    }
}
