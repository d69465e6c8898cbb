//! What a known import costs through C, beside the same call in Rust, in one process.
//!
//! `PRIMESHARE_LIBRARY` is the path of the installed shared library; `cargo xtask bench c` sets it.

#[path = "../../benches/sharing/measure.rs"]
mod measure;

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null_mut;

use anyhow::{Context, Result, ensure};
use libloading::{Library, Symbol};
use measure::{interleaved, median};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use primeshare::alloc::Dumb;
use primeshare::device::{self, NodeKind};
use primeshare::{Allocator, Device, Fourcc, Request};

type Object = *mut c_void;
type Open = unsafe extern "C" fn(*const c_char, *mut Object) -> c_int;
type Receive = unsafe extern "C" fn(RawFd, *mut Object) -> c_int;
type Import = unsafe extern "C" fn(Object, Object, *mut Object) -> c_int;
type Unref = unsafe extern "C" fn(Object);

fn main() -> Result<()> {
    let path = std::env::var_os("PRIMESHARE_LIBRARY").context("PRIMESHARE_LIBRARY is not set")?;
    // SAFETY: the library has no constructors that expect anything.
    let library = unsafe { Library::new(&path) }?;
    // SAFETY: the types are those of the headers.
    let (open, receive, import, unref): (
        Symbol<'_, Open>,
        Symbol<'_, Receive>,
        Symbol<'_, Import>,
        Symbol<'_, Unref>,
    ) = unsafe {
        (
            library.get(b"primeshare_device_open")?,
            library.get(b"primeshare_buffer_receive_wait")?,
            library.get(b"primeshare_device_import")?,
            library.get(b"primeshare_import_unref")?,
        )
    };

    let (devices, _) = device::open_all()?;
    let primary = |device: &&Device| device.node().kind == NodeKind::Primary;
    let devices: Vec<_> = devices.iter().filter(primary).collect();
    ensure!(devices.len() > 1, "there is one device only");
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    let buffer = Dumb::new(devices[0]).allocate(&request)?;
    let kept = devices[1].import(&buffer)?;

    let path = CString::new(devices[1].node().path.as_os_str().as_bytes())?;
    let kind = SockType::SeqPacket;
    let ends = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    buffer.send(&ends.0)?;
    let (mut device, mut same, mut first) = (null_mut(), null_mut(), null_mut());
    // SAFETY: the path ends in zero, the socket is open, and the results have a place.
    let results = unsafe {
        [
            open(path.as_ptr(), &mut device),
            receive(ends.1.as_raw_fd(), &mut same),
            import(device, same, &mut first),
        ]
    };
    ensure!(results == [0; 3], "the C library failed: {results:?}");

    let mut in_rust = || {
        std::hint::black_box(devices[1].import(&buffer)?);
        Ok(())
    };
    let mut in_c = || {
        let mut again = null_mut();
        // SAFETY: the device and the buffer live until the process ends; each import is given back once.
        unsafe {
            ensure!(import(device, same, &mut again) == 0);
            unref(again);
        }
        Ok(())
    };
    let times = interleaved(41, 20_000, &mut [&mut in_rust, &mut in_c])?;
    let nanoseconds = |index: usize| median(&times[index]) * 1e9;
    let (rust, c) = (nanoseconds(0), nanoseconds(1));
    println!(
        "a known import and its end: in Rust {rust:.1} ns, through C {c:.1} ns ({:.2} of it)",
        c / rust
    );
    drop(kept);
    Ok(())
}
