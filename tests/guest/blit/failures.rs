//! Drivers that fail late, or report success and do nothing. The tests give the blitter a Vulkan device of
//! which some functions are replaced by functions of the test.

use std::ffi::{CStr, c_char, c_void};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use primeshare::blit::{
    BlitDevice, BlitInfo, Blitter, Failure, Options, Outcome, StagingSource, Strategy, SyncFiles,
};
use primeshare::sync::Access;
use primeshare::vk::ash::{self, vk};
use primeshare::vk::{self as shared};

use super::{
    PATIENCE, after_fences, assert_shows, blit, blitter_by, forced, settle, two_gpus, write,
};
use crate::faults::fds;
use crate::fences::busy::Busy;
use crate::support::{Guest, buffer_on, in_guest};

/// How many submissions succeed before some fail. Negative: none fails.
static GOOD_SUBMISSIONS: AtomicI64 = AtomicI64::new(-1);
/// How many submissions fail after those.
static BAD_SUBMISSIONS: AtomicI64 = AtomicI64::new(0);
/// The same for waits for the end of a submission.
static GOOD_WAITS: AtomicI64 = AtomicI64::new(-1);
static BAD_WAITS: AtomicI64 = AtomicI64::new(0);
/// Whether a submission fails for lack of memory, and not because its device is lost.
static IS_TRANSIENT: AtomicBool = AtomicBool::new(false);
/// The queues of the submissions that succeeded.
static SUBMITTED: Mutex<Vec<vk::Queue>> = Mutex::new(Vec::new());
/// While a test has this locked, waits for submissions do not return.
static LONG_WAIT: Mutex<()> = Mutex::new(());
/// How many waits have begun.
static WAITS: AtomicUsize = AtomicUsize::new(0);
/// The driver's own functions. (The loader comes and goes with its instances.)
static SUBMIT: Mutex<Option<vk::PFN_vkQueueSubmit>> = Mutex::new(None);
static WAIT: Mutex<Option<vk::PFN_vkWaitForFences>> = Mutex::new(None);
static STATUS: Mutex<Option<vk::PFN_vkGetFenceStatus>> = Mutex::new(None);
static LOOKUP: Mutex<Option<vk::PFN_vkGetDeviceProcAddr>> = Mutex::new(None);

/// The faults of one test. When it is dropped, also by a panic, nothing fails any more.
#[must_use]
pub(super) struct Faults(());

impl Faults {
    /// No faults yet.
    pub(super) fn none() -> Self {
        let faults = Self(());
        faults.clear();
        faults
    }

    /// `good` submissions succeed, then `bad` ones lose their device.
    pub(super) fn submissions(&self, good: i64, bad: i64) {
        BAD_SUBMISSIONS.store(bad, Ordering::SeqCst);
        GOOD_SUBMISSIONS.store(good, Ordering::SeqCst);
        IS_TRANSIENT.store(false, Ordering::SeqCst);
    }

    /// As [`submissions`](Self::submissions), but the bad ones fail for lack of memory.
    fn transient_submissions(&self, good: i64, bad: i64) {
        self.submissions(good, bad);
        IS_TRANSIENT.store(true, Ordering::SeqCst);
    }

    /// `good` waits for a submission succeed, then `bad` ones report a lost device.
    fn waits(&self, good: i64, bad: i64) {
        GOOD_WAITS.store(good, Ordering::SeqCst);
        BAD_WAITS.store(bad, Ordering::SeqCst);
    }

    /// From now on nothing fails.
    pub(super) fn clear(&self) {
        self.submissions(-1, 0);
        self.waits(-1, 0);
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Locks a static, also if a test that failed has poisoned it: a panic in the functions below, which
/// drivers' callers call as C, would end the process.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this call is one of those that fail.
fn is_bad(good: &AtomicI64, bad: &AtomicI64) -> bool {
    let left = good.load(Ordering::SeqCst);
    if left > 0 {
        good.store(left - 1, Ordering::SeqCst);
    }
    left == 0 && bad.fetch_sub(1, Ordering::SeqCst) > 0
}

unsafe extern "system" fn submit_and_fail_late(
    queue: vk::Queue,
    count: u32,
    submissions: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    if is_bad(&GOOD_SUBMISSIONS, &BAD_SUBMISSIONS) {
        return match IS_TRANSIENT.load(Ordering::SeqCst) {
            true => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
            false => vk::Result::ERROR_DEVICE_LOST,
        };
    }
    lock(&SUBMITTED).push(queue);
    let own = lock(&SUBMIT).unwrap();
    // SAFETY: the driver's function, with what was meant for it.
    unsafe { own(queue, count, submissions, fence) }
}

unsafe extern "system" fn wait_and_fail_late(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    WAITS.fetch_add(1, Ordering::SeqCst);
    drop(lock(&LONG_WAIT));
    let own = lock(&WAIT).unwrap();
    // SAFETY: the driver's function, with what was meant for it.
    let result = unsafe { own(device, count, fences, all, timeout) };
    // The execution has ended, and is said to have failed.
    match is_bad(&GOOD_WAITS, &BAD_WAITS) {
        true => vk::Result::ERROR_DEVICE_LOST,
        false => result,
    }
}

unsafe extern "system" fn never_done_in_a_long_wait(
    device: vk::Device,
    fence: vk::Fence,
) -> vk::Result {
    if matches!(LONG_WAIT.try_lock(), Err(TryLockError::WouldBlock)) {
        return vk::Result::NOT_READY;
    }
    let own = lock(&STATUS).unwrap();
    // SAFETY: the driver's function, with what was meant for it.
    let result = unsafe { own(device, fence) };
    if result == vk::Result::SUCCESS && BAD_WAITS.load(Ordering::SeqCst) > 0 {
        // An end that is seen here counts as a wait. The bad one is hidden, so that it is waited for.
        match GOOD_WAITS.load(Ordering::SeqCst) {
            0 => return vk::Result::NOT_READY,
            left if left > 0 => GOOD_WAITS.store(left - 1, Ordering::SeqCst),
            _ => {}
        }
    }
    result
}

unsafe extern "system" fn copy_nothing(
    _: vk::CommandBuffer,
    _: vk::Image,
    _: vk::ImageLayout,
    _: vk::Image,
    _: vk::ImageLayout,
    _: u32,
    _: *const vk::ImageCopy,
) {
}

/// # Safety
/// As for vkGetDeviceProcAddr.
unsafe fn look_up(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    let own = lock(&LOOKUP).unwrap();
    // SAFETY: as the caller promises.
    unsafe { own(device, name) }
}

/// The dma-bufs that were imported, by their inodes.
static IMPORTED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static ALLOCATE: Mutex<Option<vk::PFN_vkAllocateMemory>> = Mutex::new(None);

/// The inodes of what was imported since the last call.
pub(super) fn imported() -> Vec<u64> {
    std::mem::take(&mut lock(&IMPORTED))
}

unsafe extern "system" fn allocate_and_tell(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    callbacks: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    // SAFETY: the chain is valid, as the caller of the driver's function promises.
    let mut next = unsafe { (*info).p_next.cast::<vk::BaseInStructure<'_>>() };
    while !next.is_null() {
        // SAFETY: as above.
        let of = unsafe { *next };
        if of.s_type == vk::StructureType::IMPORT_MEMORY_FD_INFO_KHR {
            // SAFETY: that is what it is; the fd is open.
            let fd = unsafe { (*next.cast::<vk::ImportMemoryFdInfoKHR<'_>>()).fd };
            // SAFETY: as above, for as long as this borrows it.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            let stat = nix::sys::stat::fstat(fd).unwrap();
            lock(&IMPORTED).push(stat.st_ino);
        }
        next = of.p_next;
    }
    let own = lock(&ALLOCATE).unwrap();
    // SAFETY: the driver's function, with what was meant for it.
    unsafe { own(device, info, callbacks, memory) }
}

/// The driver's functions, except that submissions fail late and imports are recorded.
pub(super) unsafe extern "system" fn with_late_failures(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the driver's function, with what was meant for it; names end in zero.
    let (own, name) = unsafe { (look_up(device, name), CStr::from_ptr(name)) };
    if name == c"vkQueueSubmit" {
        // SAFETY: it is of this type.
        let own: vk::PFN_vkQueueSubmit = unsafe { std::mem::transmute(own.unwrap()) };
        *lock(&SUBMIT) = Some(own);
        let ours: vk::PFN_vkQueueSubmit = submit_and_fail_late;
        // SAFETY: the caller calls it by its right type.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    if name == c"vkGetFenceStatus" {
        // SAFETY: as above.
        let own: vk::PFN_vkGetFenceStatus = unsafe { std::mem::transmute(own.unwrap()) };
        *lock(&STATUS) = Some(own);
        let ours: vk::PFN_vkGetFenceStatus = never_done_in_a_long_wait;
        // SAFETY: as above.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    if name == c"vkAllocateMemory" {
        // SAFETY: as above.
        let own: vk::PFN_vkAllocateMemory = unsafe { std::mem::transmute(own.unwrap()) };
        *lock(&ALLOCATE) = Some(own);
        let ours: vk::PFN_vkAllocateMemory = allocate_and_tell;
        // SAFETY: as above.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    if name == c"vkWaitForFences" {
        // SAFETY: as above.
        let own: vk::PFN_vkWaitForFences = unsafe { std::mem::transmute(own.unwrap()) };
        *lock(&WAIT) = Some(own);
        let ours: vk::PFN_vkWaitForFences = wait_and_fail_late;
        // SAFETY: as above.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    own
}

/// The driver's functions, except that image copies do nothing.
unsafe extern "system" fn with_empty_copies(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: as above.
    let (own, name) = unsafe { (look_up(device, name), CStr::from_ptr(name)) };
    if name == c"vkCmdCopyImage" {
        let ours: vk::PFN_vkCmdCopyImage = copy_nothing;
        // SAFETY: as above.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    own
}

unsafe extern "system" fn make_no_pipelines(
    _: vk::Device,
    _: vk::PipelineCache,
    count: u32,
    _: *const vk::ComputePipelineCreateInfo<'_>,
    _: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    for index in 0..count as usize {
        // SAFETY: there is room for so many.
        unsafe { pipelines.add(index).write(vk::Pipeline::null()) };
    }
    vk::Result::ERROR_INITIALIZATION_FAILED
}

unsafe extern "system" fn compute_nothing(_: vk::CommandBuffer, _: u32, _: u32, _: u32) {}

/// The driver's functions, except that compute shaders cannot be compiled.
pub(super) unsafe extern "system" fn without_pipelines(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: as above.
    let (own, name) = unsafe { (look_up(device, name), CStr::from_ptr(name)) };
    if name == c"vkCreateComputePipelines" {
        let ours: vk::PFN_vkCreateComputePipelines = make_no_pipelines;
        // SAFETY: as above.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    own
}

/// The driver's functions, except that compute shaders do nothing.
pub(super) unsafe extern "system" fn with_empty_shaders(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: as above.
    let (own, name) = unsafe { (look_up(device, name), CStr::from_ptr(name)) };
    if name == c"vkCmdDispatch" {
        let ours: vk::PFN_vkCmdDispatch = compute_nothing;
        // SAFETY: as above.
        return unsafe {
            std::mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(ours as *const c_void)
        };
    }
    own
}

/// The chosen physical device, of an instance whose devices' functions are looked up by `lookup`.
pub(super) fn gpu(guest: &Guest, lookup: vk::PFN_vkGetDeviceProcAddr) -> shared::PhysicalDevice {
    let instance = guest.instance().raw();
    *lock(&LOOKUP) = Some(instance.fp_v1_0().get_device_proc_addr);
    // SAFETY: the guest's instance outlives the test.
    let loaded = unsafe { ash::Entry::load() }.unwrap();
    let own = |name: &CStr| {
        if name == c"vkGetDeviceProcAddr" {
            return lookup as *const c_void;
        }
        // SAFETY: the instance is alive, and the name ends in zero.
        let found = unsafe { loaded.get_instance_proc_addr(instance.handle(), name.as_ptr()) };
        found.map_or(std::ptr::null(), |found| found as *const c_void)
    };
    // SAFETY: as above: each function is the instance's, or calls it.
    unsafe {
        let hooked = ash::Instance::load_with(own, instance.handle());
        let hooked = shared::Instance::wrap(hooked, vk::API_VERSION_1_1).unwrap();
        hooked.physical_device(guest.physical().raw()).unwrap()
    }
}

#[test]
fn a_test_that_panics_leaves_no_fault_behind() {
    in_guest(|_| {
        let panicked = std::panic::catch_unwind(|| {
            let faults = Faults::none();
            faults.transient_submissions(0, i64::MAX);
            faults.waits(0, i64::MAX);
            assert!(is_bad(&GOOD_SUBMISSIONS, &BAD_SUBMISSIONS));
            std::panic::resume_unwind(Box::new("unwound"));
        });
        assert!(panicked.is_err());
        assert!(!is_bad(&GOOD_SUBMISSIONS, &BAD_SUBMISSIONS));
        assert!(!is_bad(&GOOD_WAITS, &BAD_WAITS));
    });
}

#[test]
fn a_driver_that_fails_at_the_thousandth_frame_loses_none() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = Faults::none();
        faults.submissions(1000, 1);
        let gpu = gpu(guest, with_late_failures);
        let sides = (
            BlitDevice::new(&vgem, None),
            BlitDevice::new(&vkms, Some(&gpu)),
        );
        let options = Options::default().strategies([Strategy::Pull, Strategy::PullBytes]);
        let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        for frame in 0..1100_u32 {
            write(&from, frame as u8);
            blit(&blitter, &from, &to, &[], &[]).unwrap();
            if frame % 50 == 0 || frame > 980 {
                assert_shows(&to, frame as u8, "the picture");
            }
        }
        let verdict = blitter.verdict(&from, &to, &BlitInfo::default()).unwrap();
        println!("{verdict}");
        let statistics = blitter.statistics();
        println!("{statistics}");
        let failures: Vec<u64> = statistics.strategies.iter().map(|of| of.failures).collect();
        assert_eq!(failures.iter().sum::<u64>(), 1, "{statistics}");
        assert_eq!(statistics.failed, 0, "{statistics}");
    });
}

#[test]
fn a_gpu_that_is_lost_for_good_leaves_the_processor() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = Faults::none();
        faults.submissions(2, i64::MAX);
        let gpu = gpu(guest, with_late_failures);
        let sides = (
            BlitDevice::new(&vgem, None),
            BlitDevice::new(&vkms, Some(&gpu)),
        );
        let blitter = Blitter::new(sides.0, sides.1, &Options::default()).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        for seed in 0..20 {
            write(&from, seed);
            blit(&blitter, &from, &to, &[], &[]).unwrap();
            assert_shows(&to, seed, "the picture");
        }
        let verdict = blitter.verdict(&from, &to, &BlitInfo::default()).unwrap();
        println!("{verdict}");
        assert_eq!(verdict.chosen, Some(Strategy::Cpu));
    });
}

/// Strategies, with the GPUs that they need. If there are two, the second is used when the first fails.
fn turns(guest: &Guest) -> [([Option<shared::PhysicalDevice>; 2], Vec<Strategy>); 4] {
    let gpu = || gpu(guest, with_late_failures);
    let (source, destination) = (gpu(), gpu());
    let both = [Some(source), Some(destination.clone())];
    let [to, heap] = [StagingSource::Destination, StagingSource::DmaHeap].map(Strategy::Staged);
    [
        (
            [None, Some(destination)],
            vec![Strategy::Pull, Strategy::PullBytes],
        ),
        (both.clone(), vec![to, heap]),
        (both.clone(), vec![heap]),
        (both, vec![Strategy::HostMemory]),
    ]
}

#[test]
fn a_submission_that_fails_with_others_in_flight_is_made_again_in_its_order() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = Faults::none();
        let sources = [(); 4].map(|()| buffer_on(&vgem));
        let destinations = [(); 4].map(|()| buffer_on(&vkms));
        for (gpus, strategies) in turns(guest) {
            let options = Options::default()
                .in_flight(4)
                .strategies(strategies.clone());
            let sides = (
                BlitDevice::new(&vgem, gpus[0].as_ref()),
                BlitDevice::new(&vkms, gpus[1].as_ref()),
            );
            let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
            // After how many good submissions one fails. Four frames take one or two submissions each.
            let goods: &[i64] = match strategies[0] {
                Strategy::Staged(_) | Strategy::HostMemory => &[0, 1, 3, 6, 7, 8],
                _ => &[0, 1, 3, 4],
            };
            for &good in goods {
                crate::support::give_back_memory();
                // What has failed before is tried again.
                blitter.measure_again();
                let settled = settle(&blitter, &sources[0], &destinations[0]);
                match strategies.len() {
                    1 => faults.transient_submissions(good, 1),
                    _ => faults.submissions(good, 1),
                }
                for (index, source) in sources.iter().enumerate() {
                    write(source, 10 * good as u8 + index as u8);
                }
                let pairs = sources.iter().zip(&destinations);
                let fences: Vec<_> = pairs
                    .map(|(from, to)| blitter.blit(from, to, &BlitInfo::default()).unwrap())
                    .collect();
                for (index, fence) in fences.iter().enumerate() {
                    fence.wait(PATIENCE).unwrap();
                    let seed = 10 * good as u8 + index as u8;
                    let what = format!("{strategies:?}, submission {good} fails");
                    assert_shows(&destinations[index], seed, &what);
                }
                let verdict = blitter.verdict(&sources[0], &destinations[0], &BlitInfo::default());
                let (before, now) = (settled.chosen.unwrap(), verdict.unwrap());
                let steps = match before {
                    Strategy::Staged(_) | Strategy::HostMemory => 8,
                    _ => 4,
                };
                assert_eq!(
                    BAD_SUBMISSIONS.load(Ordering::SeqCst) <= 0,
                    good < steps,
                    "submission {good} of {steps}"
                );
                let failed = matches!(now.outcome(before), Some(Outcome::Failed(_)));
                let lasts = good < steps && strategies.len() > 1;
                assert_eq!(failed, lasts, "submission {good}: {now}");
                faults.clear();
            }
        }
    });
}

#[test]
fn a_lack_of_memory_for_two_frames_at_a_time_fails_none() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let gpus = two_gpus(guest);
        let strategy = Strategy::Staged(StagingSource::Destination);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
        settle(&blitter, &from, &to);
        let (wait, go) = nix::unistd::pipe().unwrap();
        let first = blitter
            .blit(&from, &to, &after_fences(&[wait.as_fd()]))
            .unwrap();
        let second = blitter.blit(&from, &to, &BlitInfo::default()).unwrap();
        write(&from, 222);
        // No fd for the staging memory of the second.
        let done = fds::below(4, || {
            drop(go);
            [first, second].map(|fence| fence.wait(PATIENCE))
        });
        done.into_iter().for_each(Result::unwrap);
        assert_shows(&to, 222, strategy.name());
        let verdict = blitter.verdict(&from, &to, &BlitInfo::default()).unwrap();
        assert_eq!(verdict.chosen, Some(strategy), "{verdict}");
    });
}

#[test]
fn one_gpu_writes_the_staging_memory_while_the_other_reads_the_frame_before() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let _faults = Faults::none();
        let gpus = [(); 2].map(|()| gpu(guest, with_late_failures));
        let sources = [(); 3].map(|()| buffer_on(&vgem));
        let destinations = [(); 3].map(|()| buffer_on(&vkms));
        for strategy in [
            Strategy::Staged(StagingSource::DmaHeap),
            Strategy::HostMemory,
        ] {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            settle(&blitter, &sources[0], &destinations[0]);
            lock(&SUBMITTED).clear();
            let (wait, go) = nix::unistd::pipe().unwrap();
            let stream = blitter.stream();
            for (index, source) in sources.iter().enumerate() {
                write(source, 200 + index as u8);
            }
            // All are there before the first begins.
            let start = |index: usize| {
                let after = [wait.as_fd()];
                let info = BlitInfo::default()
                    .after(if index == 0 { &after[..] } else { &[] })
                    .stream(stream);
                let (from, to) = (&sources[index], &destinations[index]);
                blitter.blit(from, to, &info).unwrap()
            };
            let fences = [0, 1, 2].map(start);
            drop(go);
            for (index, fence) in fences.iter().enumerate() {
                fence.wait(PATIENCE).unwrap();
                assert_shows(&destinations[index], 200 + index as u8, strategy.name());
            }
            let submitted = lock(&SUBMITTED);
            let order: Vec<bool> = submitted
                .iter()
                .map(|queue| *queue == submitted[0])
                .collect();
            let by_the_first = [true, true, false, true, false, false];
            assert_eq!(order, by_the_first, "{strategy}");
        }
    });
}

#[test]
fn an_execution_that_fails_is_made_again_with_those_behind_it() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = Faults::none();
        let sources = [(); 4].map(|()| buffer_on(&vgem));
        let destination = buffer_on(&vkms);
        let both = [SyncFiles::Never, SyncFiles::Always];
        let rounds = turns(guest)
            .into_iter()
            .filter(|(_, strategies)| strategies.len() == 2)
            .flat_map(|turn| both.map(|sync_files| (turn.clone(), sync_files)));
        for (round, ((gpus, strategies), sync_files)) in rounds.enumerate() {
            let options = Options::default()
                .in_flight(4)
                .strategies(strategies.clone())
                .sync_files(sync_files);
            let sides = (
                BlitDevice::new(&vgem, gpus[0].as_ref()),
                BlitDevice::new(&vkms, gpus[1].as_ref()),
            );
            let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
            settle(&blitter, &sources[0], &destination);
            // The failure has to come while others are in flight: at the second copy in one step, or at the
            // second step of the third copy in two. A copy that is over when somebody looks is not waited for,
            // so it may take some more frames.
            let good = if gpus[0].is_some() { 5 } else { 1 };
            faults.waits(good, 1);
            let mut seed = 10 * round as u8;
            for _ in 0..50 {
                let start = |source| {
                    seed = seed.wrapping_add(1);
                    write(source, seed);
                    let info = BlitInfo::default();
                    blitter.blit(source, &destination, &info).unwrap()
                };
                let fences = sources.each_ref().map(start);
                fences
                    .iter()
                    .for_each(|fence| fence.wait(PATIENCE).unwrap());
                assert_shows(&destination, seed, "the last of them");
                if BAD_WAITS.load(Ordering::SeqCst) <= 0 {
                    break;
                }
            }
            assert!(BAD_WAITS.load(Ordering::SeqCst) <= 0, "one has failed");
            faults.waits(-1, 0);
            let verdict = blitter
                .verdict(&sources[0], &destination, &BlitInfo::default())
                .unwrap();
            assert!(verdict.to_string().contains("vkWaitForFences"), "{verdict}");
        }
    });
}

#[test]
fn a_gpu_that_refuses_a_copy_with_a_sync_file_loses_no_frame() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = Faults::none();
        let gpu = gpu(guest, with_late_failures);
        let options = Options::default()
            .strategies([Strategy::Pull, Strategy::PullBytes])
            .sync_files(SyncFiles::Always);
        let sides = (
            BlitDevice::new(&vgem, None),
            BlitDevice::new(&vkms, Some(&gpu)),
        );
        let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let settled = settle(&blitter, &from, &to);
        faults.submissions(3, 1);
        for seed in 100..110 {
            write(&from, seed);
            blit(&blitter, &from, &to, &[], &[]).unwrap();
            assert_shows(&to, seed, "the picture");
        }
        let verdict = blitter.verdict(&from, &to, &BlitInfo::default()).unwrap();
        let refused = verdict.outcome(settled.chosen.unwrap());
        assert!(matches!(refused, Some(Outcome::Failed(_))), "{verdict}");
        assert_ne!(verdict.chosen, settled.chosen);
    });
}

#[test]
fn a_second_gpu_that_refuses_the_first_ones_sync_file_is_given_the_picture_later() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = Faults::none();
        let gpus = [(); 2].map(|()| gpu(guest, with_late_failures));
        let strategy = Strategy::Staged(StagingSource::DmaHeap);
        let options = forced(strategy).sync_files(SyncFiles::Always);
        let blitter = blitter_by(&gpus, &vkms, &vgem, &options);
        let (from, to) = (buffer_on(&vkms), buffer_on(&vgem));
        settle(&blitter, &from, &to);
        for seed in 100..110 {
            write(&from, seed);
            let refuses = seed == 105;
            // Somebody reads the destination meanwhile.
            let reader = refuses.then(|| Busy::new(&vgem, &to, Access::Read));
            faults.submissions(1, i64::from(refuses));
            let fence = blitter.blit(&from, &to, &BlitInfo::default()).unwrap();
            if let Some(reader) = reader {
                thread::sleep(Duration::from_millis(50));
                assert!(!fence.is_done());
                assert_shows(&to, seed - 1, "what is being read");
                reader.end();
            }
            fence.wait(PATIENCE).unwrap();
            assert_eq!(fence.sync_file().is_some(), seed < 105, "{seed}");
            assert_shows(&to, seed, "the picture");
        }
        faults.clear();
        let verdict = blitter.verdict(&from, &to, &BlitInfo::default()).unwrap();
        assert_eq!(verdict.chosen, Some(strategy), "{verdict}");
    });
}

#[test]
fn nobody_waits_for_the_gpu_to_start_a_copy() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let _faults = Faults::none();
        let gpu = gpu(guest, with_late_failures);
        let options = Options::default().strategies([Strategy::Pull]);
        let sides = (
            BlitDevice::new(&vgem, None),
            BlitDevice::new(&vkms, Some(&gpu)),
        );
        let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        settle(&blitter, &from, &to);
        let gpu_takes_long = lock(&LONG_WAIT);
        let waits = WAITS.load(Ordering::SeqCst);
        let first = blitter.blit(&from, &to, &BlitInfo::default()).unwrap();
        // Now the blitter's thread waits for the GPU. If a call waited for the thread, it would not return.
        while WAITS.load(Ordering::SeqCst) == waits {
            thread::yield_now();
        }
        let second = blitter.blit(&from, &to, &BlitInfo::default()).unwrap();
        assert!(!first.is_done() && !second.is_done());
        drop(gpu_takes_long);
        first.wait(PATIENCE).unwrap();
        second.wait(PATIENCE).unwrap();
    });
}

#[test]
fn a_driver_that_says_yes_and_does_nothing_is_found_out() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpu = gpu(guest, with_empty_copies);
        let sides = (
            BlitDevice::new(&vgem, None),
            BlitDevice::new(&vkms, Some(&gpu)),
        );
        let blitter = Blitter::new(sides.0, sides.1, &Options::default()).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        // The destination shows the first picture of the trials already, so that a copy that does nothing could
        // look right.
        write(&to, 0);
        let copy = |seed| {
            write(&from, seed);
            blit(&blitter, &from, &to, &[], &[]).unwrap();
            assert_shows(&to, seed, "another strategy");
        };
        copy(1);
        let info = BlitInfo::default();
        let verdict = blitter.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        copy(2);
        println!("{verdict}");
        assert!(
            matches!(
                verdict.outcome(Strategy::Pull),
                Some(Outcome::Failed(Failure::Unlike { .. }))
            ),
            "{verdict}"
        );
    });
}

#[test]
fn a_lost_device_says_so_and_another_takes_its_place() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let physical = gpu(guest, with_late_failures);
        let submit = |device: &shared::Device| {
            let image = device.import_image(&buffer, shared::Use::Source).unwrap();
            let mut commands = shared::Commands::new(device).unwrap();
            let transfers = [shared::Transfer::image(&image, shared::Use::Source)];
            // SAFETY: the image is of this device and outlives the commands, which are waited for.
            unsafe {
                commands
                    .record(|_, commands| {
                        shared::acquire(commands, &transfers);
                        shared::release(commands, &transfers);
                    })
                    .unwrap();
                commands.submit()?;
            }
            commands.wait(PATIENCE)
        };
        let device = shared::Device::new(&physical).unwrap();
        submit(&device).unwrap();
        assert!(!device.is_lost());
        let faults = Faults::none();
        faults.submissions(0, 1);
        let lost = submit(&device).unwrap_err();
        assert_eq!(lost.kind(), primeshare::ErrorKind::Lost, "{lost}");
        assert!(device.is_lost());
        let another = device.renew().unwrap();
        assert!(!another.is_lost());
        submit(&another).unwrap();
    });
}
