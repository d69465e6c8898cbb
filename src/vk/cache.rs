//! Images that are in use, by buffer and usage. The cache keeps no image alive.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::{Device, Error, Image, ImageUsage};
use crate::buffer::{DmaBuf, Refusal, WeakPerBuffer};

/// The images of a device that are in use, by what they are used for.
#[derive(Default)]
pub(super) struct Images(Mutex<FxHashMap<ImageUsage, WeakPerBuffer<Image, Error>>>);

impl Images {
    fn of(&self, usage: ImageUsage) -> WeakPerBuffer<Image, Error> {
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        caches.entry(usage).or_default().clone()
    }
}

impl Device {
    /// The image of a buffer for this use: the one that is in use already, or a new one.
    ///
    /// One image per memory, layout and usage, whoever asks; it goes with its last user. A refusal
    /// is remembered with its reason until the buffer goes, unless it is transient, such as a lack of
    /// memory. No system call where the answer is known.
    pub fn image(
        &self,
        buffer: &DmaBuf,
        usage: impl Into<ImageUsage>,
    ) -> Result<Arc<Image>, Error> {
        let usage = usage.into();
        let found = self.images().of(usage).get_or_make(buffer, || {
            self.import_image(buffer, usage)
                .map_err(|error| match error.is_transient() {
                    true => Refusal::Transient(error),
                    false => Refusal::Permanent(error),
                })
        });
        found.map_err(Arc::unwrap_or_clone)
    }
}
