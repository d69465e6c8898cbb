//! Pictures reach the screen, and nothing else does.

use std::os::fd::AsFd;
use std::time::Duration;

use primeshare::alloc::{Allocator, Dumb, Udmabuf};
use primeshare::device::NodeKind;
use primeshare::kms::{
    Candidate, Card, CommitOptions, Error, Layer, PlaneId, PlaneKind, Position, Swapchain, assign,
};
use primeshare::{Device, DmaBuf, Errno, ErrorKind, Fourcc, Modifier, Request};

use super::{Program, assert_shown, can_clone, fill, marked, picture, pictures, wait_readable};
use crate::blit::read;
use crate::support::{Guest, in_guest};
use crate::vulkan::fences::Gate;

pub(super) fn request(size: (u32, u32)) -> Request {
    Request::new(size.0, size.1, Fourcc::XRGB8888)
}

/// Pairs of who makes a buffer and who shows it.
fn shown_on(guest: &Guest, size: (u32, u32)) -> Vec<(String, DmaBuf, Device)> {
    let (vgem, vkms) = (guest.vgem(), guest.vkms());
    let mut pairs = Vec::new();
    let mut add = |name: &str, buffer: DmaBuf, device: &Device| {
        pairs.push((format!("{name} on {device}"), buffer, device.clone()));
    };
    let dumb = |device: &Device| Dumb::new(device).allocate(&request(size)).unwrap();
    add("vgem's", dumb(&vgem), &vkms);
    add("its own", dumb(&vkms), &vkms);
    add(
        "a udmabuf",
        Udmabuf::open().unwrap().allocate(&request(size)).unwrap(),
        &vkms,
    );
    if guest.has_third() {
        add("the first vkms'", dumb(&vkms), &guest.third());
    }
    pairs
}

#[test]
fn the_screen_shows_the_pixels_of_any_devices_buffer_and_the_buffer_itself() {
    in_guest(|guest| {
        let size = Program::on(&guest.vkms()).output().mode().size();
        for (name, buffer, device) in shown_on(guest, size) {
            let program = Program::on(&device);
            let mut output = program.output();
            fill(&buffer, marked(1));
            let layers = [Layer::new(&buffer)];
            output.test(&layers).unwrap();
            output.commit(&layers, CommitOptions::default()).unwrap();
            program.wait_for_flip(&mut output);
            assert_shown(&program.picture(&output), &buffer, &name);
            let shown = program.on_screen(&output).expect("something is shown");
            assert_eq!(shown.id(), buffer.id(), "{name}");
            assert_eq!(shown.desc(), buffer.desc(), "{name}");
            drop(shown);
            output.restore_wait().unwrap();
        }
    });
}

#[test]
fn the_frame_before_is_let_go_of_when_the_next_is_shown() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let size = output.mode().size();
        let frames: [_; 3] = pictures(program.card.device(), size);
        for _ in 0..3 {
            for frame in &frames {
                output
                    .commit(&[Layer::new(frame)], CommitOptions::default())
                    .unwrap();
                let again = output.commit(&[Layer::new(frame)], CommitOptions::default());
                assert_eq!(again.unwrap_err(), Error::Pending);
                program.wait_for_flip(&mut output);
                assert_shown(&program.picture(&output), frame, "the frame");
            }
        }
        // One for each, however often they were shown.
        assert_eq!(program.card.framebuffers().len(), frames.len());
        drop(frames);
    });
}

#[test]
fn an_overlay_and_a_cursor_lie_on_top_and_go_again() {
    in_guest(|guest| {
        if !can_clone() || guest.in_qemu() {
            println!("left out: nothing says what this guest's screens show of several planes");
            return;
        }
        let vkms = guest.third();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let crtc = program.crtc(&output);
        let kinds = [PlaneKind::Overlay, PlaneKind::Cursor];
        let planes = program
            .screens
            .planes_of(crtc)
            .filter(|plane| kinds.contains(&plane.kind));
        let planes: Vec<_> = planes.map(|plane| plane.id).collect();
        let below = picture(program.card.device(), output.mode().size(), 1);
        let small = picture(program.card.device(), (64, 64), 2);
        let show = |output: &mut _, layers: &[Layer<'_>]| {
            let output: &mut primeshare::kms::Output = output;
            output.test(layers).unwrap();
            output.commit(layers, CommitOptions::default()).unwrap();
            program.wait_for_flip(output);
            program.picture(output)
        };
        for plane in planes {
            let place = Position {
                x: 100,
                y: 50,
                width: 64,
                height: 64,
            };
            let on_top = Layer::new(&small).plane(plane).position(place);
            let shown = show(&mut output, &[Layer::new(&below), on_top]);
            let mut expected = read(&below);
            for (y, row) in read(&small).into_iter().enumerate() {
                expected[50 + y][400..400 + 256].copy_from_slice(&row);
            }
            assert!(shown == expected, "plane {plane}");
        }
        let alone = show(&mut output, &[Layer::new(&below)]);
        assert_shown(&alone, &below, "the cursor has gone");
    });
}

#[test]
fn layers_find_the_planes_that_the_kernel_lets_them_have() {
    in_guest(|guest| {
        if guest.is_compat() || guest.in_qemu() {
            println!("left out: this guest's screens have no overlay planes");
            return;
        }
        let vkms = guest.third();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let planes: Vec<_> = program.screens.planes_of(program.crtc(&output)).collect();
        assert_eq!(planes.len(), 3);
        let dumb = Dumb::new(program.card.device());
        let (width, height) = output.mode().size();
        let buffers = [(width, height), (64, 64), (64, 64), (64, 64)]
            .map(|size| dumb.allocate(&request(size)).unwrap());
        let place = |index: usize| Position {
            x: [0, 10, 100, 300][index],
            y: 0,
            width: buffers[index].width(),
            height: buffers[index].height(),
        };
        let candidate =
            |index: usize| Candidate::new(Fourcc::XRGB8888, Modifier::LINEAR, place(index));
        let picture = dumb.allocate(&request((width, height))).unwrap();
        let mut tests = 0;
        let mut find = |count: usize| {
            let candidates: Vec<_> = (0..count).map(candidate).collect();
            let primary = output.primary();
            assign(&candidates, &planes, primary, 50, |now| {
                tests += 1;
                let on_planes = now.planes.iter().enumerate();
                let on_planes = on_planes.filter_map(|(index, plane)| {
                    let layer = Layer::new(&buffers[index]).plane((*plane)?);
                    Some(layer.position(place(index)))
                });
                let composed = now.is_composed.then(|| Layer::new(&picture));
                let layers: Vec<_> = composed.into_iter().chain(on_planes).collect();
                output.test(&layers).is_ok()
            })
        };
        let three = find(3);
        assert!(!three.is_composed, "{three:?}");
        assert!(three.planes.iter().all(Option::is_some), "{three:?}");
        // The largest is drawn, and with it what has no plane left.
        let four = find(4);
        assert!(four.is_composed, "{four:?}");
        assert_eq!(four.planes.iter().flatten().count(), 2, "{four:?}");
        assert!(tests > 3, "the kernel was asked");
    });
}

#[test]
fn a_screen_shows_again_what_it_showed_before() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = Program::on(&vkms);
        let mut before = program.output();
        let size = before.mode().size();
        let buffers: [_; 2] = pictures(program.card.device(), size);
        let show = |output: &mut primeshare::kms::Output, buffer: &DmaBuf| {
            output
                .commit(&[Layer::new(buffer)], CommitOptions::default())
                .unwrap();
            program.wait_for_flip(output);
        };
        show(&mut before, &buffers[0]);
        let other = Program {
            screens: program.card.screens(false).unwrap(),
            card: program.card.clone(),
            master: program.master.try_clone().unwrap(),
        };
        let mut output = other.output();
        show(&mut output, &buffers[1]);
        assert_shown(&program.picture(&output), &buffers[1], "the second");
        output.restore_wait().unwrap();
        assert_shown(&program.picture(&before), &buffers[0], "the first");
        before.restore_wait().unwrap();
        let off = program.card.screens(false).unwrap();
        assert!(
            off.crtcs
                .iter()
                .all(|crtc| crtc.properties.get("ACTIVE").unwrap().value == 0)
        );
    });
}

#[test]
fn who_is_not_the_master_is_told_so() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let first = Program::on(&vkms);
        let second = Program::on(&vkms);
        let mut output = second.output();
        let dumb = Dumb::new(second.card.device());
        let buffer = dumb.allocate(&request(output.mode().size())).unwrap();
        let layers = [Layer::new(&buffer)];
        let refused = output
            .commit(&layers, CommitOptions::default())
            .unwrap_err();
        assert!(matches!(refused, Error::NotMaster { .. }), "{refused}");
        assert!(matches!(output.test(&layers), Err(Error::NotMaster { .. })));
        drop(first);
    });
}

#[test]
fn an_out_fence_is_signalled_when_the_frame_is_shown() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let dumb = Dumb::new(program.card.device());
        let buffer = dumb.allocate(&request(output.mode().size())).unwrap();
        let layers = [Layer::new(&buffer)];
        let fence = output
            .commit(&layers, CommitOptions::default().out_fence())
            .unwrap();
        fence
            .expect("one was asked for")
            .wait(crate::support::PATIENCE)
            .unwrap();
        program.wait_for_flip(&mut output);
        let none = output.commit(&layers, CommitOptions::default()).unwrap();
        assert!(none.is_none());
        program.wait_for_flip(&mut output);
    });
}

#[test]
fn the_screen_waits_for_a_fence_and_the_program_does_not() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let program = Program::on(&vkms);
        let mut output = program.output();
        let frames: [_; 2] = pictures(program.card.device(), output.mode().size());
        output
            .commit(&[Layer::new(&frames[0])], CommitOptions::default())
            .unwrap();
        program.wait_for_flip(&mut output);
        let (gate, fence) = Gate::new(&vgem);
        let layer = Layer::new(&frames[1]).fence(fence.as_fd());
        output.commit(&[layer], CommitOptions::default()).unwrap();
        wait_readable(&program.card, Duration::from_millis(50));
        assert!(program.card.read_events().unwrap().is_empty());
        assert_eq!(
            program.on_screen(&output).map(|shown| shown.id()),
            Some(frames[1].id())
        );
        gate.open();
        program.wait_for_flip(&mut output);
        assert_shown(&program.picture(&output), &frames[1], "the second");
    });
}

/// As the kernel's `crc32_le` from zero on.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[test]
fn the_kernels_checksum_of_the_screen_is_that_of_the_picture() {
    in_guest(|guest| {
        if guest.in_qemu() {
            println!("left out: only vkms has checksums");
            return;
        }
        let vkms = guest.vkms();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let buffer = picture(program.card.device(), output.mode().size(), 5);
        let layers = [Layer::new(&buffer)];
        output.commit(&layers, CommitOptions::default()).unwrap();
        program.wait_for_flip(&mut output);
        let minor = vkms.node().id.minor;
        let directory = format!("/sys/kernel/debug/dri/{minor}/crtc-0/crc");
        std::fs::write(format!("{directory}/control"), "auto").unwrap();
        let mut data = std::fs::File::open(format!("{directory}/data")).unwrap();
        let mut line = [0; 64];
        let length = std::io::Read::read(&mut data, &mut line).unwrap();
        let line = std::str::from_utf8(&line[..length]).unwrap();
        let crc = line
            .trim_end_matches(['\0', '\n'])
            .split_whitespace()
            .last()
            .unwrap();
        // vkms sums alpha, red, green and blue of 16 bits each, row by row.
        let pixels = read(&buffer).into_iter().flatten().collect::<Vec<u8>>();
        let words = pixels.chunks(4).flat_map(|p| [255, p[2], p[1], p[0]]);
        let expected = crc32(words.flat_map(|byte| [byte, byte]));
        assert_eq!(crc, format!("0x{expected:08x}"), "{line}");
    });
}

#[test]
fn a_swapchain_is_of_a_format_that_the_plane_and_the_allocator_share() {
    in_guest(|guest| {
        let program = Program::on(&guest.vkms());
        let mut output = program.output();
        let dumb = Dumb::new(program.card.device());
        let negotiated = |formats: &[Fourcc]| {
            let makes = dumb.endpoint(formats.iter().copied()).unwrap();
            let formats = formats.iter().copied();
            let (allocator, screens) = (dumb.clone(), &program.screens);
            Swapchain::negotiated(allocator, &makes, &output, screens, formats, 2)
        };
        // No plane shows the first one.
        let mut swapchain = negotiated(&[Fourcc::XBGR16161616F, Fourcc::XRGB8888]).unwrap();
        let buffer = swapchain.acquire().unwrap();
        assert_eq!(buffer.buffer().fourcc(), Fourcc::XRGB8888);
        assert_eq!(buffer.buffer().modifier(), Modifier::LINEAR);
        let nothing = negotiated(&[Fourcc::XBGR16161616F]).map(drop).unwrap_err();
        assert!(matches!(nothing, Error::NothingInCommon(_)), "{nothing}");
        assert_eq!(nothing.kind(), primeshare::ErrorKind::Refused);
        let layer = Layer::new(buffer.buffer()).keep(buffer.keep());
        output.commit(&[layer], CommitOptions::default()).unwrap();
        program.wait_for_flip(&mut output);
        let shown = program.on_screen(&output).expect("something is shown");
        assert_eq!(shown.id(), buffer.buffer().id());
    });
}

#[test]
fn an_output_that_was_reset_turns_its_screen_off_in_the_end() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let program = Program::on(&vkms);
        let mut output = program.output();
        let buffer = Dumb::new(program.card.device())
            .allocate(&request(output.mode().size()))
            .unwrap();
        output
            .commit(&[Layer::new(&buffer)], CommitOptions::default())
            .unwrap();
        program.wait_for_flip(&mut output);
        output.reset(&program.card.screens(false).unwrap());
        let plane = output.primary();
        drop(output);
        let shown = primeshare::kms::capture::on_plane(&program.card, plane).unwrap();
        assert!(shown.is_none(), "{shown:?}");
    });
}

#[test]
fn each_layer_has_a_plane_of_its_own() {
    in_guest(|guest| {
        let program = Program::on(&guest.vkms());
        let mut output = program.output();
        let buffers: [DmaBuf; 2] = pictures(&guest.vgem(), output.mode().size());
        let both = buffers.each_ref().map(Layer::new);
        let twice = Error::PlaneTwice {
            device: program.card.to_string(),
            plane: output.primary().0,
        };
        assert_eq!(output.test(&both).unwrap_err(), twice);
        let refused = output.commit(&both, CommitOptions::default());
        assert_eq!(refused.unwrap_err(), twice);
        let other = PlaneId(u32::MAX);
        let elsewhere = [Layer::new(&buffers[0]).plane(other)];
        let error = output.test(&elsewhere).unwrap_err();
        assert!(
            matches!(error, Error::NoObject { kind: "plane", .. }),
            "{error}"
        );
    });
}

#[test]
fn how_far_a_plane_scales_is_found_out_and_changes_nothing() {
    in_guest(|guest| {
        let program = Program::on(&guest.vkms());
        let mut output = program.output();
        let (width, height) = output.mode().size();
        let [shown]: [DmaBuf; 1] = pictures(&guest.vgem(), (width, height));
        output
            .commit(&[Layer::new(&shown)], CommitOptions::default())
            .unwrap();
        program.wait_for_flip(&mut output);
        let [small]: [DmaBuf; 1] = pictures(&guest.vgem(), (width / 2, height / 2));
        let screens = program.card.screens(false).unwrap();
        let crtc = screens.crtcs.iter().find(|crtc| crtc.id == output.crtc());
        let planes: Vec<_> = screens.planes_of(crtc.unwrap()).collect();
        let pictures = [&small, &shown].map(|picture| planes.iter().map(move |p| (picture, p)));
        let mut asked = 0;
        for (picture, plane) in pictures.into_iter().flatten() {
            let layer = Layer::new(picture).plane(plane.id);
            let limits = match output.scaling_limits(&layer, &[]) {
                Ok(limits) => limits,
                // As a primary plane that has to fill the screen, or a cursor of another size.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                    continue;
                }
            };
            // No driver of the guests scales.
            let own = (picture.width(), picture.height());
            let found = [
                (limits.min_width, limits.min_height),
                (limits.max_width, limits.max_height),
            ];
            assert_eq!(found, [own; 2], "plane {}", plane.id);
            assert_eq!(output.scaling_limits(&layer, &[]).unwrap(), limits);
            asked += 1;
        }
        assert!(asked > 0, "no plane shows the pictures");
        assert_shown(&program.picture(&output), &shown, "after tests");
    });
}

#[test]
fn a_device_without_screens_says_so() {
    in_guest(|guest| {
        let open = |path: &std::path::Path| {
            let file = std::fs::File::options().read(true).write(true).open(path);
            Card::new(file.unwrap()).unwrap_err()
        };
        let nodes = primeshare::device::enumerate().unwrap();
        let render = nodes.iter().find(|n| n.kind == NodeKind::Render).unwrap();
        for (path, errno) in [
            (&guest.vgem().node().path, Errno::EOPNOTSUPP),
            (&render.path, Errno::EACCES),
        ] {
            let error = open(path);
            assert!(matches!(error, Error::NoScreens { .. }), "{error}");
            assert_eq!(error.errno(), Some(errno));
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    });
}
