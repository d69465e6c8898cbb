//! What only guests in QEMU have: a GPU, and a clock that can run away.

#[expect(dead_code, reason = "the other tests' processes")]
mod support;

use support::{GPU, QEMU, guest, text};

#[test]
fn the_gpu_guest_has_opengl_and_vulkan_on_its_gpu() {
    let script = r#"uname -r | grep -o '+deb.*'; echo $PRIMESHARE_GUEST,$PRIMESHARE_GUEST_KIND
        for number in 0 1 2 3; do
            test -c /dev/dri/card$number && cut -d' ' -f1 /sys/kernel/debug/dri/$number/name
        done
        test -c /dev/dri/renderD129 &&
        grep -ohE 'virgl : yes|blob resources : yes|context init : yes' /sys/kernel/debug/dri/1/virtio-gpu-features
        vulkaninfo --summary 2>/dev/null | grep -o 'DRIVER_ID_.*' | sort"#;
    let output = guest(&["sh", "-c", script]).envs([GPU]).output().unwrap();
    let expected = "+deb13-amd64\nqemu,gpu\nvgem\nvirtio_gpu\nbochs-drm\ncirrus\n";
    let out = text(&output.stdout);
    assert!(out.starts_with(expected), "{output:?}");
    assert!(
        out.ends_with("DRIVER_ID_MESA_LLVMPIPE\nDRIVER_ID_MESA_VENUS\n"),
        "{output:?}"
    );
}

/// As if the processor's time stamp counter had been measured wrong, which is how a clock ran away: no processor counts
/// as slowly as this.
const WRONG: (&str, &str) = ("PRIMESHARE_GUEST_PARAMETERS", "tsc_early_khz=200000");

#[test]
fn a_guest_whose_clock_runs_away_ends_with_an_error_that_says_so() {
    let output = guest(&["sh", "-c", "while :; do sleep 1; done"])
        .envs([QEMU, WRONG])
        // By KVM the kernel asks the host for the time.
        .env("PRIMESHARE_GUEST_ACCEL", "tcg")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let error = text(&output.stderr);
    assert!(error.contains("the guest's clock is too fast"), "{error}");
}

#[test]
fn an_emulated_processor_is_not_measured() {
    let script =
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource; cat /proc/cmdline";
    let output = guest(&["sh", "-c", script])
        .envs([QEMU])
        .env("PRIMESHARE_GUEST_ACCEL", "tcg")
        .output()
        .unwrap();
    let out = text(&output.stdout);
    assert!(out.starts_with("tsc\n"), "{out}");
    assert!(out.contains(" tsc_early_khz="), "{out}");
}
