//! `guest run`: exit status, output, and what the guest has and leaves behind. Runs on the host.

mod support;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use support::{COMPAT, GPU, QEMU, Session, TIMEOUT, TempDir, guest, shell, text};

#[test]
fn exit_status_is_the_programs() {
    assert_eq!(shell("exit 0").status.code(), Some(0));
    assert_eq!(shell("exit 7").status.code(), Some(7));
}

#[test]
fn death_by_signal_is_named() {
    for (number, name) in [(11, "SIGSEGV"), (9, "SIGKILL")] {
        let output = shell(&format!("kill -{number} $$"));
        assert_eq!(output.status.code(), Some(128 + number));
        assert!(text(&output.stderr).contains(name), "{output:?}");
    }
}

#[test]
fn what_cannot_run_is_told_apart() {
    let missing = guest(&["no-such-program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("not found"), "{missing:?}");
    let passive = guest(&["/etc/passwd"]).output().unwrap();
    assert_eq!(passive.status.code(), Some(126));
}

#[test]
fn time_out_ends_the_program() {
    // The guest's start counts, so that a busy machine needs more time to come to the program.
    for seconds in [2, 8, 32, 128] {
        let output = guest(&["sh", "-c", "echo before; sleep infinity"])
            .env(TIMEOUT, seconds.to_string())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(124));
        let said = format!("timed out after {seconds} s");
        assert!(text(&output.stderr).contains(&said), "{output:?}");
        match &*text(&output.stdout) {
            "" => {}
            "before\n" => return,
            _ => panic!("{output:?}"),
        }
    }
    panic!("no guest came to its program in time");
}

#[test]
fn streams_are_apart_and_exact() {
    let script = r#"binmode STDOUT; binmode STDERR; $all = pack("C*", 0..255);
        for (1..40) { syswrite STDOUT, $all x 500; syswrite STDERR, reverse($all) x 500; }"#;
    let command = ["perl", "-e", script];
    for kind in ["current", COMPAT.1, QEMU.1] {
        let output = guest(&command).env(COMPAT.0, kind).output().unwrap();
        assert!(output.status.success());
        let forth: Vec<u8> = (0..=255).collect();
        let back: Vec<u8> = (0..=255).rev().collect();
        assert!(
            output.stdout == forth.repeat(20_000),
            "{} bytes of output differ",
            output.stdout.len()
        );
        assert!(
            output.stderr == back.repeat(20_000),
            "{} bytes of errors differ",
            output.stderr.len()
        );
    }
}

#[test]
fn output_comes_while_the_program_runs() {
    let mut child = guest(&["sh", "-c", "echo first; sleep infinity"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let session = Session::of(&child);
    let mut first = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    assert_eq!(&first, b"first\n");
    support::send(&child, "TERM");
    // Not by its time-out, which what came late would have come with.
    assert_eq!(child.wait().unwrap().code(), None);
    session.assert_gone();
}

#[test]
fn processes_left_behind_do_not_keep_the_guest() {
    let output = shell("sleep infinity & echo done; exit 3");
    // Not 124, of a guest that waited for it until its time-out.
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "done\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_guest() {
    for kind in ["current", QEMU.1] {
        ends_without_reader(kind);
    }
}

fn ends_without_reader(kind: &str) {
    let mut child = guest(&["yes"])
        .env(QEMU.0, kind)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let session = Session::of(&child);
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 100])
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
    session.assert_gone();
}

#[test]
fn a_dying_kernel_is_no_success() {
    let output = shell("echo said; echo c > /proc/sysrq-trigger; sleep infinity");
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("sysrq triggered crash"),
        "{output:?}"
    );
}

#[test]
fn a_killed_kernel_is_no_success() {
    let mut child = guest(&["sleep", "infinity"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let session = Session::of(&child);
    session.kill();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    session.assert_gone();
}

#[test]
fn a_complaint_of_the_kernel_is_no_success() {
    let complain = "echo 'WARNING: CPU: 0 made up for a test' > /dev/kmsg";
    let output = shell(complain);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("made up for a test"),
        "{output:?}"
    );
    let allowed = guest(&["sh", "-c", complain])
        .env("PRIMESHARE_GUEST_ALLOW_SPLAT", "1")
        .output()
        .unwrap();
    assert_eq!(allowed.status.code(), Some(0));
}

#[test]
fn signals_leave_no_process_behind() {
    leaves_no_process_behind("current", &SIGNALS);
}

/// Its kernel runs programs in another way, as processes that it traces.
#[test]
fn signals_leave_no_process_of_the_compatibility_guest_behind() {
    leaves_no_process_behind(COMPAT.1, &SIGNALS);
}

/// There, all is one process, but for those that draw for a GPU.
#[test]
fn signals_leave_no_qemu_behind() {
    leaves_no_process_behind(QEMU.1, &["TERM", "KILL"]);
    leaves_no_process_behind(GPU.1, &["TERM", "KILL"]);
}

/// Killed several times: helpers that are just being made at that moment are the hard case.
const SIGNALS: [&str; 8] = ["INT", "TERM", "HUP", "KILL", "KILL", "KILL", "KILL", "KILL"];

fn leaves_no_process_behind(kind: &str, signals: &[&str]) {
    for &signal in signals {
        // A process that has threads and children of its own, so that there is something to be left behind.
        let mut child = guest(&[
            "sh",
            "-c",
            "sleep infinity & sleep infinity & echo up; wait",
        ])
        .env(COMPAT.0, kind)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let session = Session::of(&child);
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0; 3])
            .unwrap();
        let expected = if kind == QEMU.1 { 1 } else { 2 };
        assert!(
            session.processes().len() >= expected,
            "the session was not found: {session:?}"
        );
        support::send(&child, signal);
        assert!(
            child.wait().unwrap().code().is_none(),
            "SIG{signal}: not ended by the signal"
        );
        session.assert_gone();
    }
}

#[test]
fn repository_is_writable_and_the_root_is_not() {
    for kind in ["current", QEMU.1] {
        let name = format!("target/xtask-test-{}", std::process::id());
        let script = format!(
            "echo content > {name}; pwd; touch /no /usr/no /etc/no 2>/dev/null || echo refused"
        );
        let output = guest(&["sh", "-c", &script]).env(QEMU.0, kind).output();
        let root = support::repository();
        let written = fs::read_to_string(root.join(&name));
        let _ = fs::remove_file(root.join(&name));
        assert_eq!(written.unwrap(), "content\n");
        assert_eq!(
            text(&output.unwrap().stdout),
            format!("{}\nrefused\n", root.display())
        );
    }
}

#[test]
fn a_program_elsewhere_is_visible() {
    for inner in ["", "a b,c=d"] {
        let directory = TempDir::new();
        let directory_of_program = directory.path().join(inner);
        fs::create_dir_all(&directory_of_program).unwrap();
        let program = directory_of_program.join("program");
        support::write_script(&program, "#!/bin/sh\ncat \"$(dirname \"$0\")/neighbour\"\n");
        fs::write(directory_of_program.join("neighbour"), "here\n").unwrap();
        let output = guest(&[program.to_str().unwrap()]).output().unwrap();
        assert_eq!(text(&output.stdout), "here\n", "{output:?}");
    }
    // Right in a directory that the guest has its own of.
    let program =
        std::env::temp_dir().join(format!("primeshare-xtask-test-{}", std::process::id()));
    support::write_script(&program, "#!/bin/sh\necho copied\n");
    let output = guest(&[program.to_str().unwrap()]).output().unwrap();
    let _ = fs::remove_file(&program);
    assert_eq!(text(&output.stdout), "copied\n", "{output:?}");
}

#[test]
fn environment_and_input() {
    let script = "echo $RUST_LOG,$HOME,$PRIMESHARE_GUEST,$PRIMESHARE_GUEST_KIND,$A; cat | wc -c; basename $VK_DRIVER_FILES; test -e $VK_DRIVER_FILES";
    let output = guest(&[])
        .args(["--env", "A=b=c", "--", "sh", "-c", script])
        .env("RUST_LOG", "x")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "x,/tmp,uml,current,b=c\n0\nlvp_icd.json\n"
    );
}

/// What a guest has; fails if something is missing.
const DEVICES: &str = r#"for node in /dev/dri/card*; do
            udi=/sys/class/drm/$(basename $node)/device
            echo $(basename $node) $(basename $(readlink -f $udi)) $(stat -c %a $node)
        done
        test -c /dev/dri/renderD128 && test -c /dev/udmabuf && test -c /dev/dma_heap/system &&
        test -w /proc/self/fail-nth && test -e /sys/kernel/debug/sync/sw_sync && test -d /sys/kernel/debug/dri &&
        cat /sys/module/udmabuf/parameters/size_limit_mb"#;

#[test]
fn devices_are_there() {
    let output = shell(DEVICES);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "card0 vgem 600\ncard1 vkms 600\ncard2 second 600\n1024\n"
    );
}

#[test]
fn the_compatibility_guest_is_older() {
    let script = format!("uname -r | cut -d. -f1,2; nproc; echo $PRIMESHARE_GUEST_KIND; {DEVICES}");
    let expected = "6.12\n1\ncompat\ncard0 vgem 600\ncard1 vkms 600\n1024\n";
    let by_option = guest(&[])
        .args(["--guest", "compat", "--", "sh", "-c", &script])
        .output();
    let by_variable = guest(&["sh", "-c", &script]).envs([COMPAT]).output();
    for output in [by_option.unwrap(), by_variable.unwrap()] {
        assert_eq!(text(&output.stdout), expected, "{output:?}");
        assert!(output.status.success(), "{output:?}");
    }
    // The option wins.
    let output = guest(&[])
        .args([
            "--guest",
            "current",
            "--",
            "sh",
            "-c",
            "echo $PRIMESHARE_GUEST_KIND",
        ])
        .envs([COMPAT])
        .output();
    assert_eq!(text(&output.unwrap().stdout), "current\n");
}

#[test]
fn the_qemu_guest_has_drivers_that_refuse_each_other() {
    let script = r#"uname -r | grep -o '+deb.*'; nproc; echo $PRIMESHARE_GUEST,$PRIMESHARE_GUEST_KIND
        for number in 0 1 2 3 4; do
            test -c /dev/dri/card$number && cut -d' ' -f1 /sys/kernel/debug/dri/$number/name
        done
        test -c /dev/dri/renderD129 && test -c /dev/udmabuf && test -c /dev/dma_heap/system &&
        test -e /sys/kernel/debug/dma_buf/bufinfo && exit 7"#;
    // The same by its other name.
    let output = guest(&[])
        .args(["--tier", "qemu", "--", "sh", "-c", script])
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stdout),
        "+deb13-amd64\n2\nqemu,qemu\nvgem\nvirtio_gpu\nbochs-drm\nqxl\ncirrus\n",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn a_complaint_of_another_guests_kernel_is_no_success() {
    for kind in [COMPAT, QEMU] {
        for complain in [
            "echo 'WARNING: CPU: 0 made up for a test' > /dev/kmsg",
            "echo c > /proc/sysrq-trigger",
        ] {
            let output = guest(&["sh", "-c", complain]).envs([kind]).output();
            assert_eq!(output.unwrap().status.code(), Some(125));
        }
    }
}

#[test]
fn a_guest_that_does_not_exist_is_an_error() {
    let output = guest(&["true"]).env(COMPAT.0, "old").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = text(&output.stderr);
    assert!(
        error.contains("must be current, compat, qemu or gpu"),
        "{error}"
    );
}
