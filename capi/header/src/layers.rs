//! Which declarations go into which header.

/// A header, and the files that it is made of.
pub(crate) struct Layer {
    pub(crate) header: &'static str,
    pub(crate) includes: &'static [&'static str],
    /// Files of `capi/src`, in the header's order.
    pub(crate) files: &'static [&'static str],
}

impl Layer {
    pub(crate) fn is_core(&self) -> bool {
        self.header == "primeshare.h"
    }
}

pub(crate) const LAYERS: &[Layer] = &[
    Layer {
        header: "primeshare.h",
        includes: &["<stdbool.h>", "<stddef.h>", "<stdint.h>"],
        files: &[
            "library",
            "errors",
            "device",
            "buffer",
            "table",
            "allocator",
            "fence",
            "mapping",
            "negotiation",
            "wayland",
        ],
    },
    Layer {
        header: "primeshare-gbm.h",
        includes: &["\"primeshare.h\""],
        files: &["gbm"],
    },
    Layer {
        header: "primeshare-vulkan.h",
        includes: &["\"primeshare.h\""],
        files: &["vulkan"],
    },
    Layer {
        header: "primeshare-blit.h",
        includes: &["\"primeshare.h\""],
        files: &["blit"],
    },
    Layer {
        header: "primeshare-kms.h",
        includes: &["\"primeshare.h\"", "\"primeshare-blit.h\""],
        files: &["kms"],
    },
];
