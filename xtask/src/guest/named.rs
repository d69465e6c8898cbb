//! Files and directories of the host that a command names: they are there in the guest, and what the program writes in
//! them is kept.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::job::Job;
use super::paths::Way;
use super::tree::{self, belongs_to_guest, share};

/// The environment variable that asks for directories, as `--share` does, separated by colons.
pub(super) const SHARE: &str = "PRIMESHARE_GUEST_SHARE";

/// Adds what `text`, an argument or `NAME=VALUE`, names if it is a path: the whole of it, or what follows `=`.
pub(super) fn add(job: &mut Job, text: &OsStr) {
    let value = text.as_bytes().splitn(2, |&byte| byte == b'=').nth(1);
    for path in [Some(text), value.map(OsStr::from_bytes)]
        .into_iter()
        .flatten()
    {
        let path = Path::new(path);
        if let Some(end) = add_way(job, path) {
            add_end(job, &end, path.is_absolute());
        }
    }
}

/// Adds the links and directories on the way of a path. Gives where it leads.
pub(super) fn add_way(job: &mut Job, path: &Path) -> Option<PathBuf> {
    let way = Way::of(&job.directory.join(path))?;
    let is_ours =
        |path: &Path| !belongs_to_guest(path) || tree::own(path).is_some_and(|own| own != path);
    job.links
        .extend(way.links.into_iter().filter(|(at, _)| is_ours(at)));
    job.entered
        .extend(way.entered.into_iter().filter(|path| is_ours(path)));
    Some(way.end)
}

fn add_end(job: &mut Job, path: &Path, is_absolute: bool) {
    if job.shared.iter().any(|shared| path.starts_with(shared)) {
        return;
    }
    // A file to be written is not there yet, and perhaps its directory is not either. But relative text whose directory
    // is missing is probably a script or a word: it must not share some directory above.
    let farthest = if is_absolute { usize::MAX } else { 2 };
    let there = path.ancestors().take(farthest).find(|path| path.is_dir());
    match there {
        Some(directory) if !belongs_to_guest(directory) => share(&mut job.shared, directory),
        Some(_) if tree::own(path).is_some() && !job.kept.iter().any(|kept| kept == path) => {
            // A file that cannot be read counts as missing.
            if path.is_file() && File::open(path).is_ok() {
                job.copies.push(path.to_path_buf());
            }
            job.kept.push(path.to_path_buf());
        }
        _ => {}
    }
}

/// Adds the directories that are asked for: by options, and by the environment.
pub(super) fn add_asked(job: &mut Job, options: &[PathBuf]) -> Result<()> {
    let listed = std::env::var_os(SHARE).unwrap_or_default();
    let options = options.iter().map(|path| ("--share", path.clone()));
    let listed = std::env::split_paths(&listed).filter(|path| path != Path::new(""));
    for (by, path) in options.chain(listed.map(|path| (SHARE, path))) {
        add_directory(job, &path).with_context(|| format!("{by} {}", path.display()))?;
    }
    Ok(())
}

fn add_directory(job: &mut Job, path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || !job.directory.join(path).metadata()?.is_dir() {
        bail!("not a directory");
    }
    let end = add_way(job, path).context("leads nowhere")?;
    if belongs_to_guest(&end) {
        bail!(
            "the guest has its own {} (a directory inside it may be shared)",
            end.display()
        );
    }
    share(&mut job.shared, &end);
    Ok(())
}

/// Prints a message if the working directory, or one that the command names, is the guest's own, since that lacks most
/// of the host's files.
pub(super) fn say(job: &Job) {
    let is_own = |path: &&PathBuf| tree::own(path) == Some(path.as_path());
    for directory in job.kept.iter().filter(is_own) {
        let directory = directory.display();
        eprintln!(
            "xtask: the guest has its own {directory}, with copies of the files that the command names; \
             what the program writes there is copied back at its end"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(texts: &[&str]) -> Job {
        let mut job = Job::default();
        texts
            .iter()
            .for_each(|text| add(&mut job, OsStr::new(text)));
        job
    }

    #[test]
    fn files_bring_their_directories() -> Result<()> {
        let base = std::env::temp_dir().join(format!("primeshare-named-{}", std::process::id()));
        std::fs::create_dir_all(base.join("in/side"))?;
        let base = std::fs::canonicalize(base)?;
        std::fs::write(base.join("in/file"), "x")?;
        std::os::unix::fs::symlink("in/side", base.join("link"))?;
        let base_name = base.display();
        let job = |text: &str| {
            named(&[
                &format!("{base_name}/{text}"),
                &format!("--a={base_name}/{text}"),
            ])
        };
        let jobs = ["in/side", "in/file", "in/new", "in/new/er", "link/new"].map(job);
        std::fs::remove_dir_all(&base)?;
        assert_eq!(jobs[4].links[0], (base.join("link"), "in/side".into()));
        let expected = ["in/side", "in", "in", "in", "in/side"].map(|path| vec![base.join(path)]);
        assert_eq!(jobs.map(|job| job.shared), expected);
        Ok(())
    }

    #[test]
    fn what_is_the_guests_is_kept_and_not_shared() {
        let name = format!("/tmp/primeshare-no-such-{}", std::process::id());
        for texts in [[name.as_str(), ""], [&name, &name]] {
            let job = named(&texts);
            assert_eq!(job.kept, [Path::new(&name)]);
            assert!(job.shared.is_empty() && job.copies.is_empty());
        }
        let job = named(&[
            "/",
            "/usr/lib",
            "/dev/null",
            "--flag",
            "word",
            "a script > ../../x/y; z",
        ]);
        assert_eq!(job.kept, [] as [&Path; 0]);
    }

    #[test]
    fn what_cannot_be_shared_is_an_error() {
        for wrong in ["", "/tmp", "/usr/lib", "/dev/null", "/no-such-directory"] {
            assert!(
                add_directory(&mut named(&[]), Path::new(wrong)).is_err(),
                "{wrong}"
            );
        }
    }
}
