//! From a request to a `gbm_bo` with a layout that was asked for.

use std::os::fd::{AsFd, OwnedFd};

use gbm::{BufferObject, BufferObjectFlags};

use super::flags_of;
use crate::Errno;
use crate::alloc::{self, Request};
use crate::buffer::Modifier;
use crate::{gem, sys};

/// One way to ask gbm for a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attempt {
    /// The modifiers that gbm is given. Without any it is asked by `gbm_bo_create`.
    modifiers: Vec<Modifier>,
    flags: BufferObjectFlags,
}

impl Attempt {
    fn by_modifiers(modifiers: &[Modifier], flags: BufferObjectFlags) -> Self {
        let modifiers = modifiers.to_vec();
        Self { modifiers, flags }
    }

    fn by_flags(flags: BufferObjectFlags) -> Self {
        Self::by_modifiers(&[], flags)
    }

    fn create(
        &self,
        gbm: &gbm::Device<OwnedFd>,
        format: gbm::Format,
        (width, height): (u32, u32),
    ) -> Result<BufferObject<()>, Errno> {
        // Mesa does not always set errno, so one that is left of an earlier call must not be taken for
        // its own.
        sys::clear_errno();
        let modifiers = self.modifiers.iter().map(|modifier| modifier.0.into());
        let made = match self.modifiers.is_empty() {
            true => gbm.create_buffer_object(width, height, format, self.flags),
            false => gbm
                .create_buffer_object_with_modifiers2(width, height, format, modifiers, self.flags),
        };
        // 0 is no reason.
        made.map_err(|error| {
            let errno = Errno::of(&error).filter(|errno| errno.raw() != 0);
            errno.unwrap_or(Errno::EINVAL)
        })
    }

    /// The modifier of a buffer that this attempt made, and that gbm says to have the modifier `said`. `None`
    /// if such a buffer was not asked for.
    fn outcome(&self, asked: &[Modifier], said: Modifier) -> Option<Modifier> {
        if said.is_explicit() && asked.contains(&said) {
            return Some(said);
        }
        let is_of_linear =
            self.flags.contains(BufferObjectFlags::LINEAR) || self.modifiers == [Modifier::LINEAR];
        match said {
            // Mesa 25.0 says INVALID of what it was told to make LINEAR, as does every driver that
            // knows no modifiers.
            Modifier::INVALID if is_of_linear => Some(Modifier::LINEAR),
            // The driver was left to choose. Nobody asked for its modifier, so nobody else has to
            // understand it.
            _ if self.modifiers.is_empty() && !is_of_linear => Some(Modifier::INVALID),
            _ => None,
        }
    }
}

/// The ways to ask for a buffer, in the order in which they are tried: the explicit modifiers,
/// then LINEAR as a flag, for backends that know no modifiers, then whatever layout the driver chooses.
///
/// NVIDIA's gbm refuses RENDERING with LINEAR, and heeds LINEAR as a modifier only: so both ways
/// to ask for LINEAR are tried without RENDERING too.
fn attempts(request: &Request) -> Vec<Attempt> {
    let flags = flags_of(request.usage);
    let (linear, rendering) = (BufferObjectFlags::LINEAR, BufferObjectFlags::RENDERING);
    let asked = &request.modifiers;
    let explicit: Vec<_> = asked.iter().copied().filter(|m| m.is_explicit()).collect();
    let mut attempts = Vec::new();
    if !explicit.is_empty() {
        attempts.push(Attempt::by_modifiers(&explicit, flags));
    }
    if asked.contains(&Modifier::LINEAR) {
        attempts.push(Attempt::by_flags(flags | linear));
        if flags.contains(rendering) {
            let flags = flags - rendering;
            attempts.push(Attempt::by_modifiers(&[Modifier::LINEAR], flags));
            attempts.push(Attempt::by_flags(flags | linear));
        }
    }
    if asked.contains(&Modifier::INVALID) {
        attempts.push(Attempt::by_flags(flags));
    }
    attempts
}

/// Makes a `gbm_bo`. Gives its modifier, too, which is one of those asked for.
///
/// The `gbm_bo` has no more rows than the picture, although some importers would like padding. Drivers of
/// virtual GPUs (virtio-gpu, vmwgfx) make a texture of this size on the host, and a program that samples an
/// import of it by coordinates from 0 to 1 would see the padding.
pub(super) fn create(
    gbm: &gbm::Device<OwnedFd>,
    device: &str,
    request: &Request,
) -> Result<(BufferObject<()>, Modifier), alloc::Error> {
    let (width, height) = (request.width, request.height);
    // The gbm crate's format is a closed enum, so it is used here only.
    let format = gbm::Format::try_from(request.fourcc.0).map_err(|_| alloc::Error::Format {
        allocator: "gbm",
        fourcc: request.fourcc,
    })?;
    let mut refused = None;
    for attempt in attempts(request) {
        match attempt.create(gbm, format, (width, height)) {
            Err(errno) => refused = refused.or(Some(errno)),
            Ok(bo) => {
                let said = Modifier(bo.modifier().into());
                if let Some(modifier) = attempt.outcome(&request.modifiers, said) {
                    return Ok((bo, modifier));
                }
                log::debug!("gbm on {device} answers {said} to {attempt:?}");
            }
        }
    }
    Err(match refused {
        None => alloc::Error::Modifiers {
            allocator: "gbm",
            modifiers: request.modifiers.clone(),
        },
        Some(_) if gem::is_lost(gbm.as_fd()) => {
            let device = device.to_owned();
            gem::Error::Lost { device }.into()
        }
        Some(errno) => super::Error::Create {
            device: device.to_owned(),
            width,
            height,
            fourcc: request.fourcc,
            modifiers: request.modifiers.clone(),
            usage: request.usage,
            errno,
        }
        .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc::Usage;
    use crate::buffer::Fourcc;

    const TILED: Modifier = Modifier(0x0300_0000_0060_6014);
    const OTHER: Modifier = Modifier(0x0300_0000_0060_6015);
    const RENDERING: BufferObjectFlags = BufferObjectFlags::RENDERING;
    const SCANOUT: BufferObjectFlags = BufferObjectFlags::SCANOUT;
    const LINEAR: BufferObjectFlags = BufferObjectFlags::LINEAR;

    fn asked(modifiers: &[Modifier], usage: Usage) -> Vec<Attempt> {
        let request = Request::new(64, 64, Fourcc::XRGB8888).modifiers(modifiers.iter().copied());
        attempts(&request.usage(usage))
    }

    #[test]
    fn linear_is_tried_without_rendering_last() {
        let both = RENDERING | SCANOUT;
        let attempts = asked(&[TILED, Modifier::LINEAR], Usage::RENDER | Usage::SCANOUT);
        let expected = [
            Attempt::by_modifiers(&[TILED, Modifier::LINEAR], both),
            Attempt::by_flags(both | LINEAR),
            Attempt::by_modifiers(&[Modifier::LINEAR], SCANOUT),
            Attempt::by_flags(SCANOUT | LINEAR),
        ];
        assert_eq!(attempts, expected);
        let attempts = asked(&[Modifier::LINEAR], Usage::SCANOUT);
        let expected = [
            Attempt::by_modifiers(&[Modifier::LINEAR], SCANOUT),
            Attempt::by_flags(SCANOUT | LINEAR),
        ];
        assert_eq!(attempts, expected);
    }

    #[test]
    fn nothing_is_tried_that_was_not_asked_for() {
        let rendering = |modifiers| asked(modifiers, Usage::RENDER);
        assert_eq!(rendering(&[]), []);
        let tiled = [Attempt::by_modifiers(&[TILED], RENDERING)];
        assert_eq!(rendering(&[TILED]), tiled);
        let any = [Attempt::by_flags(RENDERING)];
        assert_eq!(rendering(&[Modifier::INVALID]), any);
    }

    #[test]
    fn an_explicit_modifier_that_was_not_asked_for_is_refused() {
        let asked = [TILED, Modifier::LINEAR];
        let outcome = |attempt: Attempt, said| attempt.outcome(&asked, said);
        for attempt in [
            Attempt::by_modifiers(&asked, RENDERING),
            Attempt::by_modifiers(&[Modifier::LINEAR], SCANOUT),
            Attempt::by_flags(LINEAR),
        ] {
            assert_eq!(outcome(attempt.clone(), OTHER), None, "{attempt:?}");
            assert_eq!(outcome(attempt.clone(), TILED), Some(TILED), "{attempt:?}");
        }
    }

    #[test]
    fn only_linear_may_go_unsaid() {
        let outcome =
            |attempt: Attempt, asked: &[Modifier]| attempt.outcome(asked, Modifier::INVALID);
        let linear = [Modifier::LINEAR];
        assert_eq!(
            outcome(Attempt::by_modifiers(&linear, RENDERING), &linear),
            Some(Modifier::LINEAR)
        );
        assert_eq!(
            outcome(Attempt::by_flags(LINEAR), &linear),
            Some(Modifier::LINEAR)
        );
        let both = [TILED, Modifier::LINEAR];
        assert_eq!(
            outcome(Attempt::by_modifiers(&both, RENDERING), &both),
            None
        );
        let tiled = [TILED];
        assert_eq!(
            outcome(Attempt::by_modifiers(&tiled, RENDERING), &tiled),
            None
        );
    }

    #[test]
    fn what_the_driver_chooses_is_known_to_it_alone() {
        let free = Attempt::by_flags(RENDERING);
        let asked = [Modifier::INVALID, TILED];
        for (said, is) in [
            (Modifier::INVALID, Modifier::INVALID),
            (OTHER, Modifier::INVALID),
            (TILED, TILED),
        ] {
            assert_eq!(free.outcome(&asked, said), Some(is));
        }
    }
}
