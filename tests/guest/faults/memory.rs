//! Kernel allocations that fail on demand: `Documentation/fault-injection/fault-injection.rst`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Settings by which allocations can fail although the process could wait for memory, also those of single
/// pages, and by which the kernel prints no stack for each. They are not undone: nothing fails until a thread
/// asks for it.
const KNOBS: [(&str, &str); 6] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
];

/// The calling thread's `fail-nth`, held open so that using it allocates nothing.
pub(crate) struct FailNth(File);

impl FailNth {
    pub(crate) fn here() -> Self {
        for (knob, value) in KNOBS {
            let path = format!("/sys/kernel/debug/{knob}");
            fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let path = "/proc/thread-self/fail-nth";
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    /// Runs `work` while the `n`-th allocation of this thread fails. Says whether there were that many.
    pub(crate) fn nth<R>(&self, n: u32, work: impl FnOnce() -> R) -> (R, bool) {
        let disarm = Disarm(&self.0);
        self.0.write_all_at(n.to_string().as_bytes(), 0).unwrap();
        let result = work();
        let mut left = [0; 16];
        let read = self.0.read_at(&mut left, 0);
        drop(disarm);
        let read = read.unwrap();
        (result, left[..read].trim_ascii() == b"0")
    }
}

struct Disarm<'a>(&'a File);

impl Drop for Disarm<'_> {
    fn drop(&mut self) {
        self.0.write_all_at(b"0", 0).unwrap();
    }
}
