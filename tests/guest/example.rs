//! The example as a person runs it.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::in_guest;

#[path = "../../examples/cross_gpu_blit/picture.rs"]
#[allow(dead_code, reason = "the test looks at one part of it")]
pub(crate) mod picture;

/// Cargo builds the examples beside the tests: `target/PROFILE/deps/..` and `../examples`.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/cross_gpu_blit")
}

fn blit(arguments: &[&str]) -> Output {
    Command::new(example()).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn pictures_arrive_between_every_two_devices() {
    in_guest(|guest| {
        let third = if guest.is_compat() { "vkms" } else { "vkms:1" };
        for (source, destination) in [("vgem", "vkms"), ("vkms", "vgem"), ("vkms", third)] {
            let output = blit(&[
                "--source",
                source,
                "--destination",
                destination,
                "--size",
                "501x333",
                "--frames",
                "5",
                "--validate",
            ]);
            let text = text(&output);
            assert!(output.status.success(), "{text}");
            assert!(text.contains("verified     all 166833 pixels"), "{text}");
            assert!(text.contains("validation   silent"), "{text}");
        }
    });
}

#[test]
fn a_picture_sent_is_the_picture_written() {
    in_guest(|_| {
        let sent = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/picture.png");
        let arrived = "/tmp/arrived.png";
        let output = blit(&[
            "--image",
            sent,
            "--png",
            arrived,
            "--frames",
            "1",
            "--validate",
        ]);
        assert!(output.status.success(), "{}", text(&output));
        let load = |path: &str| picture::Picture::load(path.as_ref()).unwrap();
        assert_eq!(load(sent).bytes(), load(arrived).bytes());
        std::fs::remove_file(arrived).unwrap();
    });
}

#[test]
fn a_wrong_pixel_is_found() {
    let sent = picture::Picture::pattern(40, 30);
    let arrive = |spoil: Option<usize>| {
        let read = |offset: usize, row: &mut [u8]| {
            row.copy_from_slice(&sent.bytes()[offset..offset + row.len()]);
            if let Some(at) = spoil.and_then(|at| at.checked_sub(offset)) {
                row.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            }
            Ok(())
        };
        picture::Picture::read((40, 30), (0, 160), read).unwrap()
    };
    assert!(sent.first_difference(&arrive(None)).is_none());
    // Green of x 3, y 2.
    let found = sent.first_difference(&arrive(Some(2 * 160 + 3 * 4 + 1)));
    let found = found.map(|d| (d.x, d.y, d.arrived[1] ^ d.sent[1]));
    assert_eq!(found, Some((3, 2, 1)));
}

#[test]
fn no_device_is_an_error_that_says_what_to_do() {
    in_guest(|_| {
        let unknown = blit(&["--source", "nouveau"]);
        assert!(!unknown.status.success());
        assert!(
            text(&unknown).contains("there are: vgem"),
            "{}",
            text(&unknown)
        );

        let hidden = Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                "mount -t tmpfs none /dev/dri && exec \"$0\"",
            ])
            .arg(example())
            .output()
            .unwrap();
        assert!(!hidden.status.success());
        let text = text(&hidden);
        assert!(
            text.contains("no DRM device") && text.contains("modprobe"),
            "{text}"
        );
    });
}
