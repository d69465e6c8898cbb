//! What one client may take that all share: the compositor's time, and its fds.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wayland_server::backend::ClientData;
use wayland_server::backend::protocol::Interface;
use wayland_server::{Client, DisplayHandle};

/// Requests of a client in one turn. The crate wayland-server gives a client turn until it has nothing more to say, so one
/// that never ends would be the last that was heard.
const MOST_REQUESTS: u32 = 100_000;
/// The part of all fds that is one client's at most.
const SHARE: u64 = 8;
/// `wl_display.error`
const NO_MEMORY: u32 = 2;
const IMPLEMENTATION: u32 = 3;

/// What all clients share.
pub(crate) struct Limits {
    /// Fds of each client.
    fds: u32,
    /// Counts the turns that all clients had.
    pub(crate) turn: u32,
}

/// What a client has of it.
#[derive(Default)]
pub(crate) struct Share {
    fds: Arc<AtomicU32>,
    /// The last turn, and the requests in it.
    requests: AtomicU64,
}

impl ClientData for Share {}

/// An fd of a client's. It counts until it is dropped.
pub(crate) struct Lease(Arc<AtomicU32>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limits {
    /// Allows as many fds as the system does: programs that do not ask have 1024, because of `select`.
    pub(crate) fn new() -> Result<Self> {
        let hard = getrlimit(Resource::Nofile).maximum;
        // Also those that the kernel calls unlimited are numbers of 32 bits.
        setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
        let fds = hard.unwrap_or(u64::MAX) / SHARE;
        Ok(Self { fds: fds.min(1 << 20) as u32, turn: 0 })
    }

    /// Counts a request, and ends the connection of a client that makes too many.
    pub(crate) fn count(&self, client: &Client, display: &DisplayHandle) {
        let Some(share) = client.get_data::<Share>() else {
            return;
        };
        let known = share.requests.load(Ordering::Relaxed);
        let is_same = (known >> 32) as u32 == self.turn;
        let requests = if is_same { known as u32 } else { 0 };
        match requests < MOST_REQUESTS {
            true => share.requests.store(u64::from(self.turn) << 32 | u64::from(requests + 1), Ordering::Relaxed),
            false => refuse(client, display, IMPLEMENTATION, "the client leaves no time to others"),
        }
    }

    /// Counts an fd of a client. `None`: it has too many, and its connection has been ended.
    pub(crate) fn lease(&self, client: &Client, display: &DisplayHandle) -> Option<Arc<Lease>> {
        let fds = &client.get_data::<Share>()?.fds;
        if fds.load(Ordering::Relaxed) >= self.fds {
            refuse(client, display, NO_MEMORY, "the client has too many fds");
            return None;
        }
        fds.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Lease(fds.clone())))
    }
}

/// An error of `wl_display`, which ends the connection.
fn refuse(client: &Client, display: &DisplayHandle, code: u32, why: &str) {
    // Only the name is looked at.
    static DISPLAY: Interface = Interface { name: "wl_display", version: 1, requests: &[], events: &[], c_ptr: None };
    log::warn!("{why}");
    let backend = display.backend_handle();
    // If there is no such object, the client is gone.
    if let Ok(object) = backend.object_for_protocol_id(client.id(), &DISPLAY, 1) {
        backend.post_error(object, code, CString::new(why).unwrap_or_default());
    }
}
