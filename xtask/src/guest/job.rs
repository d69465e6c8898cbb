//! What the host tells the guest's first process: a file of NUL-terminated `key=value` records.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::kind::Kind;

/// A program to run and what it is to see.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) guest: Kind,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: PathBuf,
    /// The directory with the root file system, on the host.
    pub(crate) root: PathBuf,
    /// Directories of the host that are there in the guest at the same path, writable.
    pub(crate) shared: Vec<PathBuf>,
    /// Files that are there as copies, because their directories are the guest's own.
    pub(crate) copies: Vec<PathBuf>,
    /// Files and directories in the guest's own directories of which the host gets what the program wrote.
    pub(crate) kept: Vec<PathBuf>,
    /// Symlinks of the host, by which paths go: where each is, and what it says.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Directories of the host by which paths go only to leave them by `..`.
    pub(crate) entered: Vec<PathBuf>,
}

impl Job {
    /// As bytes for the file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut put = |key: &str, value: &OsStr| {
            if value.as_bytes().contains(&0) {
                bail!("a NUL byte in {key} {value:?}");
            }
            bytes.extend_from_slice(key.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
            Ok(())
        };
        put("guest", self.guest.name().as_ref())?;
        put("program", &self.program)?;
        self.arguments
            .iter()
            .try_for_each(|argument| put("argument", argument))?;
        for (name, value) in &self.environment {
            let mut both = name.clone();
            both.push("=");
            both.push(value);
            put("environment", &both)?;
        }
        put("directory", self.directory.as_os_str())?;
        put("root", self.root.as_os_str())?;
        self.shared
            .iter()
            .try_for_each(|path| put("shared", path.as_os_str()))?;
        self.copies
            .iter()
            .try_for_each(|path| put("copy", path.as_os_str()))?;
        self.kept
            .iter()
            .try_for_each(|path| put("kept", path.as_os_str()))?;
        for (at, target) in &self.links {
            put("link", at.as_os_str())?;
            put("target", target.as_os_str())?;
        }
        self.entered
            .iter()
            .try_for_each(|path| put("entered", path.as_os_str()))?;
        Ok(bytes)
    }

    /// From the bytes of the file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut job = Job::default();
        let Some(records) = bytes.strip_suffix(&[0]) else {
            bail!("the job is cut short")
        };
        for record in records.split(|&byte| byte == 0) {
            let Some((key, value)) = split(record) else {
                bail!("a record without a key in the job")
            };
            let text = OsString::from_vec(value.to_vec());
            match key {
                b"guest" => job.guest = Kind::named(&text.to_string_lossy())?,
                b"program" => job.program = text,
                b"argument" => job.arguments.push(text),
                b"environment" => {
                    let Some((name, value)) = split(value) else {
                        bail!("environment without a name: {text:?}")
                    };
                    let pair = (
                        OsString::from_vec(name.to_vec()),
                        OsString::from_vec(value.to_vec()),
                    );
                    job.environment.push(pair);
                }
                b"directory" => job.directory = text.into(),
                b"root" => job.root = text.into(),
                b"shared" => job.shared.push(text.into()),
                b"copy" => job.copies.push(text.into()),
                b"kept" => job.kept.push(text.into()),
                b"link" => job.links.push((text.into(), PathBuf::new())),
                b"target" => match job.links.last_mut() {
                    Some((_, target)) => *target = text.into(),
                    None => bail!("the target {text:?} of no link"),
                },
                b"entered" => job.entered.push(text.into()),
                _ => bail!(
                    "an unknown key in the job: {}",
                    String::from_utf8_lossy(key)
                ),
            }
        }
        Ok(job)
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == b'=')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() -> Result<()> {
        let job = Job {
            guest: Kind::Compat,
            program: "/a b/c".into(),
            arguments: vec![
                "".into(),
                "=x\n".into(),
                OsString::from_vec(vec![0xff, 0x80]),
            ],
            environment: vec![("A".into(), "b=c=".into()), ("EMPTY".into(), "".into())],
            directory: "/project".into(),
            root: "/root".into(),
            shared: vec!["/one".into(), "/one/two".into()],
            copies: vec!["/tmp/x".into()],
            kept: vec!["/tmp/y".into()],
            links: vec![("/l".into(), "../a=b".into()), ("/m".into(), "l".into())],
            entered: vec!["/e".into()],
        };
        assert_eq!(Job::decode(&job.encode()?)?, job);
        Ok(())
    }

    #[test]
    fn refuses_what_it_cannot_carry() {
        let job = Job {
            program: OsString::from_vec(vec![b'a', 0, b'b']),
            ..Job::default()
        };
        assert!(job.encode().is_err());
        assert!(Job::decode(b"").is_err());
        assert!(Job::decode(b"program=x").is_err());
        assert!(Job::decode(b"what=x\0").is_err());
    }
}
