//! A well-behaved client beside the others, and how regularly it gets its frames.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use wayland_client::backend::WaylandError;
use wayland_client::protocol::wl_buffer::WlBuffer;
use wayland_client::protocol::wl_callback::WlCallback;
use wayland_client::{Connection, Dispatch, QueueHandle};

use super::client::{Client, State};
use super::compositor::{Compositor, wait_until};
use super::picture;

/// Longer than any frame takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Becomes true with the event `done`.
pub(crate) type Done = Arc<AtomicBool>;

impl Dispatch<WlCallback, Done> for State {
    fn event(
        _: &mut Self,
        _: &WlCallback,
        _: <WlCallback as wayland_client::Proxy>::Event,
        done: &Done,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        done.store(true, Ordering::Release);
    }
}

impl Client {
    /// Shows a buffer, and waits until the compositor wants the next one.
    pub(crate) fn frame(&mut self, buffer: &WlBuffer) {
        let done = Done::default();
        self.surface.frame(&self.queue.handle(), done.clone());
        self.surface.attach(Some(buffer), 0, 0);
        self.surface.damage_buffer(0, 0, 16, 16);
        self.surface.commit();
        self.dispatch_until("a frame callback", || done.load(Ordering::Acquire));
    }

    pub(crate) fn dispatch_until(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.queue.dispatch_pending(&mut self.state).unwrap();
            if is_so() {
                return;
            }
            assert!(Instant::now() < end, "waited for {what} in vain");
            self.queue.flush().unwrap();
            let Some(guard) = self.queue.prepare_read() else {
                continue;
            };
            let mut fds = [PollFd::new(&self.queue, PollFlags::IN)];
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let is_readable = poll(&mut fds, Some(&second)).unwrap() > 0;
            match if is_readable { guard.read() } else { Ok(0) } {
                Ok(_) => {}
                // Nothing but half a message.
                Err(WaylandError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A client that shows one frame after the other, on a thread of its own.
pub(crate) struct Steady {
    times: Arc<Mutex<Vec<Instant>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Between frames: the one in the middle, and the longest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intervals {
    pub(crate) median: Duration,
    pub(crate) longest: Duration,
}

impl Steady {
    pub(crate) fn start(compositor: &Compositor) -> Self {
        let mut client = Client::connect(compositor);
        let (times, ends) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<AtomicBool>::default());
        let (known, is_over) = (times.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let memory = |seed| client.memory(client.size(), picture(seed), MemfdFlags::CLOEXEC).0;
            let buffers = [memory(1), memory(2)];
            for buffer in buffers.iter().cycle() {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                client.frame(buffer);
                known.lock().unwrap().push(Instant::now());
            }
        });
        let steady = Self { times, ends, thread: Some(thread) };
        steady.wait_for(10);
        steady
    }

    /// Waits for so many more frames, and says how regularly they came.
    pub(crate) fn wait_for(&self, frames: usize) -> Intervals {
        self.during(frames, || {})
    }

    /// How regularly frames come while something is done, of which there are as many at least.
    pub(crate) fn during(&self, frames: usize, work: impl FnOnce()) -> Intervals {
        let first = self.times.lock().unwrap().len();
        work();
        wait_until("frames of the well-behaved client", || {
            let is_there = self.times.lock().unwrap().len() > first + frames;
            let has_ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(is_there || !has_ended, "the well-behaved client has ended");
            is_there
        });
        let times = self.times.lock().unwrap();
        let mut between: Vec<_> = times[first.saturating_sub(1)..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        between.sort();
        Intervals { median: between[between.len() / 2], longest: *between.last().unwrap() }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the well-behaved client has failed");
        }
    }
}
