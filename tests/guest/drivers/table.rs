//! What each Vulkan driver of a guest does, and what it refuses and why. `cargo xtask drivers`
//! prints it.

use std::fmt::Write;
use std::time::Duration;

use primeshare::alloc::{DmaHeap, Dumb, Udmabuf};
use primeshare::device::{self, NodeKind};
use primeshare::gbm::Gbm;
use primeshare::sync::{Mapping, SyncFile};
use primeshare::vk::ash::vk::{BufferUsageFlags, ImageUsageFlags};
use primeshare::vk::{
    Device, Error, Feature, ImageAllocator, Instance, Select, Semaphore, Validation,
};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use super::vtest::Server;
use super::{Environment, LAVAPIPE, VENUS, environment, swiftshader};
use crate::child::{self, Child, Ending};
use crate::support::{Guest, in_guest, without_checks};
use crate::vulkan::bytes::Bytes;
use crate::vulkan::matrix::{As, there_and_back};

const NAME: &str = "drivers::table::every_driver_does_and_refuses_what_is_written_down";
/// The operation with which the other process is to begin.
const FROM: &str = "PRIMESHARE_TEST_FROM";
/// For one operation, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(300);

const IMAGE_USAGE: ImageUsageFlags = ImageUsageFlags::from_raw(
    ImageUsageFlags::TRANSFER_SRC.as_raw() | ImageUsageFlags::TRANSFER_DST.as_raw(),
);
const BUFFER_USAGE: BufferUsageFlags = BufferUsageFlags::from_raw(
    BufferUsageFlags::TRANSFER_SRC.as_raw() | BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// What is written down, for the guest that this is.
fn written_down(kind: &str) -> &'static str {
    match kind {
        "current" => include_str!("current.txt"),
        "compat" => include_str!("compat.txt"),
        "qemu" => include_str!("qemu.txt"),
        "gpu" => include_str!("gpu.txt"),
        other => panic!("what do the drivers of the guest {other} do?"),
    }
}

#[test]
fn every_driver_does_and_refuses_what_is_written_down() {
    if child::is_here() {
        return tell_all();
    }
    in_guest(|_| {
        let kind = std::env::var("PRIMESHARE_GUEST_KIND").unwrap();
        let server = (kind == "current").then(Server::start);
        let mut text = format!("Vulkan drivers of the guest {kind}\n");
        for (name, environment) in drivers(&kind, server.as_ref()) {
            write!(text, "\n{name}\n").unwrap();
            text += &ask(&environment);
        }
        print!("\n{text}");
        assert!(text == written_down(&kind), "this is not what was expected");
    });
}

/// The drivers of a guest, by name, and how a process comes to use them.
fn drivers(kind: &str, server: Option<&Server>) -> Vec<(&'static str, Environment)> {
    let mut drivers = vec![("llvmpipe", environment("llvmpipe", &[LAVAPIPE]))];
    if kind == "gpu" {
        drivers.push(("venus on virtio-gpu", environment("venus", &[VENUS])));
    }
    if let Some(server) = server {
        let mut by_vtest = environment("venus", &[VENUS]);
        by_vtest.extend(server.environment());
        drivers.push(("venus by vtest", by_vtest));
        let swiftshader = environment("swiftshader", &[&swiftshader()]);
        drivers.push(("SwiftShader", swiftshader));
    }
    drivers
}

/// Has another process try everything with a driver; where that process ends, the next goes on.
fn ask(environment: &Environment) -> String {
    let (mut lines, mut from) = (String::new(), 0);
    loop {
        let mut environment = environment.clone();
        environment.push((FROM, from.to_string()));
        let mut other = Child::start(NAME, &environment);
        let mut begun = None;
        let ending = loop {
            match other.next_line(PATIENCE) {
                Ok(line) => match line.split_once('\t') {
                    Some(("@begin", operation)) => begun = Some(operation.to_owned()),
                    Some(("@end", outcome)) => {
                        let operation = begun.take().unwrap();
                        writeln!(lines, "    {operation:<28} {outcome}").unwrap();
                        from += 1;
                    }
                    _ => {}
                },
                Err(ending) => break ending,
            }
        };
        match (begun, ending) {
            (None, Ending::Exited(0)) => return lines,
            (Some(operation), ending) => {
                writeln!(lines, "    {operation:<28} {ending}").unwrap();
                from += 1;
            }
            (None, ending) => panic!("between two operations: {ending}\n{}", other.output()),
        }
    }
}

type Operation = (String, Box<dyn FnOnce() -> String>);

/// In the other process: tries everything from some operation on.
fn tell_all() {
    let from: usize = std::env::var(FROM).unwrap().parse().unwrap();
    without_checks(|guest| {
        for (name, operation) in operations(guest).into_iter().skip(from) {
            println!("@begin\t{name}");
            println!("@end\t{}", operation());
        }
    });
}

/// What is tried, in this order.
fn operations(guest: &Guest) -> Vec<Operation> {
    let instance = Instance::new(Validation::Off).unwrap();
    let physical = instance.select(&Select::Driver(super::chosen())).unwrap();
    let mut operations = Vec::new();
    for &feature in Feature::ALL {
        let outcome = match physical.capabilities().missing(feature) {
            [] => "yes".to_owned(),
            missing => format!("lacks {}", missing.join(", ")),
        };
        add(&mut operations, &feature.to_string(), move || outcome);
    }
    let device = match Device::new(&physical) {
        Ok(device) => device,
        Err(error) => {
            let why = reason(&error, physical.name());
            add(&mut operations, "a device", move || why);
            return operations;
        }
    };
    let of = device.clone();
    add(&mut operations, "XR24 is imported as", move || {
        modifiers(&of)
    });
    for (name, allocate) in allocators(guest, &device) {
        let device = device.clone();
        let shared = move || match allocate(&Request::new(64, 48, Fourcc::XRGB8888)) {
            Ok(buffer) => in_both_ways(&device, &buffer),
            Err(why) => format!("not allocated: {why}"),
        };
        add(&mut operations, &name, shared);
    }
    let name = device.physical().name().to_owned();
    add(&mut operations, "a semaphore of a sync file", move || {
        let signalled = SyncFile::signalled().unwrap();
        outcome(Semaphore::from_sync_file(&device, Some(signalled)), &name)
    });
    operations
}

fn add(operations: &mut Vec<Operation>, name: &str, operation: impl FnOnce() -> String + 'static) {
    operations.push((name.to_owned(), Box::new(operation)));
}

fn outcome<T>(result: Result<T, Error>, device: &str) -> String {
    match result {
        Ok(_) => "yes".to_owned(),
        Err(error) => reason(&error, device),
    }
}

/// An error, without what is said of the device, which is in the heading.
fn reason(error: &dyn std::fmt::Display, device: &str) -> String {
    let text = error.to_string().replace(&format!("{device}: "), "");
    text.replace(device, "it")
}

fn modifiers(device: &Device) -> String {
    match device.importable_modifiers(Fourcc::XRGB8888, IMAGE_USAGE) {
        Ok(modifiers) if modifiers.is_empty() => "nothing".to_owned(),
        Ok(modifiers) => {
            let names = modifiers.iter().map(|(modifier, ..)| modifier.to_string());
            names.collect::<Vec<_>>().join(", ")
        }
        Err(error) => reason(&error, device.physical().name()),
    }
}

type Allocate = Box<dyn Fn(&Request) -> Result<DmaBuf, String>>;

/// Everybody that makes buffers.
fn allocators(guest: &Guest, vulkan: &Device) -> Vec<(String, Allocate)> {
    fn by(allocator: impl Allocator + 'static) -> Allocate {
        Box::new(move |request| {
            allocator
                .allocate(request)
                .map_err(|error| error.to_string())
        })
    }
    let mut nodes = device::enumerate().unwrap();
    nodes.retain(|node| node.kind == NodeKind::Primary);
    let mut allocators = Vec::new();
    for node in nodes {
        let card = guest.open(&node.path);
        allocators.push((
            format!("dumb buffer of {}", card.driver()),
            by(Dumb::new(&card)),
        ));
        if card.driver() == "virtio_gpu" {
            let gbm = Gbm::new(&card).unwrap();
            allocators.push((format!("gbm buffer of {}", card.driver()), by(gbm)));
        }
    }
    allocators.push(("udmabuf".to_owned(), by(Udmabuf::open().unwrap())));
    allocators.push(("dma-heap".to_owned(), by(DmaHeap::system().unwrap())));
    let exporter = ImageAllocator::new(vulkan, IMAGE_USAGE);
    let name = vulkan.physical().name().to_owned();
    let image: Allocate = Box::new(move |request| {
        let created = exporter.create_wait(request);
        created.map_err(|error| reason(&error, &name))
    });
    allocators.push(("an image of its own".to_owned(), image));
    let device = vulkan.clone();
    let buffer: Allocate = Box::new(move |request| {
        let created =
            device.create_buffer(request.width, request.height, request.fourcc, BUFFER_USAGE);
        created
            .map(|new| new.1)
            .map_err(|error| reason(&error, device.physical().name()))
    });
    allocators.push(("a buffer of its own".to_owned(), buffer));
    allocators
}

/// Whether what the CPU writes is read by Vulkan and the other way about: as an image, and as bytes.
fn in_both_ways(device: &Device, buffer: &DmaBuf) -> String {
    let name = device.physical().name();
    let mut mapping = match Mapping::of_object(buffer, 0) {
        Ok(mapping) => mapping,
        Err(error) => return format!("not mapped: {error}"),
    };
    let mut bytes = Bytes::new(device, buffer.objects()[0].size() as usize);
    let [image, plain] = [As::Image, As::Buffer].map(|way| {
        let refused = |error| reason(&error, name);
        match there_and_back(device, buffer, &mut mapping, &mut bytes, way, refused) {
            Ok(()) => "exact".to_owned(),
            Err(why) => why,
        }
    });
    match image == plain {
        true => image,
        false => format!("as an image: {image}; as bytes: {plain}"),
    }
}
