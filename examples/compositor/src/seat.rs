//! What clients ask for and this compositor has little of: a seat without devices, no selections; and its outputs.

use wayland_server::protocol::{wl_data_device, wl_data_device_manager, wl_data_source};
use wayland_server::protocol::{wl_keyboard, wl_output, wl_pointer, wl_seat, wl_touch};
use wayland_server::{DisplayHandle, Resource};

use crate::Compositor;
use crate::objects::Call;
use crate::screens::Screen;

global!(wl_seat::WlSeat, (), |_, new, init, _| {
    let seat = init.init(new, ());
    seat.capabilities(wl_seat::Capability::empty());
    if seat.version() >= 2 {
        seat.name("seat0".into());
    }
});

requests!(wl_seat::WlSeat, (), |_, Call { object: seat, request, init, .. }| {
    match request {
        wl_seat::Request::GetPointer { id } => drop(init.init(id, ())),
        wl_seat::Request::GetKeyboard { id } => drop(init.init(id, ())),
        wl_seat::Request::GetTouch { id } => drop(init.init(id, ())),
        _ => return,
    }
    seat.post_error(wl_seat::Error::MissingCapability, "the seat has no devices");
});

requests!(wl_data_device_manager::WlDataDeviceManager, (), |_, Call { request, init, .. }| {
    match request {
        wl_data_device_manager::Request::CreateDataSource { id } => drop(init.init(id, ())),
        wl_data_device_manager::Request::GetDataDevice { id, .. } => drop(init.init(id, ())),
        _ => {}
    }
});

global!(wl_data_device_manager::WlDataDeviceManager);

requests!(wl_pointer::WlPointer, ());
requests!(wl_keyboard::WlKeyboard, ());
requests!(wl_touch::WlTouch, ());
requests!(wl_data_source::WlDataSource, ());
requests!(wl_data_device::WlDataDevice, ());

/// Announces a screen.
pub(crate) fn announce(screen: &mut Screen, display: &DisplayHandle) {
    let global = display.create_global::<Compositor, wl_output::WlOutput, _>(4, screen.number);
    screen.global = Some(global);
}

global!(wl_output::WlOutput, u32, |state, new, init, number| {
    let output = init.init(new, ());
    let Some(screen) = state.screens.lit.iter_mut().find(|screen| screen.number == *number) else {
        return;
    };
    let millimetres = screen.presenter.output().connector().millimetres;
    let (subpixel, upright) = (wl_output::Subpixel::Unknown, wl_output::Transform::Normal);
    let (width, height) = screen.size();
    let (across, down) = (millimetres.0 as i32, millimetres.1 as i32);
    output.geometry(0, 0, across, down, subpixel, screen.card.to_string(), screen.name(), upright);
    let flags = wl_output::Mode::Current | wl_output::Mode::Preferred;
    output.mode(flags, width as i32, height as i32, screen.mode().millihertz() as i32);
    if output.version() >= 2 {
        output.scale(1);
    }
    if output.version() >= 4 {
        output.name(screen.name());
    }
    if output.version() >= 2 {
        output.done();
    }
    screen.bound.push(output);
});

requests!(wl_output::WlOutput, (), |_, _| {}, |state, output, _| {
    for screen in &mut state.screens.lit {
        screen.bound.retain(|bound| bound != output);
    }
});
