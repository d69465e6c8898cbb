//! Looking at images: as sRGB, with alpha forced to one, and through YCbCr conversion.

use ash::vk;

use super::image::known;
use super::{Call, Device, Error, Feature, Image, ImageFormat, Use, query};
use crate::buffer::{FormatInfo, Fourcc};

/// How a YCbCr picture is to be understood. The default is what most video is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct YcbcrColors {
    /// The matrix.
    pub model: vk::SamplerYcbcrModelConversion,
    /// Whether black is 16 and white 235 (`ITU_NARROW`) or all values are used.
    pub range: vk::SamplerYcbcrRange,
    /// Where the chroma samples of subsampled formats lie, across and down. `None`: as the standard of
    /// these colours has it, or the other way if the device has no other.
    ///
    /// 4:2:0 has them left of the middle by default (H.264 and H.265, `chroma_sample_loc_type` 0), at the
    /// top left with BT.2020 (ITU-R BT.2020), and in the middle with BT.601 of all values, which is
    /// JPEG (JFIF 1.02). 4:2:2 has them at the left (ITU-R BT.601, BT.709).
    pub chroma: Option<[vk::ChromaLocation; 2]>,
}

impl YcbcrColors {
    /// Where chroma samples lie by the standard of the colours, in formats that are subsampled so.
    fn standard_chroma(&self, (_, down): (u32, u32)) -> [vk::ChromaLocation; 2] {
        use vk::ChromaLocation as L;
        use vk::SamplerYcbcrModelConversion as M;
        let is_jpeg = self.model == M::YCBCR_601 && self.range == vk::SamplerYcbcrRange::ITU_FULL;
        match (self.model, down) {
            (_, 1) | (M::YCBCR_2020, _) => [L::COSITED_EVEN; 2],
            _ if is_jpeg => [L::MIDPOINT; 2],
            _ => [L::COSITED_EVEN, L::MIDPOINT],
        }
    }
}

impl Default for YcbcrColors {
    fn default() -> Self {
        Self {
            model: vk::SamplerYcbcrModelConversion::YCBCR_709,
            range: vk::SamplerYcbcrRange::ITU_NARROW,
            chroma: None,
        }
    }
}

/// A sampler that converts YCbCr to RGB.
///
/// Both the views and the descriptor set layout need it, there as an immutable sampler
/// (VUID-VkDescriptorSetLayoutBinding-pImmutableSamplers), and it must outlive them.
#[derive(Debug)]
pub struct YcbcrSampler {
    device: Device,
    conversion: vk::SamplerYcbcrConversion,
    sampler: vk::Sampler,
    fourcc: Fourcc,
}

impl YcbcrSampler {
    /// A sampler for LINEAR or tiled images of this format, with edges clamped and, where the
    /// device has it for the format, linear filtering.
    pub fn new(device: &Device, fourcc: Fourcc, colors: YcbcrColors) -> Result<Self, Error> {
        device.require(Feature::Ycbcr)?;
        device.require(Feature::Modifiers)?;
        let &ImageFormat {
            format,
            components,
            ycbcr,
            ..
        } = known(device, fourcc)?;
        let no = || Error::View {
            format,
            what: "YCbCr",
        };
        if !ycbcr {
            return Err(no());
        }
        // What all its modifiers can do, as the sampler is to be good for all.
        let listed = query::modifiers(device, format);
        let features = listed.iter().map(|l| l.drm_format_modifier_tiling_features);
        let features = features.reduce(|a, b| a & b).ok_or_else(no)?;
        use vk::FormatFeatureFlags as F;
        // VUID-VkSamplerYcbcrConversionCreateInfo-xChromaOffset-01651 and -01652.
        let able = [
            (F::COSITED_CHROMA_SAMPLES, vk::ChromaLocation::COSITED_EVEN),
            (F::MIDPOINT_CHROMA_SAMPLES, vk::ChromaLocation::MIDPOINT),
        ];
        let able = able
            .iter()
            .filter(|(feature, _)| features.contains(*feature));
        let able: Vec<_> = able.map(|(_, location)| *location).collect();
        let &[first, ..] = able.as_slice() else {
            return Err(no());
        };
        let chroma = FormatInfo::of(fourcc).map_or((1, 1), |info| info.chroma);
        let offsets = match colors.chroma {
            Some(chosen) if chosen.iter().all(|location| able.contains(location)) => chosen,
            Some(_) => {
                return Err(Error::View {
                    format,
                    what: "YCbCr with chroma samples there",
                });
            }
            None => {
                let standard = colors.standard_chroma(chroma);
                standard.map(|location| match able.contains(&location) {
                    true => location,
                    false => first,
                })
            }
        };
        let linear =
            F::SAMPLED_IMAGE_FILTER_LINEAR | F::SAMPLED_IMAGE_YCBCR_CONVERSION_LINEAR_FILTER;
        let filter = match features.contains(linear) {
            true => vk::Filter::LINEAR,
            false => vk::Filter::NEAREST,
        };
        let info = vk::SamplerYcbcrConversionCreateInfo::default()
            .format(format)
            .ycbcr_model(colors.model)
            .ycbcr_range(colors.range)
            .components(components)
            .x_chroma_offset(offsets[0])
            .y_chroma_offset(offsets[1])
            .chroma_filter(filter);
        let mut new = Self {
            device: device.clone(),
            conversion: vk::SamplerYcbcrConversion::null(),
            sampler: vk::Sampler::null(),
            fourcc,
        };
        // SAFETY: `info` lives until the call returns, and the feature is enabled.
        new.conversion = unsafe { device.raw().create_sampler_ycbcr_conversion(&info, None) }
            .map_err(device.failed(Call::CreateSamplerYcbcrConversion))?;
        let mut conversion = new.chained();
        // VUID-VkSamplerCreateInfo-addressModeU-01646 and -minFilter-01645.
        let info = vk::SamplerCreateInfo::default()
            .min_filter(filter)
            .mag_filter(filter)
            .address_mode_u(vk::SamplerAddressMode::CLAMP_TO_EDGE)
            .address_mode_v(vk::SamplerAddressMode::CLAMP_TO_EDGE)
            .address_mode_w(vk::SamplerAddressMode::CLAMP_TO_EDGE)
            .push_next(&mut conversion);
        // SAFETY: `info` lives until the call returns.
        new.sampler = unsafe { device.raw().create_sampler(&info, None) }
            .map_err(device.failed(Call::CreateSampler))?;
        Ok(new)
    }

    /// The sampler, for a descriptor set layout.
    pub fn raw(&self) -> vk::Sampler {
        self.sampler
    }

    /// The conversion.
    pub fn conversion(&self) -> vk::SamplerYcbcrConversion {
        self.conversion
    }

    fn chained(&self) -> vk::SamplerYcbcrConversionInfo<'static> {
        vk::SamplerYcbcrConversionInfo::default().conversion(self.conversion)
    }
}

impl Drop for YcbcrSampler {
    fn drop(&mut self) {
        let (sampler, conversion) = (self.sampler, self.conversion);
        self.device.destroy(move |raw| {
            // SAFETY: nothing uses them any more, as the type's contract says; null is ignored.
            unsafe {
                raw.destroy_sampler(sampler, None);
                raw.destroy_sampler_ycbcr_conversion(conversion, None);
            }
        });
    }
}

/// A view of an [`Image`], of all of it. Destroyed on drop; not to be used after the image.
#[derive(Debug)]
pub struct ImageView {
    device: Device,
    raw: vk::ImageView,
    format: vk::Format,
}

impl Image {
    /// A view for one use.
    ///
    /// For sampling, formats without alpha read it as one, and colours that Vulkan has in another
    /// order come in the right one. (Views to draw into or to store to
    /// have no such mapping: VUID-VkFramebufferCreateInfo-pAttachments-00884 and
    /// VUID-VkWriteDescriptorSet-descriptorType-00336.) [`Error::View`] for a use the image was
    /// not made for, and for YCbCr formats, which [`Self::ycbcr_view`] is for.
    pub fn view(&self, used: Use) -> Result<ImageView, Error> {
        self.plain_view(self.format(), used)
    }

    /// As [`Self::view`], as sRGB. [`Error::View`] where that was not asked for at import, or the
    /// format has none.
    pub fn srgb_view(&self, used: Use) -> Result<ImageView, Error> {
        match self.pixels().srgb.filter(|_| self.usage().srgb) {
            Some(format) => self.plain_view(format, used),
            None => Err(Error::View {
                format: self.format(),
                what: "sRGB",
            }),
        }
    }

    /// A view for sampling through a conversion, with that of the same format.
    pub fn ycbcr_view(&self, sampler: &YcbcrSampler) -> Result<ImageView, Error> {
        let fits = self.pixels().ycbcr && sampler.fourcc == self.desc().fourcc;
        if !fits || !self.usage().flags.contains(vk::ImageUsageFlags::SAMPLED) {
            return Err(Error::View {
                format: self.format(),
                what: "YCbCr",
            });
        }
        let mut conversion = sampler.chained();
        let info = self.view_info(self.format()).push_next(&mut conversion);
        self.create_view(&info)
    }

    fn plain_view(&self, format: vk::Format, used: Use) -> Result<ImageView, Error> {
        let no = |what| Error::View {
            format: self.format(),
            what,
        };
        let viewable = matches!(used, Use::Sampled | Use::Attachment | Use::Storage);
        if !viewable || !self.usage().flags.contains(used.usage()) {
            return Err(no("what it was not imported for"));
        }
        if self.pixels().ycbcr {
            return Err(no("colour without conversion"));
        }
        let components = match used {
            Use::Sampled => self.pixels().components,
            // Only alpha is not what it should be, and what is there does not matter.
            _ if self.pixels().in_order() => vk::ComponentMapping::default(),
            _ => return Err(no("something to write to, in its order of colours")),
        };
        // So that an image which is also for storage can have an sRGB view, which is not.
        let mut usage = vk::ImageViewUsageCreateInfo::default().usage(used.usage());
        let info = self
            .view_info(format)
            .components(components)
            .push_next(&mut usage);
        self.create_view(&info)
    }

    fn view_info(&self, format: vk::Format) -> vk::ImageViewCreateInfo<'static> {
        vk::ImageViewCreateInfo::default()
            .image(self.raw())
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(format)
            .subresource_range(super::ownership::WHOLE)
    }

    fn create_view(&self, info: &vk::ImageViewCreateInfo<'_>) -> Result<ImageView, Error> {
        // SAFETY: `info` lives until the call returns, and the image is alive.
        let raw = unsafe { self.device.raw().create_image_view(info, None) }
            .map_err(self.device.failed(Call::CreateImageView))?;
        Ok(ImageView {
            device: self.device.clone(),
            raw,
            format: info.format,
        })
    }
}

impl ImageView {
    /// The ash handle.
    pub fn raw(&self) -> vk::ImageView {
        self.raw
    }

    /// The format it shows the image as.
    pub fn format(&self) -> vk::Format {
        self.format
    }
}

impl Drop for ImageView {
    fn drop(&mut self) {
        let handle = self.raw;
        self.device.destroy(move |raw| {
            // SAFETY: nothing uses it any more, as the type's contract says.
            unsafe { raw.destroy_image_view(handle, None) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chroma_lies_as_the_standard_of_the_colours_has_it() {
        use vk::ChromaLocation as L;
        use vk::SamplerYcbcrModelConversion as M;
        use vk::SamplerYcbcrRange as R;
        let at = |model, range, subsampled| {
            let colors = YcbcrColors {
                model,
                range,
                chroma: None,
            };
            colors.standard_chroma(subsampled)
        };
        let (left, top_left) = ([L::COSITED_EVEN, L::MIDPOINT], [L::COSITED_EVEN; 2]);
        assert_eq!(at(M::YCBCR_709, R::ITU_NARROW, (2, 2)), left);
        assert_eq!(at(M::YCBCR_601, R::ITU_NARROW, (2, 2)), left);
        assert_eq!(at(M::YCBCR_601, R::ITU_FULL, (2, 2)), [L::MIDPOINT; 2]);
        assert_eq!(at(M::YCBCR_2020, R::ITU_NARROW, (2, 2)), top_left);
        assert_eq!(at(M::YCBCR_709, R::ITU_NARROW, (2, 1))[0], L::COSITED_EVEN);
    }
}
