//! The report for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};

use super::report::{DmaBuf, Gpu, Process, Report};
use crate::print;

/// As lines, the most important first.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    summary(report, &mut text);
    if !report.processes.is_empty() {
        text.push('\n');
        push(&mut text, &processes(&report.processes));
    }
    if !report.dma_bufs.is_empty() {
        text.push('\n');
        push(&mut text, &dma_bufs(report));
    }
    text
}

fn push(text: &mut String, table: &Table) {
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Sums, and what could not be read.
fn summary(report: &Report, text: &mut String) {
    let total = &report.total;
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!(
        "{} in {}, each counted once; {} in more than one process",
        bytes(total.bytes),
        count(total.dma_bufs, "dma-buf"),
        bytes(total.shared_bytes)
    ));
    if total.unheld_dma_bufs > 0 {
        line(format!(
            "{} in {} held by no process that could be read: by the kernel (screens, imports) or by others",
            bytes(total.unheld_bytes),
            count(total.unheld_dma_bufs, "dma-buf")
        ));
    }
    if total.without_size > 0 {
        let number = count(total.without_size, "dma-buf");
        line(format!("not counted: {number} whose size is not known"));
    }
    for gpu in &report.gpus {
        line(format!(
            "{}: {}, {}",
            name(gpu),
            memory(gpu),
            count(gpu.clients, "client")
        ));
    }
    if !report.unread.is_empty() {
        let mut pids: Vec<u32> = report.unread.iter().map(|unread| unread.pid).collect();
        pids.dedup();
        line(format!(
            "not read: {} ({}); other users' processes need CAP_SYS_PTRACE",
            count(pids.len(), "process"),
            report.unread[0].error
        ));
    }
    if let Some(error) = &report.debugfs_error {
        line(format!(
            "devices, fences and dma-bufs of the kernel are not known: {error}; debugfs has to be mounted, and needs root"
        ));
    }
}

fn processes(processes: &[Process]) -> Table {
    let head = [
        "PID", "process", "bytes", "shared", "dma-bufs", "fds", "maps", "GPU",
    ];
    let mut table = print::table(&head);
    align_right(&mut table, &[0, 2, 3, 4, 5, 6]);
    for process in processes {
        let held = process.dma_bufs.iter();
        let (fds, mappings) = held.fold((0, 0), |(fds, mappings), held| {
            (fds + held.fds, mappings + held.mappings)
        });
        let gpus = process.gpus.iter();
        let gpus: Vec<_> = gpus
            .map(|gpu| format!("{} {}", name(gpu), memory(gpu)))
            .collect();
        table.add_row([
            process.pid.to_string(),
            process.name.clone(),
            bytes(process.bytes),
            bytes(process.shared_bytes),
            process.dma_bufs.len().to_string(),
            fds.to_string(),
            mappings.to_string(),
            gpus.join("\n"),
        ]);
    }
    table
}

fn dma_bufs(report: &Report) -> Table {
    let has_debugfs = report.debugfs_error.is_none();
    let mut head = vec![
        "dma-buf", "size", "exporter", "name", "fds", "maps", "refs", "PIDs",
    ];
    if has_debugfs {
        head.extend(["attached", "pending fences"]);
    }
    let mut table = print::table(&head);
    align_right(&mut table, &[0, 1, 4, 5, 6]);
    let unknown = || "?".to_owned();
    for buffer in &report.dma_bufs {
        let pids: Vec<_> = buffer.processes.iter().map(u32::to_string).collect();
        let mut row = vec![
            buffer.inode.to_string(),
            buffer.size.map_or_else(unknown, bytes),
            buffer.exporter.clone().unwrap_or_else(unknown),
            buffer.name.clone().unwrap_or_default(),
            buffer.fds.to_string(),
            buffer.mappings.to_string(),
            buffer.references.map_or_else(unknown, |n| n.to_string()),
            match pids.is_empty() {
                true => "-".to_owned(),
                false => pids.join(" "),
            },
        ];
        if has_debugfs {
            row.push(buffer.devices.as_deref().unwrap_or_default().join(" "));
            row.push(pending(buffer));
        }
        table.add_row(row);
    }
    table
}

fn pending(buffer: &DmaBuf) -> String {
    let fences = buffer.fences.as_deref().unwrap_or_default().iter();
    let pending = fences.filter(|fence| !fence.signalled);
    let pending: Vec<_> = pending
        .map(|fence| format!("{}: {}", fence.usage, fence.fence))
        .collect();
    pending.join("\n")
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn name(gpu: &Gpu) -> String {
    match &gpu.pci {
        Some(pci) => format!("{} {pci}", gpu.driver),
        None => gpu.driver.clone(),
    }
}

fn memory(gpu: &Gpu) -> String {
    let mut text = match gpu.memory.total {
        Some(total) => bytes(total),
        None => "? bytes".to_owned(),
    };
    if let Some(resident) = gpu.memory.resident {
        // Writing to a string does not fail.
        let _ = write!(text, " ({} resident)", bytes(resident));
    }
    text
}

fn count(number: usize, what: &str) -> String {
    match (number, what) {
        (1, what) => format!("1 {what}"),
        (number, "process") => format!("{number} processes"),
        (number, what) => format!("{number} {what}s"),
    }
}

/// In a unit that leaves few digits.
fn bytes(bytes: u64) -> String {
    let mut unit = "B";
    let mut scaled = bytes as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    match scaled.fract() == 0.0 {
        true => format!("{scaled} {unit}"),
        false => format!("{scaled:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_a_unit_that_leaves_few_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(16384), "16 KiB");
        assert_eq!(bytes(8_294_400), "7.9 MiB");
        assert_eq!(bytes(3 << 40), "3 TiB");
    }
}
