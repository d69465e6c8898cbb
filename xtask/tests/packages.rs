//! What cargo makes of the library as a dependency.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of its own for one test, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("primeshare-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn package(name: &str, version: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n{more}")
}

#[test]
fn two_versions_of_the_library_in_one_program_are_refused() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = Folder::new("two-versions");
    // Another version, as far as cargo looks at it here: its name, and what it says it links.
    let text = fs::read_to_string(library.join("Cargo.toml")).unwrap();
    let line = |key: &str| {
        let found = text.lines().find(|line| line.starts_with(key));
        format!("{}\n", found.unwrap_or(""))
    };
    let older = package("primeshare", "0.0.1", &(line("links =") + &line("build =")));
    folder.write("older/Cargo.toml", &older);
    folder.write("older/build.rs", "fn main() {}\n");
    folder.write("older/src/lib.rs", "");
    let both = format!(
        "[dependencies]\nprimeshare = {{ path = {library:?} }}\nolder = {{ package = \"primeshare\", path = \"../older\" }}\n"
    );
    folder.write("program/Cargo.toml", &package("program", "0.1.0", &both));
    folder.write("program/src/main.rs", "fn main() {}\n");
    // The same versions of everything else, so that nothing has to be looked up.
    fs::copy(
        library.join("Cargo.lock"),
        folder.0.join("program/Cargo.lock"),
    )
    .unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let output = cargo
        .args(["generate-lockfile", "--offline"])
        .current_dir(folder.0.join("program"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("links to the native library `primeshare`"),
        "{said}"
    );
}
