//! # Allocation by Mesa's gbm

use std::ffi::c_int;
use std::mem::MaybeUninit;

use primeshare::gbm::Gbm;

use crate::allocator::{give_allocator, primeshare_allocator};
use crate::arguments::out;
use crate::device::primeshare_device;
use crate::failure::call;
use crate::object::of;

/// Allocates by gbm on a device, on a file description of gbm's own: tiled memory of the GPU, and memory for screens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_create_gbm(
    device: Option<&primeshare_device>,
    allocator: Option<&mut MaybeUninit<*mut primeshare_allocator>>,
) -> c_int {
    call(c"primeshare_allocator_create_gbm", || {
        let device = of(device, "device")?;
        out(allocator, "allocator")?.write(give_allocator(Gbm::new(&device.device)?));
        Ok(())
    })
}
