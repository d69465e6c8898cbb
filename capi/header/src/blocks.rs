//! The declarations of a header as text.

/// A declaration with its comment.
pub(crate) struct Block {
    pub(crate) text: String,
    name: String,
}

impl Block {
    /// Where a Rust file declares it. `None`: it is of another file.
    pub(crate) fn place_in(&self, source: &str) -> Option<usize> {
        let forms = [
            "pub struct ",
            "pub enum ",
            "pub const ",
            "pub type ",
            " fn ",
        ];
        let places = forms.iter().flat_map(|form| {
            let declared = format!("{form}{}", self.name);
            let ends = move |place: &usize| {
                let next = source[place + declared.len()..].chars().next();
                !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
            };
            let declared = format!("{form}{}", self.name);
            source
                .match_indices(&declared)
                .map(|(place, _)| place)
                .filter(ends)
                .collect::<Vec<_>>()
        });
        places.min()
    }
}

/// The declarations in cbindgen's output.
pub(crate) fn of(translated: &str) -> Vec<Block> {
    let text = short_comments(translated);
    let mut blocks = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let ends = line.is_empty() && !is_open(&lines);
        match ends {
            true => blocks.extend(block(std::mem::take(&mut lines))),
            false => lines.push(line),
        }
    }
    blocks.extend(block(lines));
    blocks
}

/// Whether a comment or a body goes on.
fn is_open(lines: &[&str]) -> bool {
    let opened = lines
        .iter()
        .filter(|line| line.trim_end().ends_with('{'))
        .count();
    let closed = lines.iter().filter(|line| line.starts_with('}')).count();
    let is_comment = lines
        .last()
        .is_some_and(|line| line.starts_with(" *") && !line.ends_with("*/"));
    opened > closed || is_comment
}

fn block(lines: Vec<&str>) -> Option<Block> {
    let is_code = |line: &&&str| !line.starts_with("/*") && !line.starts_with(" *");
    let first = lines.iter().find(is_code)?;
    let words = first.split(|c: char| !c.is_alphanumeric() && c != '_');
    let is_name = |word: &&str| word.to_lowercase().starts_with("primeshare_");
    let mut names = words.filter(is_name);
    // A function that returns a struct or an enum has its own name after that.
    let is_function = first.contains('(') && !first.starts_with("typedef");
    let name = match is_function {
        true => first[..first.find('(')?]
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next_back()?,
        false => names.next()?,
    };
    Some(Block {
        name: name.to_owned(),
        text: lines.join("\n") + "\n",
    })
}

/// Comments for people, and those of one line on one line.
fn short_comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let is_short =
            lines[at].trim() == "/**" && lines.get(at + 2).is_some_and(|line| line.trim() == "*/");
        match is_short {
            true => {
                let indent = &lines[at][..lines[at].len() - 3];
                let words = lines[at + 1].trim().trim_start_matches('*').trim();
                out.push(format!("{indent}/* {words} */"));
                at += 3;
            }
            false => {
                out.push(lines[at].trim_end().replace("/**", "/*"));
                at += 1;
            }
        }
    }
    out.join("\n")
}

/// A comment of several lines.
pub(crate) fn comment(text: &str) -> String {
    let lines = text.trim_end().lines();
    let lines = lines.map(|line| format!(" * {line}").trim_end().to_owned() + "\n");
    format!("/*\n{} */\n", lines.collect::<String>())
}

/// What a file says of itself, as the heading of its declarations.
pub(crate) fn section(source: &str) -> String {
    let said = source.lines().map_while(|line| line.strip_prefix("//!"));
    let said: Vec<_> = said
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let said = said.join("\n");
    let said = said.strip_prefix("# ").unwrap_or(&said);
    let (title, rest) = said.split_once('\n').unwrap_or((said, ""));
    let rule = "-".repeat(100_usize.saturating_sub(title.len()));
    match rest.trim() {
        "" => format!("/* {title} {rule} */\n"),
        rest => format!("/* {title} {rule} */\n\n{}", comment(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_told_apart_and_found_again() {
        let text = "/**\n * Opaque.\n */\nstruct primeshare_a;\n\n/**\n * Two\n *\n * paragraphs.\n */\nstruct primeshare_a *primeshare_a_ref(const struct primeshare_a *a);\n\nstruct primeshare_b {\n  /**\n   * A field.\n   */\n  int x;\n\n  int y;\n};\n";
        let blocks = of(text);
        let names: Vec<_> = blocks.iter().map(|block| &*block.name).collect();
        assert_eq!(names, ["primeshare_a", "primeshare_a_ref", "primeshare_b"]);
        assert!(
            blocks[0].text.starts_with("/* Opaque. */\n"),
            "{}",
            blocks[0].text
        );
        assert!(
            blocks[2]
                .text
                .contains("  /* A field. */\n  int x;\n\n  int y;\n")
        );
        let source =
            "pub struct primeshare_ab;\npub struct primeshare_a;\npub fn primeshare_a_ref() {}";
        assert_eq!(
            blocks[0].place_in(source),
            source.find("pub struct primeshare_a;")
        );
        assert!(blocks[1].place_in(source) > blocks[0].place_in(source));
        assert_eq!(blocks[2].place_in(source), None);
    }

    #[test]
    fn a_file_heads_its_declarations() {
        let heading = section("//! # Things\n//!\n//! They are.\n\nuse x;\n");
        assert!(heading.starts_with("/* Things ---"));
        assert!(heading.ends_with("/*\n * They are.\n */\n"));
    }
}
