//! The table's algorithm, in all interleavings of two or three threads, against a model of the
//! kernel's rules. The table is the shipped one; only the kernel and std's synchronisation are
//! modelled.

use loom::thread;

use super::Handle;
use super::kernel::Kernel;
use super::model::{A, B, Model, ModelKernel, assert_good, create, import};
use super::shared::Arc;
use super::table::{ImportOrigin, Lease, Table};
use crate::Errno;

/// Runs `threads` over one table in all interleavings. At the end nothing may be open, and every close must
/// have been right.
fn explore<const N: usize>(
    prepare: fn(&Arc<Model>) -> Vec<Arc<Lease<ModelKernel>>>,
    threads: [fn(Arc<Model>, Option<Arc<Lease<ModelKernel>>>); N],
) {
    // There are too many interleavings to explore all. Two or three forced switches are enough to find most
    // bugs, says loom's documentation.
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
        assert_eq!(table.kernel().open(), 0);
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
                assert!(table.release(&lease));
                assert_eq!(table.export(&lease), Err(Errno::ENOENT));
                // Nobody else closes the handle, so the host still can.
                table.kernel().close(lease.handle().raw()).unwrap();
            },
            just_drop,
        ],
    );
}

#[test]
fn a_released_handle_is_closed_once_whatever_is_imported_meanwhile() {
    fn release(
        table: Arc<Model>,
        lease: Option<Arc<Lease<ModelKernel>>>,
        how: fn(&Arc<Model>, Handle),
    ) {
        let lease = lease.unwrap();
        let handle = lease.handle();
        assert!(table.release(&lease));
        drop(lease);
        how(&table, handle);
    }
    fn import_meanwhile(table: Arc<Model>, _: Option<Arc<Lease<ModelKernel>>>) {
        let lease = import(&table, A);
        // The host may close the handle while the import uses it.
        let exported = table.export(&lease);
        assert!(matches!(exported, Ok((_, A)) | Err(Errno::ENOENT)));
    }
    explore(
        |table| vec![create(table, A)],
        [
            |table, lease| {
                release(table, lease, |table, handle| {
                    table.close_for_host(handle).unwrap();
                });
            },
            import_meanwhile,
        ],
    );
    explore(
        |table| vec![create(table, A)],
        [
            |table, lease| {
                release(table, lease, |table, handle| {
                    table.kernel().close(handle.raw()).unwrap();
                    table.host_closed(handle);
                });
            },
            import_meanwhile,
        ],
    );
}

#[test]
fn what_an_import_meets_is_what_is_there() {
    explore(
        |table| vec![import(table, A)],
        [just_drop, |table, _| {
            let (lease, found) = Table::import(&table, A, A).unwrap();
            assert_ne!(found, ImportOrigin::SelfImport);
            assert_good(&lease, A);
            assert_eq!(
                Table::import(&table, A, A).unwrap().1,
                ImportOrigin::AlreadyImported
            );
        }],
    );
}
