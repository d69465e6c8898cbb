//! Who has allocated a dma-buf, as the kernel tells it.

use std::os::fd::{AsFd, AsRawFd};

use super::DmaBuf;

impl DmaBuf {
    /// The exporter of one of the buffer's dma-bufs, for reports: `udmabuf`, the name of a heap (`system`), `i915`; and `drm`
    /// for all drivers that export by DRM's own function, amdgpu and vgem among them (`drm_gem_prime_export`). It does not
    /// tell devices apart.
    ///
    /// Reads `/proc/self/fdinfo` (`exp_name`, Linux 5.3). `None` if there is no such dma-buf, or if `/proc` cannot be read.
    pub fn exporter(&self, object: usize) -> Option<String> {
        let fd = self.objects().get(object)?.as_fd().as_raw_fd();
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        exporter_in(&text).map(str::to_owned)
    }
}

/// The name in the text of `dma_buf_show_fdinfo` (`drivers/dma-buf/dma-buf.c`).
fn exporter_in(fdinfo: &str) -> Option<&str> {
    let name = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("exp_name:"))?;
    Some(name.trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::exporter_in;

    #[test]
    fn the_exporters_name_is_found_in_the_kernels_text() {
        let text = "pos:\t0\nflags:\t02\nsize:\t4096\ncount:\t2\nexp_name:\tdrm\nname:\tx\n";
        assert_eq!(exporter_in(text), Some("drm"));
        assert_eq!(exporter_in("pos:\t0\n"), None);
        assert_eq!(exporter_in("exp_name:\t"), None);
    }
}
