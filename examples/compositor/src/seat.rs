//! What clients ask for and this compositor has little of: a seat without devices, no selections; and its outputs.

use wayland_server::protocol::{wl_data_device, wl_data_device_manager, wl_data_source};
use wayland_server::protocol::{wl_keyboard, wl_output, wl_pointer, wl_seat, wl_touch};
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource};

use crate::Compositor;
use crate::screens::Screen;

impl GlobalDispatch<wl_seat::WlSeat, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<wl_seat::WlSeat>, (): &(), init: &mut DataInit<'_, Self>) {
        let seat = init.init(new, ());
        seat.capabilities(wl_seat::Capability::empty());
        if seat.version() >= 2 {
            seat.name("seat0".into());
        }
    }
}

impl Dispatch<wl_seat::WlSeat, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, seat: &wl_seat::WlSeat, request: wl_seat::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        match request {
            wl_seat::Request::GetPointer { id } => drop(init.init(id, ())),
            wl_seat::Request::GetKeyboard { id } => drop(init.init(id, ())),
            wl_seat::Request::GetTouch { id } => drop(init.init(id, ())),
            _ => return,
        }
        seat.post_error(wl_seat::Error::MissingCapability, "the seat has no devices");
    }
}

impl Dispatch<wl_data_device_manager::WlDataDeviceManager, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &wl_data_device_manager::WlDataDeviceManager, request: wl_data_device_manager::Request, (): &(), _: &DisplayHandle, init: &mut DataInit<'_, Self>) {
        match request {
            wl_data_device_manager::Request::CreateDataSource { id } => drop(init.init(id, ())),
            wl_data_device_manager::Request::GetDataDevice { id, .. } => drop(init.init(id, ())),
            _ => {}
        }
    }
}

impl GlobalDispatch<wl_data_device_manager::WlDataDeviceManager, ()> for Compositor {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, new: New<wl_data_device_manager::WlDataDeviceManager>, (): &(), init: &mut DataInit<'_, Self>) {
        init.init(new, ());
    }
}

/// Objects that exist and do nothing.
macro_rules! idle {
    ($($object:ty),*) => {$(
        impl Dispatch<$object, ()> for Compositor {
            fn request(_: &mut Self, _: &Client, _: &$object, _: <$object as Resource>::Request, (): &(), _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
            }
        }
    )*};
}

idle!(
    wl_pointer::WlPointer,
    wl_keyboard::WlKeyboard,
    wl_touch::WlTouch,
    wl_data_source::WlDataSource,
    wl_data_device::WlDataDevice
);

/// Announces a screen.
pub(crate) fn announce(screen: &mut Screen, display: &DisplayHandle) {
    let global = display.create_global::<Compositor, wl_output::WlOutput, _>(4, screen.number);
    screen.global = Some(global);
}

impl GlobalDispatch<wl_output::WlOutput, u32> for Compositor {
    fn bind(state: &mut Self, _: &DisplayHandle, _: &Client, new: New<wl_output::WlOutput>, number: &u32, init: &mut DataInit<'_, Self>) {
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
    }
}

impl Dispatch<wl_output::WlOutput, ()> for Compositor {
    fn request(_: &mut Self, _: &Client, _: &wl_output::WlOutput, _: wl_output::Request, (): &(), _: &DisplayHandle, _: &mut DataInit<'_, Self>) {
    }

    fn destroyed(state: &mut Self, _: wayland_server::backend::ClientId, output: &wl_output::WlOutput, (): &()) {
        for screen in &mut state.screens.lit {
            screen.bound.retain(|bound| bound != output);
        }
    }
}
