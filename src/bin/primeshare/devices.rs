//! `primeshare devices`: what the DRM and Vulkan devices of this machine can do, and which screens they have.

mod display;

use anyhow::Result;
use primeshare::Device;
use primeshare::device;
use primeshare::gbm::Gbm;
use primeshare::vk::{Feature, Instance, PhysicalDevice, Validation};
use serde::Serialize;

use crate::print;
use display::Display;

#[derive(Serialize)]
struct Report {
    drm: Vec<Drm>,
    vulkan: Vec<Vulkan>,
    /// What could not be opened or asked.
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Drm {
    node: String,
    driver: String,
    bus: Option<String>,
    dumb: Option<bool>,
    export: Option<bool>,
    import: Option<bool>,
    /// Mesa's backend.
    gbm: Option<String>,
    /// Why there is none.
    gbm_error: Option<String>,
    /// Connectors, CRTCs and planes, if the device has modes.
    display: Option<Display>,
}

#[derive(Serialize)]
struct Vulkan {
    name: String,
    software: bool,
    /// The DRM nodes it names, as major:minor.
    nodes: Vec<String>,
    features: Vec<FeatureReport>,
}

#[derive(Serialize)]
struct FeatureReport {
    feature: String,
    missing: Vec<String>,
}

pub(crate) fn run(json: bool) -> Result<()> {
    let (devices, failed) = device::open_all()?;
    let mut failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let drm: Vec<Drm> = devices
        .iter()
        .map(|device| drm(device, &mut failed))
        .collect();
    let vulkan = match Instance::new(Validation::Off).and_then(|i| i.physical_devices()) {
        Ok(found) => found.iter().map(vulkan).collect(),
        Err(error) => {
            failed.push(error.to_string());
            Vec::new()
        }
    };
    let report = Report {
        drm,
        vulkan,
        failed,
    };
    if json {
        return print::json(&report);
    }
    show(&report)
}

fn drm(device: &Device, failed: &mut Vec<String>) -> Drm {
    let capabilities = device.capabilities();
    let can = capabilities.as_ref().ok();
    let gbm = Gbm::new(device).map(|gbm| gbm.backend());
    let report = Drm {
        node: device.node().path.display().to_string(),
        driver: device.driver().to_owned(),
        bus: device.node().bus.as_ref().map(ToString::to_string),
        dumb: can.map(|can| can.dumb),
        export: can.and_then(|can| can.export),
        import: can.and_then(|can| can.import),
        gbm_error: gbm.as_ref().err().map(ToString::to_string),
        gbm: gbm.ok(),
        display: Display::of(device).unwrap_or_else(|error| {
            failed.push(error.to_string());
            None
        }),
    };
    if let Err(error) = capabilities {
        failed.push(error.to_string());
    }
    report
}

fn vulkan(device: &PhysicalDevice) -> Vulkan {
    let nodes = device.drm_nodes();
    let nodes = nodes
        .into_iter()
        .flat_map(|nodes| [nodes.primary, nodes.render]);
    let feature = |feature: Feature| FeatureReport {
        feature: feature.to_string(),
        missing: device.capabilities().missing(feature).to_vec(),
    };
    Vulkan {
        name: device.name().to_owned(),
        software: device.is_software(),
        nodes: nodes
            .flatten()
            .map(|node| format!("{}:{}", node.major, node.minor))
            .collect(),
        features: Feature::ALL.iter().copied().map(feature).collect(),
    }
}

fn show(report: &Report) -> Result<()> {
    let yes = |can: Option<bool>| match can {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    };
    let mut table = print::table(&[
        "DRM node", "driver", "bus", "dumb", "export", "import", "gbm",
    ]);
    for drm in &report.drm {
        let bus = drm.bus.as_deref().unwrap_or("-");
        let gbm = drm.gbm.as_ref().or(drm.gbm_error.as_ref());
        table.add_row([
            drm.node.as_str(),
            &drm.driver,
            bus,
            yes(drm.dumb),
            yes(drm.export),
            yes(drm.import),
            gbm.map_or("?", String::as_str),
        ]);
    }
    match report.drm.is_empty() {
        true => print::line("no DRM device (/dev/dri)")?,
        false => print::show(&table)?,
    }
    for drm in &report.drm {
        if let Some(display) = &drm.display {
            print::line(&format!("\n{}: {}", drm.node, display.summary()))?;
            for line in display.lines() {
                print::line(&format!("  {line}"))?;
            }
        }
    }
    for vulkan in &report.vulkan {
        let kind = match (vulkan.software, vulkan.nodes.is_empty()) {
            (true, _) => "software".to_owned(),
            (false, true) => "names no DRM node".to_owned(),
            (false, false) => format!("DRM nodes {}", vulkan.nodes.join(", ")),
        };
        print::line(&format!("\nVulkan: {} ({kind})", vulkan.name))?;
        for FeatureReport { feature, missing } in &vulkan.features {
            match missing.is_empty() {
                true => print::line(&format!("  {feature}"))?,
                false => print::line(&format!("  no {feature}: lacks {}", missing.join(", ")))?,
            }
        }
    }
    if report.vulkan.is_empty() {
        print::line("\nno Vulkan device")?;
    }
    for failed in &report.failed {
        print::line(&format!("\n{failed}"))?;
    }
    Ok(())
}
