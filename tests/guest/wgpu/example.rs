//! The example as a person runs it.

use std::process::Command;

use crate::support::in_guest;

fn render(arguments: &[&str]) -> (bool, String) {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let output = Command::new(path.join("examples/wgpu_render"))
        .args(arguments)
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn what_wgpu_renders_is_read_by_another_device() {
    in_guest(|_| {
        let out = "/tmp/wgpu_render.png";
        let own = ["--width", "501", "--height", "333", "--out", out];
        let foreign = ["--allocate", "/dev/dri/card0", "--read", "/dev/dri/card1"];
        for arguments in [own.to_vec(), [&own[..], &foreign[..]].concat()] {
            let (success, text) = render(&arguments);
            assert!(success, "{text}");
            assert!(text.contains("verified     all 166833 pixels"), "{text}");
            let decoder =
                png::Decoder::new(std::io::BufReader::new(std::fs::File::open(out).unwrap()));
            let mut reader = decoder.read_info().unwrap();
            let mut picture = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut picture).unwrap();
            let pixel = |x: usize, y: usize| &picture[(y * 501 + x) * 3..][..3];
            assert_eq!(pixel(300, 70), [44, 70, 255]);
            std::fs::remove_file(out).unwrap();
        }
    });
}

#[test]
fn a_device_that_is_not_there_is_named() {
    in_guest(|_| {
        let (success, text) = render(&["--allocate", "/dev/dri/card77"]);
        assert!(!success && text.contains("/dev/dri/card77"), "{text}");
    });
}
