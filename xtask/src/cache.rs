//! Things that take minutes to make. They are kept under the user's cache directory, by a hash of what they are made
//! from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::progress::{self, Log};

/// The directory of this project under the user's cache directory.
pub(crate) fn directory() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME says where the cache is")?
        .join("primeshare"))
}

/// Something made once from its inputs.
pub(crate) struct Entry {
    directory: PathBuf,
    name: String,
}

impl Entry {
    /// The entry called `name` and made from `inputs`.
    pub(crate) fn new(name: &str, inputs: &[&str]) -> Result<Self> {
        Ok(Entry {
            directory: directory()?,
            name: format!("{name}-{}", key(inputs)),
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.name))
    }

    /// Where the entry is, if it is there.
    pub(crate) fn get(&self) -> Option<PathBuf> {
        // A finished entry gets its final name last, by a rename, so it is complete if it exists.
        Some(self.path()).filter(|path| path.is_dir())
    }

    /// The entry, made by `make` in the directory it is given if it is not there yet (or `force`).
    pub(crate) fn get_or_make(
        &self,
        force: bool,
        make: impl FnOnce(&Path, &mut Log) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(path) = self.get().filter(|_| !force) {
            return Ok(path);
        }
        fs::create_dir_all(&self.directory).with_context(|| {
            format!(
                "cannot create the cache directory {}",
                self.directory.display()
            )
        })?;
        let _lock = self.lock()?;
        // Another process may have made it while this one waited for the lock.
        if let Some(path) = self.get().filter(|_| !force) {
            return Ok(path);
        }
        self.remove_leftovers()?;
        // Each build has a directory of its own name: helpers of a build that was killed may still write to its
        // directory for a moment.
        let process = std::process::id();
        let (unfinished, old) = (
            self.beside(&format!("tmp-{process}")),
            self.beside(&format!("old-{process}")),
        );
        fs::create_dir(&unfinished)?;
        make(&unfinished, &mut Log::create(self.beside("log"))?)?;
        if self.get().is_some() {
            fs::rename(self.path(), &old)?;
        }
        fs::rename(&unfinished, self.path())?;
        remove(&old)?;
        Ok(self.path())
    }

    /// Removes what unfinished builds left behind. Only the holder of the lock may call this.
    fn remove_leftovers(&self) -> Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let rest = name.strip_prefix(&self.name).unwrap_or_default();
            if rest.starts_with(".tmp-") || rest.starts_with(".old-") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Locks the entry. The kernel drops the lock with the process, however that ends.
    fn lock(&self) -> Result<Flock<File>> {
        let path = self.beside("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(error).context("cannot lock the cache"),
        };
        progress::say(&format!(
            "Waiting for another process that makes {} ...",
            self.name
        ));
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("cannot lock the cache")
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A hash of a list of inputs. It includes their lengths, so that lists that are divided differently differ.
fn key(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(input.len().to_le_bytes());
        hash.update(input);
    }
    hash.finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn key_depends_on_every_input_and_its_bounds() {
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&[]).len(), 12);
    }
}
