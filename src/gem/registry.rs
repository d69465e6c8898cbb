//! The process-wide list of tables: one open file description, one table.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Table;
use crate::sys;

static TABLES: Mutex<Vec<Weak<Table>>> = Mutex::new(Vec::new());

/// The table of the file description behind `file`: the living one where `file` is a dup of its
/// fd (and is closed here), else a new one.
pub(crate) fn table_of(file: OwnedFd) -> Arc<Table> {
    with_living(|tables| {
        let known = tables
            .iter()
            .filter_map(Weak::upgrade)
            .find(|table| same(table.as_fd(), file.as_fd()));
        known.unwrap_or_else(|| register(tables, file))
    })
}

/// The table of a file description that was just opened and that nobody else can know.
pub(crate) fn table_of_new(file: OwnedFd) -> Arc<Table> {
    with_living(|tables| register(tables, file))
}

fn register(tables: &mut Vec<Weak<Table>>, file: OwnedFd) -> Arc<Table> {
    let table = Arc::new(Table::new(file));
    tables.push(Arc::downgrade(&table));
    table
}

fn with_living<T>(use_them: impl FnOnce(&mut Vec<Weak<Table>>) -> T) -> T {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    tables.retain(|table| table.strong_count() > 0);
    use_them(&mut tables)
}

fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    sys::file::same_description(a, b).unwrap_or_else(|| {
        // Two nodes are two file descriptions, whatever else is unknown.
        let device = |fd| sys::file::stat(fd).map(|stat| stat.st_rdev).ok();
        if device(a) == device(b) {
            log::warn!(
                "the kernel does not say whether two fds of one DRM node share a file \
                 description (no F_DUPFD_QUERY, no kcmp); taking them for two"
            );
        }
        false
    })
}
