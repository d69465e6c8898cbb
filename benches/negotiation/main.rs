//! What a negotiation costs: four endpoints that list 40 formats of 12 modifiers each, 1920 entries
//! in all. `cargo xtask bench negotiation`; or, since it needs no devices, `PRIMESHARE_RUN=host cargo bench
//! --bench negotiation`.

#[path = "../sharing/measure.rs"]
mod measure;

use std::hint::black_box;

use anyhow::Result;
use primeshare::buffer::FormatInfo;
use primeshare::negotiate::{
    Agreement, DeviceKey, Endpoint, FormatSet, Substitute, Usage, Wanted, negotiate,
};
use primeshare::{Fourcc, Modifier};

use measure::{interleaved, median};

const FORMATS: usize = 40;
const MODIFIERS: u64 = 12;
const ROUNDS: usize = 200;
const CALLS: u32 = 50;

fn main() -> Result<()> {
    let wanted = Wanted::new(1920, 1080);
    let scanout = wanted.clone().in_formats([Fourcc::XRGB8888]);
    let substituting = wanted.clone().substituting(Substitute::Opaque);
    // Each endpoint's modifiers begin where those of the one before do, or later by so many.
    let (same, half, none) = (endpoints(0), endpoints(2), endpoints(12));
    let cases = [
        ("all 480 in common", &same, &wanted),
        ("half of them in common", &half, &wanted),
        ("LINEAR in common", &none, &wanted),
        ("all in common, twins standing in", &same, &substituting),
        ("half in common, one format wanted", &half, &scanout),
    ];
    let mut works: Vec<_> = cases
        .iter()
        .map(|(_, endpoints, wanted)| {
            move || -> Result<()> {
                black_box(run(black_box(endpoints), black_box(wanted)));
                Ok(())
            }
        })
        .collect();
    let mut works: Vec<&mut dyn FnMut() -> Result<()>> = works
        .iter_mut()
        .map(|work| work as &mut dyn FnMut() -> Result<()>)
        .collect();
    let times = interleaved(ROUNDS, CALLS, &mut works)?;
    println!("4 endpoints x {FORMATS} formats x {MODIFIERS} modifiers, median of {ROUNDS}:");
    for ((name, endpoints, wanted), times) in cases.iter().zip(times) {
        let agreement = run(endpoints, wanted);
        let pairs: usize = agreement.choices.iter().map(|c| c.modifiers.len()).sum();
        println!(
            "{:>8.1} us  {name}: {} choices with {pairs} modifiers, {} reasons",
            median(&times) * 1e6,
            agreement.choices.len(),
            agreement.reasons.len(),
        );
    }
    Ok(())
}

fn run<'a>(endpoints: &'a [Endpoint; 4], wanted: &Wanted) -> Agreement<'a> {
    let [gpu, vulkan, plane, client] = endpoints;
    negotiate(&[gpu, vulkan, plane, client], wanted)
}

/// A gbm device, Vulkan on another, a plane and a client, whose modifiers differ by `shift` from
/// one to the next.
fn endpoints(shift: u64) -> [Endpoint; 4] {
    let (gpu, other) = (DeviceKey(1), DeviceKey(2));
    let list = |index: u64| -> FormatSet {
        let formats = FormatInfo::all()
            .map(|info| info.fourcc)
            .filter(|fourcc| *fourcc != Fourcc::XRGB8888)
            .take(FORMATS - 1);
        let modifiers = (1..MODIFIERS)
            .map(move |modifier| Modifier(0x0200_0000_0000_0000 | (modifier + index * shift)));
        let modifiers = modifiers.chain([Modifier::LINEAR]);
        formats
            .chain([Fourcc::XRGB8888])
            .flat_map(|fourcc| modifiers.clone().map(move |modifier| (fourcc, modifier)))
            .collect()
    };
    let client = Endpoint::new("client", list(3)).allocating();
    [
        Endpoint::gbm("gbm", gpu, Usage::RENDER, list(0)),
        Endpoint::vulkan("vulkan", Some(other), Usage::SAMPLE, list(1)),
        Endpoint::plane("plane", gpu, list(2)),
        client,
    ]
}
