//! What `cargo xtask test` says at its end.

use std::fmt::Write;
use std::time::Duration;

use crate::jobs::Ended;
use crate::progress::seconds;

/// How long each job took, what was left out, what failed, and how to run that alone.
pub(crate) fn of(ended: &[Ended], left_out: &[String], total: Duration) -> String {
    let mut text = String::new();
    let all = ("total", total);
    let times = ended.iter().map(|job| (&*job.name, job.took));
    for (name, took) in times.chain([all]) {
        line(&mut text, format_args!("{name:>34} {:>8}", seconds(took)));
    }
    let by_tests = ended.iter().flat_map(|job| &job.left_out);
    for what in left_out.iter().chain(by_tests) {
        line(&mut text, format_args!("left out: {what}"));
    }
    for job in ended {
        let Some(failure) = &job.failure else {
            continue;
        };
        line(&mut text, format_args!("\nFAILED: {}", job.name));
        for what in failure.reasons.iter().chain(&failure.tests) {
            line(&mut text, format_args!("    {what}"));
        }
        line(&mut text, format_args!("  alone: {}", failure.again));
        if let Some(only) = &failure.only_tests {
            line(
                &mut text,
                format_args!("  only the tests that failed: {only}"),
            );
        }
    }
    let failed = ended.iter().filter(|job| job.failure.is_some()).count();
    match failed {
        0 => text.push_str("all passed\n"),
        _ => line(
            &mut text,
            format_args!("\n{failed} of {} failed", ended.len()),
        ),
    }
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Failure;

    #[test]
    fn it_says_what_failed_and_how_to_run_it() {
        let job = |name: &str, failure| Ended {
            name: name.to_owned(),
            took: Duration::from_secs(2),
            left_out: vec![format!("2 tests of {name} (need luck)")],
            failure,
        };
        let failure = Failure {
            code: 101,
            reasons: vec!["exit status: 101".to_owned()],
            again: "cargo test".to_owned(),
            tests: vec!["a::b".to_owned()],
            only_tests: Some("cargo test -- --exact a::b".to_owned()),
        };
        let ended = [job("lints", None), job("tests", Some(failure))];
        let text = of(&ended, &["demo: slow".to_owned()], Duration::from_secs(4));
        let end = "\
left out: demo: slow
left out: 2 tests of lints (need luck)
left out: 2 tests of tests (need luck)

FAILED: tests
    exit status: 101
    a::b
  alone: cargo test
  only the tests that failed: cargo test -- --exact a::b

1 of 2 failed
";
        assert!(text.ends_with(end), "{text}");
        let text = of(&[job("lints", None)], &[], Duration::ZERO);
        assert!(text.ends_with("(need luck)\nall passed\n"), "{text}");
    }
}
