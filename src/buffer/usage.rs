//! What a buffer is used for, by whoever allocates, negotiates or imports it.

use std::fmt;

bitflags::bitflags! {
    /// What a user does with a buffer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Usage: u32 {
        /// Draws into it.
        const RENDER = 1 << 0;
        /// Samples it as a texture.
        const SAMPLE = 1 << 1;
        /// Reads and writes it in shaders.
        const STORE = 1 << 2;
        /// Copies from it.
        const COPY_FROM = 1 << 3;
        /// Copies into it.
        const COPY_TO = 1 << 4;
        /// Shows it on a display.
        const SCANOUT = 1 << 5;
        /// Reads or writes it with the CPU.
        const MAP = 1 << 6;
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}
