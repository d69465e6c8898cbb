//! The way that a path takes through the host's directories.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows.
const MOST_LINKS: usize = 40;

/// A path and what it needs on its way, so that it leads to the same place in another tree.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Where it leads: without symlinks and dots. What is at the end may not be there yet.
    pub(super) end: PathBuf,
    /// The symlinks: where each is, and what it says.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// The directories that are only entered to be left by `..`.
    pub(super) entered: Vec<PathBuf>,
}

impl Way {
    /// The way of an absolute path. `None` if it leads nowhere.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let mut way = Way::default();
        let mut left = reversed(path);
        while let Some(part) = left.pop() {
            if part == Path::new("..") {
                if !way.end.is_dir() {
                    return None;
                }
                way.entered.push(way.end.clone());
                way.end.pop();
                continue;
            }
            let at = way.end.join(&part);
            match fs::read_link(&at) {
                Ok(target) => {
                    left.extend(reversed(&target));
                    way.links.push((at, target));
                }
                // The root, too, where the path or a symlink's target begins.
                Err(_) => way.end = at,
            }
            if way.links.len() > MOST_LINKS {
                return None;
            }
        }
        Some(way)
    }
}

/// The parts of a path, the first one last.
fn reversed(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts
        .rev()
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn leads_where_the_kernel_goes() -> std::io::Result<()> {
        let base = std::env::temp_dir().join(format!("primeshare-paths-{}", std::process::id()));
        fs::create_dir_all(base.join("a/b"))?;
        let base = fs::canonicalize(base)?;
        symlink("a/b", base.join("relative"))?;
        symlink(base.join("relative"), base.join("a/absolute"))?;
        symlink("loop", base.join("loop"))?;
        let of = |path: &str| Way::of(&base.join(path));
        let ways = [
            of("a/./absolute/new/file"),
            of("relative/../x"),
            of("loop"),
            of("none/../x"),
        ];
        fs::remove_dir_all(&base)?;
        let [Some(two), Some(above), None, None] = ways else {
            panic!("{ways:?}");
        };
        assert_eq!(two.end, base.join("a/b/new/file"));
        let links = [
            ("a/absolute", base.join("relative")),
            ("relative", "a/b".into()),
        ];
        assert_eq!(two.links, links.map(|(at, target)| (base.join(at), target)));
        assert_eq!(above.end, base.join("a/x"));
        assert_eq!(above.entered, [base.join("a/b")]);
        Ok(())
    }
}
