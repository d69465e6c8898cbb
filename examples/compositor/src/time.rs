//! presentation-time: when a frame was on the screen, and how it got there.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use primeshare::kms::PageFlip;
use wayland_protocols::wp::presentation_time::server::wp_presentation::{self, WpPresentation};
use wayland_protocols::wp::presentation_time::server::wp_presentation_feedback::{Kind, WpPresentationFeedback};
use wayland_server::Resource;
use wayland_server::protocol::wl_output::WlOutput;

use crate::objects::Call;

/// Somebody wants to know when a commit is on the screen.
pub(crate) struct Feedback(WpPresentationFeedback);

impl Feedback {
    pub(crate) fn discard(self) {
        self.0.discarded();
    }

    pub(crate) fn presented(self, flip: &PageFlip, millihertz: u32, is_direct: bool, outputs: &[WlOutput]) {
        let same_client = |output: &&WlOutput| output.client() == self.0.client();
        outputs.iter().filter(same_client).for_each(|output| self.0.sync_output(output));
        let seconds = flip.time.as_secs();
        let refresh = 1_000_000_000_000_u64.checked_div(millihertz.into()).unwrap_or(0);
        let mut kind = Kind::Vsync | Kind::HwClock | Kind::HwCompletion;
        kind.set(Kind::ZeroCopy, is_direct);
        self.0.presented(
            (seconds >> 32) as u32,
            seconds as u32,
            flip.time.subsec_nanos(),
            refresh as u32,
            0,
            flip.sequence,
            kind,
        );
    }
}

global!(WpPresentation, (), |_, new, init, _| {
    // Page flips have times of CLOCK_MONOTONIC.
    init.init(new, ()).clock_id(ClockId::CLOCK_MONOTONIC.as_raw() as u32);
});

requests!(WpPresentation, (), |state, Call { request, init, .. }| {
    if let wp_presentation::Request::Feedback { surface, callback } = request {
        let feedback = Feedback(init.init(callback, ()));
        match state.surfaces.get_mut(&surface.id()) {
            Some(surface) => surface.ask_feedback(feedback),
            None => feedback.discard(),
        }
    }
});

requests!(WpPresentationFeedback, ());

/// Milliseconds of CLOCK_MONOTONIC, as `wl_callback.done` has them.
pub(crate) fn milliseconds() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now.as_millis() as u32
}
