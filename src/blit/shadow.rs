//! Copies of what a client shows, for a GPU that does not take the client's buffers.

use std::fmt;
use std::sync::Arc;

use super::{BlitInfo, Blitter, Completion, Error};
use crate::alloc::{self, Allocator, Request};
use crate::buffer::{Damage, DamageBox, DmaBuf, FormatInfo, Fourcc, Modifier, Usage};
use crate::{Errno, ErrorKind};

/// A client's surface on a GPU that may not take the client's buffers.
///
/// The buffers of a surface go through [`Self::read_from`]. It asks the GPU first, and where the GPU takes the buffer
/// itself, nothing else happens. Where it refuses, a [`Blitter`] copies what has changed into a buffer that the GPU
/// takes. The client's buffer is only read, by the way that the blitter knows to work. No client has to be disconnected
/// because a GPU does not take its memory.
///
/// A shadow keeps up to three buffers: one that is shown, one that may still be read for the frame before, and one that is
/// being written. Each knows what has changed since it was written, so that only that is copied.
pub struct Shadow {
    allocator: Arc<dyn Allocator>,
    modifiers: Vec<Modifier>,
    pictures: Vec<Picture>,
    /// Size and format of the client's last buffer.
    kind: Option<(u32, u32, Fourcc)>,
    /// The format of the copies.
    format: Option<Fourcc>,
}

/// What the GPU reads for a commit of the client, and what was made of it there.
#[derive(Debug)]
#[non_exhaustive]
pub enum Readable<T, E> {
    /// The client's own buffer.
    Original(T),
    /// A copy.
    Copy {
        /// What was made of the copy's buffer.
        made: T,
        /// The copy, to be kept until the GPU has read it (and not only for as long as it is shown next): its buffer is
        /// not written to before. The client's buffer is read until the copy's completion is done: give it back then.
        frame: ShadowFrame,
        /// Why the GPU does not read the original.
        why: E,
    },
}

/// A buffer of a [`Shadow`] in use.
#[derive(Clone, Debug)]
pub struct ShadowFrame {
    buffer: DmaBuf,
    completion: Arc<Completion>,
    _users: Arc<()>,
}

impl ShadowFrame {
    /// The buffer with the copy.
    pub fn buffer(&self) -> &DmaBuf {
        &self.buffer
    }

    /// The copy's end. The GPU must not read before: hand it the sync file, or show the frame before meanwhile. If its
    /// [result](Completion::result) is an error, the picture is not there: go on with the frame before.
    pub fn completion(&self) -> &Completion {
        &self.completion
    }
}

/// Why a surface cannot be read at all. The client is not to blame: go on with what it showed before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShadowError<E> {
    /// The GPU takes neither the client's buffer nor any that the allocator makes.
    #[error("the GPU takes neither the buffer ({original}) nor a copy of it ({copy})")]
    NotTaken {
        /// Its answer to the client's buffer.
        original: E,
        /// Its answer to the last copy.
        copy: E,
    },
    /// No buffer for a copy can be made.
    #[error("no memory for a copy: {0}")]
    Allocate(alloc::Error),
    /// The copy cannot be started.
    #[error(transparent)]
    Blit(Error),
    /// All buffers are in use: drop a [`ShadowFrame`] first.
    #[error("all {MOST} copies of the surface are in use")]
    Busy,
}

impl<E> ShadowError<E> {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotTaken { .. } => ErrorKind::Refused,
            Self::Allocate(error) => error.kind(),
            Self::Blit(error) => error.kind(),
            Self::Busy => ErrorKind::Busy,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Allocate(error) => error.errno(),
            Self::Blit(error) => error.errno(),
            Self::NotTaken { .. } | Self::Busy => None,
        }
    }
}

const MOST: usize = 3;
/// More boxes are one.
const MOST_BOXES: usize = 64;

/// A buffer and what differs in it from the client's last picture.
struct Picture {
    buffer: DmaBuf,
    users: Arc<()>,
    stale: Stale,
    completion: Option<Arc<Completion>>,
}

/// What has to be copied. `None`: everything.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stale(Option<Vec<DamageBox>>);

impl Stale {
    fn add(&mut self, damage: Damage<'_>) {
        match (damage, &mut self.0) {
            (Damage::Boxes(new), Some(boxes)) if boxes.len() + new.len() <= MOST_BOXES => {
                boxes.extend_from_slice(new);
            }
            (Damage::Boxes([]), _) => {}
            _ => self.0 = None,
        }
    }

    fn damage(&self) -> Damage<'_> {
        self.0.as_deref().map_or(Damage::Full, Damage::Boxes)
    }
}

impl Shadow {
    /// Nothing is allocated before a copy is needed. `allocator` makes the copies' buffers, with one of these modifiers:
    /// those that the GPU samples. LINEAR is tried if there are none.
    pub fn new(
        allocator: Arc<dyn Allocator>,
        modifiers: impl IntoIterator<Item = Modifier>,
    ) -> Self {
        let mut modifiers: Vec<_> = modifiers.into_iter().collect();
        if modifiers.is_empty() {
            modifiers.push(Modifier::LINEAR);
        }
        Self {
            allocator,
            modifiers,
            pictures: Vec::new(),
            kind: None,
            format: None,
        }
    }

    /// What the GPU is to read for a commit with this buffer. Every commit of the surface with a buffer goes through here,
    /// else [`Self::clear`] is needed: damage is told between one commit and the next.
    ///
    /// A copy is upright and has no flags, whatever those of the client's buffer are: look at the flags of the buffer that
    /// `import` is given.
    ///
    /// `import` makes of a buffer what the GPU reads, and answers why it cannot: `|buffer| gpu.texture(buffer, used)`, for
    /// example. It should remember its answers, as [`PerBuffer`](crate::buffer::PerBuffer) does, since it is asked at each
    /// commit. `info` has what differs from the commit before, and the fences of the client.
    /// `blitter` copies from the client's device to the GPU's. It is not used if the GPU takes the buffer.
    ///
    /// [`ShadowError`] if the surface cannot be read: the copy that was shown before stays as it is.
    pub fn read_from<T, E>(
        &mut self,
        blitter: &Blitter,
        buffer: &DmaBuf,
        info: &BlitInfo<'_>,
        mut import: impl FnMut(&DmaBuf) -> Result<T, E>,
    ) -> Result<Readable<T, E>, ShadowError<E>> {
        let kind = (buffer.width(), buffer.height(), buffer.fourcc());
        if self.kind != Some(kind) {
            self.clear();
            self.kind = Some(kind);
        }
        // Also if the GPU reads the original: what is copied next differs from the copies by more than its own damage.
        for picture in &mut self.pictures {
            picture.stale.add(info.damage);
        }
        let why = match import(buffer) {
            Ok(made) => return Ok(Readable::Original(made)),
            Err(why) => why,
        };
        let (index, made, why) = self.free_picture(buffer, why, &mut import)?;
        let picture = &mut self.pictures[index];
        let failed = |completion: &Arc<Completion>| !matches!(completion.result(), Some(Ok(())));
        if picture.completion.as_ref().is_some_and(failed) {
            picture.stale = Stale(None);
        }
        let copied = BlitInfo {
            damage: picture.stale.damage(),
            ..*info
        };
        let completion = blitter.blit(buffer, &picture.buffer, &copied);
        let completion = Arc::new(completion.map_err(ShadowError::Blit)?);
        picture.stale = Stale(Some(Vec::new()));
        picture.completion = Some(completion.clone());
        let frame = ShadowFrame {
            buffer: picture.buffer.clone(),
            completion,
            _users: picture.users.clone(),
        };
        Ok(Readable::Copy { made, frame, why })
    }

    /// A picture that nobody reads, which the GPU takes.
    fn free_picture<T, E>(
        &mut self,
        buffer: &DmaBuf,
        original: E,
        import: &mut impl FnMut(&DmaBuf) -> Result<T, E>,
    ) -> Result<(usize, T, E), ShadowError<E>> {
        let is_free = |picture: &Picture| Arc::strong_count(&picture.users) == 1;
        if let Some(index) = self.pictures.iter().position(is_free) {
            return match import(&self.pictures[index].buffer) {
                Ok(made) => Ok((index, made, original)),
                Err(copy) => Err(ShadowError::NotTaken { original, copy }),
            };
        }
        if self.pictures.len() == MOST {
            return Err(ShadowError::Busy);
        }
        let mut answer = None;
        for format in self.formats(buffer.fourcc()) {
            let request = Request::new(buffer.width(), buffer.height(), format)
                .modifiers(self.modifiers.iter().copied())
                .usage(Usage::SAMPLE | Usage::COPY_TO);
            let made = self.allocator.allocate(&request);
            let copy = match made {
                Ok(copy) => copy,
                Err(error) => {
                    answer.get_or_insert(Err(error));
                    continue;
                }
            };
            match import(&copy) {
                Ok(made) => {
                    self.format = Some(format);
                    self.pictures.push(Picture {
                        buffer: copy,
                        users: Arc::new(()),
                        stale: Stale(None),
                        completion: None,
                    });
                    return Ok((self.pictures.len() - 1, made, original));
                }
                Err(error) => answer = Some(Ok(error)),
            }
        }
        Err(match answer {
            Some(Ok(copy)) => ShadowError::NotTaken { original, copy },
            Some(Err(error)) => ShadowError::Allocate(error),
            None => ShadowError::Busy,
        })
    }

    /// The formats that copies are tried in: the one that worked, else the client's own, then one that every GPU samples.
    fn formats(&self, client: Fourcc) -> Vec<Fourcc> {
        if let Some(format) = self.format {
            return vec![format];
        }
        let has_alpha = FormatInfo::of(client).is_some_and(|info| info.alpha);
        let common = match has_alpha {
            true => Fourcc::ARGB8888,
            false => Fourcc::XRGB8888,
        };
        let mut formats = vec![client, common];
        formats.dedup();
        formats
    }

    /// Lets go of all copies: when the surface is unmapped, and after commits that did not go through
    /// [`Self::read_from`].
    pub fn clear(&mut self) {
        self.pictures.clear();
        self.kind = None;
        self.format = None;
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow")
            .field("allocator", &self.allocator.name())
            .field("kind", &self.kind)
            .field("format", &self.format)
            .field("copies", &self.pictures.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: DamageBox = DamageBox {
        x1: 0,
        y1: 0,
        x2: 1,
        y2: 1,
    };

    #[test]
    fn what_is_stale_grows_with_each_commit_until_it_is_everything() {
        let mut stale = Stale(Some(Vec::new()));
        stale.add(Damage::Boxes(&[]));
        stale.add(Damage::Boxes(&[BOX, BOX]));
        assert_eq!(stale.damage(), Damage::Boxes(&[BOX, BOX]));
        stale.add(Damage::Boxes(&[BOX; MOST_BOXES - 2]));
        stale.add(Damage::Boxes(&[]));
        assert_eq!(stale.damage(), Damage::Boxes(&[BOX; MOST_BOXES]));
        stale.add(Damage::Boxes(&[BOX]));
        assert_eq!(stale.damage(), Damage::Full);
        stale.add(Damage::Boxes(&[BOX]));
        assert_eq!(stale.damage(), Damage::Full);
    }
}
