//! Which strategies are possible for a pair of buffers, in what order, and why others are not. Pure.

use arrayvec::ArrayVec;

use crate::blit::Scaling;
use crate::blit::copy::is_known;
use crate::blit::copy::pixels::{Relation, relation, suits_blit};
use crate::blit::strategy::{End, StagingSource, Strategy};
use crate::buffer::{BufferDesc, FormatInfo, Modifier};

/// What is known of one end before anything is tried.
#[derive(Clone, Copy, Debug)]
pub(in crate::blit) struct Facts<'a> {
    pub(in crate::blit) layout: &'a BufferDesc,
    /// Whether the end has a Vulkan device.
    pub(in crate::blit) vulkan: bool,
    /// Whether the end has a DRM device, which can make buffers.
    pub(in crate::blit) drm: bool,
    /// Whether the queue of its Vulkan device runs compute shaders.
    pub(in crate::blit) computes: bool,
    /// In how many dma-bufs the buffer's planes are.
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
    /// Pixels are scaled, turned or converted in a way that takes a compute shader, and the queue at this
    /// end runs none.
    #[error("the queue of the {} does not compute, which this picture takes", name(*.0))]
    NoCompute(End),
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

/// All strategies in the order of [`Strategy::ALL`], each with the reason against it, if there is one.
pub(in crate::blit) type Plan = ArrayVec<(Strategy, Result<(), WhyNot>), { Strategy::LIST.len() }>;

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
            .or_else(|| changing(strategy, source, destination, scaling));
        (strategy, against.map_or(Ok(()), Err))
    };
    Strategy::LIST.into_iter().map(check).collect()
}

fn against(
    strategy: Strategy,
    source: &Facts<'_>,
    destination: &Facts<'_>,
    one_gpu: bool,
) -> Option<WhyNot> {
    use End::{Destination, Source};
    let vulkan = |facts: &Facts<'_>, end| (!facts.vulkan).then_some(WhyNot::NoVulkan(end));
    // A GPU can read another device's memory only by an explicit modifier.
    let foreign = |facts: &Facts<'_>, end| {
        let implicit = !facts.layout.modifier.is_explicit();
        (implicit && !one_gpu).then_some(WhyNot::Implicit(end))
    };
    let bytes = |facts: &Facts<'_>, end| {
        linear(facts, end).or((facts.dma_bufs > 1).then_some(WhyNot::SeveralDmaBufs(end)))
    };
    match strategy {
        Strategy::Pull => vulkan(destination, Destination).or_else(|| foreign(source, Source)),
        Strategy::Push if one_gpu => Some(WhyNot::OneGpu),
        Strategy::Push => vulkan(source, Source).or_else(|| foreign(destination, Destination)),
        Strategy::PullBytes => vulkan(destination, Destination).or_else(|| bytes(source, Source)),
        Strategy::PushBytes => vulkan(source, Source).or_else(|| bytes(destination, Destination)),
        Strategy::Staged(_) if one_gpu => Some(WhyNot::OneGpu),
        Strategy::Staged(memory) => vulkan(source, Source)
            .or_else(|| vulkan(destination, Destination))
            .or(match memory {
                StagingSource::Destination if !destination.drm => Some(WhyNot::NoDrm(Destination)),
                StagingSource::Source if !source.drm => Some(WhyNot::NoDrm(Source)),
                _ => None,
            }),
        Strategy::Cpu => linear(source, Source)
            .or_else(|| linear(destination, Destination))
            .or_else(|| unknown(source)),
        // Without any GPU this would be the same as the strategy `Cpu`.
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

/// The reason against a strategy for a copy that changes pixels or their places.
fn changing(
    strategy: Strategy,
    source: &Facts<'_>,
    destination: &Facts<'_>,
    scaling: Option<&Scaling>,
) -> Option<WhyNot> {
    let (from, to) = (source.layout.fourcc, destination.layout.fourcc);
    if scaling.is_none() && relation(from, to) == Relation::Same {
        return None;
    }
    let (end, facts) = match strategy {
        Strategy::HostMemory | Strategy::Cpu => return None,
        Strategy::Pull | Strategy::PullBytes | Strategy::Staged(_) => {
            (End::Destination, destination)
        }
        Strategy::Push | Strategy::PushBytes => (End::Source, source),
    };
    // Whether the device supports this blit is only known once it has the images.
    let is_image = !matches!(strategy, Strategy::PullBytes | Strategy::PushBytes);
    let may_blit = is_image && suits_blit(from, to, scaling);
    let is_known = is_known(from) && is_known(to);
    match (may_blit, is_known, facts.computes) {
        (true, ..) | (false, true, true) => None,
        (false, false, _) => Some(WhyNot::UnknownFormat),
        (false, true, false) => Some(WhyNot::NoCompute(end)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Fourcc;

    const TILED: Modifier = Modifier(0x0100_0000_0000_0001);

    fn layout(fourcc: Fourcc, modifier: Modifier) -> BufferDesc {
        BufferDesc::new(64, 64, fourcc, modifier)
    }

    fn facts(layout: &BufferDesc) -> Facts<'_> {
        Facts {
            layout,
            vulkan: true,
            drm: true,
            computes: true,
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
        assert_eq!(offered(&plan), Strategy::LIST);
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

    const LINEAR: Modifier = Modifier::LINEAR;

    #[test]
    fn every_way_scales_turns_and_converts() {
        use crate::blit::{Scaling, Transform};
        let (eight, ten) = (
            layout(Fourcc::XRGB8888, LINEAR),
            layout(Fourcc::XRGB2101010, LINEAR),
        );
        let video = layout(Fourcc::NV12, LINEAR);
        let converted = plan(&facts(&ten), &facts(&eight), false, None);
        assert_eq!(offered(&converted), Strategy::LIST);
        let mut scaling = Scaling::whole((64, 64), (32, 32));
        let scaled = plan(&facts(&eight), &facts(&eight), false, Some(&scaling));
        assert_eq!(offered(&scaled), Strategy::LIST);
        scaling.transform = Transform::Rotate90;
        let turned = plan(&facts(&eight), &facts(&eight), false, Some(&scaling));
        assert_eq!(offered(&turned), Strategy::LIST);
        for (from, to) in [(&video, &eight), (&eight, &video)] {
            let plan = plan(&facts(from), &facts(to), false, None);
            assert_eq!(offered(&plan), Strategy::LIST);
        }
        for to in [Fourcc::XBGR8888, Fourcc::ARGB8888] {
            let to = layout(to, LINEAR);
            let plan = plan(&facts(&eight), &facts(&to), false, None);
            assert_eq!(offered(&plan), Strategy::LIST);
        }
    }

    #[test]
    fn a_queue_that_does_not_compute_blits_images_and_copies() {
        let idle = |layout| Facts {
            computes: false,
            ..facts(layout)
        };
        let (eight, video) = (
            layout(Fourcc::XRGB8888, LINEAR),
            layout(Fourcc::NV12, LINEAR),
        );
        let no_compute = WhyNot::NoCompute(End::Destination);
        let made = plan(&facts(&video), &idle(&eight), false, None);
        assert_eq!(
            offered(&made),
            [
                Strategy::HostMemory,
                Strategy::Cpu,
                Strategy::Push,
                Strategy::PushBytes
            ]
        );
        assert_eq!(reason(&made, Strategy::Pull), no_compute);
        assert_eq!(reason(&made, Strategy::PullBytes), no_compute);
        let other = plan(&idle(&video), &facts(&eight), false, None);
        assert_eq!(
            reason(&other, Strategy::Push),
            WhyNot::NoCompute(End::Source)
        );
        let opaque = layout(Fourcc::ARGB8888, LINEAR);
        let set = plan(&facts(&eight), &idle(&opaque), false, None);
        assert_eq!(reason(&set, Strategy::Pull), no_compute);
        let swapped = layout(Fourcc::XBGR8888, LINEAR);
        let blitted = plan(&facts(&eight), &idle(&swapped), false, None);
        assert!(offered(&blitted).contains(&Strategy::Pull));
        assert_eq!(reason(&blitted, Strategy::PullBytes), no_compute);
        let scaling = Scaling::whole((64, 64), (32, 32));
        let scaled = plan(&facts(&eight), &idle(&eight), false, Some(&scaling));
        assert_eq!(reason(&scaled, Strategy::Pull), no_compute);
        let same = plan(&facts(&eight), &idle(&eight), false, None);
        assert_eq!(offered(&same), Strategy::LIST);
    }

    #[test]
    fn pixels_that_are_not_known_are_blitted_at_most() {
        let scaling = Scaling::whole((64, 64), (32, 32));
        let grey = layout(Fourcc::R8, LINEAR);
        let scaled = plan(&facts(&grey), &facts(&grey), false, Some(&scaling));
        assert!(offered(&scaled).contains(&Strategy::Pull));
        assert_eq!(reason(&scaled, Strategy::PullBytes), WhyNot::UnknownFormat);
        let moved = layout(Fourcc::P030, LINEAR);
        let plan = plan(&facts(&moved), &facts(&moved), false, Some(&scaling));
        assert_eq!(reason(&plan, Strategy::Pull), WhyNot::UnknownFormat);
    }
}
