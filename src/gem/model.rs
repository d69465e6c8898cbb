//! A model of the kernel's rules, by which tests explore the table's algorithm and put it under load. How
//! the kernel really behaves is shown by the tests in the guest.

use std::collections::BTreeMap;

use super::Handle;
use super::kernel::Kernel;
use super::shared::{Arc, Mutex};
use super::table::{Lease, Table};
use crate::Errno;
use crate::buffer::BufferId;

pub(super) type Model = Table<ModelKernel>;

/// The handles of one file description, as `drm_gem.c` and `drm_prime.c` keep them: a dma-buf
/// that is known here keeps its handle, a new one gets the lowest free number.
#[derive(Default)]
pub(super) struct ModelKernel {
    /// What each open handle is of.
    open: Mutex<BTreeMap<u32, BufferId>>,
}

impl ModelKernel {
    pub(super) fn create(&self, id: BufferId) -> u32 {
        let mut open = self.open.lock().unwrap();
        let free = (1..).find(|handle| !open.contains_key(handle)).unwrap();
        open.insert(free, id);
        free
    }

    /// Handles open.
    pub(super) fn open(&self) -> usize {
        self.open.lock().unwrap().len()
    }

    fn handle_of(&self, id: BufferId) -> Option<u32> {
        let open = self.open.lock().unwrap();
        open.iter()
            .find(|(_, is)| **is == id)
            .map(|(handle, _)| *handle)
    }
}

impl Kernel for ModelKernel {
    type Fd<'a> = BufferId;
    type OwnedFd = ();

    fn fd_to_handle(&self, id: BufferId) -> Result<u32, Errno> {
        Ok(self.handle_of(id).unwrap_or_else(|| self.create(id)))
    }

    fn handle_to_fd(&self, handle: u32) -> Result<((), BufferId), Errno> {
        let open = self.open.lock().unwrap();
        open.get(&handle).map(|id| ((), *id)).ok_or(Errno::ENOENT)
    }

    fn close(&self, handle: u32) -> Result<(), Errno> {
        let mut open = self.open.lock().unwrap();
        open.remove(&handle).map(drop).ok_or(Errno::EINVAL)
    }
}

pub(super) const A: BufferId = BufferId::model(1);
pub(super) const B: BufferId = BufferId::model(2);

pub(super) fn import(table: &Arc<Model>, id: BufferId) -> Arc<Lease<ModelKernel>> {
    Table::import(table, id, id).unwrap().0
}

/// An object made here; its dma-buf is `id`.
pub(super) fn create(table: &Arc<Model>, id: BufferId) -> Arc<Lease<ModelKernel>> {
    let handle = table.kernel().create(id);
    Table::created(table, Handle::new(handle).unwrap())
}

/// Checks what the holder of a lease relies on: the handle is open, and belongs to this dma-buf.
pub(super) fn assert_good(lease: &Arc<Lease<ModelKernel>>, id: BufferId) {
    let (_, exported) = lease.table().export(lease).unwrap();
    assert_eq!(exported, id);
}
