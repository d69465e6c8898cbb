//! QEMU, and what draws for the GPU in it: a Debian of their own, so that every host has the same.
//!
//! A host's own QEMU may be too old for venus (before 9.2) or come without what it takes: virglrenderer, a display
//! with OpenGL, a Mesa that virglrenderer can use. The programs in this root are run by its own dynamic linker, with
//! its libraries: no chroot, no namespace and no privilege is needed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::debian;
use super::kind::Kind;
use crate::cache::Entry;
use crate::progress::{Log, Step};
use crate::shell;

/// To be raised when this module makes something else of the same packages.
const RECIPE: &str = "1";

const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    // qxl.
    "qemu-system-modules-spice",
    // virtio-gpu with OpenGL, and a display that has OpenGL without an X server.
    "qemu-system-modules-opengl",
    "qemu-system-gui",
    // Runs Vulkan for venus, in processes of its own.
    "virgl-server",
    // What virglrenderer draws with.
    "mesa-vulkan-drivers",
    "libgl1-mesa-dri",
    "libegl1",
    "libgles2",
    "libgbm1",
];

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The files that are taken of these packages.
const TAKEN: &[&str] = &[
    "lib64",
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/bin/qemu-system-x86_64",
    "usr/libexec/virgl_render_server",
    "usr/share/qemu",
    "usr/share/seabios",
];

/// What is not unpacked. Nothing here uses it, and it is half of the size.
const LEFT_OUT: &[&str] = &[
    "dri",
    "gconv",
    "gtk-3.0",
    "libdnnl.so*",
    "libgtk-3.so*",
    "libicudata.so*",
    "libonnx*",
    "libvulkan_[!l]*",
    "perl*",
];

/// Preloaded, so that hosts do not differ.
const HOST: &str = include_str!("../../../guest/host.c");
const HOST_LIBRARY: &str = "host.so";

/// The cache's entry for it.
pub(crate) fn entry() -> Result<Entry> {
    let lists = [PACKAGES, TAKEN, LEFT_OUT].map(|list| list.join(" "));
    let [packages, taken, left_out] = &lists;
    let inputs = [RECIPE, debian::SUITE, packages, taken, left_out, HOST];
    Entry::new("emulator", &inputs)
}

/// Makes it in `directory`.
pub(crate) fn make(directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start("QEMU");
    let mut pick = vec!["--wildcards".to_owned()];
    pick.extend(
        LEFT_OUT
            .iter()
            .map(|name| format!("--exclude=./{LIBRARIES}/{name}")),
    );
    pick.extend(TAKEN.iter().map(|path| format!("./{path}")));
    let pick: Vec<&str> = pick.iter().map(String::as_str).collect();
    // Backported, as the current guest's packages are.
    debian::unpack(
        Kind::Current,
        PACKAGES,
        &pick,
        directory,
        log,
        &step.part(0.0..1.0),
    )?;
    let source = directory.join("host.c");
    fs::write(&source, HOST)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(directory.join(HOST_LIBRARY))
        .arg(&source)
        .arg("-ldl");
    log.run(&mut cc, |_| {})?;
    step.done();
    Ok(())
}

/// What is in the entry.
#[derive(Debug, Clone)]
pub(super) struct Emulator(PathBuf);

impl Emulator {
    pub(super) fn new(entry: PathBuf) -> Self {
        Emulator(entry)
    }

    fn libraries(&self) -> PathBuf {
        self.0.join(LIBRARIES)
    }

    /// QEMU, without any arguments for the machine.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.linker());
        command
            .arg("--library-path")
            .arg(self.library_path())
            .arg(self.0.join("usr/bin/qemu-system-x86_64"))
            // The user's variables are for the user's own programs and libraries.
            .env_clear()
            .env("QEMU_MODULE_DIR", self.libraries().join("qemu"));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.0.join(data));
        }
        command
    }

    fn linker(&self) -> PathBuf {
        self.0.join("lib64/ld-linux-x86-64.so.2")
    }

    fn library_path(&self) -> String {
        let libraries = self.libraries();
        let libraries = libraries.display();
        format!("{libraries}:{libraries}/pulseaudio")
    }

    /// Lets a `command` draw, by the processor and without an X server. Files that name others by their path go to
    /// `directory`.
    pub(super) fn let_draw(&self, command: &mut Command, directory: &Path) -> Result<()> {
        let libraries = self.libraries();
        // As the packages have them, which take the system's directory for granted.
        let vulkan = directory.join("lvp_icd.json");
        let lavapipe = libraries.join("libvulkan_lvp.so");
        let icd = format!(
            r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": "{}", "api_version": "1.3.0"}}}}"#,
            lavapipe.display()
        );
        fs::write(&vulkan, icd)?;
        let egl = directory.join("egl.json");
        let mesa = libraries.join("libEGL_mesa.so.0");
        let vendor = format!(
            r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": "{}"}}}}"#,
            mesa.display()
        );
        fs::write(&egl, vendor)?;
        // QEMU starts it by its path alone, which the host's dynamic linker would not understand.
        let server = directory.join("render-server");
        let words = [
            self.linker().into_os_string(),
            "--library-path".into(),
            self.library_path().into(),
            self.0.join("usr/libexec/virgl_render_server").into(),
        ];
        let words = words.map(|word| shell::quoted(&word)).join(" ");
        let script = format!("#!/bin/sh\nexec {words} \"$@\"\n");
        fs::write(&server, script)?;
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755))
            .context("cannot make the render server executable")?;
        // By a path that has no space and no colon.
        let preloaded = directory.join(HOST_LIBRARY);
        symlink(self.0.join(HOST_LIBRARY), &preloaded)?;
        command
            .env("SDL_VIDEODRIVER", "offscreen")
            .env("SDL_AUDIODRIVER", "dummy")
            .env("VK_DRIVER_FILES", &vulkan)
            .env("__EGL_VENDOR_LIBRARY_FILENAMES", &egl)
            .env("GBM_BACKENDS_PATH", libraries.join("gbm"))
            .env("RENDER_SERVER_EXEC_PATH", &server)
            .env("GALLIUM_DRIVER", "llvmpipe")
            .env("VK_LOADER_LAYERS_DISABLE", "~all~")
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .env("HOME", directory)
            .env("XDG_RUNTIME_DIR", directory)
            .env("LD_PRELOAD", &preloaded);
        Ok(())
    }
}
