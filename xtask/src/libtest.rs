//! What test programs print of tests that failed, and of tests that were left out.

use std::collections::BTreeMap;
use std::process::Command;

/// The names of the tests that failed, from the last list that a test program prints. (Its lines with the outcome of
/// each test are no use: if only one test runs at a time, other output comes in the middle of them.)
pub(crate) fn failed(output: &str) -> Vec<String> {
    let mut failed = Vec::new();
    let mut lines = output.lines();
    while lines.any(|line| line == "failures:") {
        // The outputs of the tests come in between, below the same heading and not indented.
        let names = lines.clone().map_while(|line| line.strip_prefix("    "));
        for name in names {
            if !failed.iter().any(|other| other == name) {
                failed.push(name.to_owned());
            }
        }
    }
    failed
}

/// What tests have left out because their guest lacks something, by the lines of `left_out` in `tests/guest/support.rs`:
/// what they need, and how many of them need it.
pub(crate) fn left_out(output: &str) -> BTreeMap<&str, usize> {
    let mut needs = BTreeMap::new();
    let said = output.lines().filter_map(|line| {
        let (_test, what) = line.strip_prefix("left out: ")?.split_once(": needs ")?;
        Some(what)
    });
    for what in said {
        *needs.entry(what).or_default() += 1;
    }
    needs
}

/// The names of the tests that a test program lists (`--list`).
pub(crate) fn listed(output: &str) -> Vec<&str> {
    let names = output.lines().map(|line| line.strip_suffix(": test"));
    names.flatten().collect()
}

/// A command that runs only these of the tests that `command`, a `cargo test`, runs.
pub(crate) fn only(command: &Command, tests: &[String]) -> Command {
    let mut only = Command::new(command.get_program());
    only.args(command.get_args().take_while(|argument| *argument != "--"))
        .args(["--", "--exact"])
        .args(tests);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => only.env(name, value),
            None => only.env_remove(name),
        };
    }
    only
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    const OUTPUT: &str = "\
running 3 tests
test a::good ... ok
test a::bad ... KMS: no DRI
FAILED
test src/lib.rs - worse (line 3) ... FAILED

failures:

---- a::bad stdout ----
    indented
thread 'a::bad' panicked

failures:
    a::bad
    src/lib.rs - worse (line 3)

test result: FAILED. 1 passed; 2 failed

running 1 test
failures:
    a::bad
";

    #[test]
    fn the_names_of_failed_tests_are_found_once() {
        assert_eq!(failed(OUTPUT), ["a::bad", "src/lib.rs - worse (line 3)"]);
        assert_eq!(failed("test a::good ... ok\ntest result: ok\n"), [""; 0]);
    }

    #[test]
    fn what_is_left_out_is_counted_by_what_it_needs() {
        let output = "test a::b ... \nleft out: a::b: needs a GPU\nok\nleft out: c: needs a GPU\n\
                      left out: d: needs sw_sync, which it lacks\nleft out: nothing\n";
        let needs = [("a GPU", 2), ("sw_sync, which it lacks", 1)];
        assert_eq!(left_out(output), BTreeMap::from(needs));
    }

    #[test]
    fn benches_and_the_count_are_no_tests() {
        let output =
            "a::good: test\nsrc/lib.rs - x (line 3): test\nb: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(listed(output), ["a::good", "src/lib.rs - x (line 3)"]);
    }

    #[test]
    fn they_are_run_alone_in_the_same_place() {
        let mut command = Command::new("cargo");
        command.args(["test", "--test=guest", "--", "--skip", "b::"]);
        command.env("PRIMESHARE_GUEST_KIND", "qemu");
        assert_eq!(
            shell::line(&only(&command, &failed(OUTPUT))),
            "PRIMESHARE_GUEST_KIND=qemu cargo test --test=guest -- --exact a::bad 'src/lib.rs - worse (line 3)'"
        );
    }
}
