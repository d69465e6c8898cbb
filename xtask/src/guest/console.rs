//! The guest kernel's messages: whether it complained.

/// What the kernel says when something is wrong in it, at the start of a message.
const COMPLAINTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "INFO: task ",
    "INFO: rcu",
    "rcu: INFO:",
    "INFO: trying to register non-static key",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "kernel BUG at",
    "UBSAN:",
    "KASAN:",
    "Kernel panic",
    "Unable to handle kernel",
    "general protection fault",
    "=============================",
];

/// How many lines of a complaint are worth showing.
const SHOWN: usize = 40;

/// The first complaint and what follows it.
pub(crate) fn complaint(console: &str) -> Option<String> {
    let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
    let first = lines.iter().position(|line| {
        let message = message(line);
        COMPLAINTS
            .iter()
            .any(|complaint| message.starts_with(complaint))
    })?;
    Some(
        lines[first..]
            .iter()
            .take(SHOWN)
            .map(|line| format!("    {line}\n"))
            .collect(),
    )
}

/// A line without its time stamp: `[    0.400000][   T1] text`.
fn message(line: &str) -> &str {
    let mut rest = line;
    while let Some(inner) = rest.strip_prefix('[') {
        match inner.split_once(']') {
            Some((_, after)) => rest = after.trim_start(),
            None => break,
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_complaints_with_and_without_time_stamp() {
        let console =
            "[    0.1] fine\n[    0.2] WARNING: CPU: 0 PID: 1 at x\n[    0.2] Call Trace:\n";
        assert!(
            complaint(console)
                .is_some_and(|text| text.contains("Call Trace") && !text.contains("fine"))
        );
        assert!(complaint("[    1.0][   T12] BUG: sleeping function\n").is_some());
        assert!(complaint("Kernel panic - not syncing\r\n").is_some());
    }

    #[test]
    fn other_messages_are_none() {
        assert_eq!(
            complaint("[    0.1] the text WARNING: inside\n[    0.1] Checking... OK\n[\n"),
            None
        );
        assert_eq!(
            complaint("FAULT_INJECTION: forcing a failure.\nCall Trace:\n"),
            None
        );
    }
}
