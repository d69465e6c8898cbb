//! Real threads over the table and the model kernel, for the thread sanitizer. This needs no device, unlike
//! the tests of the same table with a real kernel, which run in the guest.

use std::thread;

use super::model::{A, B, Model, ModelKernel, assert_good, create, import};
use super::shared::Arc;
use super::table::Table;

const ROUNDS: usize = if cfg!(miri) { 40 } else { 20_000 };

type Work = fn(&Arc<Model>, usize);

/// Runs each of `works` on a thread of its own, and checks that nothing is open at the end.
fn load(works: &[Work]) {
    let table = Arc::new(Table::new(ModelKernel::default()));
    let running: Vec<_> = (works.iter().copied())
        .map(|work| {
            let table = table.clone();
            thread::spawn(move || (0..ROUNDS).for_each(|round| work(&table, round)))
        })
        .collect();
    running
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let stats = table.stats();
    let left = (stats.handles, stats.identified, stats.failed_closes);
    assert_eq!(left, (0, 0, 0), "{stats:?}");
    assert_eq!(table.kernel().open(), 0);
}

fn import_and_drop(table: &Arc<Model>, round: usize) {
    let id = if round.is_multiple_of(3) { B } else { A };
    let lease = import(table, id);
    let clone = lease.clone();
    drop(lease);
    assert_good(&clone, id);
}

fn adopt_and_drop(table: &Arc<Model>, _: usize) {
    let lease = import(table, A);
    let adopted = Table::adopt(table, lease.handle()).unwrap();
    drop(lease);
    assert_good(&adopted, A);
}

/// Two users of one object, each on a thread of its own.
fn create_and_drop_elsewhere(table: &Arc<Model>, round: usize) {
    if round.is_multiple_of(40) {
        let lease = create(table, A);
        let clone = lease.clone();
        let other = thread::spawn(move || drop(clone));
        drop(lease);
        other.join().unwrap();
    }
}

#[test]
fn imports_meet_last_drops_under_load() {
    load(&[import_and_drop as Work; 4]);
}

#[test]
fn adoption_meets_imports_under_load() {
    load(&[adopt_and_drop as Work, import_and_drop, import_and_drop]);
}

#[test]
fn an_object_ends_on_another_thread_under_load() {
    load(&[create_and_drop_elsewhere]);
}
