//! The rules, against a slow statement of them and by what must hold of any result.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::buffer::{Fourcc, Modifier};

const TILED: Modifier = Modifier(0x0100_0000_0000_0001);
const COMPRESSED: Modifier = Modifier(0x0200_0000_0000_0007);
const FORMATS: [Fourcc; 4] = [
    Fourcc::XRGB8888,
    Fourcc::ARGB8888,
    Fourcc::NV12,
    Fourcc(0x1234),
];
const MODIFIERS: [Modifier; 4] = [Modifier::LINEAR, Modifier::INVALID, TILED, COMPRESSED];

/// Format, modifier and allocator's name.
type Agreed = BTreeSet<(Fourcc, Modifier, String)>;

fn agreed(agreement: &Agreement<'_>) -> Agreed {
    let choices = agreement.choices.iter().flat_map(|choice| {
        let name = &agreement.allocator(choice).unwrap().name;
        let modifiers = choice.modifiers.iter();
        modifiers.map(move |modifier| (choice.fourcc, *modifier, name.clone()))
    });
    choices.collect()
}

/// The rules, one after the other, for each format, modifier and allocator there could be.
fn slowly(endpoints: &[Endpoint], wanted: &Wanted) -> Agreed {
    let suits = |endpoint: &Endpoint, entry: &Support| {
        entry.usage.contains(endpoint.usage)
            && wanted.width <= entry.max_width
            && wanted.height <= entry.max_height
    };
    let stands_in = |fourcc: Fourcc, listed: Fourcc| match wanted.substitute {
        _ if fourcc == listed => true,
        Substitute::Never => false,
        Substitute::Opaque => (fourcc, listed) == (Fourcc::ARGB8888, Fourcc::XRGB8888),
        Substitute::Both => {
            [fourcc, listed] == [Fourcc::ARGB8888, Fourcc::XRGB8888]
                || [fourcc, listed] == [Fourcc::XRGB8888, Fourcc::ARGB8888]
        }
    };
    let of_one_device = endpoints.len() == 1
        || (endpoints[0].device.is_some()
            && endpoints.iter().all(|e| e.device == endpoints[0].device));
    let contiguous = endpoints.iter().any(|e| e.needs_contiguous);
    let mut agreed = Agreed::new();
    for fourcc in FORMATS {
        for modifier in MODIFIERS {
            for (index, allocator) in endpoints.iter().enumerate() {
                let allowed = (wanted.formats.is_empty() || wanted.formats.contains(&fourcc))
                    && (modifier != Modifier::INVALID || of_one_device)
                    && (!contiguous || allocator.allocates_contiguous);
                let with_planes = |planes: u8| {
                    let same = |entry: &&Support| {
                        entry.modifier == modifier && entry.planes.is_none_or(|p| p == planes)
                    };
                    let allocates = allocator.formats.iter().filter(same).any(|entry| {
                        entry.fourcc == fourcc && entry.allocate && suits(allocator, entry)
                    });
                    let others = endpoints.iter().enumerate().filter(|(i, _)| *i != index);
                    let import = |endpoint: &Endpoint| {
                        endpoint.formats.iter().filter(same).any(|entry| {
                            let taken = stands_in(fourcc, entry.fourcc);
                            taken && entry.import && suits(endpoint, entry)
                        })
                    };
                    allocates && others.map(|(_, endpoint)| endpoint).all(import)
                };
                if allowed && (1..=4).any(with_planes) {
                    agreed.insert((fourcc, modifier, allocator.name.clone()));
                }
            }
        }
    }
    agreed
}

fn ask<'a>(endpoints: &'a [Endpoint], wanted: &Wanted) -> Agreement<'a> {
    let endpoints: Vec<&Endpoint> = endpoints.iter().collect();
    negotiate(&endpoints, wanted)
}

fn usages() -> impl Strategy<Value = Usage> {
    // Mostly what everybody can do: else nothing would be agreed on.
    select(vec![
        Usage::all(),
        Usage::all(),
        Usage::all(),
        Usage::RENDER | Usage::SAMPLE,
        Usage::SCANOUT,
    ])
}

fn entries() -> impl Strategy<Value = Support> {
    let pair = (select(&FORMATS[..]), select(&MODIFIERS[..]));
    let largest = || select(vec![u32::MAX, u32::MAX, 2048]);
    let planes = select(vec![None, None, Some(1u8), Some(2)]);
    let can = (any::<bool>(), proptest::bool::weighted(0.9));
    (pair, usages(), largest(), largest(), planes, can).prop_map(
        |((fourcc, modifier), usage, max_width, max_height, planes, (allocate, import))| Support {
            fourcc,
            modifier,
            usage,
            max_width,
            max_height,
            planes,
            allocate,
            import,
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let needed = select(vec![Usage::empty(), Usage::RENDER, Usage::SCANOUT]);
    let device = select(vec![
        None,
        Some(DeviceKey(1)),
        Some(DeviceKey(1)),
        Some(DeviceKey(2)),
    ]);
    let contiguous = (proptest::bool::weighted(0.1), any::<bool>());
    let entries = prop::collection::vec(entries(), 0..40);
    (needed, device, contiguous, entries).prop_map(
        |(usage, device, (needs_contiguous, allocates_contiguous), entries)| Endpoint {
            name: String::new(),
            device,
            usage,
            formats: entries.into_iter().collect(),
            needs_contiguous,
            allocates_contiguous,
        },
    )
}

fn table() -> impl Strategy<Value = Vec<Endpoint>> {
    let endpoints = prop::collection::vec(endpoint(), 1..5);
    // Half of them of one device: chance alone would seldom do it.
    (endpoints, any::<bool>()).prop_map(|(mut endpoints, one_device)| {
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.name = format!("endpoint {index}");
            if one_device {
                endpoint.device = Some(DeviceKey(1));
            }
        }
        endpoints
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let size = || select(vec![1920, 4096]);
    let formats = prop::collection::vec(select(&FORMATS[..]), 0..4);
    let substitute = select(vec![
        Substitute::Never,
        Substitute::Opaque,
        Substitute::Both,
    ]);
    (size(), size(), formats, substitute).prop_map(|(width, height, formats, substitute)| {
        Wanted::new(width, height)
            .in_formats(formats)
            .substituting(substitute)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_agreed_on_is_what_the_rules_allow(endpoints in table(), wanted in wanted()) {
        prop_assert_eq!(agreed(&ask(&endpoints, &wanted)), slowly(&endpoints, &wanted));
    }

    #[test]
    fn nothing_is_invented(endpoints in table(), wanted in wanted()) {
        let agreement = ask(&endpoints, &wanted);
        for choice in &agreement.choices {
            for &modifier in &choice.modifiers {
                let allocator = agreement.allocator(choice).unwrap();
                prop_assert!(allocator.formats.contains(choice.fourcc, modifier));
                for (index, endpoint) in endpoints.iter().enumerate() {
                    let listed = agreement.used_as(choice.fourcc, modifier, index).unwrap();
                    prop_assert!(endpoint.formats.contains(listed, modifier));
                    let substituted = listed != choice.fourcc;
                    prop_assert!(!substituted || wanted.substitute != Substitute::Never);
                }
            }
        }
    }

    #[test]
    fn the_order_of_endpoints_and_lists_does_not_matter(
        (endpoints, shuffled) in table().prop_flat_map(|endpoints| {
            (Just(endpoints.clone()), Just(endpoints).prop_shuffle())
        }),
        wanted in wanted(),
    ) {
        let shuffled: Vec<Endpoint> = shuffled
            .into_iter()
            .map(|endpoint| {
                let mut entries: Vec<Support> = endpoint.formats.iter().copied().collect();
                entries.reverse();
                Endpoint { formats: entries.into_iter().collect(), ..endpoint }
            })
            .collect();
        let (one, other) = (ask(&endpoints, &wanted), ask(&shuffled, &wanted));
        let named = |agreement: &Agreement<'_>| -> Vec<_> {
            let choices = agreement.choices.iter();
            choices
                .map(|c| (c.fourcc, c.modifiers.clone(), agreement.allocator(c).unwrap().name.clone()))
                .collect()
        };
        prop_assert_eq!(named(&one), named(&other));
        let reasons = |agreement: &Agreement<'_>| -> BTreeSet<String> {
            agreement.reasons.iter().map(ToString::to_string).collect()
        };
        prop_assert_eq!(reasons(&one), reasons(&other));
    }

    #[test]
    fn listing_less_never_gains_and_listing_more_never_loses(
        endpoints in table(),
        wanted in wanted(),
        who in any::<prop::sample::Index>(),
        kept in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut fewer = endpoints.clone();
        let endpoint = &mut fewer[who.index(endpoints.len())];
        let mut kept = kept.into_iter();
        endpoint.formats = endpoint.formats.filter_map(|entry| kept.next()?.then_some(entry));
        let (more, less) = (ask(&endpoints, &wanted), ask(&fewer, &wanted));
        prop_assert!(agreed(&less).is_subset(&agreed(&more)));
    }

    #[test]
    fn implicit_layouts_never_cross_devices(endpoints in table(), wanted in wanted()) {
        let devices: BTreeSet<_> = endpoints.iter().map(|endpoint| endpoint.device).collect();
        let agreement = ask(&endpoints, &wanted);
        let implicit = |choice: &Choice| choice.modifiers.contains(&Modifier::INVALID);
        if agreement.choices.iter().any(implicit) && endpoints.len() > 1 {
            prop_assert_eq!(devices.len(), 1);
            prop_assert!(devices.first().unwrap().is_some());
        }
    }

    #[test]
    fn linear_comes_last_and_says_so_where_it_is_all(endpoints in table(), wanted in wanted()) {
        let agreement = ask(&endpoints, &wanted);
        for choice in &agreement.choices {
            let (last, others) = choice.modifiers.split_last().unwrap();
            prop_assert!(!others.contains(&Modifier::LINEAR));
            prop_assert!(!others.contains(&Modifier::INVALID) || *last == Modifier::LINEAR);
            let unique: BTreeSet<_> = choice.modifiers.iter().collect();
            prop_assert_eq!(unique.len(), choice.modifiers.len());
            let said = agreement.reasons.contains(&Reason {
                fourcc: Some(choice.fourcc),
                modifier: None,
                endpoint: Some(&agreement.allocator(choice).unwrap().name),
                why: Why::OnlyLinear,
            });
            prop_assert_eq!(said, choice.only_linear());
        }
    }

    #[test]
    fn formats_come_in_the_order_that_was_wanted(endpoints in table(), wanted in wanted()) {
        prop_assume!(!wanted.formats.is_empty());
        let agreement = ask(&endpoints, &wanted);
        let place = |choice: &Choice| wanted.formats.iter().position(|f| *f == choice.fourcc);
        prop_assert!(agreement.choices.iter().map(place).is_sorted());
    }

    #[test]
    fn everything_that_is_not_agreed_on_has_a_reason(endpoints in table(), wanted in wanted()) {
        let agreement = ask(&endpoints, &wanted);
        let agreed: BTreeSet<_> = agreed(&agreement).into_iter().map(|(f, m, _)| (f, m)).collect();
        for entry in endpoints.iter().flat_map(|endpoint| endpoint.formats.iter()) {
            let (fourcc, modifier) = (entry.fourcc, entry.modifier);
            let tried = wanted.formats.is_empty() || wanted.formats.contains(&fourcc);
            let reason = agreement.reasons.iter().any(|reason| {
                reason.fourcc == Some(fourcc)
                    && reason.modifier.is_none_or(|m| m == modifier)
                    && reason.why != Why::OnlyLinear
            });
            if tried {
                prop_assert_ne!(reason, agreed.contains(&(fourcc, modifier)));
            }
        }
    }
}

fn pairs(pairs: impl IntoIterator<Item = (Fourcc, Modifier)>) -> FormatSet {
    pairs.into_iter().collect()
}

const XRGB: Fourcc = Fourcc::XRGB8888;
const ARGB: Fourcc = Fourcc::ARGB8888;
const GPU: DeviceKey = DeviceKey(128);
const DISPLAY: DeviceKey = DeviceKey(1);

#[test]
fn a_display_without_scattered_memory_allocates_itself() {
    let both = [(XRGB, TILED), (XRGB, Modifier::LINEAR)];
    let gpu = Endpoint::gbm("gpu", GPU, Usage::RENDER, pairs(both));
    let mut display = Endpoint::plane("display", DISPLAY, pairs(both)).allocating();
    let wanted = Wanted::new(64, 64);
    let agreement = negotiate(&[&gpu, &display], &wanted);
    assert_eq!(agreement.best().unwrap().allocator, 0, "who renders");
    display.needs_contiguous = true;
    let agreement = negotiate(&[&gpu, &display], &wanted);
    assert!(agreement.choices.is_empty());
    display.allocates_contiguous = true;
    let agreement = negotiate(&[&gpu, &display], &wanted);
    assert_eq!(agreement.choices.len(), 1);
    assert_eq!(agreement.best().unwrap().allocator, 1);
    assert_eq!(
        agreement.reasons[0].to_string(),
        "gpu cannot allocate the contiguous memory that display needs"
    );
}

#[test]
fn a_twin_stands_in_only_where_that_was_asked_for() {
    let gpu = Endpoint::gbm("gpu", GPU, Usage::RENDER, pairs([(ARGB, TILED)]));
    let display = Endpoint::plane("display", DISPLAY, pairs([(XRGB, TILED)]));
    let ask = |substitute| {
        let wanted = Wanted::new(64, 64).substituting(substitute);
        let agreement = negotiate(&[&gpu, &display], &wanted);
        let best = agreement.best().cloned();
        best.map(|choice| (choice.fourcc, agreement.used_as(choice.fourcc, TILED, 1)))
    };
    assert!(ask(Substitute::Never).is_err());
    assert_eq!(ask(Substitute::Opaque), Ok((ARGB, Some(XRGB))));
    // The other way round, the alpha would be made of unused bits.
    let gpu = Endpoint::gbm("gpu", GPU, Usage::RENDER, pairs([(XRGB, TILED)]));
    let cursor = Endpoint::plane("cursor", DISPLAY, pairs([(ARGB, TILED)]));
    let ask = |substitute| {
        let wanted = Wanted::new(64, 64).substituting(substitute);
        let agreement = negotiate(&[&gpu, &cursor], &wanted);
        agreement.best().map(|choice| choice.fourcc)
    };
    assert!(ask(Substitute::Opaque).is_err());
    assert_eq!(ask(Substitute::Both), Ok(XRGB));
}

/// What a compositor tells that draws on `GPU` and has a second display controller.
fn feedback(tranches: impl IntoIterator<Item = (DeviceKey, bool, Vec<Modifier>)>) -> Feedback {
    let tranche = |(device, scanout, modifiers): (DeviceKey, _, Vec<_>)| Tranche {
        target_device: device.0,
        flags: match scanout {
            true => TrancheFlags::SCANOUT,
            false => TrancheFlags::SAMPLING,
        },
        pairs: modifiers
            .into_iter()
            .map(|modifier| (XRGB, modifier))
            .collect(),
    };
    Feedback {
        main_device: Some(GPU.0),
        tranches: tranches.into_iter().map(tranche).collect(),
    }
}

/// The tranche that a client of `GPU` that can allocate everything takes, and its modifiers.
fn client_takes(feedback: &Feedback) -> Result<(usize, Vec<Modifier>), Nothing> {
    let all = MODIFIERS.map(|modifier| (XRGB, modifier));
    let client = Endpoint::gbm("client", GPU, Usage::RENDER, pairs(all));
    let tranches = feedback.endpoints("compositor", |number| Some(DeviceKey(number)));
    let (tranche, agreement) = negotiate_one_of(&[&client], &tranches, &Wanted::new(64, 64))?;
    Ok((tranche, agreement.best()?.modifiers.clone()))
}

#[test]
fn the_tranche_that_a_compositor_prefers_comes_first() {
    let told = feedback([
        (GPU, true, vec![Modifier::LINEAR, TILED]),
        (GPU, false, vec![Modifier::LINEAR, TILED, COMPRESSED]),
    ]);
    assert_eq!(client_takes(&told), Ok((0, vec![TILED, Modifier::LINEAR])));
    let told = feedback([
        (GPU, true, vec![Modifier(0x77)]),
        (GPU, false, vec![COMPRESSED]),
    ]);
    assert_eq!(client_takes(&told), Ok((1, vec![COMPRESSED])));
}

#[test]
fn a_tranche_says_nothing_of_another_device_s_implicit_layouts() {
    let implicit = vec![Modifier::INVALID];
    let told = feedback([(DISPLAY, true, implicit.clone())]);
    let nothing = client_takes(&told).unwrap_err().to_string();
    assert!(
        nothing.contains("not all are known to be of one device"),
        "{nothing}"
    );
    let told = feedback([(DISPLAY, true, implicit.clone()), (GPU, false, implicit)]);
    assert_eq!(client_takes(&told), Ok((1, vec![Modifier::INVALID])));
}

#[test]
fn linear_comes_before_another_device_s_implicit_layout() {
    let both = vec![Modifier::INVALID, Modifier::LINEAR];
    let told = feedback([(DISPLAY, true, both)]);
    assert_eq!(client_takes(&told), Ok((0, vec![Modifier::LINEAR])));
    let told = feedback([
        (DISPLAY, true, vec![Modifier::INVALID]),
        (GPU, false, vec![Modifier::LINEAR]),
    ]);
    assert_eq!(client_takes(&told), Ok((1, vec![Modifier::LINEAR])));
}

#[test]
fn a_tranche_with_the_scanout_flag_is_shown_and_others_are_sampled() {
    let told = feedback([(DISPLAY, true, vec![TILED]), (GPU, false, vec![TILED])]);
    let tranches = told.endpoints("compositor", |number| {
        (number == GPU.0).then_some(DeviceKey(7))
    });
    let seen: Vec<_> = tranches.iter().map(|t| (t.usage, t.device)).collect();
    let expected = [(Usage::SCANOUT, None), (Usage::SAMPLE, Some(DeviceKey(7)))];
    assert_eq!(seen, expected);
}

#[test]
fn a_better_format_is_worth_a_worse_tranche() {
    let both = [(ARGB, TILED), (XRGB, TILED)];
    let client = Endpoint::gbm("client", GPU, Usage::RENDER, pairs(both));
    let told = |fourcc| Endpoint::new("compositor", pairs([(fourcc, TILED)]));
    let tranches = [told(XRGB), told(ARGB)];
    let ask = |formats| {
        let wanted = Wanted::new(64, 64).in_formats(formats);
        negotiate_one_of(&[&client], &tranches, &wanted).map(|(tranche, _)| tranche)
    };
    assert_eq!(ask(vec![ARGB, XRGB]), Ok(1));
    assert_eq!(ask(vec![XRGB, ARGB]), Ok(0));
    assert_eq!(ask(vec![]), Ok(0));
    let refused = ask(vec![Fourcc::NV12]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "client and compositor; or client and compositor can share no format and modifier\n  \
         NV12: client does not list it\n  NV12: compositor does not list it"
    );
    let nobody = negotiate_one_of(&[&client], &[], &Wanted::new(64, 64)).unwrap_err();
    assert!(nobody.to_string().contains("there is nobody to share with"));
}

#[test]
fn a_refusal_names_everything_that_dropped_out() {
    let gpu = Endpoint::gbm(
        "gpu",
        GPU,
        Usage::RENDER,
        pairs([
            (XRGB, TILED),
            (XRGB, Modifier::INVALID),
            (Fourcc::NV12, TILED),
        ]),
    );
    let small = Support {
        max_width: 32,
        max_height: 16,
        ..Support::new(XRGB, TILED)
    };
    let unusable = Support {
        usage: Usage::SAMPLE,
        ..Support::new(XRGB, Modifier::LINEAR)
    };
    let display = Endpoint::plane("display", DISPLAY, FormatSet::from_iter([small, unusable]));
    let agreement = negotiate(&[&gpu, &display], &Wanted::new(64, 64));
    let nothing = agreement.best().unwrap_err().to_string();
    let mut lines: Vec<&str> = nothing.lines().collect();
    assert_eq!(
        lines.remove(0),
        "gpu and display can share no format and modifier"
    );
    assert_eq!(
        lines,
        [
            "  XR24 with LINEAR: gpu does not list it",
            "  XR24 with LINEAR: display cannot use it for SCANOUT",
            "  XR24 with INVALID: not all are known to be of one device, and only that knows the \
             layout",
            "  XR24 with I915_X_TILED: display takes at most 32x16",
            "  NV12: display does not list it",
        ]
    );
    assert!(negotiate(&[], &Wanted::new(1, 1)).best().is_err());
}

#[test]
fn endpoints_that_count_planes_differently_do_not_agree() {
    let with = |planes| {
        let entry = Support {
            planes,
            allocate: true,
            ..Support::new(XRGB, COMPRESSED)
        };
        FormatSet::from_iter([entry])
    };
    let ask = |one, other| {
        let one = Endpoint::vulkan("one", Some(GPU), Usage::RENDER, with(one));
        let other = Endpoint::vulkan("other", None, Usage::SAMPLE, with(other));
        let agreement = negotiate(&[&one, &other], &Wanted::new(64, 64));
        agreement
            .reasons
            .first()
            .map(|reason| reason.why == Why::PlaneCounts)
    };
    assert_eq!(ask(Some(2), Some(2)), None);
    assert_eq!(ask(Some(2), None), None);
    assert_eq!(ask(Some(2), Some(1)), Some(true));
    assert_eq!(ask(Some(200), Some(1)), Some(true));
}

#[test]
fn any_format_means_the_ordinary_one_first() {
    let formats = [
        Fourcc(0x1234),
        Fourcc::R8,
        Fourcc::NV12,
        Fourcc::ABGR16161616F,
        Fourcc::XRGB2101010,
        ARGB,
        XRGB,
        Fourcc::XBGR8888,
        Fourcc::GR1616,
    ];
    let formats = pairs(formats.map(|fourcc| (fourcc, TILED)));
    let alone = Endpoint::gbm("alone", GPU, Usage::RENDER, formats);
    let agreement = negotiate(&[&alone], &Wanted::new(64, 64));
    let order: Vec<Fourcc> = agreement.choices.iter().map(|c| c.fourcc).collect();
    assert_eq!(
        order,
        [
            XRGB,
            ARGB,
            Fourcc::XBGR8888,
            Fourcc::XRGB2101010,
            Fourcc::ABGR16161616F,
            Fourcc::R8,
            Fourcc::NV12,
            Fourcc::GR1616,
            Fourcc(0x1234),
        ]
    );
}

#[test]
fn a_set_keeps_different_limits_of_one_pair_and_equal_ones_once() {
    let entry = Support::new(XRGB, TILED);
    let narrow = Support {
        max_width: 64,
        ..entry
    };
    let set = FormatSet::from_iter([entry, narrow, entry]);
    assert_eq!(set.of(XRGB), [narrow, entry]);
    assert_eq!(set.modifiers(XRGB).collect::<Vec<_>>(), [TILED]);
    let set = set.and_implicit();
    assert!(set.contains(XRGB, Modifier::INVALID) && set.contains(XRGB, TILED));
    assert_eq!(set.formats().collect::<Vec<_>>(), [XRGB]);
    assert!(set.of(ARGB).is_empty() && !set.contains(ARGB, TILED));
}
