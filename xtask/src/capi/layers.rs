//! `cargo xtask c-layers`: the C library without some of its layers, as a distribution may build it.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Layer, install};
use crate::{host, repository};

/// Includes what is installed, and says which layers the library has.
const PROGRAM: &str = r#"#include <stdio.h>
int main(void) {
	const char *layers[] = {"gbm", "vulkan", "blit", "kms"};
	for (int i = 0; i < 4; i++)
		printf("%s%s", primeshare_has_feature(layers[i]) ? " " : "", primeshare_has_feature(layers[i]) ? layers[i] : "");
	return 0;
}
"#;

/// Installs without layers and with each one, and compiles, links and runs a program. Returns the exit status.
pub(crate) fn run() -> Result<u8> {
    host::prepare_for_c()?;
    let root = repository::root().join("target/capi/prefix/layers");
    let alone = Layer::ALL.map(|layer| vec![layer]);
    for layers in std::iter::once(vec![]).chain(alone) {
        let all = Layer::with_needs(&layers);
        let names: Vec<String> = all.iter().map(Layer::to_string).collect();
        let prefix = root.join(format!("with-{}", names.join("-")));
        if prefix.exists() {
            fs::remove_dir_all(&prefix)?;
        }
        install::run(&install::Arguments {
            prefix: prefix.clone(),
            libdir: "lib".into(),
            destdir: None,
            layers: Some(layers),
            debug: true,
            without_tool: true,
        })?;
        let headers = std::iter::once("primeshare.h".to_owned());
        let headers = headers.chain(all.iter().map(|layer| layer.header()));
        let includes: String = headers.map(|name| format!("#include <{name}>\n")).collect();
        let source = prefix.join("layers.c");
        fs::write(&source, includes + PROGRAM)?;
        let packages = std::iter::once("primeshare".to_owned());
        let packages = packages.chain(all.iter().map(|layer| format!("primeshare-{layer}")));
        let packages: Vec<String> = packages.collect();
        let script = format!(
            "cc -Wall -Wextra -Werror -o {program} {source} $(pkg-config --cflags --libs {packages}) \
             -Wl,-rpath,{lib} && {program}",
            program = prefix.join("layers").display(),
            source = source.display(),
            packages = packages.join(" "),
            lib = prefix.join("lib").display(),
        );
        let mut shell = Command::new("sh");
        shell.args(["-ec", &script]);
        shell.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        let output = shell.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said: Vec<&str> = said.split_whitespace().collect();
        ensure!(said == names, "built with {names:?}, and it says {said:?}");
        eprintln!("layers {names:?}: as built");
    }
    Ok(0)
}
