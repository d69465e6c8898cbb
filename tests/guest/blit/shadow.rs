//! A client's surface on a GPU that does not take the client's buffers.

use std::convert::Infallible;
use std::sync::Arc;

use primeshare::DmaBuf;
use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::blit::{
    BlitInfo, Blitter, Damage, DamageBox, Readable, Shadow, ShadowError, ShadowFrame, Strategy,
};
use primeshare::vk;
use primeshare::{Allocator, Fourcc, Request};

use super::{assert_shows, blitter, forced, patient, read, write};
use crate::support::{Guest, PATIENCE, buffer_on, in_guest};

fn shadow(guest: &Guest) -> Shadow {
    let allocator: Arc<dyn Allocator> = Arc::new(Dumb::new(&guest.vkms()));
    // Nothing is known of the GPU's modifiers.
    Shadow::new(allocator, [])
}

/// A GPU that takes what this device allocates and nothing else.
fn takes<'a>(clients: &'a [&'a DmaBuf]) -> impl FnMut(&DmaBuf) -> Result<DmaBuf, &'static str> {
    move |buffer| match clients.iter().any(|client| client.id() == buffer.id()) {
        true => Err("foreign memory"),
        false => Ok(buffer.clone()),
    }
}

/// The copy for a commit, when it is done.
fn copied(
    shadow: &mut Shadow,
    blitter: &Blitter,
    client: &DmaBuf,
    damage: Damage<'_>,
) -> ShadowFrame {
    let info = BlitInfo::default().damage(damage);
    let readable = shadow.read_from(blitter, client, &info, takes(&[client]));
    let Readable::Copy { frame, why, made } = readable.unwrap() else {
        panic!("the GPU takes it");
    };
    assert_eq!(why, "foreign memory");
    assert_eq!(made.id(), frame.buffer().id());
    frame.completion().wait(PATIENCE).unwrap();
    frame
}

#[test]
fn a_buffer_that_the_gpu_takes_is_not_copied() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let client = buffer_on(&vgem);
        let mut shadow = shadow(guest);
        let take = |buffer: &DmaBuf| Ok::<_, Infallible>(buffer.clone());
        let read = shadow.read_from(&blitter, &client, &BlitInfo::default(), take);
        let Ok(Readable::Original(original)) = read else {
            panic!("{read:?}");
        };
        assert_eq!(original.id(), client.id());
        assert_eq!(blitter.statistics().strategies.len(), 0);
    });
}

#[test]
fn a_copy_shows_the_clients_picture_and_is_not_overwritten_while_it_is_read() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let client = buffer_on(&vgem);
        let mut shadow = shadow(guest);
        let mut frame = |seed| {
            write(&client, seed);
            let frame = copied(&mut shadow, &blitter, &client, Damage::Full);
            assert_shows(&client, seed, "the original");
            frame
        };
        let frames = [frame(1), frame(2), frame(3)];
        for (frame, seed) in frames.iter().zip(1..) {
            assert_shows(frame.buffer(), seed, "held");
        }
        let info = BlitInfo::default();
        let fourth = shadow.read_from(&blitter, &client, &info, takes(&[&client]));
        assert!(matches!(fourth, Err(ShadowError::Busy)), "{fourth:?}");
        let [first, ..] = frames;
        let free = first.buffer().id();
        drop(first);
        write(&client, 4);
        let fourth = copied(&mut shadow, &blitter, &client, Damage::Full);
        assert_eq!(fourth.buffer().id(), free, "the buffer is used again");
        assert_shows(fourth.buffer(), 4, "used again");
    });
}

#[test]
fn each_copy_is_brought_up_to_date_by_what_has_changed_since_it_was_written() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &forced(Strategy::Cpu));
        let client = buffer_on(&vgem);
        let mut shadow = shadow(guest);
        let row = |y: i32| {
            [DamageBox {
                x1: 0,
                y1: y,
                x2: i32::MAX,
                y2: y + 1,
            }]
        };
        write(&client, 1);
        let first = copied(&mut shadow, &blitter, &client, Damage::Full);
        let second = copied(&mut shadow, &blitter, &client, Damage::Boxes(&[]));
        let old = read(&client);
        drop(first);
        // All of the client's picture changes, and two commits say so of one row each.
        write(&client, 2);
        let new = read(&client);
        let third = copied(&mut shadow, &blitter, &client, Damage::Boxes(&row(3)));
        drop((second, third));
        let is_new = |frame: &ShadowFrame| -> Vec<usize> {
            let rows = read(frame.buffer());
            let of = |y: &usize| rows[*y] == new[*y];
            let unknown = (0..rows.len()).find(|&y| rows[y] != new[y] && rows[y] != old[y]);
            assert_eq!(unknown, None);
            (0..rows.len()).filter(of).collect()
        };
        let fourth = copied(&mut shadow, &blitter, &client, Damage::Boxes(&row(5)));
        let fifth = copied(&mut shadow, &blitter, &client, Damage::Boxes(&[]));
        assert_eq!(is_new(&fourth), [3, 5]);
        assert_eq!(is_new(&fifth), [3, 5]);
        // A commit that the GPU read from the original counts as well.
        drop((fourth, fifth));
        let info = BlitInfo::default();
        let all = |buffer: &DmaBuf| Ok::<_, &str>(buffer.clone());
        shadow.read_from(&blitter, &client, &info, all).unwrap();
        let sixth = copied(&mut shadow, &blitter, &client, Damage::Boxes(&[]));
        assert_eq!(read(sixth.buffer()), new);
    });
}

#[test]
fn a_surface_of_another_format_gets_new_copies() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let mut shadow = shadow(guest);
        for fourcc in [Fourcc::XRGB8888, Fourcc::ARGB8888, Fourcc::XRGB8888] {
            let request = Request::new(64, 48, fourcc);
            let client = Dumb::new(&vgem).allocate(&request).unwrap();
            write(&client, 7);
            let frame = copied(&mut shadow, &blitter, &client, Damage::Boxes(&[]));
            assert_eq!(frame.buffer().fourcc(), fourcc);
            assert_shows(frame.buffer(), 7, "another format");
        }
    });
}

#[test]
fn copies_are_made_anew_if_a_buffer_of_another_size_was_read_itself_meanwhile() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let mut shadow = shadow(guest);
        let client = buffer_on(&vgem);
        write(&client, 1);
        drop(copied(&mut shadow, &blitter, &client, Damage::Full));
        let request = Request::new(32, 16, Fourcc::XRGB8888);
        let other = Dumb::new(&vgem).allocate(&request).unwrap();
        let info = BlitInfo::default().damage(Damage::Boxes(&[]));
        let take = |buffer: &DmaBuf| Ok::<_, &str>(buffer.clone());
        shadow.read_from(&blitter, &other, &info, take).unwrap();
        write(&client, 2);
        let frame = copied(&mut shadow, &blitter, &client, Damage::Boxes(&[]));
        assert_shows(frame.buffer(), 2, "after another size");
    });
}

#[test]
fn a_surface_of_another_size_gets_new_copies() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let mut shadow = shadow(guest);
        for (width, height) in [(64, 48), (32, 96), (64, 48)] {
            let request = Request::new(width, height, Fourcc::ARGB8888);
            let client = Dumb::new(&vgem).allocate(&request).unwrap();
            write(&client, width as u8);
            let frame = copied(&mut shadow, &blitter, &client, Damage::Boxes(&[]));
            assert_shows(frame.buffer(), width as u8, "another size");
            assert_eq!(frame.buffer().fourcc(), Fourcc::ARGB8888);
        }
    });
}

#[test]
fn a_gpu_that_takes_nothing_is_told_with_both_answers() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let client = buffer_on(&vgem);
        let mut shadow = shadow(guest);
        let nothing = |buffer: &DmaBuf| Err::<(), _>(buffer.id() == client.id());
        let refused = shadow.read_from(&blitter, &client, &BlitInfo::default(), nothing);
        let expected = ShadowError::NotTaken {
            original: true,
            copy: false,
        };
        assert_eq!(refused.unwrap_err(), expected);
    });
}

#[test]
fn where_a_buffers_memory_lives_is_said() {
    in_guest(|guest| {
        let on_vgem = buffer_on(&guest.vgem());
        assert_eq!(on_vgem.exporter(0).as_deref(), Some("drm"));
        let request = Request::new(64, 48, Fourcc::ARGB8888);
        let in_memory = Udmabuf::open().unwrap().allocate(&request).unwrap();
        assert_eq!(in_memory.exporter(0).as_deref(), Some("udmabuf"));
        assert_eq!(on_vgem.exporter(1), None);
        let vulkan = guest.vulkan();
        let kinds = vulkan.memory_of(&on_vgem).unwrap();
        assert!(!kinds.is_empty());
        let visible = vk::ash::vk::MemoryPropertyFlags::HOST_VISIBLE;
        assert!(kinds.iter().any(|kind| kind.contains(visible)), "{kinds:?}");
    });
}
