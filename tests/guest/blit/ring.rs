//! An imitated GPU that executes submissions later, as real GPUs do and lavapipe does not.
//!
//! Some Vulkan functions are replaced by functions of this file. Each VkQueue has a ring: a thread that
//! takes submissions in their order, waits for the sync files of each, and only then hands it to the driver
//! and waits for its end. The payloads of semaphores and the states of fences are kept here. The driver only
//! makes and destroys their handles. If the library misuses an object that a submission on a ring still
//! uses, that is noted and fails the test: the validation layer sees a submission only when the ring hands
//! it over.
//!
//! Fences that were created signalled, timeline semaphores, fences as sync files and vkQueueSubmit2 are
//! not imitated.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, c_char, c_void};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use primeshare::Device;
use primeshare::sync::{Access, SyncFile, implicit};
use primeshare::vk::ash::{self, vk};
use primeshare::vk::{self as shared};

use super::PATIENCE;
use crate::fences::busy::Busy;
use crate::fences::sw_sync::Timeline;
use crate::fences::vgem;
use crate::support::{Guest, buffer_on};

static STATE: Mutex<State> = Mutex::new(State::new());
static CHANGED: Condvar = Condvar::new();

/// The imitation. It is in use until it is dropped. All devices of its GPUs must be destroyed before.
pub(crate) struct Hardware<'a> {
    guest: &'a Guest,
}

/// What the functions share.
struct State {
    /// The driver's own functions.
    lookup: Option<vk::PFN_vkGetDeviceProcAddr>,
    properties: Option<vk::PFN_vkGetPhysicalDeviceProperties>,
    /// The type that physical devices report.
    kind: vk::PhysicalDeviceType,
    /// Makes the fences if the kernel has no sw_sync.
    vgem: Option<Device>,
    devices: BTreeMap<vk::Device, Made>,
    /// How many devices were left over by tests that failed.
    left: usize,
    rings: BTreeMap<vk::Queue, Ring>,
    /// The fences that were submitted, and whether they are signalled.
    fences: BTreeMap<vk::Fence, bool>,
    /// The payloads of semaphores that are signalled, or that a submission will signal.
    payloads: BTreeMap<vk::Semaphore, Option<SyncFile>>,
    pools: BTreeMap<vk::CommandBuffer, vk::CommandPool>,
    /// Whether rings hand nothing to the driver.
    is_held: bool,
    /// How many submissions were made.
    submitted: u64,
    /// What the library did wrong.
    faults: Vec<String>,
}

/// A device, with the driver's functions.
struct Made {
    driver: ash::Device,
    is_lost: bool,
}

struct Ring {
    device: vk::Device,
    /// The first one is being waited for, or executed.
    submissions: VecDeque<Submission>,
    is_executing: bool,
    is_closing: bool,
    /// Readable once the ring must not wait for anything any more.
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

struct Submission {
    /// Submissions are numbered in the order in which they were made.
    number: u64,
    waits: Vec<SyncFile>,
    commands: Vec<vk::CommandBuffer>,
    semaphores: Vec<vk::Semaphore>,
    /// These signal its sync files.
    signals: Vec<Busy>,
    /// Null if there is none.
    fence: vk::Fence,
}

/// A sync file that is pending, and what signals it. It is made by vgem if the kernel has no sw_sync.
pub(super) fn pending(vgem: Option<&Device>) -> (SyncFile, Busy) {
    match Timeline::if_there() {
        Some(timeline) => (timeline.fence(1), Busy::Timeline(timeline)),
        None => {
            let vgem = vgem.unwrap();
            let buffer = buffer_on(vgem);
            let fence = vgem::Fence::attach(vgem, &buffer, Access::Write);
            let file = implicit::export_sync_file(&buffer, Access::Read).unwrap();
            (file, Busy::Vgem(fence))
        }
    }
}

impl<'a> Hardware<'a> {
    pub(crate) fn new(guest: &'a Guest) -> Self {
        let instance = guest.instance().raw();
        let mut state = state();
        state.left = state.devices.len();
        state.is_held = false;
        state.faults.clear();
        state.vgem = Timeline::if_there().is_none().then(|| guest.vgem());
        state.lookup = Some(instance.fp_v1_0().get_device_proc_addr);
        state.properties = Some(instance.fp_v1_0().get_physical_device_properties);
        Self { guest }
    }

    /// A physical device that reports to be a GPU.
    pub(crate) fn gpu(&self) -> shared::PhysicalDevice {
        self.physical(vk::PhysicalDeviceType::DISCRETE_GPU)
    }

    /// A physical device that reports to be a CPU. One of these counts as the GPUs of two DRM devices.
    pub(super) fn software(&self) -> shared::PhysicalDevice {
        self.physical(vk::PhysicalDeviceType::CPU)
    }

    fn physical(&self, kind: vk::PhysicalDeviceType) -> shared::PhysicalDevice {
        let instance = self.guest.instance().raw();
        state().kind = kind;
        // SAFETY: the guest's instance outlives the test.
        let loaded = unsafe { ash::Entry::load() }.unwrap();
        let own = |name: &CStr| {
            let lookup: vk::PFN_vkGetDeviceProcAddr = look_up;
            let properties: vk::PFN_vkGetPhysicalDeviceProperties = say_what_it_is;
            if name == c"vkGetDeviceProcAddr" {
                return lookup as *const c_void;
            }
            if name == c"vkGetPhysicalDeviceProperties" {
                return properties as *const c_void;
            }
            // SAFETY: the instance is alive, and the name ends in zero.
            let found = unsafe { loaded.get_instance_proc_addr(instance.handle(), name.as_ptr()) };
            found.map_or(std::ptr::null(), |found| found as *const c_void)
        };
        // SAFETY: as above: each function is the instance's, or calls it.
        unsafe {
            let hooked = ash::Instance::load_with(own, instance.handle());
            let hooked = shared::Instance::wrap(hooked, vk::API_VERSION_1_1).unwrap();
            hooked.physical_device(self.guest.physical().raw()).unwrap()
        }
    }

    /// How many submissions are on rings.
    pub(crate) fn on_rings(&self) -> usize {
        let state = state();
        state
            .rings
            .values()
            .map(|ring| ring.submissions.len())
            .sum()
    }

    /// Keeps rings from handing anything to the driver, until [`release`](Self::release).
    pub(super) fn hold(&self) {
        state().is_held = true;
    }

    pub(super) fn release(&self) {
        state().is_held = false;
        CHANGED.notify_all();
    }

    /// Loses each device that has something on its rings, and tells how many.
    pub(super) fn lose_busy(&self) -> usize {
        self.lose(|_, ring| !ring.submissions.is_empty())
    }

    /// Loses the device whose first submission is the oldest of all.
    pub(super) fn lose_first(&self) -> usize {
        let first = |ring: &Ring| ring.submissions.front().map(|first| first.number);
        self.lose(|rings, ring| {
            let all = rings.values().filter_map(first);
            first(ring).is_some() && first(ring) == all.min()
        })
    }

    fn lose(&self, is_meant: impl Fn(&BTreeMap<vk::Queue, Ring>, &Ring) -> bool) -> usize {
        let executes = |state: &mut State| state.rings.values().any(|ring| ring.is_executing);
        // The library destroys objects after a loss, so nothing may be executing then.
        let state = CHANGED.wait_while(state(), executes);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let State { rings, devices, .. } = &mut *state;
        let mut lost = 0;
        for ring in rings.values().filter(|ring| is_meant(rings, ring)) {
            if let Some(made) = devices.get_mut(&ring.device) {
                lost += usize::from(!made.is_lost);
                made.is_lost = true;
                ring.wake.write(1).unwrap();
            }
        }
        drop(state);
        CHANGED.notify_all();
        lost
    }
}

impl Drop for Hardware<'_> {
    /// Waits until all devices are destroyed: a blitter that was dropped may have left some to its thread. If
    /// the test has failed, it does not wait.
    fn drop(&mut self) {
        self.release();
        if thread::panicking() {
            return;
        }
        let has_more = |state: &mut State| state.devices.len() > state.left;
        let ended = CHANGED.wait_timeout_while(state(), PATIENCE, has_more);
        let (mut state, _) = ended.unwrap_or_else(PoisonError::into_inner);
        let (devices, left) = (state.devices.len(), state.left);
        let faults = std::mem::take(&mut state.faults);
        let vgem = state.vgem.take();
        drop((state, vgem));
        assert_eq!(devices, left, "devices are left");
        assert_eq!(faults, [""; 0], "objects in use");
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(state: MutexGuard<'static, State>) -> MutexGuard<'static, State> {
    CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl State {
    const fn new() -> Self {
        Self {
            lookup: None,
            properties: None,
            kind: vk::PhysicalDeviceType::CPU,
            vgem: None,
            devices: BTreeMap::new(),
            left: 0,
            rings: BTreeMap::new(),
            fences: BTreeMap::new(),
            payloads: BTreeMap::new(),
            pools: BTreeMap::new(),
            is_held: false,
            submitted: 0,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, is_one: bool, what: &str) {
        if is_one {
            self.faults.push(what.to_owned());
        }
    }

    /// Unknown devices count as lost: they are left over from a test that failed.
    fn is_lost(&self, device: vk::Device) -> bool {
        self.devices.get(&device).is_none_or(|made| made.is_lost)
    }

    /// Whether a ring, of a device that is not lost, has something to do with it.
    fn is_used(&self, uses: impl Fn(&Submission) -> bool) -> bool {
        let rings = self
            .rings
            .values()
            .filter(|ring| !self.is_lost(ring.device));
        rings.flat_map(|ring| &ring.submissions).any(uses)
    }

    fn uses_semaphore(&self, semaphore: vk::Semaphore) -> bool {
        self.is_used(|submission| submission.semaphores.contains(&semaphore))
    }

    fn uses_pool(&self, pool: vk::CommandPool) -> bool {
        self.is_used(|submission| {
            let mut of = submission.commands.iter();
            of.any(|commands| self.pools.get(commands) == Some(&pool))
        })
    }

    fn uses_fence(&self, fence: vk::Fence) -> bool {
        self.is_used(|submission| submission.fence == fence)
    }

    fn driver(&self, device: vk::Device) -> ash::Device {
        self.devices[&device].driver.clone()
    }

    /// # Safety
    /// As for vkQueueSubmit.
    unsafe fn submission(&mut self, info: &vk::SubmitInfo<'_>) -> Submission {
        // SAFETY: as the caller promises.
        let (waits, commands, signals) = unsafe {
            (
                list(info.p_wait_semaphores, info.wait_semaphore_count),
                list(info.p_command_buffers, info.command_buffer_count),
                list(info.p_signal_semaphores, info.signal_semaphore_count),
            )
        };
        self.fault(!info.p_next.is_null(), "more than is imitated");
        self.submitted += 1;
        let mut submission = Submission {
            number: self.submitted,
            waits: Vec::new(),
            commands: commands.to_vec(),
            semaphores: waits.iter().chain(signals).copied().collect(),
            signals: Vec::new(),
            fence: vk::Fence::null(),
        };
        for semaphore in waits {
            // A wait takes the payload.
            let payload = self.payloads.remove(semaphore);
            self.fault(payload.is_none(), "a wait for what nothing signals");
            submission.waits.extend(payload.flatten());
        }
        for semaphore in signals {
            let (file, busy) = pending(self.vgem.as_ref());
            submission.signals.push(busy);
            let before = self.payloads.insert(*semaphore, Some(file));
            self.fault(before.is_some(), "a signal to what is signalled");
        }
        submission
    }

    /// Whether all of these fences are signalled, or one.
    fn is_over(&self, fences: &[vk::Fence], all: bool) -> bool {
        let is_signalled = |fence: &vk::Fence| self.fences.get(fence) == Some(&true);
        match all {
            true => fences.iter().all(is_signalled),
            false => fences.iter().any(is_signalled),
        }
    }
}

/// # Safety
/// Such a list is there, for as long as it is used.
unsafe fn list<'a, T>(first: *const T, count: u32) -> &'a [T] {
    match count {
        0 => &[],
        // SAFETY: as the caller promises.
        _ => unsafe { std::slice::from_raw_parts(first, count as usize) },
    }
}

/// A ring's thread.
fn run(queue: vk::Queue, driver: &ash::Device, wake: &EventFd) {
    while let Some((waits, commands)) = next(queue) {
        if are_signalled(&waits, wake) && begin(queue) {
            execute(queue, driver, &commands);
        }
        end(queue);
    }
}

/// What the next submission waits for, and its commands; `None` at the end.
fn next(queue: vk::Queue) -> Option<(Vec<SyncFile>, Vec<vk::CommandBuffer>)> {
    let mut state = state();
    loop {
        let ring = state
            .rings
            .get_mut(&queue)
            .filter(|ring| !ring.is_closing)?;
        if let Some(first) = ring.submissions.front_mut() {
            return Some((std::mem::take(&mut first.waits), first.commands.clone()));
        }
        state = wait(state);
    }
}

/// Waits until all of these are signalled. `false` if the ring is to wait for nothing any more.
fn are_signalled(files: &[SyncFile], wake: &EventFd) -> bool {
    files.iter().all(|file| {
        let polled = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut both = [polled(file.as_fd()), polled(wake.as_fd())];
        while poll(&mut both, PollTimeout::NONE) == Err(Errno::EINTR) {}
        both[1].any() == Some(false)
    })
}

/// Waits until the submission may be executed. `false` if it never may be.
fn begin(queue: vk::Queue) -> bool {
    let mut state = state();
    loop {
        let is_held = state.is_held;
        let device = state.rings.get(&queue).map(|ring| ring.device);
        let is_lost = device.is_none_or(|device| state.is_lost(device));
        let ring = state.rings.get_mut(&queue);
        match ring.filter(|ring| !ring.is_closing && !is_lost) {
            None => return false,
            Some(ring) if !is_held => {
                ring.is_executing = true;
                return true;
            }
            Some(_) => state = wait(state),
        }
    }
}

fn execute(queue: vk::Queue, driver: &ash::Device, commands: &[vk::CommandBuffer]) {
    let info = vk::SubmitInfo::default().command_buffers(commands);
    // SAFETY: only this thread uses the queue; the commands are as whoever submitted them promised.
    let done = unsafe {
        driver
            .queue_submit(queue, &[info], vk::Fence::null())
            .and_then(|()| driver.queue_wait_idle(queue))
    };
    state().fault(done.is_err(), "the driver fails");
}

/// Ends a submission, with success or not. All that it signals is signalled under one lock.
fn end(queue: vk::Queue) {
    let mut state = state();
    let Some(ring) = state.rings.get_mut(&queue) else {
        return;
    };
    ring.is_executing = false;
    let (device, first) = (ring.device, ring.submissions.pop_front());
    let is_lost = state.is_lost(device);
    if let Some(Submission { signals, fence, .. }) = first {
        for busy in signals {
            match (busy, is_lost) {
                // Its end signals with an error.
                (Busy::Timeline(timeline), true) => timeline.end(),
                (busy, _) => busy.end(),
            }
        }
        if !is_lost && let Some(is_signalled) = state.fences.get_mut(&fence) {
            *is_signalled = true;
        }
    }
    drop(state);
    CHANGED.notify_all();
}

/// The driver's functions, except those that this file replaces.
///
/// # Safety
/// As for vkGetDeviceProcAddr, and all the functions here as for those that they are named after.
unsafe extern "system" fn look_up(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    let own = state().lookup?;
    // SAFETY: the driver's function, with what was meant for it.
    let found = unsafe { own(device, name) }?;
    state().devices.entry(device).or_insert_with(|| {
        // SAFETY: as above; functions are called by their right types.
        let load = |name: &CStr| unsafe {
            own(device, name.as_ptr()).map_or(std::ptr::null(), |found| found as *const c_void)
        };
        // SAFETY: the device is alive.
        let driver = unsafe { ash::Device::load_with(load, device) };
        let is_lost = false;
        Made { driver, is_lost }
    });
    /// A function, if it is one of the type.
    macro_rules! ours {
        ($type:ty, $function:expr) => {{
            let ours: $type = $function;
            // SAFETY: the caller calls it by its right type.
            unsafe { std::mem::transmute::<$type, vk::PFN_vkVoidFunction>(ours) }
        }};
    }
    // SAFETY: names end in zero.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"vkGetDeviceQueue" => ours!(vk::PFN_vkGetDeviceQueue, get_device_queue),
        b"vkDestroyDevice" => ours!(vk::PFN_vkDestroyDevice, destroy_device),
        b"vkQueueSubmit" => ours!(vk::PFN_vkQueueSubmit, queue_submit),
        b"vkQueueWaitIdle" => ours!(vk::PFN_vkQueueWaitIdle, queue_wait_idle),
        b"vkDeviceWaitIdle" => ours!(vk::PFN_vkDeviceWaitIdle, device_wait_idle),
        b"vkWaitForFences" => ours!(vk::PFN_vkWaitForFences, wait_for_fences),
        b"vkGetFenceStatus" => ours!(vk::PFN_vkGetFenceStatus, get_fence_status),
        b"vkResetFences" => ours!(vk::PFN_vkResetFences, reset_fences),
        b"vkDestroyFence" => ours!(vk::PFN_vkDestroyFence, destroy_fence),
        b"vkDestroySemaphore" => ours!(vk::PFN_vkDestroySemaphore, destroy_semaphore),
        b"vkImportSemaphoreFdKHR" => ours!(vk::PFN_vkImportSemaphoreFdKHR, import_semaphore_fd),
        b"vkGetSemaphoreFdKHR" => ours!(vk::PFN_vkGetSemaphoreFdKHR, get_semaphore_fd),
        b"vkAllocateCommandBuffers" => {
            ours!(vk::PFN_vkAllocateCommandBuffers, allocate_command_buffers)
        }
        b"vkResetCommandPool" => ours!(vk::PFN_vkResetCommandPool, reset_command_pool),
        b"vkDestroyCommandPool" => ours!(vk::PFN_vkDestroyCommandPool, destroy_command_pool),
        _ => Some(found),
    }
}

unsafe extern "system" fn say_what_it_is(
    physical: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties,
) {
    let (own, kind) = {
        let state = state();
        (state.properties, state.kind)
    };
    if let Some(own) = own {
        // SAFETY: the driver's function, with what was meant for it.
        unsafe {
            own(physical, properties);
            (*properties).device_type = kind;
        }
    }
}

unsafe extern "system" fn get_device_queue(
    device: vk::Device,
    family: u32,
    index: u32,
    queue: *mut vk::Queue,
) {
    let driver = state().driver(device);
    // SAFETY: as for the driver's function.
    let got = unsafe {
        *queue = driver.get_device_queue(family, index);
        *queue
    };
    state().rings.entry(got).or_insert_with(|| {
        let wake = Arc::new(EventFd::new().unwrap());
        let its_wake = wake.clone();
        Ring {
            device,
            submissions: VecDeque::new(),
            is_executing: false,
            is_closing: false,
            wake,
            thread: Some(thread::spawn(move || run(got, &driver, &its_wake))),
        }
    });
}

unsafe extern "system" fn destroy_device(
    device: vk::Device,
    callbacks: *const vk::AllocationCallbacks<'_>,
) {
    let mut all = state();
    let is_lost = all.is_lost(device);
    let mut threads = Vec::new();
    let mut is_busy = false;
    for ring in all.rings.values_mut().filter(|ring| ring.device == device) {
        is_busy |= !ring.submissions.is_empty() && !is_lost;
        ring.is_closing = true;
        ring.wake.write(1).unwrap();
        threads.extend(ring.thread.take());
    }
    all.fault(is_busy, "a device is destroyed that executes");
    let driver = all.driver(device);
    drop(all);
    CHANGED.notify_all();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    // SAFETY: as for the driver's function. Before the device is forgotten: then it has ended.
    unsafe { driver.destroy_device(callbacks.as_ref()) };
    let mut all = state();
    all.rings.retain(|_, ring| ring.device != device);
    all.devices.remove(&device);
    drop(all);
    CHANGED.notify_all();
}

unsafe extern "system" fn queue_submit(
    queue: vk::Queue,
    count: u32,
    infos: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: as for the driver's function.
    let infos = unsafe { list(infos, count) };
    let mut all = state();
    let device = all.rings.get(&queue).map(|ring| ring.device);
    if device.is_none_or(|device| all.is_lost(device)) {
        return vk::Result::ERROR_DEVICE_LOST;
    }
    // SAFETY: as above.
    let submissions = infos.iter().map(|info| unsafe { all.submission(info) });
    let mut submissions: Vec<Submission> = submissions.collect();
    if fence != vk::Fence::null() {
        let before = all.fences.insert(fence, false);
        all.fault(before.is_some(), "a submission with a used fence");
        // The fence is that of the last one.
        match submissions.last_mut() {
            Some(last) => last.fence = fence,
            None => all.fault(true, "a submission of nothing"),
        }
    }
    if let Some(ring) = all.rings.get_mut(&queue) {
        ring.submissions.extend(submissions);
    }
    drop(all);
    CHANGED.notify_all();
    vk::Result::SUCCESS
}

/// Waits until these rings are empty.
fn wait_idle(
    device: Option<vk::Device>,
    is_meant: impl Fn(vk::Queue, &Ring) -> bool,
) -> vk::Result {
    let works = |state: &mut State| {
        let mut meant = state
            .rings
            .iter()
            .filter(|(queue, ring)| is_meant(**queue, ring));
        meant.any(|(_, ring)| !ring.submissions.is_empty() && !state.is_lost(ring.device))
    };
    let state = CHANGED.wait_while(state(), works);
    let state = state.unwrap_or_else(PoisonError::into_inner);
    match device.is_none_or(|device| state.is_lost(device)) {
        true => vk::Result::ERROR_DEVICE_LOST,
        false => vk::Result::SUCCESS,
    }
}

unsafe extern "system" fn queue_wait_idle(queue: vk::Queue) -> vk::Result {
    let device = state().rings.get(&queue).map(|ring| ring.device);
    wait_idle(device, |of, _| of == queue)
}

unsafe extern "system" fn device_wait_idle(device: vk::Device) -> vk::Result {
    wait_idle(Some(device), |_, ring| ring.device == device)
}

unsafe extern "system" fn wait_for_fences(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    // SAFETY: as for the driver's function.
    let fences = unsafe { list(fences, count) };
    let end = Instant::now().checked_add(Duration::from_nanos(timeout));
    let is_over = |state: &State| state.is_over(fences, all == vk::TRUE);
    let goes_on = |state: &mut State| !is_over(state) && !state.is_lost(device);
    let left = end.map_or(Duration::MAX, |end| {
        end.saturating_duration_since(Instant::now())
    });
    let waited = CHANGED.wait_timeout_while(state(), left, goes_on);
    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    match (is_over(&state), state.is_lost(device)) {
        (true, _) => vk::Result::SUCCESS,
        (false, true) => vk::Result::ERROR_DEVICE_LOST,
        (false, false) => vk::Result::TIMEOUT,
    }
}

unsafe extern "system" fn get_fence_status(device: vk::Device, fence: vk::Fence) -> vk::Result {
    let state = state();
    match (state.is_over(&[fence], true), state.is_lost(device)) {
        (true, _) => vk::Result::SUCCESS,
        (false, true) => vk::Result::ERROR_DEVICE_LOST,
        (false, false) => vk::Result::NOT_READY,
    }
}

unsafe extern "system" fn reset_fences(
    _: vk::Device,
    count: u32,
    fences: *const vk::Fence,
) -> vk::Result {
    // SAFETY: as for the driver's function.
    for fence in unsafe { list(fences, count) } {
        let mut state = state();
        let is_used = state.uses_fence(*fence);
        state.fault(is_used, "a fence is reset that is in use");
        state.fences.remove(fence);
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn destroy_fence(
    device: vk::Device,
    fence: vk::Fence,
    callbacks: *const vk::AllocationCallbacks<'_>,
) {
    let mut all = state();
    let is_used = all.uses_fence(fence);
    all.fault(is_used, "a fence is destroyed that is in use");
    all.fences.remove(&fence);
    let driver = all.driver(device);
    drop(all);
    // SAFETY: as for the driver's function.
    unsafe { driver.destroy_fence(fence, callbacks.as_ref()) };
}

unsafe extern "system" fn destroy_semaphore(
    device: vk::Device,
    semaphore: vk::Semaphore,
    callbacks: *const vk::AllocationCallbacks<'_>,
) {
    let mut all = state();
    let is_used = all.uses_semaphore(semaphore);
    all.fault(is_used, "a semaphore is destroyed that is in use");
    let payload = all.payloads.remove(&semaphore);
    let driver = all.driver(device);
    drop((all, payload));
    // SAFETY: as for the driver's function.
    unsafe { driver.destroy_semaphore(semaphore, callbacks.as_ref()) };
}

unsafe extern "system" fn import_semaphore_fd(
    device: vk::Device,
    info: *const vk::ImportSemaphoreFdInfoKHR<'_>,
) -> vk::Result {
    // SAFETY: as for the driver's function.
    let info = unsafe { &*info };
    let mut all = state();
    if all.is_lost(device) {
        return vk::Result::ERROR_DEVICE_LOST;
    }
    let is_used = all.uses_semaphore(info.semaphore);
    all.fault(is_used, "a semaphore is imported into that is in use");
    let is_temporary = info.flags == vk::SemaphoreImportFlags::TEMPORARY;
    let is_sync_file = info.handle_type == vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
    all.fault(!is_temporary || !is_sync_file, "another kind of import");
    let file = match info.fd {
        -1 => None,
        // SAFETY: the fd is ours from here on, as the import does not fail any more.
        fd => Some(SyncFile::new(unsafe { OwnedFd::from_raw_fd(fd) }).unwrap()),
    };
    all.payloads.insert(info.semaphore, file);
    vk::Result::SUCCESS
}

unsafe extern "system" fn get_semaphore_fd(
    device: vk::Device,
    info: *const vk::SemaphoreGetFdInfoKHR<'_>,
    fd: *mut i32,
) -> vk::Result {
    // SAFETY: as for the driver's function.
    let semaphore = unsafe { (*info).semaphore };
    let mut all = state();
    if all.is_lost(device) {
        return vk::Result::ERROR_DEVICE_LOST;
    }
    // An export takes the payload, as a wait does.
    let payload = all.payloads.remove(&semaphore);
    all.fault(payload.is_none(), "an export of what nothing signals");
    let file = payload.flatten().map(OwnedFd::from);
    // SAFETY: as above.
    unsafe { *fd = file.map_or(-1, IntoRawFd::into_raw_fd) };
    vk::Result::SUCCESS
}

unsafe extern "system" fn allocate_command_buffers(
    device: vk::Device,
    info: *const vk::CommandBufferAllocateInfo<'_>,
    buffers: *mut vk::CommandBuffer,
) -> vk::Result {
    let driver = state().driver(device);
    // SAFETY: as for the driver's function.
    let (result, pool, made) = unsafe {
        let own = driver.fp_v1_0().allocate_command_buffers;
        let result = own(device, info, buffers);
        let pool = (*info).command_pool;
        (result, pool, list(buffers, (*info).command_buffer_count))
    };
    if result == vk::Result::SUCCESS {
        let pools = made.iter().map(|buffer| (*buffer, pool));
        state().pools.extend(pools);
    }
    result
}

unsafe extern "system" fn reset_command_pool(
    device: vk::Device,
    pool: vk::CommandPool,
    flags: vk::CommandPoolResetFlags,
) -> vk::Result {
    let mut all = state();
    let is_used = all.uses_pool(pool);
    all.fault(is_used, "commands are reset that are in use");
    let driver = all.driver(device);
    drop(all);
    // SAFETY: as for the driver's function.
    unsafe { (driver.fp_v1_0().reset_command_pool)(device, pool, flags) }
}

unsafe extern "system" fn destroy_command_pool(
    device: vk::Device,
    pool: vk::CommandPool,
    callbacks: *const vk::AllocationCallbacks<'_>,
) {
    let mut all = state();
    let is_used = all.uses_pool(pool);
    all.fault(is_used, "commands are destroyed that are in use");
    all.pools.retain(|_, of| *of != pool);
    let driver = all.driver(device);
    drop(all);
    // SAFETY: as for the driver's function.
    unsafe { driver.destroy_command_pool(pool, callbacks.as_ref()) };
}
