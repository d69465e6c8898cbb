//! Private buffers for trials, which are like the program's buffers.

use super::allocators;
use crate::alloc::{Allocator, DmaHeap, Dumb, Request, Udmabuf, Usage};
use crate::blit::options::BlitDevice;
use crate::buffer::{BufferDesc, DmaBuf, Modifier};
use crate::vk;

/// What a private buffer is to be like.
#[derive(Clone, Debug)]
pub(in crate::blit) struct Model {
    pub(in crate::blit) layout: BufferDesc,
    exporter: Option<String>,
    scattered: bool,
}

impl Model {
    pub(in crate::blit) fn of(buffer: &DmaBuf) -> Self {
        Self {
            layout: *buffer.desc(),
            exporter: exporter(buffer),
            scattered: buffer.objects().len() > 1,
        }
    }
}

fn exporter(buffer: &DmaBuf) -> Option<String> {
    let exporter = buffer.objects()[0].exporter();
    exporter.ok().flatten().map(str::to_owned)
}

/// A buffer of this size with the model's format and modifier, exported by the same driver. Tries each of
/// the side's allocators in turn. If none makes such a buffer, the error has what each of them said.
pub(in crate::blit) fn like(
    model: &Model,
    (width, height): (u32, u32),
    side: &BlitDevice,
    vulkan: Option<&vk::Device>,
) -> Result<DmaBuf, String> {
    if model.scattered {
        return Err("its planes lie in several dma-bufs".to_owned());
    }
    let BufferDesc {
        fourcc, modifier, ..
    } = model.layout;
    let mut request = Request::new(width, height, fourcc);
    request.modifiers = vec![modifier];
    request.usage = Usage::RENDER | Usage::SCANOUT;
    let mut refused = Vec::new();
    for allocator in allocators(modifier, side, vulkan) {
        let (name, made) = match allocator {
            Ok(allocator) => (allocator.name(), allocate(&*allocator, &mut request)),
            Err((name, error)) => (name, Err(error)),
        };
        match made {
            Ok(buffer) if is_like(&buffer, model) => return Ok(buffer),
            Ok(buffer) => refused.push(format!(
                "{name} gives {} by {}",
                buffer.modifier(),
                exporter(&buffer).as_deref().unwrap_or("somebody")
            )),
            Err(error) => refused.push(format!("{name}: {error}")),
        }
    }
    Err(match refused.is_empty() {
        true => "its device has no allocator".to_owned(),
        false => refused.join("; "),
    })
}

fn is_like(buffer: &DmaBuf, model: &Model) -> bool {
    let is_known = model.exporter.is_some();
    buffer.modifier() == model.layout.modifier && (!is_known || exporter(buffer) == model.exporter)
}

/// Allocates for all uses if the allocator can, else for drawing only.
fn allocate(allocator: &dyn Allocator, request: &mut Request) -> Result<DmaBuf, String> {
    let both = request.usage;
    let made = allocator.allocate(request).or_else(|_| {
        request.usage = Usage::RENDER;
        allocator.allocate(request)
    });
    request.usage = both;
    made.map_err(|error| error.to_string())
}

type Made = Result<Box<dyn Allocator>, (&'static str, String)>;

/// The allocators that may make such a buffer. Each is made only when its turn comes, since gbm loads a
/// driver.
fn allocators<'a>(
    modifier: Modifier,
    side: &'a BlitDevice,
    vulkan: Option<&'a vk::Device>,
) -> impl Iterator<Item = Made> + 'a {
    let is_linear = modifier == Modifier::LINEAR;
    let boxed = |allocator| Box::new(allocator) as Box<dyn Allocator>;
    let dumb = side.drm.iter().filter(move |_| is_linear).map(move |drm| {
        let dumb: Box<dyn Allocator> = Box::new(Dumb::new(drm));
        Ok(dumb)
    });
    let gbm = side.drm.iter().map(|drm| {
        let gbm = allocators::gbm(drm);
        gbm.map_err(|error| ("gbm", error.to_string()))
    });
    let vulkan = vulkan.into_iter().map(|device| {
        let usage = vk::Use::Source;
        Ok(Box::new(vk::ImageAllocator::new(device, usage)) as Box<dyn Allocator>)
    });
    let system = std::iter::once_with(Udmabuf::open).map(move |opened| match opened {
        Ok(udmabuf) => Ok(boxed(udmabuf)),
        Err(error) => Err(("udmabuf", error.to_string())),
    });
    let heap = std::iter::once_with(DmaHeap::system).map(|opened| match opened {
        Ok(heap) => Ok(Box::new(heap) as Box<dyn Allocator>),
        Err(error) => Err(("dma-heap", error.to_string())),
    });
    let system = system.chain(heap).filter(move |_| is_linear);
    dumb.chain(gbm).chain(vulkan).chain(system)
}
