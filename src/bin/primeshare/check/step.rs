//! The stages of a way between two devices, and how each went.

use std::fmt;

use primeshare::{Errno, blit, vk};
use serde::Serialize;

/// In the order in which they are tried. Serialized by [`Stage::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A buffer of the source's own memory.
    Allocate,
    /// Of that memory a dma-buf.
    Export,
    /// PRIME_FD_TO_HANDLE on the destination.
    Import,
    /// The destination's Vulkan device imports the dma-buf, and copies it; the pixels are compared.
    Gpu,
    /// Fences into the dma-bufs and out of them.
    Fence,
    /// The destination's display controller takes the source's buffer.
    Screen,
    /// A copy into memory of the destination by what works best, the CPU included; the pixels are compared.
    Copy,
    /// The destination's display controller takes its own buffer, with the copy in it.
    ScreenOfCopy,
}

impl Stage {
    pub(super) const ALL: [Self; 8] = [
        Self::Allocate,
        Self::Export,
        Self::Import,
        Self::Gpu,
        Self::Fence,
        Self::Screen,
        Self::Copy,
        Self::ScreenOfCopy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Allocate => "allocate",
            Self::Export => "export",
            Self::Import => "import",
            Self::Gpu => "gpu",
            Self::Fence => "fence",
            Self::Screen => "screen",
            Self::Copy => "copy",
            Self::ScreenOfCopy => "screen-of-copy",
        }
    }

    /// Whether it belongs to the way without a copy by others than the GPU.
    fn is_direct(self) -> bool {
        !matches!(self, Self::Copy | Self::ScreenOfCopy)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Stage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Works,
    Failed,
    /// What it needs failed before.
    NotReached,
    /// There is nothing to try, such as on a device without screens.
    DoesNotApply,
}

/// How a stage went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    pub(super) stage: Stage,
    pub(super) outcome: Outcome,
    /// What was done, or why not, with numbers.
    pub(super) detail: String,
    /// The kernel's reason, by its name.
    pub(super) errno: Option<String>,
    /// Vulkan's reason, by its name.
    pub(super) vk_result: Option<String>,
    /// After a failure: the modifiers that the destination takes for this format at this stage.
    pub(super) modifiers_offered: Option<Vec<String>>,
}

/// Why a stage failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Reason {
    pub(super) text: String,
    pub(super) errno: Option<Errno>,
    pub(super) vk_result: Option<vk::ash::vk::Result>,
    pub(super) modifiers_offered: Option<Vec<String>>,
}

impl Reason {
    pub(super) fn new(error: impl fmt::Display, errno: Option<Errno>) -> Self {
        Self {
            text: error.to_string(),
            errno,
            ..Self::default()
        }
    }

    pub(super) fn of_failure(failure: &blit::Failure) -> Self {
        let vk_result = match failure {
            blit::Failure::Vulkan(error) => result_of(error),
            _ => None,
        };
        Self {
            vk_result,
            ..Self::new(failure, failure.errno())
        }
    }

    pub(super) fn offered(mut self, modifiers: Option<Vec<String>>) -> Self {
        self.modifiers_offered = modifiers;
        self
    }
}

fn result_of(error: &vk::Error) -> Option<vk::ash::vk::Result> {
    match error {
        vk::Error::Call { result, .. } | vk::Error::NotImportable { result, .. } => Some(*result),
        _ => None,
    }
}

impl Step {
    fn new(stage: Stage, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            stage,
            outcome,
            detail: detail.into(),
            errno: None,
            vk_result: None,
            modifiers_offered: None,
        }
    }

    pub(super) fn works(stage: Stage, detail: impl Into<String>) -> Self {
        Self::new(stage, Outcome::Works, detail)
    }

    pub(super) fn not_reached(stage: Stage, failed: Stage) -> Self {
        Self::new(stage, Outcome::NotReached, format!("{failed} failed"))
    }

    pub(super) fn does_not_apply(stage: Stage, why: impl Into<String>) -> Self {
        Self::new(stage, Outcome::DoesNotApply, why)
    }

    pub(super) fn failed(stage: Stage, reason: Reason) -> Self {
        Self {
            errno: reason.errno.map(|errno| format!("{errno:?}")),
            vk_result: reason.vk_result.map(|result| format!("VK_{result:?}")),
            modifiers_offered: reason.modifiers_offered,
            ..Self::new(stage, Outcome::Failed, reason.text)
        }
    }

    pub(super) fn is_working(&self) -> bool {
        self.outcome == Outcome::Works
    }

    /// The reason of a failure in one line, with what programs call it.
    pub(super) fn reason(&self) -> String {
        let names = self.errno.iter().chain(&self.vk_result);
        // Errors print some names by themselves.
        let names = names.filter(|name| !self.detail.contains(name.as_str()));
        let mut text = self.detail.clone();
        for name in names {
            text += &format!(" ({name})");
        }
        if let Some(offered) = &self.modifiers_offered {
            match offered.is_empty() {
                true => text += "; offered: no modifier",
                false => text += &format!("; offered: {}", offered.join(" ")),
            }
        }
        text
    }
}

/// The first stage of the way without a copy by others that failed.
pub(super) fn first_failure(steps: &[Step]) -> Option<&Step> {
    let is_failed = |step: &&Step| step.stage.is_direct() && step.outcome == Outcome::Failed;
    steps.iter().find(is_failed)
}

/// The complete way to a picture at the destination, in words; `None` if there is none.
pub(super) fn way(steps: &[Step]) -> Option<&'static str> {
    let of = |stage| steps.iter().find(|step| step.stage == stage);
    let is_working = |stage| of(stage).is_some_and(Step::is_working);
    let has_screen = of(Stage::Screen).is_none_or(|step| step.outcome != Outcome::DoesNotApply);
    // Without a screen, the picture is to be in memory of the destination.
    let shows_copy = !has_screen || is_working(Stage::ScreenOfCopy);
    if is_working(Stage::Screen) {
        Some("the screen takes the source's buffer")
    } else if is_working(Stage::Gpu) && shows_copy {
        Some("the destination's Vulkan device copies the source's buffer")
    } else if is_working(Stage::Copy) && shows_copy {
        Some("a copy by other means")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(outcomes: [Outcome; 8]) -> Vec<Step> {
        let step = |(stage, outcome)| Step::new(stage, outcome, "");
        Stage::ALL.into_iter().zip(outcomes).map(step).collect()
    }

    #[test]
    fn a_picture_on_the_screen_needs_a_buffer_that_the_screen_takes() {
        use Outcome::*;
        let of = |import, gpu, screen, copy, shown| {
            let steps = steps([Works, Works, import, gpu, Works, screen, copy, shown]);
            (
                way(&steps).is_some(),
                first_failure(&steps).map(|s| s.stage),
            )
        };
        assert_eq!(of(Works, Works, Works, Works, Works), (true, None));
        let refused = of(Failed, Failed, NotReached, Works, Works);
        assert_eq!(refused, (true, Some(Stage::Import)));
        let copied = of(Works, Works, Failed, Failed, Failed);
        assert_eq!(copied, (false, Some(Stage::Screen)));
        let no_screen = of(Failed, Failed, DoesNotApply, Works, DoesNotApply);
        assert_eq!(no_screen, (true, Some(Stage::Import)));
        let nothing = of(Works, Failed, DoesNotApply, Failed, DoesNotApply);
        assert_eq!(nothing, (false, Some(Stage::Gpu)));
    }

    #[test]
    fn a_reason_has_the_names_that_programs_use_once() {
        let reason = Reason {
            text: "PRIME_FD_TO_HANDLE: ENODEV".to_owned(),
            errno: Some(Errno::ENODEV),
            vk_result: Some(vk::ash::vk::Result::ERROR_DEVICE_LOST),
            modifiers_offered: Some(Vec::new()),
        };
        let text = Step::failed(Stage::Import, reason).reason();
        assert_eq!(
            text,
            "PRIME_FD_TO_HANDLE: ENODEV (VK_ERROR_DEVICE_LOST); offered: no modifier"
        );
    }
}
