//! Tells that screens and devices were plugged in or out.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Card, ConnectorId, Error, Mode, Operation, failed};
use crate::Errno;
use crate::device::NodeId;
use crate::sys::uevent::{self, Received};
use crate::sys::{self, kms};

/// What has changed. A hint and no more: [`Card::screens`] says what is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// A device with screens, or one that can have some, has come. By its primary node, which a daemon such as udevd
    /// may not have made, or not have given rights to, yet.
    DeviceAdded(NodeId),
    /// It has gone.
    DeviceRemoved(NodeId),
    /// Screens of a device were plugged in or out, or have become others.
    Screens {
        /// The device's primary node.
        device: NodeId,
        /// Which. `None`: any of the device's; drivers do not always say.
        connector: Option<ConnectorId>,
        /// If only a property of the connector has another value (such as `Content Protection`), its number.
        property: Option<u32>,
    },
    /// Messages were lost. Anything may have changed, on each device.
    Unknown,
}

impl Change {
    /// Whether it is a reason to ask this device again.
    pub fn concerns(&self, card: &Card) -> bool {
        let own = card.device().node().id;
        match *self {
            Self::DeviceAdded(device) | Self::DeviceRemoved(device) => device == own,
            Self::Screens { device, .. } => device == own,
            Self::Unknown => true,
        }
    }
}

/// Tells that screens and devices were plugged in or out.
///
/// [`AsFd`] gives an fd that is readable when there is something in [`changes`](Self::changes). The program then asks the
/// devices that are [concerned](Change::concerns) by [`Card::screens`]. It has no thread, and the fd is closed with it.
pub struct Hotplug(Source);

enum Source {
    Uevents(OwnedFd),
    Polling(Box<Polling>),
}

/// Asks one device, again and again.
struct Polling {
    card: Card,
    timer: TimerFd,
    probe: bool,
    known: Vec<Known>,
}

/// What a connector has said.
#[derive(Debug, PartialEq)]
struct Known {
    connector: ConnectorId,
    status: u32,
    millimetres: (u32, u32),
    /// Tell that a screen was unplugged and another one plugged in.
    modes: Vec<Mode>,
}

impl Hotplug {
    /// Listens to the kernel's uevents, of all devices. Needs no privilege and no udevd.
    ///
    /// [`Error::Uevents`] if the kernel or a sandbox has no such sockets. Beside that, a container whose network
    /// namespace belongs to a user namespace of its own has a socket to which nothing is sent: take
    /// [`Self::by_polling`] there.
    pub fn new() -> Result<Self, Error> {
        let socket = uevent::listen().map_err(|errno| Error::Uevents { errno })?;
        Ok(Self(Source::Uevents(socket)))
    }

    /// Asks one device for its connectors, once in each interval: the fd is readable when that is over, and
    /// [`changes`](Self::changes) asks.
    ///
    /// `probe` as in [`Card::screens`]. Without it the kernel says what it knows, which is enough if the driver notices
    /// by itself that a screen is plugged in, as those of GPUs do. With it the screens are asked, which may take up to a
    /// second each in `changes`; the kernel does so only for the DRM master.
    pub fn by_polling(card: &Card, interval: Duration, probe: bool) -> Result<Self, Error> {
        let failed = |errno| Error::Events {
            device: card.to_string(),
            errno,
        };
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags);
        let timer = timer.map_err(|errno| failed(sys::errno(errno)))?;
        // Zero would mean never.
        let interval = interval.max(Duration::from_millis(1));
        let at = Expiration::Interval(TimeSpec::from_duration(interval));
        let set = timer.set(at, TimerSetTimeFlags::empty());
        set.map_err(|errno| failed(sys::errno(errno)))?;
        Ok(Self(Source::Polling(Box::new(Polling {
            known: connectors(card, probe)?,
            card: card.clone(),
            timer,
            probe,
        }))))
    }

    /// What has changed since the last call, in order; nothing if nothing has. Does not wait (but see
    /// [`Self::by_polling`]).
    ///
    /// One event of a screen may be several changes, and one change may come without anything being different.
    pub fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        match &mut self.0 {
            Source::Uevents(socket) => {
                let mut message = [0; uevent::ROOM];
                loop {
                    let received = uevent::receive(socket.as_fd(), &mut message);
                    let change = match received.map_err(|errno| Error::Uevents { errno })? {
                        Received::Message(length) => parse(&message[..length]),
                        Received::Lost => Some(Change::Unknown),
                        Received::Foreign => None,
                        Received::Nothing => return Ok(changes),
                    };
                    changes.extend(change.filter(|change| changes.last() != Some(change)));
                }
            }
            Source::Polling(polling) => {
                if polling.is_due()? {
                    polling.ask(&mut changes)?;
                }
                Ok(changes)
            }
        }
    }
}

impl Polling {
    fn is_due(&self) -> Result<bool, Error> {
        match sys::uninterrupted(|| self.timer.wait()) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(Error::Events {
                device: self.card.to_string(),
                errno,
            }),
        }
    }

    fn ask(&mut self, changes: &mut Vec<Change>) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.known, connectors(&self.card, self.probe)?);
        for connector in differences(&before, &self.known) {
            changes.push(Change::Screens {
                device: self.card.device().node().id,
                connector: Some(connector),
                property: None,
            });
        }
        Ok(())
    }
}

/// All connectors of a device; those that go meanwhile are left out.
fn connectors(card: &Card, probe: bool) -> Result<Vec<Known>, Error> {
    let (device, fd) = (card.device(), card.as_fd());
    let known = kms::resources(fd).map_err(failed(device, Operation::GetResources))?;
    let connector = |id| match kms::connector(fd, id, probe) {
        Err(Errno::ENOENT) => None,
        Err(errno) => Some(Err(failed(device, Operation::GetConnector)(errno))),
        Ok(said) => Some(Ok(Known {
            connector: ConnectorId(id),
            status: said.info.connection,
            millimetres: (said.info.mm_width, said.info.mm_height),
            modes: said.modes.into_iter().map(Mode).collect(),
        })),
    };
    known.connectors.into_iter().filter_map(connector).collect()
}

/// The connectors that are only in one of the lists, or not the same in both.
fn differences(before: &[Known], now: &[Known]) -> Vec<ConnectorId> {
    let gone = |known: &&Known| !now.iter().any(|now| now.connector == known.connector);
    let gone = before.iter().filter(gone);
    let other = now.iter().filter(|known| !before.contains(known));
    gone.chain(other).map(|known| known.connector).collect()
}

/// What a message of the kernel says of screens: `ACTION@PATH` and lines such as `HOTPLUG=1`, each with a zero behind it
/// (`kobject_uevent_env`; `drm_sysfs_hotplug_event` and its neighbours). `None` if it is about something else.
fn parse(message: &[u8]) -> Option<Change> {
    let mut lines = message.split(|&byte| byte == 0);
    let head = lines.next()?;
    if !head.contains(&b'@') {
        return None;
    }
    let (mut action, mut subsystem, mut name) = ("", "", "");
    let (mut major, mut minor, mut connector, mut property) = (None, None, None, None);
    let mut is_hotplug = false;
    for line in lines {
        let Some((key, value)) = std::str::from_utf8(line)
            .ok()
            .and_then(|l| l.split_once('='))
        else {
            continue;
        };
        match key {
            "ACTION" => action = value,
            "SUBSYSTEM" => subsystem = value,
            "DEVNAME" => name = value,
            "MAJOR" => major = value.parse().ok(),
            "MINOR" => minor = value.parse().ok(),
            "CONNECTOR" => connector = value.parse().ok().map(ConnectorId),
            "PROPERTY" => property = value.parse().ok(),
            "HOTPLUG" => is_hotplug = value == "1",
            // Somebody wrote into a `uevent` file of sysfs, as udevadm does; nothing was plugged in.
            "SYNTH_UUID" => return None,
            _ => {}
        }
    }
    if subsystem != "drm" {
        return None;
    }
    let device = NodeId {
        major: major?,
        minor: minor?,
    };
    let is_primary = name
        .strip_prefix("dri/")
        .unwrap_or(name)
        .starts_with("card");
    match action {
        "add" if is_primary => Some(Change::DeviceAdded(device)),
        "remove" if is_primary => Some(Change::DeviceRemoved(device)),
        "change" if is_hotplug => Some(Change::Screens {
            device,
            connector,
            property,
        }),
        _ => None,
    }
}

impl AsFd for Hotplug {
    /// Readable when there is something in [`changes`](Self::changes).
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Uevents(socket) => socket.as_fd(),
            Source::Polling(polling) => polling.timer.as_fd(),
        }
    }
}

impl fmt::Debug for Hotplug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Uevents(socket) => f.debug_tuple("Hotplug").field(socket).finish(),
            Source::Polling(polling) => f
                .debug_struct("Hotplug")
                .field("polling", &polling.card.to_string())
                .field("probe", &polling.probe)
                .finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CARD: NodeId = NodeId {
        major: 226,
        minor: 1,
    };

    fn message(lines: &[&str]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|line| [line.as_bytes(), &[0]].concat())
            .collect()
    }

    fn screens(connector: Option<u32>, property: Option<u32>) -> Option<Change> {
        Some(Change::Screens {
            device: CARD,
            connector: connector.map(ConnectorId),
            property,
        })
    }

    const HOTPLUG: [&str; 9] = [
        "change@/devices/faux/vkms/drm/card1",
        "ACTION=change",
        "DEVPATH=/devices/faux/vkms/drm/card1",
        "SUBSYSTEM=drm",
        "HOTPLUG=1",
        "MAJOR=226",
        "MINOR=1",
        "DEVNAME=dri/card1",
        "SEQNUM=612",
    ];

    fn hotplug_and(more: &str) -> Option<Change> {
        parse(&message(&[&HOTPLUG[..], &[more]].concat()))
    }

    #[test]
    fn a_screen_that_was_plugged_in_is_found_with_its_connector_and_property() {
        assert_eq!(parse(&message(&HOTPLUG)), screens(None, None));
        assert_eq!(hotplug_and("CONNECTOR=41"), screens(Some(41), None));
        let both = [&HOTPLUG[..], &["CONNECTOR=41", "PROPERTY=7"]].concat();
        assert_eq!(parse(&message(&both)), screens(Some(41), Some(7)));
        assert_eq!(hotplug_and("CONNECTOR=HDMI"), screens(None, None));
    }

    #[test]
    fn cards_that_come_and_go_are_found_and_other_nodes_are_not() {
        let of = |action: &str, name: &str| {
            parse(&message(&[
                &format!("{action}@/devices/x"),
                &format!("ACTION={action}"),
                "SUBSYSTEM=drm",
                "MAJOR=226",
                "MINOR=1",
                &format!("DEVNAME={name}"),
            ]))
        };
        assert_eq!(of("add", "dri/card1"), Some(Change::DeviceAdded(CARD)));
        assert_eq!(of("remove", "dri/card1"), Some(Change::DeviceRemoved(CARD)));
        assert_eq!(of("add", "dri/renderD129"), None);
        assert_eq!(of("bind", "dri/card1"), None);
        assert_eq!(of("change", "dri/card1"), None, "without HOTPLUG=1");
    }

    #[test]
    fn messages_of_others_say_nothing_of_screens() {
        let without = |line: &str| {
            let lines: Vec<_> = HOTPLUG.into_iter().filter(|known| *known != line).collect();
            parse(&message(&lines))
        };
        assert_eq!(without("SUBSYSTEM=drm"), None);
        assert_eq!(without("MINOR=1"), None);
        assert_eq!(without(HOTPLUG[0]), None, "no head");
        assert_eq!(hotplug_and("SYNTH_UUID=0"), None);
        assert_eq!(hotplug_and("SUBSYSTEM=usb"), None);
        assert_eq!(hotplug_and("MAJOR=-1"), None);
        assert_eq!(hotplug_and("HOTPLUG=0"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        let mut odd = message(&HOTPLUG);
        odd.extend(b"NAME=\xff\xfe\0=\0=1\0CONNECTOR\0");
        assert_eq!(parse(&odd), screens(None, None));
        // Without a zero at the end.
        assert_eq!(parse(&odd[..odd.len() - 1]), screens(None, None));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[message(&HOTPLUG), bytes].concat());
        }
    }

    #[test]
    fn connectors_that_have_come_gone_or_changed_are_told() {
        let known = |connector, status| Known {
            connector: ConnectorId(connector),
            status,
            millimetres: (0, 0),
            modes: Vec::new(),
        };
        let before = [known(1, 1), known(2, 2), known(3, 1)];
        let now = [known(1, 1), known(2, 1), known(4, 2)];
        assert_eq!(differences(&before, &now), [3, 2, 4].map(ConnectorId));
        assert_eq!(differences(&now, &now), []);
        let larger = Known {
            millimetres: (600, 340),
            ..known(1, 1)
        };
        assert_eq!(differences(&before[..1], &[larger]), [ConnectorId(1)]);
    }
}
