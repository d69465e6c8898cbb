//! The example `show` as a person runs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::example::picture::Picture;
use crate::kms::{Program, can_clone};
use crate::support::in_guest;

/// Runs it, and gives what it has said and written.
fn show(picture: &str) -> (Output, String) {
    let mut example: PathBuf = std::env::current_exe().unwrap();
    example.pop();
    example.pop();
    let mut command = Command::new(example.join("examples/show"));
    command.args([picture, "--out", OUT, "--frames", "40"]);
    let output = command.output().unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output, text)
}

const OUT: &str = "/tmp/shown.png";

fn load(path: &str) -> Picture {
    Picture::load(Path::new(path)).unwrap()
}

#[test]
fn a_picture_is_copied_to_the_size_of_the_screen_and_one_of_that_size_is_shown_exactly() {
    in_guest(|guest| {
        let (output, text) = show(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/picture.png"));
        assert!(output.status.success(), "{text}");
        // In QEMU the screen refuses memory of others, and may be of the picture's size.
        assert!(text.contains("40 frames copied, since"), "{text}");
        let sent = load(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/picture.png"));
        let shown = load(OUT);
        assert!(guest.in_qemu() || sent.width() != shown.width());
        // A pixel of the screen is a mixture of its neighbours in the picture.
        let pixel = |of: &Picture, x: u32, y: u32| {
            let at = 4 * (y * of.width() + x) as usize;
            [of.bytes()[at], of.bytes()[at + 1], of.bytes()[at + 2]]
        };
        let mut difference = 0;
        for y in 0..shown.height() {
            for x in 0..shown.width() {
                let place = |at: u32, from: u32, to: u32| (2 * at + 1) * to / (2 * from);
                let x_sent = place(x, shown.width(), sent.width());
                let y_sent = place(y, shown.height(), sent.height());
                let pair = (pixel(&shown, x, y), pixel(&sent, x_sent, y_sent));
                let of = |channel: usize| u64::from(pair.0[channel].abs_diff(pair.1[channel]));
                difference += of(0) + of(1) + of(2);
            }
        }
        let mean = difference as f64 / f64::from(3 * shown.width() * shown.height());
        assert!(mean < 6.0, "{mean}\n{text}");

        // One of the screen's own size.
        let sent = Picture::pattern(shown.width(), shown.height());
        sent.save(Path::new("/tmp/sent.png")).unwrap();
        let (output, text) = show("/tmp/sent.png");
        assert!(output.status.success(), "{text}");
        assert!(text.contains("40 frames"), "{text}");
        assert!(sent.first_difference(&load(OUT)).is_none(), "{text}");
        if !guest.in_qemu() {
            assert!(text.contains("40 frames direct"), "{text}");
            let by_writeback = text.contains("by the writeback connector");
            assert_eq!(by_writeback, can_clone(), "{text}");
        }
        std::fs::remove_file("/tmp/sent.png").unwrap();
        std::fs::remove_file(OUT).unwrap();
    });
}

#[test]
fn without_a_picture_a_screen_or_the_screens_master_the_example_says_so() {
    in_guest(|guest| {
        let (output, text) = show("/nowhere.png");
        assert!(!output.status.success());
        assert!(text.contains("cannot read /nowhere.png"), "{text}");

        let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/picture.png");
        let mut nodes = primeshare::device::enumerate().unwrap();
        nodes.retain(|node| node.kind == primeshare::device::NodeKind::Primary);
        let open = |node: &primeshare::device::Node| {
            File::options().read(true).write(true).open(&node.path)
        };
        let masters: Vec<_> = nodes.iter().map(|node| open(node).unwrap()).collect();
        let (output, text) = show(picture);
        // The kernel has asked no screen yet in a guest that has just started.
        let said = ["switch to a free VT", "no screen is connected"];
        assert!(!output.status.success());
        assert!(said.iter().any(|said| text.contains(said)), "{text}");
        drop(masters);
        // Screens that were asked are known to be plugged in.
        let first = Program::on(&guest.vkms());
        let others: Vec<_> = nodes
            .iter()
            .filter(|node| node.id != guest.vkms().node().id)
            .collect();
        let others: Vec<_> = others.into_iter().map(|node| open(node).unwrap()).collect();
        let (output, text) = show(picture);
        assert!(!output.status.success());
        assert!(
            text.contains("not the DRM master") && text.contains("switch to a free VT"),
            "{text}"
        );
        drop((first, others));
    });
}
