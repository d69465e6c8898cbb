//! Instances: made here, or the host program's. Objects of an instance keep it alive.

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use ash::{ext, vk};

use super::validation::{self, Messages};
use super::{Error, PhysicalDevice, Select};
use crate::sys::process;

const VALIDATION_LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// Whether to load the Khronos validation layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validation {
    /// No layer of ours; the environment may still add some.
    #[default]
    Off,
    /// With synchronisation validation; messages are logged and collected.
    On,
}

/// The version of the instances made here, and the least that a host's must have.
const VERSION: u32 = vk::API_VERSION_1_1;

/// A Vulkan instance: one made here, which is destroyed with the last clone and the last device of
/// it, or the host program's. Cheap to clone, `Send` and `Sync`.
#[derive(Clone)]
pub struct Instance(Arc<Inner>);

struct Inner {
    instance: ash::Instance,
    version: u32,
    messenger: Option<(ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    /// Shared with the validation layer's messenger, which holds its address.
    messages: Arc<Messages>,
    owner: Owner,
    process: process::Owner,
}

/// Who destroys the instance.
enum Owner {
    /// We do. The loader is unloaded afterwards.
    Here { _entry: ash::Entry },
    /// The host program does, by when nobody holds what is kept here.
    Host {
        _keep: Option<Box<dyn Any + Send + Sync>>,
    },
}

impl Instance {
    /// Loads the Vulkan loader and creates an instance of version 1.1.
    pub fn new(validation: Validation) -> Result<Self, Error> {
        // SAFETY: loading runs the initialisers of the system's own Vulkan loader.
        let entry =
            unsafe { ash::Entry::load() }.map_err(|error| Error::Load(error.to_string()))?;
        let application = vk::ApplicationInfo::default()
            .application_name(c"primeshare")
            .api_version(VERSION);
        let messages = Arc::<Messages>::default();
        let mut messenger = validation::messenger(&messages);
        let enabled = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut features =
            vk::ValidationFeaturesEXT::default().enabled_validation_features(&enabled);
        let layers = [VALIDATION_LAYER.as_ptr()];
        let extensions = [
            ext::debug_utils::NAME.as_ptr(),
            ext::validation_features::NAME.as_ptr(),
        ];
        let mut info = vk::InstanceCreateInfo::default().application_info(&application);
        if validation == Validation::On {
            info = info
                .enabled_layer_names(&layers)
                .enabled_extension_names(&extensions)
                .push_next(&mut messenger)
                .push_next(&mut features);
        }
        // SAFETY: `info` and what it points to live until the call returns.
        let instance =
            unsafe { entry.create_instance(&info, None) }.map_err(|result| match result {
                vk::Result::ERROR_LAYER_NOT_PRESENT => Error::NoValidationLayer,
                result => Error::CreateInstance(result),
            })?;
        let mut inner = Inner {
            instance,
            version: VERSION,
            messenger: None,
            messages,
            process: process::Owner::current(),
            owner: Owner::Here {
                _entry: entry.clone(),
            },
        };
        if validation == Validation::On {
            let utils = ext::debug_utils::Instance::new(&entry, &inner.instance);
            let info = validation::messenger(&inner.messages);
            // SAFETY: the extension is enabled, and the messages outlive the messenger.
            let messenger = unsafe { utils.create_debug_utils_messenger(&info, None) }
                .map_err(Error::CreateInstance)?;
            inner.messenger = Some((utils, messenger));
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Wraps the host program's instance, of the `apiVersion` it was created with: 1.1 at least
    /// ([`Error::InstanceVersion`]).
    ///
    /// # Safety
    /// The instance stays alive until the last clone of what is returned, and of every
    /// [`PhysicalDevice`] and [`Device`](super::Device) of it, has gone; it is not destroyed here.
    pub unsafe fn wrap(instance: ash::Instance, version: u32) -> Result<Self, Error> {
        // SAFETY: as the caller promises.
        unsafe { Self::wrap_kept(instance, version, None) }
    }

    /// As [`Self::wrap`], with something that keeps the instance, and the devices that are made of
    /// it, for as long as they are used.
    ///
    /// # Safety
    /// As for [`Self::wrap`], or `keep` sees to it.
    pub(crate) unsafe fn wrap_kept(
        instance: ash::Instance,
        version: u32,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Self, Error> {
        if version < VERSION {
            return Err(Error::InstanceVersion {
                major: vk::api_version_major(version),
                minor: vk::api_version_minor(version),
            });
        }
        Ok(Self(Arc::new(Inner {
            instance,
            version,
            messenger: None,
            messages: Arc::default(),
            owner: Owner::Host { _keep: keep },
            process: process::Owner::current(),
        })))
    }

    /// The version of Vulkan it may be used with.
    pub(super) fn version(&self) -> u32 {
        self.0.version
    }

    /// One of its physical devices, as the host program chose it. [`Error::DeviceVersion`] below
    /// version 1.1.
    ///
    /// # Safety
    /// The handle is of this instance.
    pub unsafe fn physical_device(
        &self,
        handle: vk::PhysicalDevice,
    ) -> Result<PhysicalDevice, Error> {
        PhysicalDevice::describe(self, handle)
    }

    /// The ash instance, for calls of the caller's own.
    pub fn raw(&self) -> &ash::Instance {
        &self.0.instance
    }

    /// Everything the validation layer has complained of so far; nothing for a host's instance.
    pub fn validation_messages(&self) -> Vec<String> {
        self.0.messages.all()
    }

    /// All devices of version 1.1 or newer.
    pub fn physical_devices(&self) -> Result<Vec<PhysicalDevice>, Error> {
        // SAFETY: the instance is valid.
        let handles =
            unsafe { self.0.instance.enumerate_physical_devices() }.map_err(Error::Enumerate)?;
        let mut devices = Vec::new();
        for handle in handles {
            match PhysicalDevice::describe(self, handle) {
                Ok(device) => devices.push(device),
                // If one driver is broken, the others can still be used.
                Err(error) => log::warn!("a Vulkan device is left out: {error}"),
            }
        }
        Ok(devices)
    }

    /// The device that is asked for: see [`Select`]. [`Error::NoSuchDevice`] if there is none.
    pub fn select(&self, select: &Select<'_>) -> Result<PhysicalDevice, Error> {
        let mut devices = self.physical_devices()?;
        let ranked = devices.iter().enumerate();
        let ranked = ranked.filter_map(|(index, device)| Some((select.rank(device)?, index)));
        match ranked.min() {
            Some((_, index)) => Ok(devices.swap_remove(index)),
            None => Err(Error::NoSuchDevice {
                wanted: select.to_string(),
                found: match devices.is_empty() {
                    true => "none".to_owned(),
                    false => {
                        let names: Vec<_> = devices.iter().map(labelled).collect();
                        names.join(", ")
                    }
                },
            }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.process.is_here() {
            // Nor is the loader unloaded: its threads are the parent's.
            let none = Owner::Host { _keep: None };
            std::mem::forget(std::mem::replace(&mut self.owner, none));
            return;
        }
        // SAFETY: devices hold the instance, so there are none any more. The messenger is
        // destroyed first and once; a host's instance is the host's.
        unsafe {
            if let Some((utils, messenger)) = self.messenger.take() {
                utils.destroy_debug_utils_messenger(messenger, None);
            }
            if matches!(self.owner, Owner::Here { .. }) {
                self.instance.destroy_instance(None);
            }
        }
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("validation", &self.0.messenger.is_some())
            .finish()
    }
}

/// A device's name, for messages.
fn labelled(device: &PhysicalDevice) -> String {
    match device.is_software() {
        true => format!("{} (software)", device.name()),
        false => device.name().to_owned(),
    }
}
