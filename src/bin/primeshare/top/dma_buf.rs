//! What the kernel's text says of dma-bufs. Pure: reads no file.
//!
//! The text is that of `dma_buf_show_fdinfo`, `show_map_vma` and `dma_buf_debug_show` of Linux. The name of a dma-buf
//! is any program's (`DMA_BUF_SET_NAME`), line feeds included: of a key that comes twice, the first counts, since the
//! kernel writes the name last. What does not parse is left out.

use serde::Serialize;

/// What `/proc/PID/fdinfo/FD` says of a dma-buf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FdInfo {
    /// Only since Linux 5.14.
    pub(super) inode: Option<u64>,
    pub(super) size: Option<u64>,
    /// References to the dma-buf: fds, mappings, and users in the kernel.
    pub(super) references: Option<u64>,
    pub(super) exporter: String,
    pub(super) name: Option<String>,
}

/// A mapping of a dma-buf, a line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) inode: u64,
    /// Major and minor number of the file system.
    pub(super) file_system: (u32, u32),
    pub(super) bytes: u64,
}

/// A dma-buf in `/sys/kernel/debug/dma_buf/bufinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) references: u64,
    pub(super) exporter: String,
    pub(super) name: Option<String>,
    /// Devices that have the memory attached, by their names in the kernel.
    pub(super) devices: Vec<String>,
    pub(super) fences: Vec<Fence>,
}

/// A fence in a dma-buf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fence {
    /// `kernel`, `write`, `read` or `bookkeep`.
    pub(super) usage: String,
    /// Driver, timeline and number, in the kernel's words.
    pub(super) fence: String,
    pub(super) signalled: bool,
}

/// Text of other programs, without what a terminal would take for a command.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        })
        .collect()
}

/// The value of a key at the beginning of a line: `key:`, a tab or spaces, the value.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
}

/// `None` if the text is not that of a dma-buf.
pub(super) fn fd_info(text: &str) -> Option<FdInfo> {
    let number = |key| value(text, key).and_then(|value| value.parse().ok());
    let exporter = printable(value(text, "exp_name")?);
    Some(FdInfo {
        inode: number("ino"),
        size: number("size"),
        references: number("count"),
        exporter,
        name: value(text, "name").map(printable),
    })
}

/// Whether this is where a link in `/proc/PID/fd` leads for a dma-buf: `/dmabuf:` and its name. A file in the root
/// directory may have such a name, too: its fdinfo has no exporter.
pub(super) fn is_link(target: &str) -> bool {
    target.starts_with("/dmabuf:")
}

/// `None` if the line is not that of a dma-buf's mapping.
pub(super) fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(field)
    };
    let (start, end) = field()?.split_once('-')?;
    let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).ok());
    let (_permissions, _offset) = (field()?, field()?);
    let (major, minor) = field()?.split_once(':')?;
    let [major, minor] = [major, minor].map(|number| u32::from_str_radix(number, 16).ok());
    let inode = field()?.parse().ok()?;
    is_link(rest.trim_start()).then_some(Mapping {
        inode,
        file_system: (major?, minor?),
        bytes: end?.checked_sub(start?)?,
    })
}

/// All dma-bufs, in the kernel's order. A name with line feeds can forge devices, fences and dma-bufs: of two with one
/// inode the first counts.
pub(super) fn objects(text: &str) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    let mut is_known = true;
    for line in text.lines() {
        if let Some(object) = object(line) {
            is_known = objects.iter().any(|known| known.inode == object.inode);
            if !is_known {
                objects.push(object);
            }
            continue;
        }
        let Some(object) = objects.last_mut().filter(|_| !is_known) else {
            continue;
        };
        let Some(line) = line.strip_prefix('\t') else {
            continue;
        };
        match fence(line) {
            Some(fence) => object.fences.push(fence),
            None if line == "Attached Devices:" || line.is_empty() => {}
            None => object.devices.push(printable(line)),
        }
    }
    objects
}

/// The first line of a dma-buf: size, flags, mode, count, exporter, inode and name, with tabs between.
fn object(line: &str) -> Option<Object> {
    let mut fields = line.splitn(7, '\t').map(str::trim);
    let size = fields.next()?.parse().ok()?;
    let (_flags, _mode) = (fields.next()?, fields.next()?);
    let references = fields.next()?.parse().ok()?;
    let exporter = printable(fields.next()?);
    let inode = fields.next()?.parse().ok()?;
    let name = fields.next().filter(|name| *name != "<none>");
    Some(Object {
        inode,
        size,
        references,
        exporter,
        name: name.map(printable),
        devices: Vec::new(),
        fences: Vec::new(),
    })
}

/// `write fence:DRIVER TIMELINE seq NUMBER signalled`, or `unsignalled`.
fn fence(line: &str) -> Option<Fence> {
    let (usage, fence) = line.split_once(" fence:")?;
    let (fence, state) = fence.trim().rsplit_once(' ')?;
    let signalled = match state {
        "signalled" => true,
        "unsignalled" => false,
        _ => return None,
    };
    Some(Fence {
        usage: printable(usage),
        fence: printable(fence),
        signalled,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FDINFO: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t42\nsize:\t16384\ncount:\t3\n\
                          exp_name:\tdrm\nname:\tcursor\n";

    #[test]
    fn an_fdinfo_of_a_dma_buf_is_read() {
        let info = fd_info(FDINFO).unwrap();
        assert_eq!((info.inode, info.size), (Some(42), Some(16384)));
        assert_eq!((info.references, &*info.exporter), (Some(3), "drm"));
        assert_eq!(info.name.as_deref(), Some("cursor"));
        assert_eq!(fd_info("pos:\t0\nflags:\t02\nino:\t1\n"), None);
        // Before Linux 5.14, without a name.
        let old = fd_info("pos:\t0\nsize:\t4096\ncount:\t1\nexp_name:\tudmabuf\n").unwrap();
        assert_eq!((old.inode, old.name), (None, None));
    }

    #[test]
    fn a_name_forges_nothing() {
        let info = fd_info(&format!("{FDINFO}size:\t1\nino:\t7\n\u{1b}[2J")).unwrap();
        assert_eq!((info.inode, info.size), (Some(42), Some(16384)));
        let info = fd_info(&FDINFO.replace("cursor", "a\u{1b}[31mb")).unwrap();
        assert_eq!(info.name.as_deref(), Some("a\u{fffd}[31mb"));
    }

    #[test]
    fn truncated_and_overlong_numbers_are_left_out() {
        let info = fd_info("size:\t99999999999999999999\ncount:\t-1\nino:\nexp_name:\tdr").unwrap();
        assert_eq!((info.size, info.references, info.inode), (None, None, None));
        assert_eq!(info.exporter, "dr");
    }

    #[test]
    fn a_mapping_of_a_dma_buf_is_told_from_others() {
        let line = "7f2c40000000-7f2c40004000 rw-s 00000000 00:0b 42                         /dmabuf:my cursor";
        let expected = Mapping {
            inode: 42,
            file_system: (0, 11),
            bytes: 0x4000,
        };
        assert_eq!(mapping(line), Some(expected));
        for other in [
            "7f2c40000000-7f2c40004000 rw-s 00000000 00:0b 42 /memfd:dmabuf (deleted)",
            "7f2c40000000-7f2c40004000 rw-s 00000000 00:0b 42 /tmp/dmabuf:",
            "7f2c40004000-7f2c40000000 rw-s 00000000 00:0b 42 /dmabuf:",
            "7f2c40000000-7f2c40004000 rw-p 00000000 00:00 0 ",
            "7f2c40000000-7f2c4",
            "",
        ] {
            assert_eq!(mapping(other), None, "{other}");
        }
    }

    const BUFINFO: &str = "\nDma-buf Objects:\n\
        size    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n\
        00016384\t00000002\t000a0007\t00000003\tdrm\t00000042\tcursor\n\
        \twrite fence:vgem unbound seq 1 unsignalled\n\
        \tread fence:sw_sync timeline 0 seq 7 signalled\n\
        \tAttached Devices:\n\
        \tvkms\n\
        Total 1 devices attached\n\n\
        00004096\t00000002\t00080007\t00000001\tudmabuf\t00000043\t<none>\n\
        \tAttached Devices:\n\
        Total 0 devices attached\n\n\n\
        Total 2 objects, 20480 bytes\n";

    #[test]
    fn dma_bufs_in_debugfs_have_devices_and_fences() {
        let found = objects(BUFINFO);
        assert_eq!(found.len(), 2);
        let [first, second] = [&found[0], &found[1]];
        assert_eq!((first.inode, first.size, first.references), (42, 16384, 3));
        assert_eq!(first.name.as_deref(), Some("cursor"));
        assert_eq!(first.devices, ["vkms"]);
        let write = Fence {
            usage: "write".to_owned(),
            fence: "vgem unbound seq 1".to_owned(),
            signalled: false,
        };
        assert_eq!(first.fences[0], write);
        assert!(first.fences[1].signalled);
        assert_eq!((second.inode, &*second.exporter), (43, "udmabuf"));
        assert!(second.name.is_none() && second.devices.is_empty());
    }

    #[test]
    fn a_second_dma_buf_with_one_inode_is_left_out_with_its_devices() {
        let forged = "00000001\t0\t0\t1\tx\t42\ty\n\tAttached Devices:\n\tmalice\n";
        let found = objects(&format!("{BUFINFO}{forged}"));
        assert_eq!(found, objects(BUFINFO));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\t\n\u{1b}é]{0,200}", at in 0..BUFINFO.len()) {
            for text in [&text, &format!("{}{text}", &BUFINFO[..at]), &format!("{FDINFO}{text}")] {
                let _ = (fd_info(text), mapping(text), objects(text));
            }
        }
    }
}
