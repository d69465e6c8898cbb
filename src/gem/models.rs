//! The table's algorithm, in all interleavings of two or three threads, against a model of the
//! kernel's rules. The table is the shipped one; only the kernel and std's synchronisation are
//! modelled.

use std::collections::BTreeMap;

use loom::sync::Mutex;
use loom::thread;
use nix::errno::Errno;

use super::Handle;
use super::kernel::Kernel;
use super::shared::Arc;
use super::table::{Found, Lease, Table};
use crate::buffer::BufferId;

type Model = Table<ModelKernel>;

/// The handles of one file description, as `drm_gem.c` and `drm_prime.c` keep them: a dma-buf
/// that is known here keeps its handle, a new one gets the lowest free number.
#[derive(Default)]
struct ModelKernel {
    /// What each open handle is of.
    open: Mutex<BTreeMap<u32, BufferId>>,
}

impl ModelKernel {
    fn create(&self, id: BufferId) -> u32 {
        let mut open = self.open.lock().unwrap();
        let free = (1..).find(|handle| !open.contains_key(handle)).unwrap();
        open.insert(free, id);
        free
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

const A: BufferId = BufferId::model(1);
const B: BufferId = BufferId::model(2);

fn import(table: &Arc<Model>, id: BufferId) -> Arc<Lease<ModelKernel>> {
    Table::import(table, id, id).unwrap().0
}

/// An object made here; its dma-buf is `id`.
fn create(table: &Arc<Model>, id: BufferId) -> Arc<Lease<ModelKernel>> {
    let handle = table.kernel().create(id);
    Table::created(table, Handle::new(handle).unwrap())
}

/// What a holder of a lease relies on: the handle is open, and of this dma-buf.
fn assert_good(lease: &Arc<Lease<ModelKernel>>, id: BufferId) {
    let (_, exported) = lease.table().export(lease).unwrap();
    assert_eq!(exported, id);
}

/// Explores `threads` over one table; at the end nothing is open and every close was right.
fn explore<const N: usize>(
    prepare: fn(&Arc<Model>) -> Vec<Arc<Lease<ModelKernel>>>,
    threads: [fn(Arc<Model>, Option<Arc<Lease<ModelKernel>>>); N],
) {
    // There are too many interleavings for all of them to be gone through; bugs need no more than
    // two or three forced switches (loom's own advice).
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let table = Arc::new(Table::new(ModelKernel::default()));
        let mut held = prepare(&table).into_iter();
        let running: Vec<_> = threads
            .into_iter()
            .map(|work| {
                let (table, lease) = (table.clone(), held.next());
                thread::spawn(move || work(table, lease))
            })
            .collect();
        drop(held);
        for thread in running {
            thread.join().unwrap();
        }
        let stats = table.stats();
        assert_eq!((stats.handles, stats.failed_closes), (0, 0));
        assert!(table.kernel().open.lock().unwrap().is_empty());
    });
}

fn import_and_drop(table: Arc<Model>, _: Option<Arc<Lease<ModelKernel>>>) {
    assert_good(&import(&table, A), A);
}

fn just_drop(_: Arc<Model>, lease: Option<Arc<Lease<ModelKernel>>>) {
    drop(lease.unwrap());
}

fn use_clone_and_drop(_: Arc<Model>, lease: Option<Arc<Lease<ModelKernel>>>) {
    let lease = lease.unwrap();
    let clone = lease.clone();
    drop(lease);
    assert_good(&clone, A);
}

#[test]
fn imports_of_one_buffer_share_a_handle() {
    explore(|_| vec![], [import_and_drop, import_and_drop]);
}

#[test]
fn three_imports_of_one_buffer_share_a_handle() {
    explore(
        |_| vec![],
        [import_and_drop, import_and_drop, import_and_drop],
    );
}

#[test]
fn an_import_meets_the_last_drop() {
    explore(|table| vec![import(table, A)], [just_drop, import_and_drop]);
}

#[test]
fn an_import_meets_the_last_drops_of_two_clones() {
    explore(
        |table| {
            let lease = import(table, A);
            vec![lease.clone(), lease]
        },
        [just_drop, use_clone_and_drop, import_and_drop],
    );
}

#[test]
fn a_self_import_meets_the_drop_of_the_exporter() {
    explore(
        |table| {
            let lease = create(table, A);
            table.export(&lease).unwrap();
            vec![lease]
        },
        [just_drop, import_and_drop],
    );
}

#[test]
fn a_self_import_by_an_export_that_the_table_did_not_see() {
    explore(|table| vec![create(table, A)], [just_drop, import_and_drop]);
}

#[test]
fn a_closed_handles_number_goes_to_another_buffer() {
    explore(
        |table| vec![import(table, A)],
        [
            just_drop,
            |table, _| assert_good(&import(&table, B), B),
            import_and_drop,
        ],
    );
}

#[test]
fn creation_meets_the_close_of_the_same_number() {
    explore(
        |table| vec![import(table, A)],
        [just_drop, |table, _| assert_good(&create(&table, B), B)],
    );
}

#[test]
fn an_adopted_handle_is_closed_once() {
    explore(
        |table| vec![create(table, A)],
        [
            |table, lease| {
                // The host program hands over what the library has already.
                let lease = lease.unwrap();
                let again = Table::adopt(&table, lease.handle()).unwrap();
                drop(lease);
                assert_good(&again, A);
            },
            import_and_drop,
        ],
    );
}

#[test]
fn a_released_handle_is_the_hosts_to_close() {
    explore(
        |table| {
            let lease = create(table, A);
            vec![lease.clone(), lease]
        },
        [
            |table, lease| {
                let lease = lease.unwrap();
                assert!(table.forget(&lease));
                assert_eq!(table.export(&lease), Err(Errno::ENOENT));
                // Nobody else closes it, so that it is still there for the host to.
                table.kernel().close(lease.handle().raw()).unwrap();
            },
            just_drop,
        ],
    );
}

#[test]
fn what_an_import_meets_is_what_is_there() {
    explore(
        |table| vec![import(table, A)],
        [just_drop, |table, _| {
            let (lease, found) = Table::import(&table, A, A).unwrap();
            assert_ne!(found, Found::SelfImport);
            assert_good(&lease, A);
            assert_eq!(
                Table::import(&table, A, A).unwrap().1,
                Found::AlreadyImported
            );
        }],
    );
}
