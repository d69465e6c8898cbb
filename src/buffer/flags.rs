//! What a description says of a picture's rows beside their place in memory.

use std::fmt;

bitflags::bitflags! {
    /// How the rows in memory make the picture: `zwp_linux_buffer_params_v1.flags` of Wayland's
    /// linux-dmabuf, with its values.
    ///
    /// A [`DmaBuf`](super::DmaBuf) carries them to other processes. [`Blitter`](crate::blit::Blitter) honours
    /// Y_INVERT, and copies interlaced pictures only as they are. What shows rows as they lie in memory does
    /// not look at flags, and its user has to: imports into Vulkan and wgpu, and mappings for the CPU.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct BufferFlags: u32 {
        /// The first row in memory is the picture's last, as OpenGL draws.
        const Y_INVERT = 1;
        /// Rows are of two fields, which are shown one after the other: the even rows first, or the odd
        /// ones with [`Self::BOTTOM_FIRST`].
        const INTERLACED = 2;
        /// The field of the odd rows is shown first. Without [`Self::INTERLACED`] it has no meaning.
        const BOTTOM_FIRST = 4;

        // Others may come, and are to be seen before they are refused.
        const _ = !0;
    }
}

impl BufferFlags {
    /// Those with a name.
    pub(crate) fn known() -> Self {
        Self::Y_INVERT | Self::INTERLACED | Self::BOTTOM_FIRST
    }

    /// What the fields are, if there are any.
    pub(crate) fn fields(self) -> Self {
        self - Self::Y_INVERT
    }
}

impl fmt::Display for BufferFlags {
    /// `Y_INVERT | INTERLACED`, `0x8` for unknown ones, `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_empty() {
            true => f.write_str("none"),
            false => bitflags::parser::to_writer(self, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_by_people() {
        let both = BufferFlags::Y_INVERT | BufferFlags::INTERLACED;
        assert_eq!(both.to_string(), "Y_INVERT | INTERLACED");
        assert_eq!(BufferFlags::from_bits_retain(8).to_string(), "0x8");
        assert_eq!(BufferFlags::empty().to_string(), "none");
    }
}
