//! The process-wide list of tables: one open file description, one table.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::Handles;
use super::kernel::File;
use super::shared::{Arc, Weak};
use super::table::Table;
use crate::Errno;
use crate::sys;

static TABLES: Mutex<Vec<Weak<Table<File>>>> = Mutex::new(Vec::new());

/// The table of the file description behind `file`. If a table for it exists already, `file` is a dup, and is
/// closed. Else a new table is made. `name` is the device's name, for people.
///
/// An error, such as EMFILE, means that this could not be found out. Then no table is made: two tables for
/// one file description would close each other's handles.
pub(crate) fn handles_of(file: OwnedFd, name: String) -> Result<Handles, Errno> {
    // Dropped after the unlock: one of these may by now be the last user of its table, and a device should
    // not be closed under this lock.
    let mut live = Vec::new();
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    live.extend(tables.iter().filter_map(Weak::upgrade).map(Handles));
    for table in &live {
        if same(table.as_fd(), file.as_fd())? {
            return Ok(table.clone());
        }
    }
    Ok(register(&mut tables, file, name))
}

/// A new table for a file description that was just opened, so that there can be no other.
pub(crate) fn handles_of_new(file: OwnedFd, name: String) -> Handles {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    register(&mut tables, file, name)
}

fn register(tables: &mut Vec<Weak<Table<File>>>, file: OwnedFd, name: String) -> Handles {
    tables.retain(|table| table.strong_count() > 0);
    let handles = Handles::new(file, name);
    tables.push(Arc::downgrade(&handles.0));
    handles
}

/// Whether two fds share a file description. Tries the ways to ask the kernel one after the other.
fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool, Errno> {
    if let Some(same) = sys::file::same_description(a, b) {
        return Ok(same);
    }
    let node = |fd| sys::file::stat(fd).map(|stat| stat.st_rdev);
    if node(a)? != node(b)? {
        return Ok(false);
    }
    match (sys::drm::client_id(a)?, sys::drm::client_id(b)?) {
        (Some(a), Some(b)) => Ok(a == b),
        _ => {
            log::warn!(
                "the kernel does not say whether two fds of one DRM node share a file \
                 description (no F_DUPFD_QUERY, no kcmp, no drm-client-id); taking them for two"
            );
            Ok(false)
        }
    }
}
