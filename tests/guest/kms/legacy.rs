//! Screens by the older calls, SETCRTC and PAGE_FLIP, as on devices without atomic commits.

use std::fs::File;

use primeshare::alloc::{Allocator, Dumb};
use primeshare::kms::{Card, CommitOptions, Error, Layer, PlaneId};
use primeshare::{Device, ErrorKind};

use super::outputs::request;
use super::{Program, pictures};
use crate::support::in_guest;

/// The program with the older calls.
fn without_atomic(device: &Device) -> Program {
    let master = File::options()
        .read(true)
        .write(true)
        .open(&device.node().path)
        .unwrap();
    let card = Card::without_atomic(&master).unwrap();
    assert!(!card.is_atomic());
    let screens = card.screens(true).unwrap();
    Program {
        master,
        card,
        screens,
    }
}

#[test]
fn a_screen_without_atomic_commits_shows_frames_by_the_older_calls() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = without_atomic(&vkms);
        let mut output = program.output();
        let size = output.mode().size();
        let frames: [_; 3] = pictures(&guest.vgem(), size);
        for frame in &frames {
            let layers = [Layer::new(frame)];
            output.test(&layers).unwrap();
            output.commit(&layers, CommitOptions::default()).unwrap();
            let second = output.commit(&layers, CommitOptions::default());
            assert!(matches!(second, Err(Error::Pending)), "{second:?}");
            program.wait_for_flip(&mut output);
            let shown = program.on_screen(&output).expect("something is shown");
            assert_eq!(shown.id(), frame.id());
        }
        // One after the other, and only one of them is on the screen.
        assert!(!output.takes_fences());
        output.turn_off_wait().unwrap();
        assert!(program.on_screen(&output).is_none());
        output
            .commit(&[Layer::new(&frames[0])], CommitOptions::default())
            .unwrap();
        program.wait_for_flip(&mut output);
        output.restore_wait().unwrap();
    });
}

#[test]
fn what_only_atomic_commits_can_is_refused_without_them() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = without_atomic(&vkms);
        let mut output = program.output();
        let (width, height) = output.mode().size();
        let buffer = |width, height| {
            let request = request((width, height));
            Dumb::new(program.card.device()).allocate(&request).unwrap()
        };
        let (whole, half) = (buffer(width, height), buffer(width / 2, height));
        let layer = || Layer::new(&whole);
        let refused = [
            vec![],
            vec![layer(), layer()],
            vec![Layer::new(&half)],
            vec![layer().plane(PlaneId(4711))],
        ];
        for layers in refused {
            for error in [
                output.test(&layers).unwrap_err(),
                output
                    .commit(&layers, CommitOptions::default())
                    .unwrap_err(),
            ] {
                assert!(matches!(error, Error::NotAtomic { .. }), "{error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
        let fence = output.commit(&[layer()], CommitOptions::default().out_fence());
        assert!(matches!(fence, Err(Error::NotAtomic { .. })), "{fence:?}");
        assert!(program.on_screen(&output).is_none());
    });
}

#[test]
fn what_another_output_showed_comes_back_without_atomic_commits_too() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = without_atomic(&vkms);
        let mut first = program.output();
        let size = first.mode().size();
        let [before, after] = pictures(program.card.device(), size);
        first
            .commit(&[Layer::new(&before)], CommitOptions::default())
            .unwrap();
        program.wait_for_flip(&mut first);
        let program = Program {
            screens: program.card.screens(false).unwrap(),
            ..program
        };
        let mut second = program.output();
        second
            .commit(&[Layer::new(&after)], CommitOptions::default())
            .unwrap();
        program.wait_for_flip(&mut second);
        second.restore_wait().unwrap();
        let shown = program.on_screen(&first).expect("it has come back");
        assert_eq!(shown.id(), before.id());
    });
}
