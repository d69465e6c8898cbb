//! `cargo xtask test`: everything that has to hold before a change is in.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Result;

use crate::guest::kind::{self, Kind};
use crate::jobs::{self, Ended, Failure, Job};
use crate::{
    capi, cargo, compositor, features, guest, host, interface, libtest, sanitize, semver, shaders,
    shell, summary, targets,
};

/// The tests that are run in the QEMU guest, whose processor is emulated on most machines: those that depend on drivers,
/// and races between two CPUs. Not those that need faults, which only the other guests' kernels can inject.
const IN_QEMU: &[&str] = &[
    "refusals::",
    "facts::",
    "unplug::",
    "devices::",
    "handles::",
    "handover::",
    "identity::",
    "allocation::",
    "gbm::",
    "races::",
    "fences::",
    "cpu::",
    "blit::pairs::",
    "kms::",
    "tool::",
];

/// The tests that are run in the GPU guest: those that depend on drivers that only it has.
const IN_GPU: &[&str] = &[
    "drivers::",
    "refusals::",
    "devices::",
    "allocation::",
    "gbm::",
    "fences::syncobj::",
    "blit::pairs::",
    "blit::streams::a_syncobj",
    "vulkan::allocating::",
    "vulkan::fences::",
];

/// Tests that each get a process and a guest of their own, and which of them are part of another entry. The driver and
/// the validation layer leave so many threads and mappings behind that User-Mode Linux gets slower with every test in
/// the same process, and stands still at the host's limit of mappings.
const APART: &[(&str, &[&str])] = &[
    (
        "blit::",
        &[
            "blit::event_loops::",
            "blit::failures::",
            "blit::flags::",
            "blit::pending::",
            "blit::readers::",
            "blit::resampling::",
            "blit::shadow::",
            "blit::strategies::",
            "blit::streams::",
            "blit::sync_files::",
            "blit::trials::",
            "blit::waits::",
        ],
    ),
    ("blit::event_loops::", &[]),
    ("blit::failures::", &[]),
    ("blit::flags::", &[]),
    ("blit::pending::", &[]),
    ("blit::resampling::", &[]),
    ("blit::shadow::", &[]),
    ("blit::strategies::", &[]),
    ("blit::streams::", &[]),
    ("blit::sync_files::", &[]),
    ("blit::trials::", &[]),
    ("blit::readers::", &[]),
    ("blit::waits::", &[]),
    ("kms::", &[]),
    ("vulkan::", &[]),
    ("wgpu::", &["wgpu::sharing::"]),
    ("wgpu::sharing::", &[]),
];

/// Tests that are left out of the GPU guest: wgpu chooses a device by itself, and there takes one that cannot share with
/// others.
const NOT_IN_GPU: &[&str] = &["wgpu::"];

/// How many guests run at a time. Each keeps little more than one processor busy.
const AT_ONCE: usize = 2;

/// The job that builds what most of the others run.
const BUILD: &str = "build";

/// The check of the filters that select tests.
const FILTERS: &str = "filters";

/// Prepares the machine, then checks everything that can be checked. Gives the exit status of the first failure.
pub(crate) fn run(all: bool, arguments: &[OsString]) -> Result<u8> {
    let started = Instant::now();
    match arguments.is_empty() {
        // All at once, before anything runs beside anything else.
        true => {
            host::prepare_for_integrations()?;
            host::prepare_for_c()?;
            host::prepare_for_wlroots()?;
        }
        false => host::prepare_for_library()?,
    }
    let mut course = Course::default();
    course.ended.extend(Kind::ALL.map(prepare));
    for job in first(arguments) {
        if let Some(job) = course.take(job, all) {
            course.ended.push(jobs::show(job));
        }
    }
    if arguments.is_empty() {
        if course.succeeded(BUILD) {
            course.ended.push(check_filters());
        }
        let jobs = beside().into_iter();
        let jobs = jobs.filter_map(|job| course.take(job, all)).collect();
        eprintln!("\n== tests, {AT_ONCE} at a time, each shown when it ends");
        course.ended.extend(jobs::run(jobs, AT_ONCE));
    } else {
        // With arguments, only the tests that they select are of interest. Without, everything is checked.
        let left_out =
            "models, the guests in QEMU and xtask's tests (without arguments they are run)";
        course.left_out.push(left_out.to_owned());
    }
    let Course { ended, left_out } = course;
    eprint!("\n{}", summary::of(&ended, &left_out, started.elapsed()));
    let failures = ended.iter().filter_map(|job| job.failure.as_ref());
    Ok(failures.map(|failure| failure.code).next().unwrap_or(0))
}

/// What has been done so far, and what has not.
#[derive(Default)]
struct Course {
    ended: Vec<Ended>,
    left_out: Vec<String>,
}

impl Course {
    fn succeeded(&self, name: &str) -> bool {
        let is_success = |job: &Ended| job.name == name && job.failure.is_none();
        self.ended.iter().any(is_success)
    }

    /// The job, if it is to be run. If not, or if it needs a job that failed, notes why.
    fn take(&mut self, job: Job, all: bool) -> Option<Job> {
        let failed = |ended: &&Ended| ended.failure.is_some() && job.needs.contains(&ended.name);
        let why = if job.is_extra && !all {
            "cargo xtask test --all".to_owned()
        } else if let Some(lacks) = job.lacks {
            format!("needs {lacks}")
        } else if let Some(failed) = self.ended.iter().find(failed) {
            format!("needs what failed: {}", failed.name)
        } else {
            return Some(job);
        };
        self.left_out.push(format!("{} ({why})", job.name));
        None
    }
}

/// The name of the job that prepares a guest.
fn preparation(kind: Kind) -> String {
    format!("preparing the {} guest", kind.name())
}

fn prepare(kind: Kind) -> Ended {
    let start = Instant::now();
    let failure = guest::prepare_for_tests(kind).err().map(|error| Failure {
        code: guest::outcome::GUEST_FAILED,
        reasons: vec![format!("{error:#}")],
        again: format!("cargo xtask guest build --guest {}", kind.name()),
        tests: Vec::new(),
        only_tests: None,
    });
    Ended {
        name: preparation(kind),
        took: start.elapsed(),
        left_out: Vec::new(),
        failure,
    }
}

/// Every filter that selects tests of the guest, and the list it is in.
fn filters() -> Vec<(&'static str, &'static str)> {
    let lists = [
        ("IN_QEMU", IN_QEMU),
        ("IN_GPU", IN_GPU),
        ("NOT_IN_GPU", NOT_IN_GPU),
        ("NOT_WITH_ADDRESSES", sanitize::NOT_WITH_ADDRESSES),
    ];
    let parts = APART
        .iter()
        .flat_map(|(part, elsewhere)| [&[*part], *elsewhere].concat())
        .map(|filter| ("APART", filter));
    let filters = |(list, filters): (_, &'static [_])| filters.iter().map(move |f| (list, *f));
    lists.into_iter().flat_map(filters).chain(parts).collect()
}

/// Checks that every filter selects some test. A test program succeeds if it selects none, so nobody would notice if
/// tests were renamed.
fn check_filters() -> Ended {
    eprintln!("\n== {FILTERS}");
    let start = Instant::now();
    let mut list = cargo_with(&["test", "--all-features", "--test=guest", "--", "--list"]);
    let reasons = match list.stderr(Stdio::inherit()).output() {
        Err(error) => vec![format!("cannot list the tests: {error}")],
        Ok(listed) if !listed.status.success() => {
            vec![format!("cannot list the tests: {}", listed.status)]
        }
        Ok(listed) => without_tests(&filters(), &String::from_utf8_lossy(&listed.stdout)),
    };
    reasons.iter().for_each(|reason| eprintln!("{reason}"));
    Ended {
        name: FILTERS.to_owned(),
        took: start.elapsed(),
        left_out: Vec::new(),
        failure: (!reasons.is_empty()).then(|| Failure {
            code: 1,
            reasons,
            again: shell::line(&list),
            tests: Vec::new(),
            only_tests: None,
        }),
    }
}

/// What is wrong with the filters of these lists, given what a test program lists.
fn without_tests(filters: &[(&str, &str)], listed: &str) -> Vec<String> {
    let tests = libtest::listed(listed);
    let is_lost = |filter: &&(&str, &str)| !tests.iter().any(|test| test.contains(filter.1));
    let lost = filters.iter().filter(is_lost);
    lost.map(|(list, filter)| format!("{list}: no test is called {filter:?}"))
        .collect()
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = cargo::command();
    command.args(arguments);
    command
}

/// `cargo test` in a guest.
fn tests(name: impl Into<String>, kind: Kind, selection: &[&str]) -> Job {
    let mut tests = cargo_with(&["test", "--all-features"]);
    tests.args(selection).env(kind::VARIABLE, kind.name());
    jobs::limit(&mut tests);
    Job::new(name, tests).needs(BUILD).needs(preparation(kind))
}

/// The hosts in `integrations/rust`, Smithay included, in a guest.
fn integrations(name: &str, kind: Kind) -> Job {
    let package = "--package=primeshare-integrations";
    let mut tests = cargo_with(&["test", package, "--all-features"]);
    tests.env(kind::VARIABLE, kind.name());
    jobs::limit(&mut tests);
    Job::new(name, tests).needs(preparation(kind))
}

/// The jobs that come first, one after the other: quick checks, and what the other jobs need.
fn first(arguments: &[OsString]) -> Vec<Job> {
    let format = cargo_with(&["fmt", "--all", "--check"]);
    let all = ["--workspace", "--all-targets", "--all-features"];
    let mut lints = cargo_with(&["clippy"]);
    lints.args(all).args(["--", "-D", "warnings"]);
    let mut documentation = cargo_with(&["doc", "--workspace", "--no-deps", "--all-features"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    let mut jobs = vec![
        Job::new("format", format),
        Job::new("lints", lints),
        Job::new("documentation", documentation),
    ];
    if arguments.is_empty() {
        // Without the other members of the workspace: their dependencies enable features on which the library must not
        // rely.
        let build = cargo_with(&["test", "--all-features", "--no-run"]);
        jobs.push(interface::job());
        jobs.push(Job::new(BUILD, build));
        return jobs;
    }
    let mut looking = vec![tests("tests", Kind::Current, &[])];
    // Documentation tests need no second guest, and cargo does not take them together with another test.
    if !arguments.iter().any(|argument| argument == "--doc") {
        // Only the tests on drivers: the others would find the same.
        looking.push(tests(
            "compatibility guest",
            Kind::Compat,
            &["--test=guest"],
        ));
    }
    jobs.extend(looking.into_iter().map(|job| job.with(arguments)));
    jobs
}

/// The long jobs: roughly the longest first, then the entries of [`APART`].
fn beside() -> Vec<Job> {
    let in_qemu = [&["--test=guest", "--"], IN_QEMU].concat();
    let mut in_gpu = vec!["--test=guest", "--"];
    in_gpu.extend(NOT_IN_GPU.iter().flat_map(|other| ["--skip", other]));
    in_gpu.extend(IN_GPU);
    let most = [&["--"][..], &but_parts()].concat();
    let most_of_drivers = [&["--test=guest", "--"][..], &but_parts()].concat();
    // loom's models need no devices. With `--cfg loom` everything is another build, so it gets a place of its own.
    let mut models = cargo_with(&[
        "test",
        "--lib",
        "--release",
        "--target-dir=target/loom",
        "models",
    ]);
    models
        .env("RUSTFLAGS", "--cfg loom")
        .env("PRIMESHARE_RUN", "host");
    // Where the alias builds it.
    let own = cargo_with(&["test", "--package=xtask", "--profile=xtask"]);
    let own = Kind::ALL
        .into_iter()
        .fold(Job::new("xtask", own), |job, kind| {
            job.needs(preparation(kind))
        });
    let [addresses, threads] = sanitize::jobs();
    let mut jobs = vec![
        tests("QEMU guest", Kind::Qemu, &in_qemu),
        tests("GPU guest", Kind::Gpu, &in_gpu),
        tests("tests", Kind::Current, &most),
        tests("compatibility guest", Kind::Compat, &most_of_drivers),
        Job::new("models", models),
        own,
        addresses.needs(preparation(Kind::Current)).extra(),
        threads.extra(),
    ];
    jobs.extend(features::jobs());
    jobs.push(features::miri());
    jobs.push(semver::job());
    jobs.push(shaders::job());
    for (name, kind) in [
        ("integrations", Kind::Current),
        ("compatibility guest, integrations", Kind::Compat),
    ] {
        jobs.push(integrations(name, kind));
    }
    for job in compositor::jobs() {
        jobs.push(job.needs(preparation(Kind::Current)));
    }
    jobs.extend(targets::jobs());
    for job in capi::test::jobs() {
        jobs.push(
            job.needs(preparation(Kind::Current))
                .needs(preparation(Kind::Compat)),
        );
    }
    for (part, elsewhere) in APART {
        let mut of_part = vec!["--test=guest", "--", part];
        of_part.extend(elsewhere.iter().flat_map(|other| ["--skip", other]));
        let name = part.trim_end_matches(':');
        // What the blitter does with an old Mesa shows in the QEMU guest.
        if !part.starts_with("blit::") {
            let name = format!("compatibility guest, {name}");
            jobs.push(tests(name, Kind::Compat, &of_part));
        }
        jobs.push(tests(format!("tests, {name}"), Kind::Current, &of_part));
    }
    jobs
}

/// Arguments that leave out the tests of [`APART`].
fn but_parts() -> Vec<&'static str> {
    APART
        .iter()
        .flat_map(|(part, _)| ["--skip", part])
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(name: &str) -> Job {
        Job::new(name, Command::new("true"))
    }

    fn ended(name: &str, failed: bool) -> Ended {
        let failure = failed.then(|| Failure {
            code: 1,
            reasons: Vec::new(),
            again: String::new(),
            tests: Vec::new(),
            only_tests: None,
        });
        Ended {
            name: name.to_owned(),
            took: Duration::ZERO,
            left_out: Vec::new(),
            failure,
        }
    }

    #[test]
    fn what_is_left_out_has_a_reason() {
        let mut course = Course {
            ended: vec![
                ended("format", true),
                ended("build", true),
                ended("guest", false),
            ],
            left_out: Vec::new(),
        };
        let mut runs = |job, all| course.take(job, all).is_some();
        assert!(runs(job("models"), false));
        assert!(runs(job("xtask").needs("guest"), false));
        assert!(!runs(job("tests").needs("guest").needs("build"), false));
        assert!(!runs(job("slow").extra(), false));
        assert!(runs(job("slow").extra(), true));
        assert!(!runs(job("odd").lacks(Some("magic")), true));
        let left_out = [
            "tests (needs what failed: build)",
            "slow (cargo xtask test --all)",
            "odd (needs magic)",
        ];
        assert_eq!(course.left_out, left_out);
    }

    #[test]
    fn a_filter_that_selects_no_test_is_named() {
        let filters = [("IN_QEMU", "a::"), ("IN_GPU", "b::"), ("APART", "a::c")];
        let listed = "a::c::works: test\nb: test\nb::c: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(
            without_tests(&filters, listed),
            ["IN_GPU: no test is called \"b::\""]
        );
        assert_eq!(without_tests(&filters, "").len(), filters.len());
    }

    #[test]
    fn every_list_of_filters_is_checked() {
        let filters = filters();
        for (list, some) in [
            ("IN_QEMU", IN_QEMU[0]),
            ("IN_GPU", IN_GPU[0]),
            ("NOT_IN_GPU", "wgpu::"),
            ("APART", "vulkan::"),
            ("APART", "wgpu::sharing::"),
            ("NOT_WITH_ADDRESSES", "faults::"),
        ] {
            assert!(filters.contains(&(list, some)), "{list}: {some}");
        }
    }

    #[test]
    fn every_need_is_the_name_of_something_that_comes_before() {
        let before = first(&[]).into_iter().map(|job| job.name);
        let before: Vec<_> = before.chain(Kind::ALL.map(preparation)).collect();
        for job in beside() {
            assert!(
                job.needs.iter().all(|need| before.contains(need)),
                "{}",
                job.name
            );
        }
    }
}
