//! Mistakes of User-Mode Linux, and how its source is mended before it is built.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::guest::kind::Kind;

/// A place in a source.
struct Fix {
    file: &'static str,
    wrong: &'static str,
    right: &'static str,
}

/// Kernels that run programs by ptrace know no registers beyond those of AVX-512, 2696 bytes (`HOST_FP_SIZE`).
/// `PTRACE_SETREGSET` takes all registers of the processor or none (EFAULT), so on a host with AMX no program started. The
/// registers that are added are zero, as for a task that uses no AMX.
const PTRACE_REGISTERS: Fix = Fix {
    file: "arch/x86/um/os-Linux/registers.c",
    wrong: "\
\t\tiov.iov_base = fp_regs;
\t\tiov.iov_len = FP_SIZE * sizeof(unsigned long);
\t\tif (ptrace(PTRACE_SETREGSET,",
    right: "\
\t\tstatic char all[65536];
\t\t__builtin_memcpy(all, fp_regs, FP_SIZE * sizeof(unsigned long));
\t\tiov.iov_base = all;
\t\tiov.iov_len = sizeof(all);
\t\tif (ptrace(PTRACE_SETREGSET,",
};

/// If a page leaves a process's page tables, the kernel only marks its entry, and unmaps the page on the host when the
/// process runs next. A page table that is freed leaves its mark in the entry of the table above. If a new table was put
/// there, the mark was lost: one thread calls `munmap`, another at the same moment moves other memory to the same addresses
/// by `mremap`, and pages of the second that it has not touched yet were still the freed pages of the first. Seen as heaps
/// and code of Mesa's threads that had been overwritten (6.12 and 7.3). With the fix, the entries of a new table take the
/// mark over.
///
/// Without this, the test of `tests/guest/memory.rs` fails two times in three.
const LOST_MARKS: Fix = Fix {
    file: "arch/um/include/asm/pgalloc.h",
    wrong: "\
#define pmd_populate(mm, pmd, pte) \t\t\t\t\\
\tset_pmd(pmd,",
    right: "\
static inline void um_keep_mark(unsigned long entry, void *table)
{
\tunsigned long *below = table;
\tpmd_t cleared;
\tint i;

\tpmd_clear(&cleared);
\tif (entry & pmd_val(cleared))
\t\tfor (i = 0; i < PAGE_SIZE / sizeof(*below); i++)
\t\t\tbelow[i] |= pmd_val(cleared);
}

#define pmd_populate(mm, pmd, pte) \t\t\t\t\\
\tum_keep_mark(pmd_val(*(pmd)), page_address(pte)),\t\\
\tset_pmd(pmd,",
};

/// The same fix, a level up.
const LOST_MARKS_OF_PUD: Fix = Fix {
    file: "arch/um/include/asm/pgtable-4level.h",
    wrong: "\
#define pud_populate(mm, pud, pmd) \\
",
    right: "\
#define pud_populate(mm, pud, pmd) \\
\tum_keep_mark(pud_val(*(pud)), pmd), \\
",
};

/// The same fix, two levels up.
const LOST_MARKS_OF_P4D: Fix = Fix {
    file: "arch/um/include/asm/pgtable-4level.h",
    wrong: "\
#define p4d_populate(mm, p4d, pud) \\
",
    right: "\
#define p4d_populate(mm, p4d, pud) \\
\tum_keep_mark(p4d_val(*(p4d)), pud), \\
",
};

/// The same fix in kernels with three levels.
const LOST_MARKS_OF_PUD_3: Fix = Fix {
    file: "arch/um/include/asm/pgtable-3level.h",
    ..LOST_MARKS_OF_PUD
};

/// The fixes for this guest's kernel.
fn of(kind: Kind) -> &'static [Fix] {
    match kind.has_several_cpus() {
        true => &[LOST_MARKS, LOST_MARKS_OF_PUD, LOST_MARKS_OF_P4D],
        false => &[PTRACE_REGISTERS, LOST_MARKS, LOST_MARKS_OF_PUD_3],
    }
}

/// What the kernel depends on, for the cache.
pub(super) fn inputs(kind: Kind) -> impl Iterator<Item = &'static str> {
    of(kind).iter().map(|fix| fix.right)
}

/// Applies the fixes. A place that looks different is left alone, since a newer kernel may have it fixed: the tests find
/// out. Gives the files that were left alone.
pub(super) fn apply(kind: Kind, source: &Path) -> Result<Vec<&'static str>> {
    let mut left = Vec::new();
    for fix in of(kind) {
        if !fix.apply(source)? {
            left.push(fix.file);
        }
    }
    Ok(left)
}

impl Fix {
    /// Whether the mistake was there.
    fn apply(&self, source: &Path) -> Result<bool> {
        let path = source.join(self.file);
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", self.file))?;
        match text.matches(self.wrong).count() {
            0 => return Ok(false),
            1 => {}
            _ => bail!("this kernel source's {} has it twice", self.file),
        }
        fs::write(&path, text.replace(self.wrong, self.right))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_mended_and_what_is_not_as_known_is_left_alone() {
        let directory = tempfile();
        let file = directory.join("a.c");
        let fix = Fix {
            file: "a.c",
            wrong: "wrong\n",
            right: "right\n",
        };
        assert!(fix.apply(&directory).is_err(), "no such file");
        fs::write(&file, "a wrong\nb").unwrap();
        assert!(fix.apply(&directory).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a right\nb");
        assert!(!fix.apply(&directory).unwrap());
        fs::write(&file, "wrong\nwrong\n").unwrap();
        assert!(fix.apply(&directory).is_err(), "which of the two?");
        fs::remove_dir_all(&directory).unwrap();
    }

    fn tempfile() -> std::path::PathBuf {
        let directory =
            std::env::temp_dir().join(format!("primeshare-fixes-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        directory
    }
}
