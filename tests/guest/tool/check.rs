//! `primeshare check`: stages that work, stages that fail, and screens that are left alone.

use primeshare::Fourcc;
use primeshare::kms::{CommitOptions, Layer};
use serde_json::Value;

use super::{output, run};
use crate::kms::Program;
use crate::kms::presenting::frame;
use crate::refusals::refusal;
use crate::support::{Guest, can_run, in_guest};

const STAGES: [&str; 8] = [
    "allocate",
    "export",
    "import",
    "gpu",
    "fence",
    "screen",
    "copy",
    "screen-of-copy",
];

/// The report of one pair of devices, and the exit status.
fn check(from: &str, to: &str, more: &[&str]) -> (Value, Option<i32>) {
    let arguments = [&["check", "--json", from, to][..], more].concat();
    let (status, text) = output(&arguments);
    let report: Value = serde_json::from_str(&text).unwrap();
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 1, "{report:#}");
    assert_eq!(report["complete"], !pairs[0]["way"].is_null());
    (report, status.code())
}

fn stage<'a>(report: &'a Value, name: &str) -> &'a Value {
    let stages = report["pairs"][0]["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| &stage["stage"]).collect();
    assert_eq!(names, STAGES);
    let at = STAGES.iter().position(|known| *known == name).unwrap();
    &stages[at]
}

/// The node of the device that takes everybody's memory and has a screen.
fn display(guest: &Guest) -> String {
    guest.vkms().node().path.to_str().unwrap().to_owned()
}

#[test]
fn all_stages_from_a_gpu_to_a_screen_work_and_the_pixels_arrive() {
    in_guest(|guest| {
        let display = display(guest);
        let (report, status) = check("vgem", &display, &[]);
        assert_eq!(status, Some(0), "{report:#}");
        for name in STAGES {
            let stage = stage(&report, name);
            assert_eq!(stage["outcome"], "works", "{report:#}");
            assert_eq!(stage["errno"], Value::Null);
        }
        let pair = &report["pairs"][0];
        // Those of the screen.
        let [width, height] = ["width", "height"].map(|side| pair[side].as_u64().unwrap());
        let arrived = format!("all {} pixels are as sent", width * height);
        for name in ["gpu", "copy"] {
            let detail = stage(&report, name)["detail"].as_str().unwrap();
            assert!(detail.ends_with(&arrived), "{detail}");
        }
        // Nobody is the DRM master in the guest, so that the tool could ask.
        for name in ["screen", "screen-of-copy"] {
            let detail = stage(&report, name)["detail"].as_str().unwrap();
            assert!(detail.ends_with("(TEST_ONLY)"), "{detail}");
        }
        assert_eq!(pair["first_failure"], Value::Null);
        let buffer = &pair["buffer"];
        let number = |name: &str| buffer[name].as_u64().unwrap();
        assert!(number("stride") >= 4 * width);
        let picture = number("offset") + (height - 1) * number("stride") + 4 * width;
        assert_eq!(
            number("dma_buf_bytes") - number("headroom_bytes"),
            picture,
            "{buffer:#}"
        );
    });
}

#[test]
fn a_picture_that_no_screen_takes_is_reported_with_the_numbers() {
    in_guest(|guest| {
        if !can_run(!guest.in_qemu(), "vkms, with its largest framebuffer") {
            return;
        }
        let display = display(guest);
        let size = ["--size", "9000x16"];
        let (report, status) = check("vgem", &display, &size);
        assert_eq!(status, Some(1), "{report:#}");
        let pair = &report["pairs"][0];
        assert_eq!(pair["first_failure"], "screen");
        assert_eq!(pair["way"], Value::Null);
        for name in ["screen", "screen-of-copy"] {
            let stage = stage(&report, name);
            assert_eq!(stage["outcome"], "failed");
            let detail = stage["detail"].as_str().unwrap();
            assert!(detail.contains("9000x16") && detail.contains("8192x8192"));
            assert_eq!(stage["modifiers_offered"][0], "LINEAR", "{stage:#}");
        }
        let (_, text) = output(&[&["check", "--report", "vgem", &display], &size[..]].concat());
        assert!(text.contains("first failure   screen"), "{text}");
        assert!(text.contains("there is no complete way"), "{text}");
        assert!(
            text.starts_with("primeshare ") && text.contains("Mesa 2"),
            "{text}"
        );
    });
}

#[test]
fn a_driver_that_refuses_the_memory_is_reported_with_its_errno() {
    in_guest(|guest| {
        let needs = "a driver that refuses memory of others";
        if !can_run(guest.in_qemu(), needs) {
            return;
        }
        let (from, to) = ("vgem", "virtio_gpu");
        let (report, status) = check(from, to, &["--size", "64x64"]);
        let import = stage(&report, "import");
        let errno = format!("{:?}", refusal(from, to).unwrap());
        assert_eq!(import["outcome"], "failed", "{report:#}");
        assert_eq!(import["errno"], errno.as_str());
        let pair = &report["pairs"][0];
        assert_eq!(pair["first_failure"], "import");
        assert_eq!(stage(&report, "screen")["outcome"], "not-reached");
        // A copy by the CPU is left.
        assert_eq!(status, Some(0), "{report:#}");
        let copy = stage(&report, "copy")["detail"].as_str().unwrap();
        assert!(copy.ends_with("all 4096 pixels are as sent"), "{copy}");
    });
}

#[test]
fn a_screen_of_another_program_is_left_alone() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let buffer = frame(&vkms, output.mode().size(), Fourcc::XRGB8888);
        let layers = [Layer::new(&buffer)];
        output.commit(&layers, CommitOptions::default()).unwrap();
        program.wait_for_flip(&mut output);
        let shown = || {
            let screens = program.card.screens(false).unwrap();
            let plane = screens.plane(output.primary()).unwrap();
            plane.properties.get("FB_ID").unwrap().value
        };
        let before = shown();
        let (report, _) = check("vgem", &display(guest), &["--size", "64x64"]);
        let screen = stage(&report, "screen");
        assert_eq!(screen["outcome"], "works", "{report:#}");
        let detail = screen["detail"].as_str().unwrap();
        let why = "another program is the DRM master";
        assert!(detail.contains(why), "{detail}");
        assert!(before != 0 && shown() == before, "it is still shown");
        // The program is still the master.
        output.commit(&layers, CommitOptions::default()).unwrap();
        program.wait_for_flip(&mut output);
        output.restore_wait().unwrap();
    });
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_lists_those_that_are() {
    in_guest(|_| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_primeshare"));
        let output = command.args(["check", "nothing"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("vgem (/dev/dri/card"), "{error}");
        assert!(run(&["check", "--help"]).contains("--report"));
    });
}
