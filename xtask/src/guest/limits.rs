//! How large a guest is and how long it may take.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// How large a guest is and how long it may take.
pub(crate) struct Limits {
    pub(crate) timeout: Option<Duration>,
    pub(crate) memory: u64,
    pub(crate) processors: u32,
    /// More for the kernel's command line.
    pub(crate) parameters: Option<String>,
}

impl Limits {
    /// From the environment; a time-out given by option wins.
    pub(crate) fn new(timeout: Option<u64>) -> Result<Self> {
        let timeout = match timeout {
            Some(seconds) => Some(seconds),
            None => number("PRIMESHARE_GUEST_TIMEOUT")?,
        };
        let processors = number("PRIMESHARE_GUEST_CPUS")?.unwrap_or(2);
        Ok(Limits {
            timeout: timeout.map(Duration::from_secs),
            memory: memory(
                &std::env::var("PRIMESHARE_GUEST_MEM").unwrap_or_else(|_| "2G".to_owned()),
            )?,
            processors: u32::try_from(processors)
                .ok()
                .filter(|count| (1..=16).contains(count))
                .with_context(|| {
                    format!("PRIMESHARE_GUEST_CPUS must be 1 to 16, not {processors}")
                })?,
            parameters: std::env::var("PRIMESHARE_GUEST_PARAMETERS").ok(),
        })
    }
}

fn number(name: &str) -> Result<Option<u64>> {
    let Some(text) = std::env::var_os(name) else {
        return Ok(None);
    };
    let value = text.to_str().and_then(|text| text.parse().ok());
    value
        .map(Some)
        .with_context(|| format!("{name} must be a number, not {text:?}"))
}

/// "2G", "512M": bytes.
fn memory(text: &str) -> Result<u64> {
    let wrong = || {
        anyhow!("PRIMESHARE_GUEST_MEM must be a size like 2G or 512M, at least 256M, not {text:?}")
    };
    let (digits, shift) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 30),
        None => (text.strip_suffix(['M', 'm']).ok_or_else(wrong)?, 20),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift));
    bytes
        .filter(|&bytes| (256 << 20..=64 << 30).contains(&bytes))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() -> Result<()> {
        assert_eq!(memory("2G")?, 2 << 30);
        assert_eq!(memory("512m")?, 512 << 20);
        for wrong in ["", "G", "2", "-1G", "100M", "999999999999G", "2GB"] {
            assert!(memory(wrong).is_err(), "{wrong:?}");
        }
        Ok(())
    }
}
