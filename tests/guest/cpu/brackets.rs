//! Records the DMA_BUF_IOCTL_SYNC calls that a thread makes, by a trap of `seccomp(2)`. The handler then
//! makes the call itself, which the trap lets through.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use primeshare::Errno;

use crate::kernel::seccomp::trap_ioctl;

/// `DMA_BUF_IOCTL_SYNC`.
const SYNC: u32 = 0x4008_6200;
/// Fourth argument of the call that [`on_call`] makes for the program; ioctl takes three.
const ALLOWED: u32 = 0x5059_4e43;

/// A call: the flags that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    StartRead,
    StartWrite,
    StartReadWrite,
    EndRead,
    EndWrite,
    EndReadWrite,
}

const MOST: usize = 64;
static CALLS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Errnos that answer the next calls in their order. A call whose errno is 0 is made.
static ANSWERS: [AtomicI32; MOST] = [const { AtomicI32::new(0) }; MOST];
/// Locked while a test uses the statics.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Answers that are armed. On drop the kernel answers again.
struct Answers;

impl Answers {
    fn arm(answers: &[Option<Errno>]) -> Self {
        for (answer, errno) in ANSWERS.iter().zip(answers) {
            answer.store(errno.map_or(0, Errno::raw), Ordering::SeqCst);
        }
        Self
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for answer in &ANSWERS {
            answer.store(0, Ordering::SeqCst);
        }
    }
}

/// Runs `work` in a thread of its own, and gives the SYNC calls it made. The first calls get the
/// `answers` (`None`: the kernel's own answer).
pub(super) fn of<R: Send>(
    answers: &[Option<Errno>],
    work: impl FnOnce() -> R + Send,
) -> (R, Vec<Call>) {
    // A test that failed leaves nothing behind in the statics, so its poison says nothing.
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    COUNT.store(0, Ordering::SeqCst);
    let _armed = Answers::arm(answers);
    let result = thread::scope(|scope| {
        let traced = scope.spawn(move || {
            trace();
            work()
        });
        traced.join().unwrap()
    });
    let calls = CALLS[..COUNT.load(Ordering::SeqCst)].iter();
    let calls = calls.map(|flags| match flags.load(Ordering::SeqCst) {
        1 => Call::StartRead,
        2 => Call::StartWrite,
        3 => Call::StartReadWrite,
        5 => Call::EndRead,
        6 => Call::EndWrite,
        7 => Call::EndReadWrite,
        other => panic!("flags {other}"),
    });
    (result, calls.collect())
}

/// Handles a system call that was trapped: makes it, or answers with an errno.
extern "C" fn on_call(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a context that is this handler's until it returns, and the
    // registers in it are those of an ioctl, whose argument points to the flags.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let [fd, argument] = [libc::REG_RDI, libc::REG_RDX].map(|it| registers[it as usize]);
        let flags = *(argument as *const u64);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        if let Some(call) = CALLS.get(number) {
            call.store(flags, Ordering::SeqCst);
        }
        let answer = ANSWERS
            .get(number)
            .map_or(0, |it| it.load(Ordering::SeqCst));
        registers[libc::REG_RAX as usize] = if answer != 0 {
            -i64::from(answer)
        } else {
            let made = libc::syscall(libc::SYS_ioctl, fd, SYNC, argument, ALLOWED);
            if made < 0 {
                -i64::from(*libc::__errno_location())
            } else {
                made
            }
        };
    }
}

/// Sets the trap for this thread, for as long as it lives.
fn trace() {
    // SAFETY: zeroes are an empty mask; the handler makes one system call and touches atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_SIGINFO;
        action.sa_sigaction = on_call as *const () as libc::sighandler_t;
        let set = libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut());
        assert_eq!(set, 0);
    }
    trap_ioctl(SYNC, ALLOWED);
}
