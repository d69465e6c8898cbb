//! The report: a table for people, and text for a report of an error.

use anyhow::Result;

use super::Report;
use super::chain::Pair;
use super::step::{Outcome, Stage};
use crate::print;

/// One line for each pair; reasons are numbered, and told below.
pub(super) fn table(report: &Report) -> Result<()> {
    let head = [
        "from",
        "to",
        "allocate",
        "export",
        "import",
        "gpu",
        "fence",
        "screen",
        "copy",
        "screen\nof copy",
        "a picture",
    ];
    let mut table = print::table(&head);
    let mut reasons: Vec<String> = Vec::new();
    let mut number = |reason: String| {
        let known = reasons.iter().position(|known| *known == reason);
        let at = known.unwrap_or_else(|| {
            reasons.push(reason);
            reasons.len() - 1
        });
        format!("[{}]", at + 1)
    };
    for pair in &report.pairs {
        let mut row = pair.labels.to_vec();
        row.extend(pair.stages.iter().map(|step| match step.outcome {
            Outcome::Works => "yes".to_owned(),
            Outcome::NotReached => "-".to_owned(),
            Outcome::DoesNotApply => "none".to_owned(),
            Outcome::Failed => {
                let number = number(step.reason());
                match step.errno.as_ref().or(step.vk_result.as_ref()) {
                    Some(name) => format!("{name} {number}"),
                    None => number,
                }
            }
        }));
        row.push(match pair.way.is_some() {
            true => "yes".to_owned(),
            false => "NO".to_owned(),
        });
        table.add_row(row);
    }
    print::line("- not reached, none: the destination has no screens, [n] why not (below)")?;
    print::line("")?;
    print::show(&table)?;
    if !reasons.is_empty() {
        print::line("")?;
    }
    for (index, reason) in reasons.iter().enumerate() {
        print::line(&format!("[{}] {reason}", index + 1))?;
    }
    let failed = report.pairs.iter().filter(|p| p.first_failure.is_some());
    for (index, pair) in failed.enumerate() {
        if index == 0 {
            print::line("")?;
        }
        let stage = pair.first_failure.map_or("", Stage::name);
        let [from, to] = &pair.labels;
        print::line(&format!(
            "{from} to {to}: {stage} failed first; {}",
            picture(pair)
        ))?;
    }
    for failed in &report.failed {
        print::line(failed)?;
    }
    let without = report.pairs.iter().filter(|pair| pair.way.is_none());
    let complete = report.pairs.len() - without.count();
    print::line(&format!(
        "\n{complete} of {} pairs have a complete way to a picture. For a report of an error: primeshare check --report",
        report.pairs.len()
    ))
}

/// Everything as plain text.
pub(super) fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "primeshare {}, Linux {}",
        report.version, report.kernel
    )];
    for device in &report.devices {
        lines.push(format!(
            "device {}: {}, driver {}, bus {}, Vulkan: {}",
            device.label,
            device.node,
            device.driver,
            device.bus.as_deref().unwrap_or("not known"),
            device.vulkan.as_deref().unwrap_or("none")
        ));
    }
    lines.extend(
        report
            .failed
            .iter()
            .map(|failed| format!("failed: {failed}")),
    );
    for pair in &report.pairs {
        lines.push(String::new());
        of_pair(pair, &mut lines);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn of_pair(pair: &Pair, lines: &mut Vec<String>) {
    lines.push(format!("{} -> {}", pair.source, pair.destination));
    lines.push(format!("  {:<15} {}", "picture", picture(pair)));
    for step in &pair.stages {
        let outcome = match step.outcome {
            Outcome::Works => "works",
            Outcome::Failed => "FAILED",
            Outcome::NotReached => "not reached",
            Outcome::DoesNotApply => "does not apply",
        };
        lines.push(format!("  {:<15} {outcome}: {}", step.stage, step.reason()));
    }
    let first = pair.first_failure.map_or("none", Stage::name);
    lines.push(format!("  {:<15} {first}", "first failure"));
    let way = pair.way.unwrap_or("there is no complete way");
    lines.push(format!("  {:<15} {way}", "a picture"));
}

/// In numbers.
fn picture(pair: &Pair) -> String {
    let mut text = format!(
        "{}x{} {}, asked for {}",
        pair.width,
        pair.height,
        pair.format,
        pair.modifiers_asked.join(" ")
    );
    if let Some(buffer) = &pair.buffer {
        text += &format!(
            ", got {}, stride {}, dma-buf of {} bytes",
            buffer.modifier, buffer.stride, buffer.dma_buf_bytes
        );
        if let Some(bytes) = buffer.headroom_bytes {
            text += &format!(", {bytes} of them after the picture");
        }
    }
    text
}
