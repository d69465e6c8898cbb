//! Refusals that look like a lack of memory.
//!
//! A lack of memory is transient, and an import that failed for it is tried again. But some drivers give the
//! same answer to memory that they never import: NVIDIA's kernel module answers ENOMEM to memory of other
//! devices, which Vulkan passes on as VK_ERROR_OUT_OF_DEVICE_MEMORY or
//! VK_ERROR_INVALID_EXTERNAL_HANDLE. So after several such answers in a row to memory of one exporter,
//! the device is asked for that exporter's memory only now and then.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{Device, Error};
use crate::buffer::PlaneObject;
use crate::sys::dma_buf;

/// How many answers in a row are believed to be a lack of memory.
const BELIEVED: u32 = 3;
/// After the first answer that is not believed, nothing of the exporter is tried for this time. Doubled with
/// each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of these times.
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// The module that exported the memory (`exp_name`); `None` if `/proc` does not say.
type Exporter = Option<String>;

/// A device's refusals for lack of memory, by exporter, since its last successful import of each.
#[derive(Default)]
pub(super) struct Refusals(Mutex<FxHashMap<Exporter, Row>>);

/// Refusals in a row.
struct Row {
    times: u32,
    /// The last of those that were not believed, and when to ask again.
    answer: Option<(Error, Instant)>,
}

impl Row {
    /// Adds a refusal, and gives the error for the caller.
    fn add(&mut self, error: Error, now: Instant) -> Error {
        self.times += 1;
        let Some(more) = self.times.checked_sub(BELIEVED + 1) else {
            return error;
        };
        let pause = 2_u32.checked_pow(more).and_then(|n| PAUSE.checked_mul(n));
        let pause = pause.map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE));
        let error = Error::RefusedAgain {
            times: self.times,
            last: Box::new(error),
        };
        self.answer = Some((error.clone(), now + pause));
        error
    }

    /// The answer without asking the driver, if it is too early to ask.
    fn answer(&self, now: Instant) -> Option<Error> {
        let (error, until) = self.answer.as_ref()?;
        (now < *until).then(|| error.clone())
    }
}

impl Refusals {
    /// Imports memory unless it is too early to try again.
    pub(super) fn watch<T>(
        &self,
        object: &PlaneObject,
        import: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |object: &PlaneObject| dma_buf::exporter(object.as_fd()).ok().flatten();
        let is_clean = lock().is_empty();
        let exporter = (!is_clean).then(|| of(object));
        if let Some(exporter) = &exporter
            && let Some(row) = lock().get(exporter)
            && let Some(error) = row.answer(Instant::now())
        {
            return Err(error);
        }
        // The driver is asked without the lock.
        let imported = import();
        match (imported, exporter) {
            (Ok(imported), exporter) => {
                if let Some(exporter) = exporter {
                    lock().remove(&exporter);
                }
                Ok(imported)
            }
            (Err(error), exporter) if error.is_lack_of_memory() => {
                let exporter = exporter.unwrap_or_else(|| of(object));
                let mut rows = lock();
                let row = rows.entry(exporter).or_insert(Row {
                    times: 0,
                    answer: None,
                });
                Err(row.add(error, Instant::now()))
            }
            (Err(error), _) => Err(error),
        }
    }
}

impl Device {
    /// Forgets which exporters' memory was refused for lack of memory, so that all is tried again.
    pub fn forget_refusals(&self) {
        let mut rows = self.refusals().0.lock();
        rows.as_mut()
            .map_or_else(|error| error.get_mut().clear(), |rows| rows.clear());
    }
}

#[cfg(test)]
mod tests {
    use ash::vk;

    use super::*;
    use crate::vk::Call;

    fn lack_of_memory() -> Error {
        Error::Call {
            device: "GPU".to_owned(),
            call: Call::ImportMemory,
            result: vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
        }
    }

    #[test]
    fn a_lack_of_memory_is_believed_three_times_and_then_asked_for_ever_less_often() {
        let mut row = Row {
            times: 0,
            answer: None,
        };
        let now = Instant::now();
        for _ in 0..BELIEVED {
            assert_eq!(row.add(lack_of_memory(), now), lack_of_memory());
            assert_eq!(row.answer(now), None);
        }
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            let refused = row.add(lack_of_memory(), now);
            assert!(!refused.is_transient(), "{refused}");
            let almost = now + Duration::from_secs(pause) - Duration::from_millis(1);
            assert_eq!(row.answer(almost), Some(refused));
            assert_eq!(row.answer(now + Duration::from_secs(pause)), None);
        }
    }

    #[test]
    fn what_is_lost_or_refused_for_good_does_not_pass() {
        let of = |result| Error::Call {
            device: "GPU".to_owned(),
            call: Call::ImportMemory,
            result,
        };
        assert!(lack_of_memory().is_transient());
        for result in [
            vk::Result::ERROR_DEVICE_LOST,
            vk::Result::ERROR_INVALID_EXTERNAL_HANDLE,
        ] {
            assert!(!of(result).is_transient());
        }
        assert!(of(vk::Result::ERROR_DEVICE_LOST).is_device_lost());
    }

    #[test]
    fn the_errno_behind_an_invalid_handle_decides_whether_it_passes() {
        use crate::Errno;
        let of = |errno| {
            Error::of_import(
                "GPU",
                Call::ImportMemory,
                vk::Result::ERROR_INVALID_EXTERNAL_HANDLE,
                errno,
            )
        };
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            let error = of(Some(errno));
            assert!(error.is_transient(), "{error}");
            assert_eq!(error.is_lack_of_memory(), errno == Errno::ENOMEM);
        }
        for errno in [Some(Errno::EINVAL), Some(Errno::ENODEV), None] {
            assert!(!of(errno).is_transient(), "{errno:?}");
        }
    }
}
