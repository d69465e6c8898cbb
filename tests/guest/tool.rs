//! The command-line tool as programs run it: by pipes.

use std::process::{Command, Output};

use primeshare::blit::Strategy;
use serde_json::Value;

use crate::refusals::{devices, refusal};
use crate::support::in_guest;

/// What it prints on standard output, having printed nothing else, and no control characters.
fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_primeshare"));
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(arguments).output().unwrap();
    let [out, error] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{error}");
    // Mesa's own, on the render node of a virtio-gpu without 3D.
    let mut complaints = error.lines().filter(|line| !line.starts_with("KMS: "));
    assert_eq!(complaints.next(), None, "progress or complaints");
    let is_odd = |c: char| c.is_control() && c != '\n';
    assert!(!out.contains(is_odd), "{out:?}");
    out
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
