//! Every operation, with each of its kernel allocations and each of its fds failing in turn, and under many
//! signals. The error has to give the reason, nothing may be left behind, and the operation has to work
//! afterwards.

pub(crate) mod fds;
pub(crate) mod memory;
mod operation;
mod operations;
mod planes;
pub(crate) mod signals;
mod world;

use std::os::fd::AsFd;
use std::time::Instant;

use primeshare::alloc::Dumb;
use primeshare::gem::Object;
use primeshare::sync::{Access, Mapping};
use primeshare::{Allocator, Device, Errno, Fourcc, Request};

use crate::fences::busy::Busy;
use crate::support::{PATIENCE, buffer_on, in_guest, left_out};
use memory::FailNth;
use operation::{Attempt, Needs, Operation, Outcome};
use world::World;

/// More fds than any operation opens.
const FDS: usize = 10;

/// The errnos of an allocation that fails: shmem answers ENOSPC for an inode, and a socket ENOBUFS for a
/// message.
const OUT_OF_MEMORY: &[Errno] = &[Errno::ENOMEM, Errno::ENOSPC, Errno::ENOBUFS];

/// The result of all faults of one operation.
#[derive(Default)]
struct Swept {
    /// How many faults the operation met.
    faults: u32,
    /// How many of them made it fail.
    errors: u32,
    /// What went wrong.
    problems: Vec<String>,
}

impl Swept {
    /// Runs the operation once with a fault, and once without. `reasons` are the errnos that the fault may
    /// give. `inject` says whether the operation met the fault.
    fn attempt<'a>(
        &mut self,
        world: &World,
        operation: &Operation<'a>,
        reasons: &[Errno],
        inject: impl FnOnce(Attempt<'a>) -> (Outcome<'a>, bool),
    ) -> bool {
        let before = world.held();
        let (outcome, met) = inject(operation.prepare());
        let mut problems = Vec::new();
        match outcome {
            Ok(right) => {
                if !right() {
                    problems.push("a wrong result".to_owned());
                }
            }
            Err(error) => {
                self.errors += 1;
                if !met {
                    problems.push(format!("without a fault: {error}"));
                } else if !operation.reason_is_lost && !names_one_of(reasons, &error) {
                    problems.push(format!("not the reason: {error}"));
                }
            }
        }
        self.faults += u32::from(met);
        let after = world.held();
        if after != before {
            problems.push(format!("held {before:?}, now {after:?}"));
        }
        match operation.prepare()() {
            Ok(right) => {
                if !right() {
                    problems.push("a wrong result afterwards".to_owned());
                }
            }
            Err(error) => problems.push(format!("afterwards: {error}")),
        }
        let afterwards = world.held();
        if afterwards != after {
            problems.push(format!("held {after:?}, afterwards {afterwards:?}"));
        }
        let faults = self.faults;
        let named = |problem| format!("{}, fault {faults}: {problem}", operation.name);
        self.problems.extend(problems.into_iter().map(named));
        met
    }
}

fn names_one_of(reasons: &[Errno], error: &str) -> bool {
    reasons
        .iter()
        .any(|errno| error.contains(&errno.to_string()))
}

/// Sweeps over every operation. `needs` says for which of them a fault has to be an error.
fn sweep<'a>(
    world: &'a World,
    needs: impl Fn(Needs) -> bool,
    one: impl Fn(&Operation<'a>) -> Swept,
) {
    let mut problems = Vec::new();
    for operation in world.operations() {
        if operation.starts_mesa && world.mesa_leaks {
            left_out(&format!("a newer Mesa than 25.0, for {}", operation.name));
            continue;
        }
        // Run once before, since the first use also loads pages of programs and fills caches.
        operation.prepare()().unwrap_or_else(|error| panic!("{}: {error}", operation.name))();
        let start = Instant::now();
        let swept = one(&operation);
        println!(
            "{}: {} faults, {} errors, {:.1?}",
            operation.name,
            swept.faults,
            swept.errors,
            start.elapsed()
        );
        problems.extend(swept.problems);
        if (swept.errors > 0) != needs(operation.needs) {
            problems.push(format!("{}: {} errors", operation.name, swept.errors));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_failed_allocation_is_an_error_that_leaves_nothing() {
    in_guest(|guest| {
        let world = World::new(guest);
        let faults = FailNth::here();
        let needs = |needs| matches!(needs, Needs::Memory | Needs::Both);
        sweep(&world, needs, |operation| {
            let mut swept = Swept::default();
            for n in 1.. {
                if !swept.attempt(&world, operation, OUT_OF_MEMORY, |attempt| {
                    faults.nth(n, attempt)
                }) {
                    break;
                }
            }
            swept
        });
    });
}

#[test]
fn a_full_fd_table_is_an_error_that_leaves_nothing() {
    in_guest(|guest| {
        let world = World::new(guest);
        let needs = |needs| matches!(needs, Needs::Fds | Needs::Both);
        sweep(&world, needs, |operation| {
            let mut swept = Swept::default();
            for room in 0..=FDS {
                swept.attempt(&world, operation, &[Errno::EMFILE], |attempt| {
                    (fds::with_room_for(room, attempt), room < FDS)
                });
            }
            swept
        });
    });
}

/// An object of vgem whose handle was closed behind the table's back, and the number of that handle, which
/// the kernel gives to the next object. Only an export tells which of both objects the number belongs to.
fn closed_behind_our_back(vgem: &Device) -> (Object, u32) {
    let buffer = buffer_on(vgem);
    let object = vgem.import(&buffer).unwrap().object().clone();
    let number = object.handle().raw();
    drm_ffi::gem::close(vgem.as_fd(), number).unwrap();
    (object, number)
}

#[test]
fn a_recycled_number_is_not_adopted_as_the_old_object_for_want_of_an_fd() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (old, number) = closed_behind_our_back(&vgem);
        let new = drm_ffi::mode::dumbbuffer::create(vgem.as_fd(), 64, 64, 32, 0).unwrap();
        assert_eq!(new.handle, number, "not recycled");
        let adopted = fds::with_room_for(0, || vgem.adopt(number));
        assert_ne!(adopted.as_ref().ok(), Some(&old));
        if adopted.is_err() {
            drm_ffi::gem::close(vgem.as_fd(), number).unwrap();
        }
    });
}

#[test]
fn a_recycled_number_is_not_allocated_as_the_old_object_for_want_of_an_fd() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (old, _) = closed_behind_our_back(&vgem);
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let refused = fds::with_room_for(0, || Dumb::new(&vgem).allocate(&request));
        assert!(refused.is_err(), "{refused:?}");
        // The old object's memory has gone, and what was made in its place is not its own.
        assert!(old.export().is_err());
    });
}

#[test]
fn arming_a_fault_meets_none() {
    in_guest(|_| {
        // If arming met the fault itself, reading the count back would say that the operation had met it.
        let ((), met) = FailNth::here().nth(1, || ());
        assert!(!met);
        // An operation that allocates meets the fault.
        let (file, met) = FailNth::here().nth(1, || std::fs::File::open("/dev/null"));
        assert!(met && file.is_err());
    });
}

/// How many signals and how many rounds each operation has to bear at least. A time would not do, since a
/// busy host delivers few signals.
const SIGNALS: u64 = 300;
const ROUNDS: u32 = 10;

#[test]
fn signals_stop_no_operation() {
    in_guest(|guest| {
        let world = World::new(guest);
        for operation in world.operations() {
            let before = world.held();
            let (rounds, signals) = signals::under(|received| {
                let mut rounds = 0;
                while rounds < ROUNDS || received() < SIGNALS {
                    match operation.prepare()() {
                        Ok(right) => assert!(right(), "{}: a wrong result", operation.name),
                        Err(error) => panic!("{}: {error}", operation.name),
                    }
                    rounds += 1;
                }
                (rounds, received())
            });
            println!("{}: {rounds} rounds, {signals} signals", operation.name);
            assert_eq!(world.held(), before, "{}", operation.name);
        }
    });
}

#[test]
fn a_wait_that_signals_interrupt_goes_on() {
    in_guest(|guest| {
        let world = World::new(guest);
        let mut mapping = Mapping::new(world.foreign.plane_fd(0).unwrap()).unwrap();
        let busy = Busy::new(&world.vgem, &world.foreign, Access::Write);
        let signals = signals::under(|received| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while received() < SIGNALS {
                        std::thread::yield_now();
                    }
                    busy.end();
                });
                drop(mapping.begin_wait(Access::Read, PATIENCE).unwrap());
                received()
            })
        });
        assert!(signals >= SIGNALS, "it did not wait: {signals} signals");
    });
}
