//! # Negotiation
//!
//! Which formats and modifiers all users of a buffer share, and who can allocate them. Asks no device: the program
//! says what each user (endpoint) can do.

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;

use primeshare::negotiate::{
    self, Endpoint, Feedback, FormatSet, Substitute, Support, Tranche, TrancheFlags, Wanted,
};
use primeshare::{Errno, ErrorKind, Fourcc, Modifier};

use crate::allocator::usage;
use crate::arguments::{array, out, utf8};
use crate::device::primeshare_device;
use crate::failure::{Failure, call};
use crate::object::{Object, give_exclusive, of, of_mut, take_exclusive};

/// A format and a modifier.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_format {
    /// DRM_FORMAT_* of drm_fourcc.h.
    pub format: u32,
    /// DRM_FORMAT_MOD_*. DRM_FORMAT_MOD_INVALID stands for buffers whose layout is left to the driver.
    pub modifier: u64,
}

impl primeshare_format {
    pub(crate) fn pair(self) -> (Fourcc, Modifier) {
        (Fourcc(self.format), Modifier(self.modifier))
    }
}

/// Somebody who will use the buffer. It belongs to one thread at a time.
pub struct primeshare_endpoint(pub(crate) Endpoint);

impl Object for primeshare_endpoint {
    const NAME: &'static str = "primeshare_endpoint";
}

/// Makes an endpoint that can do nothing yet. `device` may be NULL: it is not known, and taken for different from all
/// others. `usage_bits` (PRIMESHARE_USAGE_*) is what it will do with the buffer; `name` is for people.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_endpoint_create(
    name: *const c_char,
    device: Option<&primeshare_device>,
    usage_bits: u32,
    endpoint: Option<&mut MaybeUninit<*mut primeshare_endpoint>>,
) -> c_int {
    call(c"primeshare_endpoint_create", || {
        // SAFETY: as the header asks.
        let name = unsafe { utf8(name, "name") }?;
        let place = out(endpoint, "endpoint")?;
        let mut endpoint = Endpoint::new(name, FormatSet::default());
        endpoint.usage = usage(usage_bits)?;
        if device.is_some() {
            endpoint.device = Some(of(device, "device")?.device.key()?);
        }
        place.write(give_exclusive(primeshare_endpoint(endpoint)));
        Ok(())
    })
}

/// Ends an endpoint. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_endpoint_destroy(endpoint: *mut primeshare_endpoint) {
    // SAFETY: as the header asks.
    drop(unsafe { take_exclusive(endpoint) });
}

/// Adds what the endpoint can import, and also allocate if `allocates`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_endpoint_add(
    endpoint: Option<&mut primeshare_endpoint>,
    formats: *const primeshare_format,
    count: usize,
    allocates: bool,
) -> c_int {
    call(c"primeshare_endpoint_add", || {
        let endpoint = &mut of_mut(endpoint, "endpoint")?.0;
        // SAFETY: as the header asks.
        let formats = unsafe { array(formats, count, "formats") }?;
        let new = formats.iter().map(|format| Support {
            allocate: allocates,
            ..Support::from(format.pair())
        });
        endpoint.formats = endpoint.formats.iter().copied().chain(new).collect();
        Ok(())
    })
}

/// Adds what a KMS plane shows: the bytes of its IN_FORMATS blob.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_endpoint_add_in_formats(
    endpoint: Option<&mut primeshare_endpoint>,
    blob: *const c_void,
    blob_size: usize,
) -> c_int {
    call(c"primeshare_endpoint_add_in_formats", || {
        let endpoint = &mut of_mut(endpoint, "endpoint")?.0;
        // SAFETY: as the header asks.
        let blob = unsafe { array(blob.cast::<u8>(), blob_size, "blob") }?;
        let new = negotiate::parse_in_formats(blob)?;
        let new = new.into_iter().map(Support::from);
        endpoint.formats = endpoint.formats.iter().copied().chain(new).collect();
        Ok(())
    })
}

/// Says that the endpoint uses contiguous memory only, as display controllers without an IOMMU do, and whether what it
/// allocates is contiguous.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_endpoint_set_contiguous(
    endpoint: Option<&mut primeshare_endpoint>,
    needs: bool,
    allocates: bool,
) -> c_int {
    call(c"primeshare_endpoint_set_contiguous", || {
        let endpoint = &mut of_mut(endpoint, "endpoint")?.0;
        endpoint.needs_contiguous = needs;
        endpoint.allocates_contiguous = allocates;
        Ok(())
    })
}

/// Formats with and without alpha do not stand in for each other.
pub const PRIMESHARE_SUBSTITUTE_NEVER: u32 = 0;
/// An endpoint that does not list a format with alpha may ignore the alpha.
pub const PRIMESHARE_SUBSTITUTE_OPAQUE: u32 = 1;
/// And one that lists only the format with alpha may take one without as that.
pub const PRIMESHARE_SUBSTITUTE_BOTH: u32 = 2;

/// What endpoints share.
pub struct primeshare_agreement {
    choices: Vec<(Fourcc, usize, Vec<u64>)>,
    text: CString,
}

impl Object for primeshare_agreement {
    const NAME: &'static str = "primeshare_agreement";
}

/// Finds what endpoints share, for a buffer of this size in one of these formats, best first; no formats: any.
/// -EOPNOTSUPP if there is nothing, and the message says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_negotiate(
    endpoints: *const *const primeshare_endpoint,
    endpoint_count: usize,
    width: u32,
    height: u32,
    formats: *const u32,
    format_count: usize,
    substitute: u32,
    agreement: Option<&mut MaybeUninit<*mut primeshare_agreement>>,
) -> c_int {
    call(c"primeshare_negotiate", || {
        // SAFETY: as the header asks.
        let pointers = unsafe { array(endpoints, endpoint_count, "endpoints") }?;
        // SAFETY: as the header asks.
        let formats = unsafe { array(formats, format_count, "formats") }?;
        let place = out(agreement, "agreement")?;
        let substitute = match substitute {
            PRIMESHARE_SUBSTITUTE_NEVER => Substitute::Never,
            PRIMESHARE_SUBSTITUTE_OPAQUE => Substitute::Opaque,
            PRIMESHARE_SUBSTITUTE_BOTH => Substitute::Both,
            _ => {
                return Err(Failure::invalid(format!(
                    "there is no substitute {substitute}"
                )));
            }
        };
        let mut endpoints = Vec::with_capacity(endpoint_count);
        for pointer in pointers {
            // SAFETY: as the header asks.
            let endpoint = unsafe { pointer.as_ref() };
            endpoints.push(&of(endpoint, "one of endpoints")?.0);
        }
        let formats = formats.iter().map(|format| Fourcc(*format));
        let wanted = Wanted::new(width, height)
            .in_formats(formats)
            .substituting(substitute);
        let agreement = negotiate::negotiate(&endpoints, &wanted);
        agreement.best().map_err(|nothing| {
            let (kind, errno) = (ErrorKind::Unsupported, Errno::EOPNOTSUPP);
            Failure::new(kind, errno, nothing.to_string())
        })?;
        let numbers = |modifiers: &[Modifier]| modifiers.iter().map(|m| m.0).collect();
        let choices = agreement.choices.iter();
        let choices =
            choices.map(|choice| (choice.fourcc, choice.allocator, numbers(&choice.modifiers)));
        place.write(give_exclusive(primeshare_agreement {
            choices: choices.collect(),
            text: CString::new(agreement.to_string()).unwrap_or_default(),
        }));
        Ok(())
    })
}

/// Ends an agreement. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_agreement_destroy(agreement: *mut primeshare_agreement) {
    // SAFETY: as the header asks.
    drop(unsafe { take_exclusive(agreement) });
}

/// A format, and who can allocate it with which modifiers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_choice {
    /// DRM_FORMAT_* of drm_fourcc.h.
    pub format: u32,
    /// Which of the endpoints allocates, counted from 0.
    pub allocator: usize,
    /// For it to choose from: the modifiers of a struct primeshare_request. They live as long as the agreement.
    pub modifiers: *const u64,
    /// How many.
    pub modifier_count: usize,
}

/// Writes a choice, counted from 0, the best first. -ENOENT past the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_agreement_get_choice(
    agreement: Option<&primeshare_agreement>,
    index: usize,
    choice: Option<&mut MaybeUninit<primeshare_choice>>,
) -> c_int {
    call(c"primeshare_agreement_get_choice", || {
        let agreement = of(agreement, "agreement")?;
        let place = out(choice, "choice")?;
        let (fourcc, allocator, modifiers) =
            agreement.choices.get(index).ok_or_else(|| past(index))?;
        place.write(primeshare_choice {
            format: fourcc.0,
            allocator: *allocator,
            modifiers: modifiers.as_ptr(),
            modifier_count: modifiers.len(),
        });
        Ok(())
    })
}

fn past(index: usize) -> Failure {
    let message = format!("there is no entry {index}");
    Failure::new(ErrorKind::Invalid, Errno::ENOENT, message)
}

/// The choices, and why there are not more, for people: a line each; NULL if `agreement` is NULL. Lives as long as
/// the agreement.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_agreement_text(
    agreement: Option<&primeshare_agreement>,
) -> *const c_char {
    let agreement = of(agreement, "agreement");
    agreement.map_or(std::ptr::null(), |agreement| agreement.text.as_ptr())
}

/// A screen of the target device may show buffers of the tranche as they are.
pub const PRIMESHARE_TRANCHE_SCANOUT: u32 = 1;
/// The target device samples them efficiently (linux-dmabuf 6).
pub const PRIMESHARE_TRANCHE_SAMPLING: u32 = 2;

/// Formats and modifiers that are liked equally well, for linux-dmabuf feedback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_tranche {
    /// The number (dev_t) of the device that will use the buffers.
    pub target_device: u64,
    /// PRIMESHARE_TRANCHE_*
    pub flags: u32,
    /// The formats and modifiers.
    pub formats: *const primeshare_format,
    /// How many.
    pub format_count: usize,
}

/// linux-dmabuf feedback, encoded.
pub struct primeshare_feedback {
    table: Vec<u8>,
    tranches: Vec<(u64, u32, Vec<u16>)>,
}

impl Object for primeshare_feedback {
    const NAME: &'static str = "primeshare_feedback";
}

impl primeshare_feedback {
    pub(crate) fn table(&self) -> &[u8] {
        &self.table
    }
}

/// Encodes feedback for a client that has bound this version of zwp_linux_dmabuf_v1: tranches, best first, and the
/// main device's number (dev_t), which versions from 6 on do not have (0).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_feedback_create(
    version: u32,
    main_device: u64,
    tranches: *const primeshare_tranche,
    tranche_count: usize,
    feedback: Option<&mut MaybeUninit<*mut primeshare_feedback>>,
) -> c_int {
    call(c"primeshare_feedback_create", || {
        // SAFETY: as the header asks.
        let given = unsafe { array(tranches, tranche_count, "tranches") }?;
        let place = out(feedback, "feedback")?;
        let mut tranches = Vec::with_capacity(given.len());
        for tranche in given {
            // SAFETY: as the header asks.
            let formats = unsafe {
                array(
                    tranche.formats,
                    tranche.format_count,
                    "formats of a tranche",
                )
            }?;
            let flags = TrancheFlags::from_bits(tranche.flags);
            let flags = flags.ok_or_else(|| {
                Failure::invalid(format!(
                    "there is a tranche flag in {:#x} that has no meaning",
                    tranche.flags
                ))
            })?;
            let pairs = formats.iter().map(|format| format.pair());
            tranches.push(Tranche::new(tranche.target_device, flags, pairs));
        }
        let mut feedback = Feedback::new(tranches);
        if main_device != 0 {
            feedback = feedback.main_device(main_device);
        }
        let encoded = feedback.encode(version)?;
        let tranches = encoded.tranches.into_iter().map(|tranche| {
            let indices = tranche.formats.chunks_exact(2);
            let indices = indices.map(|index| u16::from_ne_bytes([index[0], index[1]]));
            (
                u64::from_ne_bytes(tranche.target_device),
                tranche.flags,
                indices.collect(),
            )
        });
        place.write(give_exclusive(primeshare_feedback {
            tranches: tranches.collect(),
            table: encoded.table,
        }));
        Ok(())
    })
}

/// Ends encoded feedback. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_feedback_destroy(feedback: *mut primeshare_feedback) {
    // SAFETY: as the header asks.
    drop(unsafe { take_exclusive(feedback) });
}

/// Writes where the format table is: the contents of the fd of zwp_linux_dmabuf_feedback_v1.format_table. It lives as
/// long as the feedback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_feedback_get_table(
    feedback: Option<&primeshare_feedback>,
    table: Option<&mut MaybeUninit<*const c_void>>,
    table_size: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    call(c"primeshare_feedback_get_table", || {
        let feedback = of(feedback, "feedback")?;
        let (table, size) = (out(table, "table")?, out(table_size, "table_size")?);
        table.write(feedback.table.as_ptr().cast());
        size.write(feedback.table.len());
        Ok(())
    })
}

/// A tranche of encoded feedback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_encoded_tranche {
    /// tranche_target_device
    pub target_device: u64,
    /// tranche_flags
    pub flags: u32,
    /// tranche_formats: indices into the table. They live as long as the feedback. A message of Wayland has at most 4096
    /// bytes, so send no more than 2000 at a time.
    pub indices: *const u16,
    /// How many.
    pub index_count: usize,
}

/// Writes a tranche, counted from 0. -ENOENT past the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_feedback_get_tranche(
    feedback: Option<&primeshare_feedback>,
    index: usize,
    tranche: Option<&mut MaybeUninit<primeshare_encoded_tranche>>,
) -> c_int {
    call(c"primeshare_feedback_get_tranche", || {
        let feedback = of(feedback, "feedback")?;
        let place = out(tranche, "tranche")?;
        let (target_device, flags, indices) =
            feedback.tranches.get(index).ok_or_else(|| past(index))?;
        place.write(primeshare_encoded_tranche {
            target_device: *target_device,
            flags: *flags,
            indices: indices.as_ptr(),
            index_count: indices.len(),
        });
        Ok(())
    })
}
