//! Which strategies there are for a pair of buffers, in what order, and why not the others. Pure.

use arrayvec::ArrayVec;

use crate::blit::Scaling;
use crate::blit::copy::pixels::{Relation, relation};
use crate::blit::strategy::{End, StagingSource, Strategy};
use crate::buffer::{Colour, FormatInfo, Layout, Modifier};

/// What is known of one end before anything is tried.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Facts<'a> {
    pub(in crate::blit) layout: &'a Layout,
    /// Whether its device has a Vulkan device.
    pub(in crate::blit) vulkan: bool,
    /// Whether its device is a DRM device that makes buffers.
    pub(in crate::blit) drm: bool,
    /// Distinct dma-bufs.
    pub(in crate::blit) dma_bufs: usize,
}

/// Why a strategy is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// The device at this end has no Vulkan device that could do it.
    #[error("the {} has no Vulkan device", name(*.0))]
    NoVulkan(End),
    /// There is no DRM device at this end to make a buffer.
    #[error("the {} has no DRM device", name(*.0))]
    NoDrm(End),
    /// The memory there is not LINEAR, so only the GPU that arranged it can read it.
    #[error("the {}'s memory is {modifier}, not LINEAR", name(*end))]
    NotLinear {
        /// Which.
        end: End,
        /// Its modifier.
        modifier: Modifier,
    },
    /// The layout is known to the allocating device only, and never crosses devices.
    #[error("the {}'s modifier is implicit, which only its own device understands", name(*.0))]
    Implicit(End),
    /// The planes are in several dma-bufs, and a `VkBuffer` is of one.
    #[error("the {}'s planes lie in several dma-bufs", name(*.0))]
    SeveralDmaBufs(End),
    /// Both ends are on one GPU, where this is what another strategy does.
    #[error("both ends are on one GPU")]
    OneGpu,
    /// Copies of the GPU do not set alpha.
    #[error("alpha has to be set, which copies of the GPU do not")]
    SetsAlpha,
    /// Copies of plain bytes keep the order of the components.
    #[error("components have to change places")]
    Reorders,
    /// Pixels are scaled or converted, and this way copies them as they are.
    #[error("pixels are scaled or converted on the way")]
    Resamples,
    /// GPUs copy neither rows to columns nor between YCbCr and RGB.
    #[error("copies of the GPU neither turn by 90 degrees nor convert YCbCr")]
    NotByGpu,
    /// The format's rows and pixels are not known.
    #[error("the format is not known byte by byte")]
    UnknownFormat,
}

fn name(end: End) -> &'static str {
    match end {
        End::Source => "source",
        End::Destination => "destination",
    }
}

/// A strategy, and why it cannot be; in the order of [`Strategy::ALL`].
pub(in crate::blit) type Plan = ArrayVec<(Strategy, Result<(), WhyNot>), { Strategy::ALL.len() }>;

/// All strategies for a copy between two ends, each with the first reason against it.
///
/// `one_gpu`: both ends have the same Vulkan device. `scaling`: of the frame, if there is one. The
/// formats are known to be convertible.
pub(in crate::blit) fn plan(
    source: &Facts<'_>,
    destination: &Facts<'_>,
    one_gpu: bool,
    scaling: Option<&Scaling>,
) -> Plan {
    let check = |strategy| {
        let against = against(strategy, source, destination, one_gpu)
            .or_else(|| resampling(strategy, source.layout, destination.layout, scaling));
        (strategy, against.map_or(Ok(()), Err))
    };
    Strategy::ALL.into_iter().map(check).collect()
}

fn against(
    strategy: Strategy,
    source: &Facts<'_>,
    destination: &Facts<'_>,
    one_gpu: bool,
) -> Option<WhyNot> {
    use End::{Destination, Source};
    let vulkan = |facts: &Facts<'_>, end| (!facts.vulkan).then_some(WhyNot::NoVulkan(end));
    // A GPU that is not the memory's own reads it by its modifier, which must say something.
    let foreign = |facts: &Facts<'_>, end| {
        let implicit = !facts.layout.modifier.is_explicit();
        (implicit && !one_gpu).then_some(WhyNot::Implicit(end))
    };
    let bytes = |facts: &Facts<'_>, end| {
        linear(facts, end).or((facts.dma_bufs > 1).then_some(WhyNot::SeveralDmaBufs(end)))
    };
    let gpu = colours(source.layout, destination.layout, true);
    let plain = colours(source.layout, destination.layout, false);
    match strategy {
        Strategy::Pull => vulkan(destination, Destination)
            .or_else(|| foreign(source, Source))
            .or(gpu),
        Strategy::Push if one_gpu => Some(WhyNot::OneGpu),
        Strategy::Push => vulkan(source, Source)
            .or_else(|| foreign(destination, Destination))
            .or(gpu),
        Strategy::PullBytes => vulkan(destination, Destination)
            .or_else(|| bytes(source, Source))
            .or(plain),
        Strategy::PushBytes => vulkan(source, Source)
            .or_else(|| bytes(destination, Destination))
            .or(plain),
        Strategy::Staged(_) if one_gpu => Some(WhyNot::OneGpu),
        Strategy::Staged(memory) => vulkan(source, Source)
            .or_else(|| vulkan(destination, Destination))
            .or(match memory {
                StagingSource::Destination if !destination.drm => Some(WhyNot::NoDrm(Destination)),
                StagingSource::Source if !source.drm => Some(WhyNot::NoDrm(Source)),
                _ => None,
            })
            .or(plain),
        Strategy::Cpu => linear(source, Source)
            .or_else(|| linear(destination, Destination))
            .or_else(|| unknown(source)),
        // Without any GPU it is what the CPU does.
        Strategy::HostMemory if !source.vulkan && !destination.vulkan => {
            Some(WhyNot::NoVulkan(Source))
        }
        Strategy::HostMemory => {
            let mapped = |facts: &Facts<'_>, end| match facts.vulkan {
                true => None,
                false => linear(facts, end),
            };
            mapped(source, Source)
                .or_else(|| mapped(destination, Destination))
                .or_else(|| unknown(source))
        }
    }
}

/// What there is against a copy that does not take pixels one by one.
fn resampling(
    strategy: Strategy,
    source: &Layout,
    destination: &Layout,
    scaling: Option<&Scaling>,
) -> Option<WhyNot> {
    let converts = relation(source.fourcc, destination.fourcc) == Relation::Converted;
    if !converts && scaling.is_none() {
        return None;
    }
    let known = |layout: &Layout| FormatInfo::of(layout.fourcc);
    match strategy {
        Strategy::HostMemory | Strategy::Cpu => None,
        Strategy::PullBytes | Strategy::PushBytes | Strategy::Staged(_) => Some(WhyNot::Resamples),
        Strategy::Pull | Strategy::Push => {
            let is_rgb = |layout: &Layout| {
                known(layout).is_some_and(|info| {
                    matches!(info.colour, Colour::Rgb | Colour::RgbFloat) && info.planes.len() == 1
                })
            };
            let turns = scaling.is_some_and(|scaling| scaling.transform.swaps_axes());
            let has_alpha = |layout: &Layout| known(layout).is_some_and(|info| info.alpha);
            if turns || !is_rgb(source) || !is_rgb(destination) {
                Some(WhyNot::NotByGpu)
            } else if has_alpha(destination) && !has_alpha(source) {
                Some(WhyNot::SetsAlpha)
            } else {
                None
            }
        }
    }
}

fn unknown(facts: &Facts<'_>) -> Option<WhyNot> {
    let known = FormatInfo::of(facts.layout.fourcc).is_some();
    (!known).then_some(WhyNot::UnknownFormat)
}

fn linear(facts: &Facts<'_>, end: End) -> Option<WhyNot> {
    let modifier = facts.layout.modifier;
    (modifier != Modifier::LINEAR).then_some(WhyNot::NotLinear { end, modifier })
}

/// What the formats have against a copy by the GPU: of images, which can reorder components, or
/// of bytes.
fn colours(source: &Layout, destination: &Layout, images: bool) -> Option<WhyNot> {
    match relation(source.fourcc, destination.fourcc) {
        Relation::Rearranged(how) if how.sets_alpha => Some(WhyNot::SetsAlpha),
        Relation::Rearranged(how) if how.reorders && !images => Some(WhyNot::Reorders),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Fourcc;

    const TILED: Modifier = Modifier(0x0100_0000_0000_0001);

    fn layout(fourcc: Fourcc, modifier: Modifier) -> Layout {
        Layout {
            width: 64,
            height: 64,
            fourcc,
            modifier,
        }
    }

    fn facts(layout: &Layout) -> Facts<'_> {
        Facts {
            layout,
            vulkan: true,
            drm: true,
            dma_bufs: 1,
        }
    }

    fn offered(plan: &Plan) -> Vec<Strategy> {
        let good = plan.iter().filter(|(_, against)| against.is_ok());
        good.map(|(strategy, _)| *strategy).collect()
    }

    fn reason(plan: &Plan, strategy: Strategy) -> WhyNot {
        let found = plan.iter().find(|(known, _)| *known == strategy);
        found.unwrap().1.unwrap_err()
    }

    #[test]
    fn linear_memory_between_two_gpus_goes_every_way() {
        let linear = layout(Fourcc::XRGB8888, Modifier::LINEAR);
        let plan = plan(&facts(&linear), &facts(&linear), false, None);
        assert_eq!(offered(&plan), Strategy::ALL);
    }

    #[test]
    fn tiled_memory_is_staged_where_the_other_gpu_may_not_understand_it() {
        let (tiled, linear) = (
            layout(Fourcc::XRGB8888, TILED),
            layout(Fourcc::XRGB8888, Modifier::LINEAR),
        );
        let plan = plan(&facts(&tiled), &facts(&linear), false, None);
        assert!(
            offered(&plan).contains(&Strategy::Pull),
            "it may understand it"
        );
        assert!(offered(&plan).contains(&Strategy::Staged(StagingSource::Udmabuf)));
        let not_linear = WhyNot::NotLinear {
            end: End::Source,
            modifier: TILED,
        };
        assert_eq!(reason(&plan, Strategy::Cpu), not_linear);
        assert_eq!(reason(&plan, Strategy::PullBytes), not_linear);
        assert!(offered(&plan).contains(&Strategy::HostMemory));
    }

    #[test]
    fn implicit_modifiers_never_cross_devices() {
        let (implicit, linear) = (
            layout(Fourcc::XRGB8888, Modifier::INVALID),
            layout(Fourcc::XRGB8888, Modifier::LINEAR),
        );
        let across = plan(&facts(&implicit), &facts(&linear), false, None);
        assert_eq!(
            reason(&across, Strategy::Pull),
            WhyNot::Implicit(End::Source)
        );
        let within = plan(&facts(&implicit), &facts(&linear), true, None);
        assert_eq!(offered(&within)[0], Strategy::Pull);
    }

    #[test]
    fn without_vulkan_the_processor_copies() {
        let linear = layout(Fourcc::XRGB8888, Modifier::LINEAR);
        let without = Facts {
            vulkan: false,
            ..facts(&linear)
        };
        assert_eq!(
            offered(&plan(&without, &without, false, None)),
            [Strategy::Cpu]
        );
        let half = plan(&without, &facts(&linear), false, None);
        assert_eq!(
            offered(&half),
            [
                Strategy::Pull,
                Strategy::PullBytes,
                Strategy::HostMemory,
                Strategy::Cpu
            ]
        );
    }

    #[test]
    fn on_one_gpu_it_is_a_plain_copy() {
        let linear = layout(Fourcc::XRGB8888, Modifier::LINEAR);
        let plan = plan(&facts(&linear), &facts(&linear), true, None);
        assert_eq!(offered(&plan)[0], Strategy::Pull);
        assert_eq!(reason(&plan, Strategy::Push), WhyNot::OneGpu);
        let staged = Strategy::Staged(StagingSource::DmaHeap);
        assert_eq!(reason(&plan, staged), WhyNot::OneGpu);
    }

    #[test]
    fn scaled_and_converted_pictures_are_made_by_image_blits_and_by_the_cpu() {
        use crate::blit::{Scaling, Transform};
        let linear = |fourcc| layout(fourcc, Modifier::LINEAR);
        let (eight, ten) = (linear(Fourcc::XRGB8888), linear(Fourcc::XRGB2101010));
        let by_all = [
            Strategy::Pull,
            Strategy::HostMemory,
            Strategy::Cpu,
            Strategy::Push,
        ];
        let converted = plan(&facts(&ten), &facts(&eight), false, None);
        assert_eq!(offered(&converted), by_all);
        let mut scaling = Scaling::whole((64, 64), (32, 32));
        let scaled = plan(&facts(&eight), &facts(&eight), false, Some(&scaling));
        assert_eq!(offered(&scaled), by_all);
        scaling.transform = Transform::Rotate90;
        let turned = plan(&facts(&eight), &facts(&eight), false, Some(&scaling));
        assert_eq!(offered(&turned), [Strategy::HostMemory, Strategy::Cpu]);
        assert_eq!(reason(&turned, Strategy::Pull), WhyNot::NotByGpu);
        let video = plan(&facts(&linear(Fourcc::NV12)), &facts(&eight), false, None);
        assert_eq!(offered(&video), [Strategy::HostMemory, Strategy::Cpu]);
    }

    #[test]
    fn formats_decide_who_can_convert() {
        let swapped = plan(
            &facts(&layout(Fourcc::XRGB8888, Modifier::LINEAR)),
            &facts(&layout(Fourcc::XBGR8888, Modifier::LINEAR)),
            false,
            None,
        );
        assert_eq!(
            offered(&swapped),
            [
                Strategy::Pull,
                Strategy::HostMemory,
                Strategy::Cpu,
                Strategy::Push
            ]
        );
        let alpha = plan(
            &facts(&layout(Fourcc::XRGB8888, Modifier::LINEAR)),
            &facts(&layout(Fourcc::ARGB8888, Modifier::LINEAR)),
            false,
            None,
        );
        assert_eq!(offered(&alpha), [Strategy::HostMemory, Strategy::Cpu]);
        assert_eq!(reason(&alpha, Strategy::Pull), WhyNot::SetsAlpha);
    }
}
