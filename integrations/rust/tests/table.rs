//! Existing GEM code on the handle table: vgem allocates, vkms imports.

mod common;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use common::{buffer_on, device};
use primeshare::gem::ImportOrigin;
use primeshare_integrations::table::Table;

/// The program's own fd of vkms.
fn programs_fd() -> File {
    let path = device("vkms").node().path.clone();
    File::options().read(true).write(true).open(path).unwrap()
}

/// The program's own allocation, by an ioctl.
fn create(fd: impl AsFd) -> u32 {
    let made = drm_ffi::mode::dumbbuffer::create(fd.as_fd(), 64, 64, 32, 0);
    made.unwrap().handle
}

/// The program's own GEM_CLOSE. It fails if the handle is closed already.
fn close(fd: impl AsFd, handle: u32) -> io::Result<()> {
    drm_ffi::gem::close(fd.as_fd(), handle).map(drop)
}

#[test]
fn a_buffer_that_is_imported_twice_has_one_handle_that_is_closed_once() {
    let fd = programs_fd();
    let table = Table::beside(&fd).unwrap();
    let buffer = buffer_on(&device("vgem"));
    let prime_fd = buffer.plane_fd(0).unwrap();
    let (first, origin) = table.import(prime_fd).unwrap();
    assert_eq!(origin, ImportOrigin::New);
    // Another fd of the same dma-buf.
    let (second, origin) = table
        .import(prime_fd.try_clone_to_owned().unwrap())
        .unwrap();
    assert_eq!(origin, ImportOrigin::AlreadyImported);
    assert_eq!(first, second);
    assert_eq!(first.handle(), second.handle());
    let handle = first.handle();
    drop(first);
    assert_eq!(table.handles(), (1, 0));
    // An export of an import is the same dma-buf.
    let (third, _) = table.import(second.export().unwrap()).unwrap();
    assert_eq!(third, second);
    drop((second, third));
    assert_eq!(table.handles(), (0, 1));
    close(table.fd(), handle).expect_err("the handle is closed");
}

#[test]
fn code_beside_the_table_keeps_its_handles() {
    let fd = programs_fd();
    let table = Table::beside(&fd).unwrap();
    let buffer = buffer_on(&device("vgem"));
    // The program imports the same buffer on its own file description, by the ioctl.
    let prime_fd = buffer.plane_fd(0).unwrap();
    let theirs = drm_ffi::gem::fd_to_handle(fd.as_fd(), prime_fd)
        .unwrap()
        .handle;
    let (ours, _) = table.import(prime_fd).unwrap();
    drop(ours);
    close(&fd, theirs).expect("the program's handle is open until the program closes it");
}

#[test]
fn a_handle_that_the_program_allocated_is_adopted_and_closed_once() {
    let table = Table::instead(programs_fd().into()).unwrap();
    let handle = create(table.fd());
    let adopted = table.adopt(handle).unwrap();
    assert_eq!(adopted.handle(), handle);
    let (imported, origin) = table.import(adopted.export().unwrap()).unwrap();
    // Of a handle that was adopted, nobody knows whether the object was made here.
    assert_eq!(origin, ImportOrigin::AlreadyImported);
    assert_eq!(imported, adopted);
    drop((adopted, imported));
    assert_eq!(table.handles(), (0, 1));
    close(table.fd(), handle).expect_err("the handle is closed");
}

#[test]
fn a_handle_that_was_given_away_is_the_programs_to_close() {
    let table = Table::instead(programs_fd().into()).unwrap();
    let adopted = table.adopt(create(table.fd())).unwrap();
    let handle = adopted.clone().into_handle().unwrap().raw();
    assert!(adopted.into_handle().is_none());
    assert_eq!(table.handles().1, 0);
    close(table.fd(), handle).expect("the library has not closed it");
}
