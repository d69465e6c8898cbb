//! The command-line tool as programs run it: by pipes.

mod check;
mod top;

use std::process::{Command, ExitStatus, Output};

use primeshare::Fourcc;
use primeshare::blit::Strategy;
use primeshare::kms::{self, CommitOptions, Layer};
use serde_json::Value;

use crate::kms::Program;
use crate::kms::presenting::frame;
use crate::refusals::{devices, refusal};
use crate::support::{Held, in_guest};

/// What it prints on standard output, having succeeded and printed nothing else.
fn run(arguments: &[&str]) -> String {
    let (status, out) = output(arguments);
    assert!(status.success(), "{out}");
    out
}

/// How it ended, and what it prints on standard output, having printed nothing else, and no control characters.
fn output(arguments: &[&str]) -> (ExitStatus, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_primeshare"));
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(arguments).output().unwrap();
    let [out, error] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    // Mesa's own, on the render node of a virtio-gpu without 3D.
    let mut complaints = error.lines().filter(|line| !line.starts_with("KMS: "));
    assert_eq!(complaints.next(), None, "progress or complaints");
    let is_odd = |c: char| c.is_control() && c != '\n';
    assert!(!out.contains(is_odd), "{out:?}");
    (status, out)
}

#[test]
fn devices_are_listed_for_people_and_programs() {
    in_guest(|guest| {
        let table = run(&["devices"]);
        let report: Value = serde_json::from_str(&run(&["devices", "--json"])).unwrap();
        assert_eq!(report["failed"], Value::Array(Vec::new()));
        let devices = devices(guest);
        let listed = report["drm"].as_array().unwrap();
        assert_eq!(listed.len(), devices.len(), "{report:#}");
        for (listed, device) in listed.iter().zip(&devices) {
            assert_eq!(listed["driver"], device.driver());
            let imports = refusal("udmabuf", device.driver()).is_none();
            assert_eq!(listed["import"], imports, "{listed:#}");
            // Every device of the guests but vgem has a screen.
            let connectors = listed["display"]["connectors"].as_array();
            let screens = connectors.map_or(0, Vec::len);
            assert_eq!(screens > 0, device.driver() != "vgem", "{listed:#}");
            assert!(
                table.contains(device.node().path.to_str().unwrap()),
                "{table}"
            );
        }
        assert_eq!(report["vulkan"][0]["software"], true);
        assert!(table.contains("llvmpipe"), "{table}");
    });
}

#[test]
fn screens_are_listed_beside_a_program_that_shows_something_on_them() {
    in_guest(|guest| {
        let (vkms, all) = (guest.vkms(), devices(guest));
        let held = Held::settled();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let buffer = frame(&vkms, output.mode().size(), Fourcc::XRGB8888);
        let show = |output: &mut kms::Output| {
            let layers = [Layer::new(&buffer)];
            output.commit(&layers, CommitOptions::default()).unwrap();
            program.wait_for_flip(output);
        };
        show(&mut output);
        let text = run(&["devices"]);
        let report: Value = serde_json::from_str(&run(&["devices", "--json"])).unwrap();
        let drm = report["drm"].as_array().unwrap();
        for (listed, device) in drm.iter().zip(&all) {
            let has_screens = listed["display"].is_object();
            assert_eq!(has_screens, device.driver() != "vgem", "{listed:#}");
        }
        let path = vkms.node().path.to_str().unwrap();
        let listed = drm.iter().find(|listed| listed["node"] == path).unwrap();
        let display = &listed["display"];
        assert_eq!(display["crtcs"], program.screens.crtcs.len());
        assert_eq!(display["atomic"], program.card.is_atomic());
        let connectors = display["connectors"].as_array().unwrap();
        assert_eq!(connectors.len(), program.screens.connectors.len());
        let connector = program.connector();
        let is_it = |listed: &&Value| listed["name"] == connector.name.as_str();
        let listed = connectors.iter().find(is_it).unwrap();
        assert_eq!(listed["status"], "connected");
        let mode = connector.preferred_mode().unwrap().to_string();
        assert_eq!(listed["preferred_mode"], mode.as_str());
        let line = format!("{}: connected, prefers {mode}", connector.name);
        assert!(text.contains(&line), "{text}");
        let planes = display["planes"].as_array().unwrap();
        assert_eq!(planes.len(), program.screens.planes.len());
        for (listed, plane) in planes.iter().zip(&program.screens.planes) {
            assert_eq!(listed["id"], plane.id.0);
            assert_eq!(listed["formats"], plane.formats.len(), "all are LINEAR");
        }
        // The screen is still the program's.
        show(&mut output);
        output.restore_wait().unwrap();
        drop((buffer, program));
        // Seen in `compat` beside a load: the last frame's dma-buf is there for a moment longer. Probably until the
        // kernel's worker has let go of the flip's old state, which it does after it has sent the event.
        held.assert_no_more("the last frame");
    });
}

#[test]
fn the_matrix_has_every_pair_for_people_and_programs() {
    in_guest(|guest| {
        let size = ["--size", "64x64"];
        // Each of the two takes a minute where the processor is emulated.
        let table = (!guest.in_qemu()).then(|| run(&[&["matrix"], &size[..]].concat()));
        let report = run(&[&["matrix", "--json"], &size[..]].concat());
        let report: Value = serde_json::from_str(&report).unwrap();
        let devices = devices(guest);
        let pairs = devices
            .iter()
            .flat_map(|from| devices.iter().map(move |to| (from, to)));
        let listed = report["pairs"].as_array().unwrap();
        assert_eq!(listed.len(), devices.len().pow(2), "{report:#}");
        for (listed, (from, to)) in listed.iter().zip(pairs) {
            assert_eq!(listed["source"], from.to_string());
            assert_eq!(listed["destination"], to.to_string());
            let chosen = listed["chosen"].as_str().unwrap();
            assert_eq!(listed["strategies"][chosen]["works"], true);
            let strategies = listed["strategies"].as_object().unwrap();
            assert_eq!(strategies.len(), Strategy::ALL.len());
            match refusal(from.driver(), to.driver()) {
                None => assert_eq!(listed["import"], true, "{listed:#}"),
                Some(errno) => {
                    assert_eq!(listed["import"], false, "{listed:#}");
                    let errno = format!("{errno:?}");
                    assert_eq!(listed["import_error"], errno);
                    assert!(
                        table.iter().all(|table| table.contains(&errno)),
                        "{table:?}"
                    );
                }
            }
        }
        let Some(table) = table else {
            return;
        };
        // Which one is in use, once for each pair; the other is the legend's.
        assert_eq!(table.matches('*').count(), listed.len() + 1, "{table}");
        let width = table.lines().map(|line| line.chars().count()).max();
        assert!(width <= Some(140), "{width:?}\n{table}");
    });
}
