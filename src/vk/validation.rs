//! What the validation layer says.

use std::ffi::{CStr, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

/// Messages of warning severity and above, as they came.
#[derive(Debug, Default)]
pub(super) struct Messages(Mutex<Vec<String>>);

impl Messages {
    pub(super) fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What makes the layer deliver to `messages`, which must outlive what is created with it.
pub(super) fn messenger(messages: &Arc<Messages>) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(
            vk::DebugUtilsMessageSeverityFlagsEXT::WARNING
                | vk::DebugUtilsMessageSeverityFlagsEXT::ERROR,
        )
        .message_type(
            vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION
                | vk::DebugUtilsMessageTypeFlagsEXT::PERFORMANCE,
        )
        .pfn_user_callback(Some(deliver))
        .user_data(Arc::as_ptr(messages).cast_mut().cast())
}

unsafe extern "system" fn deliver(
    _severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user_data: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: the loader passes a valid structure with a nul-terminated message, or null.
    let text = unsafe {
        data.as_ref()
            .filter(|data| !data.p_message.is_null())
            .map(|data| CStr::from_ptr(data.p_message).to_string_lossy())
    };
    // SAFETY: `user_data` is the `Messages` given to `messenger`, which outlives the instance.
    if let (Some(text), Some(messages)) = (text, unsafe { user_data.cast::<Messages>().as_ref() }) {
        log::error!("Vulkan validation: {text}");
        let mut all = messages.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(text.into_owned());
    }
    vk::FALSE
}
