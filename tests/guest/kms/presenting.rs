//! Frames of any device on a screen: as they are, or copied.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{BlitDevice, Blitter, Options, Strategy};
use primeshare::buffer::{Damage, DamageBox};
use primeshare::kms::{
    CommitOptions, Dropped, Error, Event, Layer, PresentInfo, Presenter, Swapchain, Way,
};
use primeshare::{Device, DmaBuf, Fourcc, Request};

use super::{Host, Program, Recorder, assert_all, assert_shown, fill, marked, wait_readable};
use crate::support::{PATIENCE, in_guest};
use crate::vulkan::fences::Gate;

/// The program with its loop.
pub(crate) struct Loop {
    pub(crate) program: Program,
    pub(crate) presenter: Presenter,
}

impl Loop {
    pub(crate) fn new(source: &Device, screen: &Device) -> Self {
        let program = Program::on(screen);
        let output = program.output();
        // Which strategy copies does not matter here, and trials of others may outlast a test.
        let options = Options::default().strategies([Strategy::Cpu]);
        let sides = (
            BlitDevice::new(source, None),
            BlitDevice::new(program.card.device(), None),
        );
        let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
        let (width, height) = output.mode().size();
        let request = Request::new(width, height, Fourcc::XRGB8888);
        let swapchain = Swapchain::new(Dumb::new(program.card.device()), request, 3);
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

    pub(crate) fn recorder(&self) -> Recorder {
        self.program.writeback(self.presenter.output())
    }

    pub(crate) fn picture(&self) -> Vec<Vec<u8>> {
        self.program.picture(self.presenter.output())
    }
}

pub(crate) fn frame(device: &Device, (width, height): (u32, u32), fourcc: Fourcc) -> DmaBuf {
    let request = Request::new(width, height, fourcc);
    Dumb::new(device).allocate(&request).unwrap()
}

#[test]
fn a_frame_that_the_screen_takes_is_shown_as_it_is_and_another_is_copied() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        let taken = frame(&vgem, (width, height), Fourcc::XRGB8888);
        fill(&taken, marked(1));
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
fn a_copied_frame_has_all_that_changed_since_its_buffer_was_shown() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let (width, height) = program.size();
        let small = frame(&vgem, (width / 2, height / 2), Fourcc::XRGB8888);
        fill(&small, |_, _| [0; 3]);
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
        let [own, others] = [1, 2].map(|seed| {
            let frame = frame(&vgem, size, Fourcc::XRGB8888);
            fill(&frame, |_, _| [seed; 3]);
            frame
        });
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
            let [before, after] = [1, 2].map(|seed| {
                let frame = frame(&vgem, size, Fourcc::XRGB8888);
                fill(&frame, |_, _| [seed; 3]);
                frame
            });
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
fn a_frame_whose_fence_does_not_come_is_left_out_at_its_deadline() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let size = program.size();
        let [before, after] = [1, 2].map(|seed| {
            let frame = frame(&vgem, size, Fourcc::XRGB8888);
            fill(&frame, |_, _| [seed; 3]);
            frame
        });
        program.show(&before, &PresentInfo::default());
        let (gate, fence) = Gate::new(&vgem);
        let deadline = Instant::now() + Duration::from_millis(30);
        let info = PresentInfo::default()
            .fence(fence.as_fd())
            .deadline(deadline);
        let late = program.presenter.present(&after, &info).unwrap();
        match &program.events()[..] {
            [Event::Dropped { frame, why }] => assert_eq!((*frame, why), (late, &Dropped::Late)),
            events => panic!("{events:?}"),
        }
        assert_all(&program.picture(), [1; 3]);
        assert_eq!(program.show(&after, &PresentInfo::default()), Way::Direct);
        assert_all(&program.picture(), [2; 3]);
        gate.open();
    });
}
