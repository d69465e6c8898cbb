//! The guests there are, and in what they differ.

use std::ffi::OsStr;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

/// The environment variable that chooses a guest, and that tells programs in it which one it is.
pub(crate) const VARIABLE: &str = "PRIMESHARE_GUEST_KIND";

/// Which guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The newest kernel and Mesa that Debian backports.
    #[default]
    Current,
    /// The oldest kernel and Mesa that are supported: those of the Debian release itself.
    Compat,
    /// Debian's own kernel in QEMU, with drivers that refuse each other's buffers: virtio-gpu, bochs, qxl, cirrus.
    Qemu,
    /// The same kernel with a GPU: a virtio-gpu that has OpenGL (virgl) and Vulkan (venus), vgem and bochs beside it.
    Gpu,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Current, Kind::Compat, Kind::Qemu, Kind::Gpu];

    /// What the environment asks for.
    pub(crate) fn from_environment() -> Result<Self> {
        Self::asked_for(std::env::var_os(VARIABLE).as_deref())
    }

    fn asked_for(value: Option<&OsStr>) -> Result<Self> {
        match value.map(|value| value.to_string_lossy()).as_deref() {
            None | Some("") => Ok(Kind::default()),
            Some(name) => Self::named(name).with_context(|| {
                format!("{VARIABLE} must be current, compat, qemu or gpu, not {name:?}")
            }),
        }
    }

    /// The guest of this name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("there is no guest {name:?}"),
        }
    }

    /// As the command line and the environment have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Current => "current",
            Kind::Compat => "compat",
            Kind::Qemu => "qemu",
            Kind::Gpu => "gpu",
        }
    }

    /// For people, at the start of a line.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Current => "Guest",
            Kind::Compat => "Compatibility guest",
            Kind::Qemu => "QEMU guest",
            Kind::Gpu => "GPU guest",
        }
    }

    /// The cache's name for a part of this guest.
    pub(crate) fn name_of(self, part: &str) -> String {
        match self {
            Kind::Current => part.to_owned(),
            Kind::Compat | Kind::Qemu | Kind::Gpu => format!("{part}-{}", self.name()),
        }
    }

    /// The guest whose root file system this one has too.
    pub(crate) fn root(self) -> Kind {
        match self {
            Kind::Current | Kind::Gpu => Kind::Current,
            Kind::Compat | Kind::Qemu => Kind::Compat,
        }
    }

    /// The guest whose kernel this one has too.
    pub(crate) fn kernel_of(self) -> Kind {
        match self {
            Kind::Gpu => Kind::Qemu,
            own => own,
        }
    }

    /// Whether packages come from the release's backports, where those have them.
    pub(crate) fn has_backports(self) -> bool {
        self == Kind::Current
    }

    /// Where the kernel comes from.
    pub(crate) fn kernel(self) -> Kernel {
        match self {
            Kind::Current => Kernel::Source {
                package: "linux-source",
                config: "",
            },
            Kind::Compat => Kernel::Source {
                package: "linux-source-6.12",
                config: include_str!("../../../guest/compat.config"),
            },
            Kind::Qemu | Kind::Gpu => Kernel::Stock {
                package: "linux-image-amd64",
            },
        }
    }

    /// Whether it runs in QEMU, and not as User-Mode Linux.
    pub(crate) fn in_qemu(self) -> bool {
        matches!(self.kernel(), Kernel::Stock { .. })
    }

    /// The devices in the guest through which output leaves it: standard output, standard error.
    pub(crate) fn lines(self) -> [&'static str; 2] {
        if self.in_qemu() {
            ["/dev/vport0p1", "/dev/vport0p2"]
        } else {
            ["/dev/ttyS0", "/dev/ttyS1"]
        }
    }

    /// The device in the guest through which it tells what its clock says.
    pub(crate) fn clock_line(self) -> &'static str {
        if self.in_qemu() {
            "/dev/vport0p3"
        } else {
            "/dev/ttyS2"
        }
    }

    /// Whether the kernel can use several CPUs. Those that can also know the faster way to run programs, by seccomp
    /// instead of ptrace.
    pub(crate) fn has_several_cpus(self) -> bool {
        self != Kind::Compat
    }

    /// What programs find in their environment besides what they find in every guest.
    pub(crate) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Current | Kind::Gpu => &[],
            Kind::Compat | Kind::Qemu => &[(
                // The validation layer asks the driver by VkDrmFormatModifierPropertiesList2EXT whether images with a
                // modifier can be copied. Mesa's lavapipe 25.0 only answers the structure before that one, so the
                // layer complains of every copy and blit.
                "VK_LAYER_MESSAGE_ID_FILTER",
                "VUID-vkCmdCopyImage-srcImage-01995,VUID-vkCmdCopyImage-dstImage-01996,\
                 VUID-vkCmdCopyBufferToImage-dstImage-01997,VUID-vkCmdCopyImageToBuffer-srcImage-01998,\
                 VUID-vkCmdBlitImage-srcImage-01999,VUID-vkCmdBlitImage-dstImage-02000",
            )],
        }
    }

    /// The Vulkan drivers that programs find, in the order in which the loader is told of them.
    pub(crate) fn vulkan(self) -> &'static str {
        match self {
            Kind::Current | Kind::Compat | Kind::Qemu => "/usr/share/vulkan/icd.d/lvp_icd.json",
            Kind::Gpu => {
                "/usr/share/vulkan/icd.d/lvp_icd.json:/usr/share/vulkan/icd.d/virtio_icd.json"
            }
        }
    }

    /// The Mesa driver that programs are to take for every device: what Mesa's loader would arrive at by itself, after
    /// a complaint for every device that is on no bus it knows.
    pub(crate) fn mesa_driver(self) -> Option<&'static str> {
        (self != Kind::Gpu).then_some("kms_swrast")
    }

    /// Whether the kernel makes vkms devices on demand, so that there is a second one.
    pub(crate) fn has_second_vkms(self) -> bool {
        self == Kind::Current
    }
}

/// A guest's kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kernel {
    /// Built for User-Mode Linux from the source in `package`.
    Source {
        package: &'static str,
        /// What its configuration has besides `guest/kernel.config`.
        config: &'static str,
    },
    /// Taken from `package` as Debian has built it.
    Stock { package: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() -> Result<()> {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name())?, kind);
            assert_eq!(Kind::asked_for(Some(OsStr::new(kind.name())))?, kind);
        }
        assert_eq!(Kind::asked_for(None)?, Kind::Current);
        assert_eq!(Kind::asked_for(Some(OsStr::new("")))?, Kind::Current);
        let refused = Kind::asked_for(Some(OsStr::new("old")));
        assert!(
            refused.is_err_and(|error| error.to_string().contains("current, compat, qemu or gpu"))
        );
        Ok(())
    }
}
