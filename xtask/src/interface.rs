//! The public interface as a text, `docs/interface.txt`, so that a review shows every change of it.
//!
//! It is read from the pages that rustdoc writes, so no other toolchain is needed than the one in use. Another version of
//! rustdoc may write other pages: then the comparison is left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::jobs::Job;
use crate::{cargo, repository};

/// The kinds of items that have a page. Other pages belong to modules.
const KINDS: [&str; 8] = [
    "struct.",
    "enum.",
    "trait.",
    "fn.",
    "macro.",
    "constant.",
    "static.",
    "type.",
];

fn listing() -> PathBuf {
    repository::root().join("docs/interface.txt")
}

/// Writes the listing, or only checks that it is up to date.
pub(crate) fn run(check: bool) -> Result<u8> {
    let mut doc = cargo::command();
    doc.args(["doc", "--quiet", "--no-deps", "--all-features", "--lib"]);
    doc.args(["--package=primeshare"]);
    ensure!(cargo::run(&mut doc)?.success(), "the documentation failed");
    let pages = repository::root().join("target/doc/primeshare");
    let mut items = items(&pages)?;
    items.sort();
    let version = version()?;
    let text = format!("# By {version}.\n\n{}", items.concat());
    let path = listing();
    if !check {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}: {} items", path.display(), items.len());
        return Ok(0);
    }
    let known = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if known.lines().next() != text.lines().next() {
        eprintln!("left out: the listing is of another rustdoc than {version}");
        return Ok(0);
    }
    let changes = changes(&known, &text);
    changes.iter().for_each(|line| eprintln!("{line}"));
    ensure!(
        changes.is_empty(),
        "the public interface has changed; if it should have: cargo xtask interface"
    );
    Ok(0)
}

/// The check as a job. It reads the documentation that the job before it has made.
pub(crate) fn job() -> Job {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
    command.args(["interface", "--check"]);
    command.current_dir(repository::root());
    Job::new("interface", command)
}

fn version() -> Result<String> {
    let output = Command::new("rustdoc").arg("--version").output();
    let output = output.context("cannot start rustdoc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<_> = text.split_whitespace().take(2).collect();
    Ok(words.join(" "))
}

/// Lines that only one of the texts has.
fn changes(known: &str, now: &str) -> Vec<String> {
    let [old, new] =
        [known, now].map(|text| text.lines().collect::<std::collections::BTreeSet<_>>());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    gone.chain(new.difference(&old).map(|line| format!("+ {line}")))
        .collect()
}

/// All items, by the links of the page that lists them: pages of items that do not exist any more may be left over.
fn items(root: &Path) -> Result<Vec<String>> {
    let read = |path: &Path| {
        let html = fs::read_to_string(path);
        html.with_context(|| format!("cannot read {}", path.display()))
    };
    let all = read(&root.join("all.html"))?;
    let pages = between(&all, "href=\"", "\"").filter(|page| is_of_item(page));
    let item = |page: &str| {
        let module = page.rsplit_once('/').map_or("", |(module, _)| module);
        Ok(item(&module.replace('/', "::"), &read(&root.join(page))?))
    };
    pages.map(item).collect()
}

fn is_of_item(page: &str) -> bool {
    let name = page.rsplit('/').next().unwrap_or(page);
    name.ends_with(".html") && KINDS.iter().any(|kind| name.starts_with(kind))
}

/// An item, from its page: the declaration, its own functions, and the traits that it implements explicitly.
fn item(module: &str, html: &str) -> String {
    let own = html
        .split("id=\"synthetic-implementations")
        .next()
        .unwrap_or(html);
    let declaration = between(own, "<pre class=\"rust item-decl\">", "</pre>").next();
    let module = if module.is_empty() { "(root)" } else { module };
    let mut text = format!("{module}: {}\n", declaration.map(plain).unwrap_or_default());
    let mut lines: Vec<_> = between(own, "<h4 class=\"code-header\">", "</h4>")
        .map(plain)
        .filter(|line| line.starts_with("pub "))
        .chain(between(own, "<h3 class=\"code-header\">", "</h3>").map(plain))
        .filter(|line| line.starts_with("pub ") || line.contains(" for "))
        .filter(|line| !line.contains("StructuralPartialEq"))
        .collect();
    lines.sort();
    lines.dedup();
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// The parts of a text between these two.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(start).skip(1);
    parts.filter_map(move |part| part.split(end).next())
}

/// HTML as one line of text.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut is_tag = false;
    for c in html.chars() {
        match c {
            '<' => is_tag = true,
            '>' if is_tag => is_tag = false,
            c if !is_tag => text.push(c),
            _ => {}
        }
    }
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"");
    let text = text
        .replace("&#39;", "'")
        .replace("&nbsp;", " ")
        .replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_one_item_with_its_functions_and_traits() {
        let html = "<pre class=\"rust item-decl\"><code>pub struct A(<span>/* private fields */</span>);</code></pre>\
                    <h3 class=\"code-header\">impl <a>A</a></h3>\
                    <h4 class=\"code-header\">pub fn b(&amp;self,\n    x: &amp;[u8]) -&gt; <a href=\"x\">Option</a>&lt;u8&gt;</h4>\
                    <h3 class=\"code-header\">impl Clone for A</h3><h4 class=\"code-header\">fn clone(&amp;self)</h4>\
                    <div id=\"synthetic-implementations-list\"><h3 class=\"code-header\">impl Send for A</h3></div>";
        let text = "m: pub struct A(/* private fields */);\n    impl Clone for A\n    \
                    pub fn b(&self, x: &[u8]) -> Option<u8>\n";
        assert_eq!(item("m", html), text);
    }

    #[test]
    fn what_came_and_what_went_is_named() {
        assert_eq!(changes("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert_eq!(changes("a\n", "a\n"), [""; 0]);
    }
}
