//! Which of the host's files are there in the guest, and what of the files that a program writes is kept. Runs on the
//! host.

#[expect(dead_code, reason = "the other tests' processes")]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{CHOICES, QEMU, TempDir, guest, shell, text};

/// Both ways in which host directories get into a guest: hostfs, and 9p in QEMU.
const KINDS: [&str; 2] = ["current", QEMU.1];

const SHARE: &str = "PRIMESHARE_GUEST_SHARE";

/// A file right in the host's directory for temporary files, of which the guest has its own; it goes with this value.
struct TempFile(PathBuf);

impl TempFile {
    /// It is not there yet.
    fn new(name: &str) -> Self {
        let name = format!("primeshare-xtask-{}-{name}", std::process::id());
        TempFile(Path::new("/tmp").join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn read(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_else(|error| panic!("{}: {error}", self.path()))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a shell script with arguments, which are files.
fn script(kind: &str, script: &str, arguments: &[&Path]) -> Output {
    let mut command = guest(&["sh", "-c", script, "sh"]);
    command.args(arguments).env(QEMU.0, kind).output().unwrap()
}

/// Nothing about files: a guest may have to be built first.
fn assert_nothing_said(output: &Output) {
    assert!(!text(&output.stderr).contains("xtask:"), "{output:?}");
}

#[test]
fn directories_that_the_command_names_are_there_and_kept() {
    for kind in KINDS {
        let (read, written) = (TempDir::new(), TempDir::new());
        fs::write(read.path().join("in"), "content\n").unwrap();
        let option = format!("--out={}", written.path().join("new").display());
        let output = script(
            kind,
            r#"cat "$1" > "${2#--out=}" && cat "$1" > "$3/new too""#,
            &[&read.path().join("in"), Path::new(&option), read.path()],
        );
        assert!(output.status.success(), "{output:?}");
        assert_nothing_said(&output);
        for new in [written.path().join("new"), read.path().join("new too")] {
            assert_eq!(fs::read_to_string(new).unwrap(), "content\n");
        }
    }
}

#[test]
fn directories_that_are_asked_for_are_there_and_kept() {
    for kind in KINDS {
        let directories = [TempDir::new(), TempDir::new(), TempDir::new()];
        let paths = directories.each_ref().map(TempDir::path);
        let [first, second, third] = paths.map(|path| path.to_str().unwrap());
        let script = format!("for at in {first} {second} {third}; do echo new > $at/new; done");
        let output = guest(&[])
            .args([
                "--share", first, "--share", second, "--", "sh", "-c", &script,
            ])
            .envs([(QEMU.0, kind), (SHARE, third)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        for path in paths {
            assert_eq!(fs::read_to_string(path.join("new")).unwrap(), "new\n");
        }
    }
}

#[test]
fn what_cannot_be_shared_is_an_error_that_says_why() {
    for (directory, why) in [
        ("/no-such-directory", "No such file"),
        ("/etc/passwd", "not a directory"),
        ("/tmp", "the guest has its own /tmp"),
    ] {
        let by_option = guest(&[])
            .args(["--share", directory, "--", "true"])
            .output();
        let by_variable = guest(&["true"]).env(SHARE, directory).output();
        for output in [by_option.unwrap(), by_variable.unwrap()] {
            assert_eq!(output.status.code(), Some(125), "{output:?}");
            let error = text(&output.stderr);
            assert!(error.contains(directory) && error.contains(why), "{error}");
        }
    }
}

#[test]
fn named_files_in_the_guests_own_directories_come_and_go() {
    for kind in KINDS {
        let (read, written, both) = (
            TempFile::new("read"),
            TempFile::new("written"),
            TempFile::new("both"),
        );
        let made = TempFile::new("made");
        fs::write(&read.0, "content\n").unwrap();
        fs::write(&both.0, "before\n").unwrap();
        let before = fs::metadata(&read.0).unwrap().modified().unwrap();
        let output = script(
            kind,
            r#"cat "$1" > "$2"; cat "$1" >> "$3"; mkdir -p "$4" && cp "$1" "$4/copy""#,
            &[&read.0, &written.0, &both.0, &made.0.join("inner")],
        );
        assert!(output.status.success(), "{output:?}");
        assert_nothing_said(&output);
        assert_eq!(written.read(), "content\n");
        assert_eq!(both.read(), "before\ncontent\n");
        assert_eq!(
            fs::read_to_string(made.0.join("inner/copy")).unwrap(),
            "content\n"
        );
        // What was only read is not written.
        assert_eq!(fs::metadata(&read.0).unwrap().modified().unwrap(), before);
    }
}

#[test]
fn a_file_of_a_failed_program_is_kept_too() {
    let written = TempFile::new("failed");
    let output = script("current", r#"echo partly > "$1"; exit 3"#, &[&written.0]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(written.read(), "partly\n");
}

#[test]
fn what_is_gone_with_the_guest_is_said() {
    for kind in KINDS {
        let output = script(
            kind,
            "echo 1 > /tmp/primeshare-lost; mkdir /root/in; echo 2 > /root/in/side; for n in 1 2 3 4 5; do echo $n > /var/tmp/$n; done",
            &[],
        );
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = text(&output.stderr);
        for part in [
            "/tmp/primeshare-lost, /root/in/side, /var/tmp/1",
            "/var/tmp/3, 2 more",
            "--share",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!Path::new("/tmp/primeshare-lost").exists());
    }
    // What nobody misses: caches, empty files, sockets and the like, what is taken away again.
    let output = shell(
        "mkdir /tmp/.cache; echo 1 > /tmp/.cache/x; touch /tmp/lock; echo 1 > /run/x; echo 1 > /tmp/y; rm /tmp/y",
    );
    assert_nothing_said(&output);
}

#[test]
fn a_time_out_says_what_may_be_lost() {
    let written = TempFile::new("late");
    let output = guest(&["sh", "-c", "echo 1 > $0; sleep 60", written.path()])
        .env("PRIMESHARE_GUEST_TIMEOUT", "2")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("nothing was copied back") && said.contains(written.path()),
        "{said}"
    );
}

#[test]
fn the_guests_own_directory_is_a_working_directory() {
    for kind in KINDS {
        let (read, written) = (TempFile::new("cwd-read"), TempFile::new("cwd-written"));
        fs::write(&read.0, "content\n").unwrap();
        let name = |file: &TempFile| file.0.file_name().unwrap().to_os_string();
        // The one is named, the other is not.
        let script = format!("pwd && cat \"$1\" > {}", written.path());
        let output = guest(&["sh", "-c", &script, "sh"])
            .arg(name(&read))
            .current_dir("/tmp")
            .env(QEMU.0, kind)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout), "/tmp\n");
        assert!(
            text(&output.stderr).contains("the guest has its own /tmp"),
            "{output:?}"
        );
        assert_eq!(written.read(), "content\n");
    }
}

#[test]
fn paths_lead_where_they_lead_on_the_host() {
    for kind in KINDS {
        let (directory, elsewhere) = (TempDir::new(), TempDir::new());
        let base = directory.path();
        fs::create_dir_all(base.join("bin/inner")).unwrap();
        support::write_script(
            &base.join("bin/program"),
            "#!/bin/sh\necho \"$0\"; cat \"$1\"\n",
        );
        fs::write(base.join("file"), "content\n").unwrap();
        symlink("bin", base.join("link")).unwrap();
        symlink(base.join("link/inner"), elsewhere.path().join("hop")).unwrap();
        let beside = Path::new("..").join(base.file_name().unwrap());
        let file = base.join("file");
        let up_and_down = elsewhere.path().join("hop/../../bin/../link/program");
        let ways = [
            (up_and_down, beside.join("file")),
            (
                base.join("bin/program"),
                elsewhere.path().join("hop/../../file"),
            ),
            (base.join("bin/../bin/program"), file.clone()),
            (base.join("link/program"), beside.join("link/../file")),
            ("bin/../link/program".into(), "link/../file".into()),
            (beside.join("bin/program"), file.clone()),
        ];
        // QEMU takes seconds to start, and the first says most.
        let count = if kind == QEMU.1 { 1 } else { ways.len() };
        for (program, argument) in ways.into_iter().take(count) {
            let at = if program.is_relative() {
                base
            } else {
                elsewhere.path()
            };
            let output = guest(&[program.to_str().unwrap(), argument.to_str().unwrap()])
                .current_dir(at)
                .env(QEMU.0, kind)
                .output()
                .unwrap();
            let expected = format!("{}\ncontent\n", at.join(&program).display());
            assert_eq!(
                text(&output.stdout),
                expected,
                "{} {}: {output:?}",
                program.display(),
                argument.display()
            );
        }
    }
}

/// Cargo as a user starts it, who is not in a test that another cargo runs.
fn cargo(directory: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    for name in CHOICES.iter().chain(&["CARGO_TARGET_DIR"]) {
        cargo.env_remove(name);
    }
    cargo.current_dir(directory);
    cargo
}

/// A crate of somebody's who knows nothing of this repository but the path of the runner.
fn crate_with_runner() -> TempDir {
    let directory = TempDir::new();
    let write = |path: &str, content: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let runner = support::repository().join("xtask/runner");
    write(
        ".cargo/config.toml",
        &format!("[target.x86_64-unknown-linux-gnu]\nrunner = {runner:?}\n"),
    );
    // The name that this repository's own package has, too.
    write("Cargo.toml", "[workspace]\nmembers = [\"xtask\"]\n");
    write(
        "xtask/Cargo.toml",
        "[package]\nname = \"xtask\"\nedition = \"2024\"\n",
    );
    write("shared.txt", "of the workspace\n");
    write(
        "xtask/src/main.rs",
        r#"fn main() {
            assert!(std::path::Path::new("/dev/dri/card0").exists());
            std::fs::write(std::env::args().nth(1).unwrap(), "by a program\n").unwrap();
        }
        #[test]
        fn devices_are_there_and_files_are_kept() {
            assert_eq!(std::env::var("PRIMESHARE_GUEST").unwrap(), "uml");
            assert!(std::fs::exists("/dev/dri/card0").unwrap());
            assert_eq!(std::fs::read_to_string("../shared.txt").unwrap(), "of the workspace\n");
            std::fs::write("by-a-test.txt", "by a test\n").unwrap();
        }"#,
    );
    directory
}

#[test]
fn another_crates_tests_and_programs_run_in_the_guest() {
    let directory = crate_with_runner();
    let member = directory.path().join("xtask");
    let tests = cargo(&member).arg("test").output().unwrap();
    assert!(tests.status.success(), "{tests:?}");
    assert!(text(&tests.stdout).contains("1 passed"), "{tests:?}");
    assert_eq!(
        fs::read_to_string(member.join("by-a-test.txt")).unwrap(),
        "by a test\n"
    );
    let written = TempFile::new("by-a-program");
    let program = cargo(&member)
        .args(["run", "--", written.path()])
        .env("PRIMESHARE_RUN", "guest")
        .output()
        .unwrap();
    assert!(program.status.success(), "{program:?}");
    assert_eq!(written.read(), "by a program\n");
}

#[test]
fn cargo_xtask_works_from_anywhere_and_says_what_it_builds() {
    for inner in ["src/vk", "xtask/tests", "fuzz"] {
        let directory = support::repository().join(inner);
        let output = cargo(&directory)
            .args(["xtask", "--version"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).contains("xtask"), "{output:?}");
        assert!(
            text(&output.stderr).contains("`xtask` profile"),
            "{output:?}"
        );
        assert!(!directory.join("target").exists());
    }
}

#[test]
fn help_says_how_another_crate_uses_the_guest() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["guest", "--help"])
        .output()
        .unwrap();
    let runner = support::repository().join("xtask/runner");
    for part in [&format!("runner = {runner:?}"), SHARE, "/tmp"] {
        assert!(text(&output.stdout).contains(part), "{output:?}");
    }
}
