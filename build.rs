//! Does nothing: cargo takes `links` only from packages that have a build script.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
