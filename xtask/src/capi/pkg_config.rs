//! What pkg-config knows of the library.

use super::Layer;

/// A file for pkg-config: its name and contents.
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) contents: String,
}

/// What a static link needs beside the library: what Rust's standard library is made with.
pub(crate) const STATIC: &str = "-lgcc_s -lpthread -lm -ldl -lc";

/// One for the library, and one for each layer.
pub(crate) fn descriptions(version: &str, paths: &Paths, layers: &[Layer]) -> Vec<Description> {
    let variables = format!(
        "prefix={}\nlibdir={}\nincludedir={}\n",
        paths.prefix, paths.libdir, paths.includedir
    );
    let requires = match layers.contains(&Layer::Gbm) {
        true => "Requires.private: gbm\n",
        false => "",
    };
    let mut all = vec![Description {
        name: "primeshare".to_owned(),
        contents: format!(
            "{variables}\nName: primeshare\nDescription: GPU buffers shared between DRM devices, Vulkan, screens and \
             processes\nVersion: {version}\n{requires}Libs: -L${{libdir}} -lprimeshare\nLibs.private: {STATIC}\nCflags: \
             -I${{includedir}}\n"
        ),
    }];
    for layer in layers {
        let needs = layer
            .needs()
            .iter()
            .map(|layer| format!(", primeshare-{layer} = {version}"));
        let needs: String = needs.collect();
        let name = format!("primeshare-{layer}");
        all.push(Description {
            contents: format!(
                "{variables}\nName: {name}\nDescription: The layer {layer} of primeshare\nVersion: {version}\nRequires: \
                 primeshare = {version}{needs}\n"
            ),
            name,
        });
    }
    all
}

/// Directories as programs will see them, which need not be where the files are put now.
pub(crate) struct Paths {
    pub(crate) prefix: String,
    pub(crate) libdir: String,
    pub(crate) includedir: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_requires_the_library_and_the_layers_that_it_needs() {
        let paths = Paths {
            prefix: "/usr".to_owned(),
            libdir: "/usr/lib".to_owned(),
            includedir: "/usr/include".to_owned(),
        };
        let all = descriptions("0.1.0", &paths, &Layer::with_needs(&[Layer::Kms]));
        let names: Vec<_> = all.iter().map(|one| &*one.name).collect();
        assert_eq!(
            names,
            [
                "primeshare",
                "primeshare-vulkan",
                "primeshare-blit",
                "primeshare-kms"
            ]
        );
        assert!(!all[0].contents.contains("gbm"));
        let requires =
            "Requires: primeshare = 0.1.0, primeshare-vulkan = 0.1.0, primeshare-blit = 0.1.0\n";
        assert!(all[3].contents.contains(requires), "{}", all[3].contents);
    }
}
