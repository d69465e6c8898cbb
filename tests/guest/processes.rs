//! Buffers and devices that come from another process, and sandboxes that forbid to compare fds.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use primeshare::buffer::BufferId;
use primeshare::device;
use primeshare::gem::ImportOrigin;
use primeshare::{Device, Errno};

use crate::faults::fds;
use crate::kernel::seccomp;
use crate::peer::{
    in_process_of_its_own, inherited, pair, receive_fd, send_fd, two_processes, wait,
};
use crate::support::{Guest, buffer_on, in_guest, next_handle};

/// Sends an fd to this process itself.
fn through_a_socket(fd: impl AsFd) -> OwnedFd {
    let (here, there) = pair();
    send_fd(&here, fd);
    receive_fd(&there)
}

#[test]
fn an_fd_that_came_by_a_socket_is_the_same_buffer() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let received = through_a_socket(buffer.plane_fd(0).unwrap());
        assert_eq!(BufferId::of(&received), Ok(buffer.id()));
        let imported = vkms.import(&buffer).unwrap();
        let (object, found) = vkms.import_fd(&received).unwrap();
        assert_eq!(
            (found, &object),
            (ImportOrigin::AlreadyImported, imported.object())
        );
        let (_, found) = vgem.import_fd(&received).unwrap();
        assert_eq!(found, ImportOrigin::SelfImport);
    });
}

#[test]
fn a_device_fd_that_came_by_a_socket_meets_the_table_there_is() {
    in_guest(|guest| {
        for device in guest.devices() {
            let buffer = buffer_on(&device);
            let again = Device::from_fd(through_a_socket(&device)).unwrap();
            assert!(again.shares_handles_with(&device));
            assert_eq!(
                again.import(&buffer).unwrap().origin(),
                ImportOrigin::SelfImport
            );
            // Another file description of the node does not.
            let other = Device::from_fd(through_a_socket(device.reopen().unwrap())).unwrap();
            assert!(!other.shares_handles_with(&device));
        }
    });
}

#[test]
fn a_buffer_from_another_process_is_the_same_wherever_it_meets_itself() {
    two_processes(
        "processes::a_buffer_from_another_process_is_the_same_wherever_it_meets_itself",
        |guest, socket| {
            let buffer = buffer_on(&guest.vgem());
            send_fd(&socket, buffer.plane_fd(0).unwrap());
            let returned = receive_fd(&socket);
            assert_eq!(BufferId::of(&returned), Ok(buffer.id()));
            let vgem = guest.vgem();
            // That is another file description than the buffer's.
            assert_eq!(vgem.import_fd(&returned).unwrap().1, ImportOrigin::New);
        },
        |guest, socket| {
            let fd = receive_fd(&socket);
            let (vgem, vkms) = (guest.vgem(), guest.vkms());
            // The same device, but not the same file description.
            let (home, found) = vgem.import_fd(&fd).unwrap();
            assert_eq!(found, ImportOrigin::New);
            let (object, found) = vkms.import_fd(&fd).unwrap();
            assert_eq!(found, ImportOrigin::New);
            // What goes back is the re-export of an import of a received fd.
            let (again, id) = object.export().unwrap();
            assert_eq!(Ok(id), BufferId::of(&fd));
            assert_eq!(vgem.import_fd(&again).unwrap().0, home);
            send_fd(&socket, &again);
        },
    );
}

/// One file description, a table in each process: neither can know of the other's handles.
fn has_a_table_of_its_own(guest: &Guest, fd: OwnedFd, expected: u32) {
    let device = Device::from_fd(fd).unwrap();
    assert_eq!(device.stats().handles, 0);
    assert!(!device.shares_handles_with(&guest.vgem()));
    // The handles are shared nevertheless: the next is not 1.
    assert_eq!(next_handle(&device), expected);
    // A file description of its own is what such a process needs.
    let own = device.reopen().unwrap();
    assert!(!own.shares_handles_with(&device));
    let buffer = buffer_on(&own);
    assert_eq!(own.import(&buffer).unwrap().object().handle().raw(), 1);
}

#[test]
fn a_device_fd_from_another_process_has_a_table_of_its_own() {
    two_processes(
        "processes::a_device_fd_from_another_process_has_a_table_of_its_own",
        |guest, socket| {
            let vgem = guest.vgem();
            let buffer = buffer_on(&vgem);
            send_fd(&socket, &vgem);
            wait(&socket);
            // What the other did there has done nothing to our handle.
            assert_eq!(
                vgem.import(&buffer).unwrap().origin(),
                ImportOrigin::SelfImport
            );
            assert_eq!(
                vgem.import(&buffer).unwrap().object().export().unwrap().1,
                buffer.id()
            );
        },
        |guest, socket| has_a_table_of_its_own(guest, receive_fd(&socket), 2),
    );
}

#[test]
fn a_device_fd_that_exec_let_through_has_a_table_of_its_own() {
    inherited(
        "processes::a_device_fd_that_exec_let_through_has_a_table_of_its_own",
        |guest| guest.vgem().as_fd().try_clone_to_owned().unwrap(),
        |guest, fd| {
            // Standard input is the same file description, and so are further dups.
            let device = Device::from_fd(fd).unwrap();
            let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
            let again = Device::from_fd(stdin).unwrap();
            assert!(again.shares_handles_with(&device));
            let dup = device.as_fd().try_clone_to_owned().unwrap();
            drop((device, again));
            has_a_table_of_its_own(guest, dup, 1);
        },
    );
}

/// Two processes use one file description, which the library's rules forbid. A close by one ends the other's
/// handle, which has to give an error and never another buffer's memory.
#[test]
fn a_handle_that_another_process_closed_is_a_typed_error() {
    two_processes(
        "processes::a_handle_that_another_process_closed_is_a_typed_error",
        |guest, socket| {
            let (vgem, vkms) = (guest.vgem(), guest.vkms());
            let buffer = buffer_on(&vgem);
            let imported = vkms.import(&buffer).unwrap();
            send_fd(&socket, &vkms);
            send_fd(&socket, buffer.plane_fd(0).unwrap());
            // Until it has closed its end.
            wait(&socket);
            assert_eq!(
                imported.object().export().unwrap_err(),
                primeshare::gem::Error::Export {
                    device: vkms.to_string(),
                    handle: 1,
                    errno: Errno::ENOENT
                }
            );
            drop(imported);
            assert_eq!(vkms.stats().failed_closes, 1);
        },
        |_, socket| {
            let (device, fd) = (receive_fd(&socket), receive_fd(&socket));
            let device = Device::from_fd(device).unwrap();
            let (object, found) = device.import_fd(&fd).unwrap();
            // New to this table; the kernel gave what the other process has.
            assert_eq!((found, object.handle().raw()), (ImportOrigin::New, 1));
            drop(object);
        },
    );
}

/// The library's warnings, in a process of its own.
struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn warnings() -> Vec<String> {
    std::mem::take(&mut WARNINGS.0.lock().unwrap())
}

fn listen() {
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
}

fn dup(device: &Device) -> OwnedFd {
    device.as_fd().try_clone_to_owned().unwrap()
}

/// Checks that dups are told from other file descriptions, in this process.
fn dups_are_told(guest: &Guest) {
    for device in guest.devices() {
        let again = Device::from_fd(dup(&device)).unwrap();
        assert!(again.shares_handles_with(&device));
        let other = Device::from_fd(dup(&device.reopen().unwrap())).unwrap();
        assert!(!other.shares_handles_with(&device));
    }
}

#[test]
fn a_dup_is_told_without_kcmp() {
    in_process_of_its_own("processes::a_dup_is_told_without_kcmp", |guest| {
        seccomp::forbid_kcmp();
        dups_are_told(guest);
    });
}

#[test]
fn a_dup_is_told_without_f_dupfd_query() {
    in_process_of_its_own("processes::a_dup_is_told_without_f_dupfd_query", |guest| {
        seccomp::forbid_dupfd_query();
        dups_are_told(guest);
    });
}

#[test]
fn where_nothing_tells_a_dup_is_taken_for_another_and_that_is_said() {
    in_process_of_its_own(
        "processes::where_nothing_tells_a_dup_is_taken_for_another_and_that_is_said",
        |guest| {
            listen();
            seccomp::forbid_kcmp();
            seccomp::forbid_dupfd_query();
            let (vgem, vkms) = (guest.vgem(), guest.vkms());
            // `guest` opened them, so that nobody needed to ask.
            assert_eq!(warnings(), [""; 0]);
            // These drivers have no drm-client-id.
            let again = Device::from_fd(dup(&vgem)).unwrap();
            assert!(!again.shares_handles_with(&vgem));
            let said = warnings();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("taking them for two"), "{said:?}");
            // Another node's is another in any case.
            let other = Device::from_fd(dup(&vkms.reopen().unwrap())).unwrap();
            assert!(!other.shares_handles_with(&vgem));
        },
    );
}

#[test]
fn where_asking_fails_no_second_table_is_made() {
    in_process_of_its_own(
        "processes::where_asking_fails_no_second_table_is_made",
        |guest| {
            seccomp::forbid_kcmp();
            seccomp::forbid_dupfd_query();
            let (vgem, vkms) = (guest.vgem(), guest.vkms());
            let (of_vgem, of_vkms) = (dup(&vgem), vkms.reopen().unwrap());
            drop(vkms);
            let of_vkms_alone = dup(&of_vkms);
            drop(of_vkms);
            // What is left to ask, drm-client-id, takes an fd.
            let refused = fds::with_room_for(0, || Device::from_fd(of_vgem)).unwrap_err();
            assert_eq!(
                refused,
                device::Error::Compare {
                    path: vgem.node().path.clone(),
                    errno: Errno::EMFILE
                }
            );
            assert!(refused.to_string().contains("/dev/dri/card0"), "{refused}");
            // There is nothing to ask where no table is of that node.
            let alone = fds::with_room_for(0, || Device::from_fd(of_vkms_alone));
            assert!(alone.is_ok(), "{alone:?}");
        },
    );
}
