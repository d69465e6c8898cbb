//! Handing textures over between the outside world and wgpu's queue.

use std::iter;
use std::time::Instant;

use wgpu::hal::api::Vulkan;
use wgpu::{CommandBuffer, CommandEncoderDescriptor, PollError, PollType, TextureTransition};

use super::scopes::catch;
use super::{Device, Error, Texture};
use crate::sync::{Deadline, SyncFile};
use crate::vk::{self, Semaphore, Transfer, ash};

impl Device {
    /// Takes textures over from the outside world, contents kept, after these sync files.
    ///
    /// Everything that is submitted afterwards is executed afterwards, `Queue::write_texture` included. After an
    /// error no texture has been taken over. [`Error::Acquired`] if one is acquired already, or given twice.
    /// Does not wait.
    pub fn acquire(
        &self,
        textures: &[&Texture],
        after: impl IntoIterator<Item = SyncFile>,
    ) -> Result<(), Error> {
        let waits = after
            .into_iter()
            .map(|file| Semaphore::from_sync_file(self.vulkan(), Some(file)))
            .collect::<Result<Vec<_>, _>>()?;
        let pending = PendingTransfer::all(self, textures, true)?;
        let transfers = transfers(textures);
        // SAFETY: the images are of this device and its queue family.
        let barriers = self.record(|commands| unsafe { vk::acquire(commands, &transfers) })?;
        // This makes no barriers. By it, wgpu knows of the use, and keeps the images until it is over.
        let known = self.bring_to_idle(textures)?;
        self.submit_after(waits, [barriers, known])?;
        pending.done();
        Ok(())
    }

    /// Hands textures back to the outside world, after all work that wgpu was given for them so far. Gives a
    /// sync file that is signalled when that is done. `None` if it is done already.
    ///
    /// [`Error::NotAcquired`] if one is not acquired, or given twice. [`vk::Error::Missing`] if the device has
    /// no sync files; nothing has been done then, and [`Self::release_wait`] works without them. If the sync
    /// file fails later, the textures are released all the same. Does not wait.
    pub fn release(&self, textures: &[&Texture]) -> Result<Option<SyncFile>, Error> {
        let done = Semaphore::new(self.vulkan())?;
        self.hand_back(textures)?;
        self.sync_file(done)
    }

    /// As [`Self::release`], but waits until the textures are released.
    pub fn release_wait(
        &self,
        textures: &[&Texture],
        deadline: impl Into<Deadline>,
    ) -> Result<(), Error> {
        let deadline = deadline.into();
        let index = self.hand_back(textures)?;
        let wait = PollType::Wait {
            submission_index: Some(index),
            timeout: deadline.left(),
        };
        let start = Instant::now();
        match self.device().poll(wait) {
            Ok(_) => Ok(()),
            Err(PollError::Timeout) => Err(Error::Timeout {
                milliseconds: start.elapsed().as_millis(),
            }),
            Err(error) => Err(Error::Wgpu(error.to_string())),
        }
    }

    /// Gives a new tiled image its layout, and hands it to the outside world.
    pub(super) fn initialize(&self, texture: &Texture) -> Result<(), Error> {
        // SAFETY: the image is new, and of this device and its queue family.
        let barriers =
            self.record(|commands| unsafe { vk::initialize(commands, &texture.image) })?;
        let known = self.bring_to_idle(&[texture])?;
        self.submit([barriers, known]).map(drop)
    }

    fn hand_back(&self, textures: &[&Texture]) -> Result<wgpu::SubmissionIndex, Error> {
        let pending = PendingTransfer::all(self, textures, false)?;
        let transfers = transfers(textures);
        let idle = self.bring_to_idle(textures)?;
        // SAFETY: as for acquisition.
        let barriers = self.record(|commands| unsafe { vk::release(commands, &transfers) })?;
        let index = self.submit([idle, barriers])?;
        pending.done();
        Ok(index)
    }

    /// A command buffer by wgpu that brings the textures into their idle state.
    fn bring_to_idle(&self, textures: &[&Texture]) -> Result<CommandBuffer, Error> {
        catch(self.device(), || {
            let mut encoder = self.encoder();
            let transitions = textures.iter().map(|texture| TextureTransition {
                texture: texture.get(),
                selector: None,
                state: texture.idle.state,
            });
            encoder.transition_resources(iter::empty(), transitions);
            Ok(encoder.finish())
        })
    }

    /// A command buffer of wgpu's into which `record` puts commands that wgpu cannot express.
    fn record(&self, record: impl FnOnce(ash::vk::CommandBuffer)) -> Result<CommandBuffer, Error> {
        catch(self.device(), || {
            let mut encoder = self.encoder();
            // SAFETY: the command buffer is only recorded into, and alive meanwhile.
            let recorded = unsafe {
                encoder.as_hal_mut::<Vulkan, _, _>(|hal| {
                    hal.map(|hal| record(hal.raw_handle())).is_some()
                })
            };
            match recorded {
                true => Ok(encoder.finish()),
                false => Err(Error::Lost),
            }
        })
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device()
            .create_command_encoder(&CommandEncoderDescriptor::default())
    }

    fn submit(
        &self,
        commands: impl IntoIterator<Item = CommandBuffer>,
    ) -> Result<wgpu::SubmissionIndex, Error> {
        catch(self.device(), || Ok(self.queue().submit(commands)))
    }

    /// Submits command buffers that wait for semaphores. The submission of another thread may come first and
    /// take the waits. That is fine: wgpu-hal orders its submissions (by its relay semaphores), so this one
    /// comes after the waits, too.
    fn submit_after(
        &self,
        waits: Vec<Semaphore>,
        commands: impl IntoIterator<Item = CommandBuffer>,
    ) -> Result<(), Error> {
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { self.queue().as_hal::<Vulkan>() }.ok_or(Error::NotVulkan)?;
        let stage = ash::vk::PipelineStageFlags::ALL_COMMANDS;
        for wait in &waits {
            hal.add_wait_semaphore(wait.raw(), None, stage);
        }
        let submitted = self.submit(commands);
        // There are some left only if the submission failed.
        for wait in &waits {
            hal.remove_wait_semaphore(wait.raw());
        }
        self.keep_until_done(waits);
        submitted.map(drop)
    }

    /// A sync file of all that has been submitted so far.
    ///
    /// It takes a submission of its own. A semaphore that is given to wgpu-hal goes with the next submission,
    /// which may be another thread's, and so earlier than one that is about to be made here. So the semaphore
    /// is given after the work was submitted, and whichever submission takes it comes after the work.
    fn sync_file(&self, done: Semaphore) -> Result<Option<SyncFile>, Error> {
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { self.queue().as_hal::<Vulkan>() }.ok_or(Error::NotVulkan)?;
        hal.add_signal_semaphore(done.raw(), None);
        let submitted = self.submit([]);
        let taken = !hal.remove_signal_semaphore(done.raw());
        self.keep_until_done(vec![done.clone()]);
        submitted?;
        if !taken {
            return Err(Error::Lost);
        }
        // SAFETY: a submission that signals it has been made: wgpu-core makes one at a time, so
        // that another thread's that took it was over before ours. Nothing waits for it.
        Ok(unsafe { done.export() }?)
    }

    /// Has wgpu drop the semaphores when all work that was submitted so far is done.
    fn keep_until_done(&self, semaphores: Vec<Semaphore>) {
        if !semaphores.is_empty() {
            self.queue()
                .on_submitted_work_done(move || drop(semaphores));
        }
    }
}

fn transfers<'a>(textures: &[&'a Texture]) -> Vec<Transfer<'a>> {
    let transfer = |texture: &&'a Texture| Transfer::image(&texture.image, texture.idle.used);
    textures.iter().map(transfer).collect()
}

/// Textures that are changing hands, and go back unless it is [`done`](Self::done).
struct PendingTransfer<'a> {
    turned: Vec<&'a Texture>,
    acquired: bool,
}

impl<'a> PendingTransfer<'a> {
    fn all(device: &Device, textures: &[&'a Texture], acquired: bool) -> Result<Self, Error> {
        let mut pending = Self {
            turned: Vec::with_capacity(textures.len()),
            acquired,
        };
        let here = device.vulkan().raw().handle();
        for texture in textures {
            if texture.image.device().raw().handle() != here {
                return Err(Error::OtherDevice);
            }
            texture.set_acquired(acquired)?;
            pending.turned.push(texture);
        }
        Ok(pending)
    }

    fn done(mut self) {
        self.turned.clear();
    }
}

impl Drop for PendingTransfer<'_> {
    fn drop(&mut self) {
        for texture in &self.turned {
            // This cannot fail: nobody else has changed it meanwhile.
            let _ = texture.set_acquired(!self.acquired);
        }
    }
}
