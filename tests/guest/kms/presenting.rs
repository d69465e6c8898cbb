//! Frames of any device on a screen: as they are, or copied.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{BlitDevice, Blitter, Options, Strategy};
use primeshare::buffer::{Damage, DamageBox};
use primeshare::kms::{
    CommitOptions, Dropped, Error, Event, Layer, PresentInfo, Presenter, Swapchain, Way,
};
use primeshare::{Device, DmaBuf, Fourcc, Request};

use super::{Host, Program, Recorder, assert_all, assert_shown, fill, picture, wait_readable};
use crate::support::{PATIENCE, in_guest};
use crate::vulkan::fences::Gate;

/// The program with its loop.
pub(crate) struct Loop {
    pub(crate) program: Program,
    pub(crate) presenter: Presenter,
}

impl Loop {
    pub(crate) fn new(source: &Device, screen: &Device) -> Self {
        Self::with(screen, |screen| by_cpu(source, screen))
    }

    /// With a blitter to the screen's device.
    pub(crate) fn with(screen: &Device, blitter: impl FnOnce(&Device) -> Blitter) -> Self {
        Self::with_buffers(3, screen, blitter)
    }

    /// With so many buffers for copies.
    fn with_buffers(
        count: usize,
        screen: &Device,
        blitter: impl FnOnce(&Device) -> Blitter,
    ) -> Self {
        let program = Program::on(screen);
        let output = program.output();
        let blitter = blitter(program.card.device());
        let (width, height) = output.mode().size();
        let request = Request::new(width, height, Fourcc::XRGB8888);
        let swapchain = Swapchain::new(Dumb::new(program.card.device()), request, count);
        Self {
            program,
            presenter: Presenter::new(output, blitter, swapchain).unwrap(),
        }
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        self.presenter.output().mode().size()
    }

    /// Events until there is one.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let end = Instant::now() + PATIENCE;
        loop {
            for flip in self.program.card.read_events().unwrap() {
                assert!(self.presenter.page_flip(&flip));
            }
            let events: Vec<_> = self.presenter.dispatch().collect();
            if !events.is_empty() {
                return events;
            }
            assert!(Instant::now() < end, "nothing came of the frame");
            self.wait();
        }
    }

    fn wait(&self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let fds = [self.program.card.as_fd(), self.presenter.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(1000_u16)).unwrap();
    }

    /// Presents a frame and waits until it is shown.
    pub(crate) fn show(&mut self, frame: &DmaBuf, info: &PresentInfo<'_>) -> Way {
        let number = self.presenter.present(frame, info).unwrap();
        match &self.events()[..] {
            [Event::Shown { frame, way, .. }] if *frame == number => way.clone(),
            events => panic!("{events:?}"),
        }
    }

    /// Presents a frame whose fence does not come before its deadline.
    pub(crate) fn show_late(&mut self, frame: &DmaBuf, fence: BorrowedFd<'_>) {
        let deadline = Instant::now() + Duration::from_millis(30);
        let info = PresentInfo::default().fence(fence).deadline(deadline);
        let late = self.presenter.present(frame, &info).unwrap();
        match &self.events()[..] {
            [Event::Dropped { frame, why }] => assert_eq!((*frame, why), (late, &Dropped::Late)),
            events => panic!("{events:?}"),
        }
    }

    /// Presents a frame twice, the second time before the first is shown, so that three buffers are in use.
    fn show_twice(&mut self, frame: &DmaBuf, damage: Damage<'_>) {
        let info = PresentInfo::default().damage(damage);
        self.presenter.present(frame, &info).unwrap();
        while !self.presenter.is_ready() {
            self.wait();
            assert_eq!(self.presenter.dispatch().len(), 0);
        }
        let last = self.presenter.present(frame, &info).unwrap();
        let is_last = |event: &Event| matches!(event, Event::Shown { frame, .. } if *frame == last);
        while !self.events().iter().any(is_last) {}
    }

    pub(crate) fn recorder(&self) -> Recorder {
        self.program.writeback(self.presenter.output())
    }

    pub(crate) fn picture(&self) -> Vec<Vec<u8>> {
        self.program.picture(self.presenter.output())
    }
}

/// Which strategy copies does not matter in most tests, and trials of others may outlast a test.
fn by_cpu(source: &Device, screen: &Device) -> Blitter {
    let options = Options::default().strategies([Strategy::Cpu]);
    let (from, to) = (BlitDevice::new(source, None), BlitDevice::new(screen, None));
    Blitter::new(from, to, &options).unwrap()
}

pub(crate) fn frame(device: &Device, (width, height): (u32, u32), fourcc: Fourcc) -> DmaBuf {
    let request = Request::new(width, height, fourcc);
    Dumb::new(device).allocate(&request).unwrap()
}

/// Frames of one size, each of one grey: 1, 2 and so on.
pub(crate) fn greys<const N: usize>(device: &Device, size: (u32, u32)) -> [DmaBuf; N] {
    std::array::from_fn(|index| grey(device, size, index as u8 + 1))
}

/// A frame of one grey.
fn grey(device: &Device, size: (u32, u32), level: u8) -> DmaBuf {
    let frame = frame(device, size, Fourcc::XRGB8888);
    fill(&frame, |_, _| [level; 3]);
    frame
}

#[test]
fn a_frame_that_the_screen_takes_is_shown_as_it_is_and_another_is_copied() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        let taken = picture(&vgem, (width, height), 1);
        // vkms does not scale.
        let other = frame(&vgem, (width / 2, height / 2), Fourcc::XRGB8888);
        fill(&other, |_, _| [10, 20, 30]);
        for _ in 0..3 {
            assert_eq!(program.show(&taken, &PresentInfo::default()), Way::Direct);
            let shown = program
                .program
                .on_screen(program.presenter.output())
                .unwrap();
            assert_eq!(shown.id(), taken.id());
            assert_shown(&program.picture(), &taken, "the frame");
            let way = program.show(&other, &PresentInfo::default());
            assert!(matches!(way, Way::Copied(_)), "{way:?}");
            assert_all(&program.picture(), [10, 20, 30]);
        }
    });
}

#[test]
fn a_presenter_is_made_of_an_output_a_blitter_and_a_swapchain_that_go_together() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let program = Program::on(&vkms);
        let screen = program.card.device();
        let presenter = |blitter, size: (u32, u32)| {
            let request = Request::new(size.0, size.1, Fourcc::XRGB8888);
            let swapchain = Swapchain::new(Dumb::new(screen), request, 3);
            Presenter::new(program.output(), blitter, swapchain)
        };
        let size = program.output().mode().size();
        presenter(by_cpu(&vgem, screen), size).unwrap();
        let error = presenter(by_cpu(&vgem, screen), (64, 64)).unwrap_err();
        let made = (64, 64);
        assert_eq!(error, Error::SwapchainSize { made, screen: size });
        let error = presenter(by_cpu(screen, &vgem), size).unwrap_err();
        assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
    });
}

#[test]
fn a_copied_frame_has_all_that_changed_since_its_buffer_was_shown() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        let small = grey(&vgem, (width / 2, height / 2), 0);
        program.show(&small, &PresentInfo::default());
        for step in 0..12 {
            // A column for each step; the others keep what they showed.
            let color = |column: u32| match column {
                0..12 if column <= step => [column as u8 + 1; 3],
                _ => [0; 3],
            };
            fill(&small, |x, _| color(x / 16));
            let boxes = [DamageBox {
                x1: 16 * step as i32,
                y1: 0,
                x2: 16 * step as i32 + 16,
                y2: height as i32 / 2,
            }];
            let info = PresentInfo::default().damage(Damage::Boxes(&boxes));
            assert!(matches!(program.show(&small, &info), Way::Copied(_)));
            let shown = program.picture();
            for column in 0..12 {
                // In the middle: those at the edges are mixed.
                let at = 4 * (32 * column as usize + 16);
                assert_eq!(
                    shown[7][at..at + 3],
                    color(column),
                    "step {step}, column {column}"
                );
            }
        }
    });
}

#[test]
fn a_program_that_is_the_master_again_shows_its_frames_again() {
    use drm::Device as _;
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let size = program.size();
        let [own, others] = greys(&vgem, size);
        program.show(&own, &PresentInfo::default());
        Host(&program.program.master).release_master_lock().unwrap();
        {
            let other = Program::on(&vkms);
            let mut output = other.output();
            output
                .commit(&[Layer::new(&others)], CommitOptions::default())
                .unwrap();
            other.wait_for_flip(&mut output);
            let refused = program.presenter.present(&own, &PresentInfo::default());
            assert!(
                matches!(refused, Err(Error::NotMaster { .. })),
                "{refused:?}"
            );
            output.leave();
        }
        Host(&program.program.master).acquire_master_lock().unwrap();
        let screens = program.program.card.screens(false).unwrap();
        program.presenter.reset(&screens);
        assert_eq!(program.presenter.dispatch().len(), 0);
        assert_eq!(program.show(&own, &PresentInfo::default()), Way::Direct);
        assert_all(&program.picture(), [1; 3]);
    });
}

#[test]
fn a_frame_waits_for_its_fence_and_nothing_else_does() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let size = program.size();
        let halves = (size.0 / 2, size.1 / 2);
        for (size, is_direct) in [(size, true), (halves, false)] {
            let [before, after] = greys(&vgem, size);
            program.show(&before, &PresentInfo::default());
            let (gate, fence) = Gate::new(&vgem);
            let info = PresentInfo::default().fence(fence.as_fd());
            program.presenter.present(&after, &info).unwrap();
            assert!(!program.presenter.is_ready());
            wait_readable(&program.presenter, Duration::from_millis(20));
            assert_eq!(program.presenter.dispatch().len(), 0);
            assert_all(&program.picture(), [1; 3]);
            gate.open();
            match &program.events()[..] {
                [Event::Shown { way, .. }] => assert_eq!(*way == Way::Direct, is_direct),
                events => panic!("{events:?}"),
            }
            assert_all(&program.picture(), [2; 3]);
        }
    });
}

#[test]
fn a_frame_whose_fence_does_not_come_is_left_out_at_its_deadline_and_holds_up_no_other() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let size = program.size();
        let halves = (size.0 / 2, size.1 / 2);
        for (size, is_direct) in [(size, true), (halves, false)] {
            let [before, late, after] = greys(&vgem, size);
            program.show(&before, &PresentInfo::default());
            let (gate, fence) = Gate::new(&vgem);
            program.show_late(&late, fence.as_fd());
            assert_all(&program.picture(), [1; 3]);
            let way = program.show(&after, &PresentInfo::default());
            assert_eq!(way == Way::Direct, is_direct, "{way:?}");
            assert_all(&program.picture(), [3; 3]);
            gate.open();
        }
    });
}

#[test]
fn a_frame_whose_fence_comes_while_no_buffer_is_free_waits_for_a_page_flip() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::with_buffers(2, &vkms, |screen| by_cpu(&vgem, screen));
        let (width, height) = program.size();
        let [first, second, third] = greys(&vgem, (width / 2, height / 2));
        for _ in 0..10 {
            program.show(&first, &PresentInfo::default());
            program
                .presenter
                .present(&second, &PresentInfo::default())
                .unwrap();
            while !program.presenter.is_ready() {
                program.wait();
                assert_eq!(program.presenter.dispatch().len(), 0);
            }
            let (gate, fence) = Gate::new(&vgem);
            let info = PresentInfo::default()
                .fence(fence.as_fd())
                .deadline(Instant::now() + PATIENCE);
            let last = program.presenter.present(&third, &info).unwrap();
            gate.open();
            // Both buffers are the screen's until its event is read.
            assert!(program.presenter.output().is_pending());
            assert_eq!(program.presenter.dispatch().len(), 0);
            let is_last =
                |event: &Event| matches!(event, Event::Shown { frame, .. } if *frame == last);
            let is_dropped = |event: &Event| matches!(event, Event::Dropped { .. });
            loop {
                let events = program.events();
                assert!(!events.iter().any(is_dropped), "{events:?}");
                if events.iter().any(is_last) {
                    break;
                }
            }
            assert_all(&program.picture(), [3; 3]);
        }
    });
}

fn around(x: i32, y: i32) -> DamageBox {
    DamageBox {
        x1: x - 8,
        y1: y - 8,
        x2: x + 8,
        y2: y + 8,
    }
}

/// What the screen shows of a frame's pixel, where the frame is scaled to the screen.
fn pixel(picture: &[Vec<u8>], (x, y): (u32, u32)) -> [u8; 3] {
    let at = 4 * x as usize;
    picture[y as usize][at..at + 3].try_into().unwrap()
}

#[test]
fn what_changed_in_a_frame_that_was_left_out_is_shown_with_the_next_one() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        // Copied, and each pixel twice as wide and high.
        let frame = grey(&vgem, (width / 2, height / 2), 1);
        program.show_twice(&frame, Damage::Full);
        for _ in 0..2 {
            program.show_twice(&frame, Damage::Boxes(&[around(200, 200)]));
        }
        // A change that is left out with its frame.
        let (gate, fence) = Gate::new(&vgem);
        fill(&frame, |x, _| [if x < 16 { 2 } else { 1 }; 3]);
        let boxes = [around(8, 8)];
        let info = PresentInfo::default()
            .damage(Damage::Boxes(&boxes))
            .fence(fence.as_fd())
            .deadline(Instant::now() + Duration::from_millis(20));
        program.presenter.present(&frame, &info).unwrap();
        assert!(matches!(&program.events()[..], [Event::Dropped { .. }]));
        gate.open();
        // And another one.
        fill(&frame, |x, _| {
            [match x {
                0..16 => 2,
                100..116 => 3,
                _ => 1,
            }; 3]
        });
        let boxes = [around(108, 8)];
        let info = PresentInfo::default().damage(Damage::Boxes(&boxes));
        program.show(&frame, &info);
        let shown = program.picture();
        assert_eq!(pixel(&shown, (2 * 8, 2 * 8)), [2; 3]);
        assert_eq!(pixel(&shown, (2 * 108, 2 * 8)), [3; 3]);
    });
}

#[test]
fn a_frame_that_is_larger_than_the_screen_is_shown_anew_as_a_whole() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        let frame = grey(&vgem, (2 * width, 2 * height), 1);
        let full = PresentInfo::default();
        for level in 1..5 {
            fill(&frame, |_, _| [level; 3]);
            program.show(&frame, &full);
        }
        // A small change into a buffer that still has an older picture, also right and below of the screen's size.
        let boxes = [around(16, 16)];
        for _ in 0..3 {
            let info = PresentInfo::default().damage(Damage::Boxes(&boxes));
            program.show(&frame, &info);
            assert_all(&program.picture(), [4; 3]);
        }
    });
}

#[test]
fn frames_of_another_size_are_compared_with_nothing() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        let half = grey(&vgem, (width / 2, height / 2), 1);
        let third = grey(&vgem, (width / 4, height / 4), 1);
        program.show(&half, &PresentInfo::default());
        program.show(&half, &PresentInfo::default());
        // One picture in two sizes, of which a corner changes while the other size is shown.
        let corner = |(width, height): (u32, u32), level: u8| {
            move |x, y| {
                [if x >= width - 16 && y >= height - 16 {
                    level
                } else {
                    1
                }; 3]
            }
        };
        let (wide, narrow) = ((width / 2, height / 2), (width / 4, height / 4));
        for level in 2..11 {
            let (frame, size) = match level % 3 {
                0 => (&third, narrow),
                _ => (&half, wide),
            };
            fill(frame, corner(size, level));
            let boxes = [around(size.0 as i32 - 8, size.1 as i32 - 8)];
            let info = PresentInfo::default().damage(Damage::Boxes(&boxes));
            program.show(frame, &info);
            let shown = program.picture();
            assert_eq!(pixel(&shown, (width - 4, height - 4)), [level; 3]);
            let beside = pixel(&shown, (width - 48, height - 4));
            assert_eq!(beside, if level % 3 == 0 { [level; 3] } else { [1; 3] });
        }
    });
}
