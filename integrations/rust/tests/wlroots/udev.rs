//! Stands for udevd, which the guest does not have: passes the kernel's messages about devices on to programs that
//! listen to udev's. Compositors learn of plugged screens by those only.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};

/// The multicast groups of NETLINK_KOBJECT_UEVENT.
const KERNEL: u32 = 1;
const UDEV: u32 = 2;

/// Passes messages on until it is dropped.
pub(crate) struct Udev {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Udev {
    pub(crate) fn start() -> Self {
        // libudev takes this for a sign of udevd.
        fs::create_dir_all("/run/udev").unwrap();
        fs::write("/run/udev/control", "").unwrap();
        let from = netlink(KERNEL);
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                pass_on(&from);
            }
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Udev {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.transpose().expect("messages were passed on");
            fs::remove_file("/run/udev/control").unwrap();
        }
    }
}

fn netlink(group: u32) -> OwnedFd {
    let made = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    );
    let made = made.unwrap();
    bind(made.as_raw_fd(), &NetlinkAddr::new(0, group)).unwrap();
    made
}

/// Passes on a message if one comes soon.
fn pass_on(from: &OwnedFd) {
    let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    let time = PollTimeout::try_from(Duration::from_millis(100)).unwrap();
    if poll(&mut fds, time).unwrap() == 0 {
        return;
    }
    let mut message = [0; 8192];
    let length = match recv(from.as_raw_fd(), &mut message, MsgFlags::empty()) {
        Ok(length) => length,
        // Too many came at a time, and some were lost.
        Err(nix::errno::Errno::ENOBUFS) => return,
        Err(errno) => panic!("recv: {errno}"),
    };
    // `action@path`, and then `NAME=value`, each with a zero after it.
    let Some(first) = message[..length].iter().position(|byte| *byte == 0) else {
        return;
    };
    let properties = &message[first + 1..length];
    let mut all = properties.split(|byte| *byte == 0);
    if !all.any(|property| property == b"SUBSYSTEM=drm") {
        return;
    }
    let to = netlink(0);
    let sent = sendto(
        to.as_raw_fd(),
        &told(properties),
        &NetlinkAddr::new(0, UDEV),
        MsgFlags::empty(),
    );
    // ECONNREFUSED: nobody listens.
    if let Err(errno) = sent {
        assert_eq!(errno, nix::errno::Errno::ECONNREFUSED);
    }
}

/// udev's message: `struct monitor_netlink_header` of systemd's `sd-device/device-monitor.c`, and the properties.
fn told(properties: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 40;
    let mut bytes = b"libudev\0".to_vec();
    bytes.extend(0xfeed_cafe_u32.to_be_bytes());
    bytes.extend(HEADER.to_ne_bytes());
    bytes.extend(HEADER.to_ne_bytes());
    bytes.extend((properties.len() as u32).to_ne_bytes());
    bytes.extend(hash(b"drm").to_be_bytes());
    // No type of device, and no tags.
    bytes.extend([0; 12]);
    bytes.extend(properties);
    bytes
}

/// MurmurHash2 with the seed 0, by which listeners choose subsystems.
fn hash(text: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = text.len() as u32;
    let (words, rest) = text.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}
