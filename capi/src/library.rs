//! # The library

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, Once, PoisonError};

use crate::arguments::text;
use crate::failure::call;

/// The version as text, "0.1.0". Static.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Whether the library was built with a layer: "gbm", "vulkan", "blit" or "kms". Without it the header and the
/// functions of that layer are not installed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_has_feature(layer: *const c_char) -> bool {
    // SAFETY: as the header asks.
    let Ok(layer) = (unsafe { text(layer, "layer") }) else {
        return false;
    };
    let layers = [
        (c"gbm", cfg!(feature = "gbm")),
        (c"vulkan", cfg!(feature = "vulkan")),
        (c"blit", cfg!(feature = "blit")),
        (c"kms", cfg!(feature = "kms")),
    ];
    layers.contains(&(layer, true))
}

/// How much a message of the log matters.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum primeshare_log_level {
    /// Nothing is logged.
    PRIMESHARE_LOG_SILENT = 0,
    /// Something failed, and no call could return it.
    PRIMESHARE_LOG_ERROR = 1,
    /// Something went another way than usual.
    PRIMESHARE_LOG_WARNING = 2,
    /// What happens seldom.
    PRIMESHARE_LOG_INFO = 3,
    /// What helps to find a fault.
    PRIMESHARE_LOG_DEBUG = 4,
}

/// Takes a line of the log. It is called on any thread, and sometimes while the library holds a lock: it must not call
/// the library, nor wait for a thread that does.
pub type primeshare_log_handler = Option<
    unsafe extern "C" fn(level: primeshare_log_level, message: *const c_char, data: *mut c_void),
>;

struct Handler {
    handler: primeshare_log_handler,
    data: *mut c_void,
}

// SAFETY: the header says that the handler and its data are used on any thread.
unsafe impl Send for Handler {}

static HANDLER: Mutex<Handler> = Mutex::new(Handler {
    handler: None,
    data: std::ptr::null_mut(),
});

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Error => primeshare_log_level::PRIMESHARE_LOG_ERROR,
            log::Level::Warn => primeshare_log_level::PRIMESHARE_LOG_WARNING,
            log::Level::Info => primeshare_log_level::PRIMESHARE_LOG_INFO,
            _ => primeshare_log_level::PRIMESHARE_LOG_DEBUG,
        };
        let Ok(message) = CString::new(record.args().to_string()) else {
            return;
        };
        let of_program = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handler) = of_program.handler {
            // SAFETY: the program gave both for this. The lock makes sure that no call is under way once another
            // handler was set.
            unsafe { handler(level, message.as_ptr(), of_program.data) };
        }
    }

    fn flush(&self) {}
}

/// Sends lines of the log up to this level (enum primeshare_log_level) to a handler; NULL: to nobody, as at the
/// beginning. When this returns, the handler before is not called any more. The handler must not call this.
///
/// -EINVAL: there is no such level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_set_log_handler(
    handler: primeshare_log_handler,
    level: u32,
    data: *mut c_void,
) -> c_int {
    call(c"primeshare_set_log_handler", || {
        let filter = match level {
            0 => log::LevelFilter::Off,
            1 => log::LevelFilter::Error,
            2 => log::LevelFilter::Warn,
            3 => log::LevelFilter::Info,
            4 => log::LevelFilter::Debug,
            _ => {
                return Err(crate::failure::Failure::invalid(format!(
                    "there is no log level {level}"
                )));
            }
        };
        static ONCE: Once = Once::new();
        // It fails only if there is a logger, which a library of this kind can have from nobody else.
        ONCE.call_once(|| drop(log::set_logger(&Log)));
        *HANDLER.lock().unwrap_or_else(PoisonError::into_inner) = Handler { handler, data };
        log::set_max_level(match handler {
            Some(_) => filter,
            None => log::LevelFilter::Off,
        });
        Ok(())
    })
}
