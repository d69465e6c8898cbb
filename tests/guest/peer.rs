//! Tests of two processes: this program runs once more, with the same test.

use std::env;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::support::{Guest, in_guest, in_other_process};

/// Set in the other process.
const VARIABLE: &str = "PRIMESHARE_TEST_PEER";

/// A test of two processes, each with an end of a SOCK_SEQPACKET socket. `name` is the test's own,
/// with its module. `there` runs in the other process, which must end well, before the leak checks
/// of this one.
pub(crate) fn two_processes(
    name: &str,
    here: impl FnOnce(&Guest, OwnedFd),
    there: impl FnOnce(&Guest, OwnedFd),
) {
    let part = |guest: &Guest| {
        let (ours, theirs) = pair();
        let other = Other::start(name, theirs);
        here(guest, ours);
        other.finish();
    };
    as_part(part, there);
}

/// A test in a process of its own, for changes to the process that cannot be undone.
pub(crate) fn in_process_of_its_own(name: &str, test: impl FnOnce(&Guest)) {
    two_processes(name, |_, _| {}, |guest, _| test(guest));
}

/// A test of two processes. The other one inherits the fd that `give` returns.
pub(crate) fn inherited(
    name: &str,
    give: impl FnOnce(&Guest) -> OwnedFd,
    there: impl FnOnce(&Guest, OwnedFd),
) {
    as_part(|guest| Other::start(name, give(guest)).finish(), there);
}

fn as_part(here: impl FnOnce(&Guest), there: impl FnOnce(&Guest, OwnedFd)) {
    match env::var_os(VARIABLE) {
        None => in_guest(here),
        Some(_) => in_other_process(|guest| {
            let given = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
            there(guest, given);
        }),
    }
}

/// Two ends of a socket that keeps messages apart.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
}

/// Waits for a message, or for the other end to go.
pub(crate) fn wait(socket: &OwnedFd) {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).unwrap();
}

/// Sends these bytes and fds as one message.
pub(crate) fn send_raw(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    let (socket, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    let sent = sendmsg::<()>(socket, &[IoSlice::new(bytes)], rights, flags, None);
    assert_eq!(sent, Ok(bytes.len()));
}

/// Sends an fd with a byte.
pub(crate) fn send_fd(socket: &OwnedFd, fd: impl AsFd) {
    send_raw(socket, b"x", &[fd.as_fd()]);
}

/// Waits for what [`send_fd`] sent.
pub(crate) fn receive_fd(socket: &OwnedFd) -> OwnedFd {
    wait(socket);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags).unwrap();
    match message.cmsgs().unwrap().next() {
        Some(ControlMessageOwned::ScmRights(fds)) if fds.len() == 1 => {
            // SAFETY: a new fd that nobody else knows.
            unsafe { OwnedFd::from_raw_fd(fds[0]) }
        }
        other => panic!("{other:?}"),
    }
}

/// The other process. The drop kills it if the test did not wait for it.
struct Other(Option<Child>);

impl Other {
    /// Starts it. The fd becomes its standard input, since `exec` closes others.
    fn start(name: &str, stdin: OwnedFd) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(VARIABLE, "1")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(Some(child))
    }

    fn finish(mut self) {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        // A wrong name selects no test, and then nothing fails.
        let has_run = out.contains("1 passed");
        assert!(
            output.status.success() && has_run,
            "the other process, {}:\n{out}{err}",
            output.status
        );
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
