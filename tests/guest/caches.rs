//! Caches die with their buffers and keep nothing alive.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;

use primeshare::buffer::{PlaneFd, Refusal, WeakPerBuffer};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use crate::support::{PATIENCE, buffer_on, in_guest, resident_pages, scale};

/// The same buffer as another client would describe it.
fn described_again(buffer: &DmaBuf) -> DmaBuf {
    let plane = PlaneFd {
        fd: buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
        offset: buffer.planes()[0].offset,
        stride: buffer.planes()[0].stride,
    };
    DmaBuf::new(*buffer.desc(), [plane]).unwrap()
}

#[test]
fn what_is_in_use_is_found_again_and_nothing_else_is_kept() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let cache: WeakPerBuffer<String, ()> = WeakPerBuffer::new();
        let made = Cell::new(0);
        let make = || {
            made.set(made.get() + 1);
            Ok::<_, Refusal<()>>("image".to_owned())
        };
        let first = cache.get_or_make(&buffer, make).unwrap();
        let again = cache.get_or_make(&buffer, make).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(made.get(), 1);
        // Nobody uses it any more, so it is gone although the buffer lives.
        drop((first, again));
        assert!(cache.get(&buffer).is_none());
        cache.get_or_make(&buffer, make).unwrap();
        assert_eq!(made.get(), 2);
        // What is in use outlives the entry.
        let held = cache.get_or_make(&buffer, make).unwrap();
        drop(buffer);
        assert_eq!((cache.len(), held.as_str()), (0, "image"));
    });
}

#[test]
fn a_refusal_is_remembered_until_the_buffer_goes_or_it_is_forgotten() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let cache: WeakPerBuffer<(), &str> = WeakPerBuffer::new();
        let never = || -> Result<(), _> { panic!("asked again") };
        let refused = cache.get_or_make(&buffer, || Err(Refusal::Transient("busy")));
        assert_eq!(refused, Err(Arc::new("busy")));
        let refused = cache.get_or_make(&buffer, || Err(Refusal::Permanent("too large")));
        assert_eq!(refused, Err(Arc::new("too large")));
        assert_eq!(
            cache.get_or_make(&buffer, never),
            Err(Arc::new("too large"))
        );
        cache.forget(&buffer);
        assert!(cache.get_or_make(&buffer, || Ok(())).is_ok());
        drop(buffer);
        assert!(cache.is_empty());
    });
}

#[test]
fn an_entry_goes_with_the_last_description_of_its_buffer() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let other = described_again(&buffer);
        assert_eq!(HashSet::from([buffer.clone(), other.clone()]).len(), 1);
        let cache: WeakPerBuffer<u32, ()> = WeakPerBuffer::new();
        let held = cache.get_or_make(&buffer, || Ok(7)).unwrap();
        let same = cache.get_or_make(&other, || Ok(8)).unwrap();
        assert!(Arc::ptr_eq(&held, &same));
        drop(buffer);
        let still = cache.get_or_make(&other, || Ok(9)).unwrap();
        assert!(Arc::ptr_eq(&held, &still));
        drop(other);
        assert!(cache.is_empty());
    });
}

#[test]
fn a_cache_may_go_before_its_buffers() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let cache: WeakPerBuffer<u32, ()> = WeakPerBuffer::new();
        cache.get_or_make(&buffer, || Ok(1)).unwrap();
        drop(cache);
        let next: WeakPerBuffer<u32, ()> = WeakPerBuffer::new();
        cache_is_used(&next, &buffer);
        drop(buffer);
        assert!(next.is_empty());
    });
}

/// A value or a refusal whose drop uses the cache that it is in, and which may hold another
/// buffer of that cache.
struct Curious {
    cache: WeakPerBuffer<Curious, Curious>,
    _other: Option<DmaBuf>,
}

impl Curious {
    fn new(cache: &WeakPerBuffer<Curious, Curious>, other: Option<DmaBuf>) -> Self {
        Self {
            cache: cache.clone(),
            _other: other,
        }
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.cache.len();
    }
}

#[test]
fn what_is_made_of_a_buffer_may_hold_another_and_use_the_cache() {
    in_guest(|guest| {
        let dumb = primeshare::alloc::Dumb::new(&guest.vgem());
        let (done, is_done) = std::sync::mpsc::channel();
        // In a thread of its own: if a lock is taken twice, it hangs.
        let uses = std::thread::spawn(move || {
            let request = Request::new(16, 16, Fourcc::XRGB8888);
            let allocate = || dumb.allocate(&request).unwrap();
            let cache: WeakPerBuffer<Curious, Curious> = WeakPerBuffer::new();
            let refuse = |buffer: &DmaBuf, other: DmaBuf| {
                let other_is_known = cache.get_or_make(&other, || Ok(Curious::new(&cache, None)));
                assert!(other_is_known.is_ok());
                let refused = cache.get_or_make(buffer, || {
                    Err(Refusal::Permanent(Curious::new(&cache, Some(other))))
                });
                assert!(refused.is_err());
            };
            let buffer = allocate();
            refuse(&buffer, allocate());
            assert!(matches!(cache.get(&buffer), Some(Err(_))));
            let again = cache.get_or_make(&buffer, || panic!("asked again"));
            assert!(again.is_err());
            drop(again);
            assert_eq!(cache.len(), 2);
            done.send("known").unwrap();
            cache.forget(&buffer);
            assert_eq!(cache.len(), 1);
            done.send("forgotten").unwrap();
            refuse(&buffer, allocate());
            drop(buffer);
            assert!(cache.is_empty());
            done.send("gone").unwrap();
            // Made twice, since somebody else was first.
            let buffer = allocate();
            let mut first = None;
            let second = cache.get_or_make(&buffer, || {
                let make = || Ok(Curious::new(&cache, None));
                first = cache.get_or_make(&buffer, make).ok();
                Ok(Curious::new(&cache, None))
            });
            assert!(Arc::ptr_eq(&first.unwrap(), &second.ok().unwrap()));
            done.send("made twice").unwrap();
        });
        for what in ["known", "forgotten", "gone", "made twice"] {
            assert_eq!(is_done.recv_timeout(PATIENCE), Ok(what));
        }
        uses.join().unwrap();
    });
}

fn cache_is_used(cache: &WeakPerBuffer<u32, ()>, buffer: &DmaBuf) {
    cache.get_or_make(buffer, || Ok(2)).unwrap();
    assert_eq!(cache.len(), 1);
}

#[test]
fn memory_is_as_before_when_many_buffers_have_come_and_gone() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let dumb = primeshare::alloc::Dumb::new(&vgem);
        let cache: WeakPerBuffer<u32, ()> = WeakPerBuffer::new();
        let round = |count| {
            for _ in 0..count {
                let request = Request::new(16, 16, Fourcc::XRGB8888);
                let buffer = dumb.allocate(&request).unwrap();
                let imported = vkms.import(&buffer).unwrap();
                cache.get_or_make(&buffer, || Ok(1)).unwrap();
                drop((imported, buffer));
            }
        };
        // Allocators and hash tables get the size that they keep.
        round(1000);
        let before = resident_pages();
        round(scale(5_000, 100_000));
        let after = resident_pages();
        assert!(after <= before + 16, "{before} pages, then {after}");
        assert!(cache.is_empty());
        assert_eq!((vgem.stats().handles, vkms.stats().handles), (0, 0));
    });
}
