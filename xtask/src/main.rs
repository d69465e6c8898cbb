//! Development tasks of primeshare.
fn main() {}
