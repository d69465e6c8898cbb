//! What the crate wayland-server wants for each kind of object, in few words.

use wayland_server::{Client, DataInit, DisplayHandle, Resource};

use crate::Compositor;

/// A request of a client.
pub(crate) struct Call<'a, 'b, Object: Resource, Data> {
    pub(crate) client: &'a Client,
    pub(crate) object: &'a Object,
    pub(crate) request: Object::Request,
    /// What the object was made with.
    pub(crate) data: &'a Data,
    pub(crate) display: &'a DisplayHandle,
    /// Makes the objects that the client asks for.
    pub(crate) init: &'a mut DataInit<'b, Compositor>,
}

/// How requests to objects of this kind, with data of this type, are handled; without a handler nothing happens. And what
/// happens when one is destroyed, also by the end of its client.
macro_rules! requests {
    ($object:ty, $data:ty) => {
        requests!($object, $data, |_, _| {});
    };
    ($object:ty, $data:ty, $handle:expr) => {
        requests!($object, $data, $handle, |_, _, _| {});
    };
    ($object:ty, $data:ty, $handle:expr, $destroyed:expr) => {
        impl wayland_server::Dispatch<$object, $data> for $crate::Compositor {
            fn request(
                state: &mut Self,
                client: &wayland_server::Client,
                object: &$object,
                request: <$object as wayland_server::Resource>::Request,
                data: &$data,
                display: &wayland_server::DisplayHandle,
                init: &mut wayland_server::DataInit<'_, Self>,
            ) {
                let handle: fn(&mut Self, $crate::objects::Call<'_, '_, $object, $data>) = $handle;
                state.limits.count(client, display);
                handle(state, $crate::objects::Call { client, object, request, data, display, init });
            }

            fn destroyed(state: &mut Self, _: wayland_server::backend::ClientId, object: &$object, data: &$data) {
                let destroyed: fn(&mut Self, &$object, &$data) = $destroyed;
                destroyed(state, object, data);
            }
        }
    };
}

/// What a client is told that binds a global of this kind, with data of this type.
macro_rules! global {
    ($object:ty) => {
        global!($object, (), |_, new, init, _| {
            init.init(new, ());
        });
    };
    ($object:ty, $data:ty, $bind:expr) => {
        impl wayland_server::GlobalDispatch<$object, $data> for $crate::Compositor {
            fn bind(
                state: &mut Self,
                _: &wayland_server::DisplayHandle,
                _: &wayland_server::Client,
                new: wayland_server::New<$object>,
                data: &$data,
                init: &mut wayland_server::DataInit<'_, Self>,
            ) {
                let bind: fn(&mut Self, wayland_server::New<$object>, &mut wayland_server::DataInit<'_, Self>, &$data) =
                    $bind;
                bind(state, new, init, data);
            }
        }
    };
}
