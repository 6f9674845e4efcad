//! Relative links in Markdown lead to a file, and to a heading if they name one.

use std::path::Path;

use crate::source::{Finding, Tree};

/// Every relative link leads somewhere.
pub fn links(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files.iter().filter(|file| file.is_markdown()) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, target) in targets(&file.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if path.is_empty() {
                file.path.clone()
            } else {
                resolve(folder, path)
            };
            if !exists(&tree.root, &path) {
                let rule = format!("the link to `{target}` is dead; {path} is not there");
                findings.push(file.finding(line, rule));
                continue;
            }
            let page = tree
                .files
                .iter()
                .find(|file| file.path == path && file.is_markdown());
            let missing = |text: &str| !headings(text).iter().any(|heading| heading == anchor);
            if !anchor.is_empty() && page.is_some_and(|page| missing(&page.text)) {
                let rule = format!("the link to `{target}` is dead; {path} has no such heading");
                findings.push(file.finding(line, rule));
            }
        }
    }
}

fn exists(root: &Path, path: &str) -> bool {
    !path.starts_with("..") && root.join(path).exists()
}

/// The lines outside of fenced blocks, with their numbers and without `code` in them.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((number + 1, line.split('`').step_by(2).collect()));
        }
    }
    lines
}

/// The relative targets of the links in a page: `[text](target)` and `[name]: target`.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let inline = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', ' ']).next());
        let defined = line
            .starts_with('[')
            .then(|| line.split_once("]: "))
            .flatten();
        let defined = defined.map(|(_, target)| target.trim());
        for target in inline.chain(defined) {
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !target.is_empty() {
                found.push((number, target.to_string()));
            }
        }
    }
    found
}

/// The path from the root of the repository that a link in the given folder means.
fn resolve(folder: &str, target: &str) -> String {
    let mut names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|name| *name != "..") => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

/// The anchors of the headings of a page, as the common renderers form them.
fn headings(text: &str) -> Vec<String> {
    // A heading keeps the words that stand in backquotes, so it is taken from the line itself.
    let lines: Vec<&str> = text.lines().collect();
    let titles = prose(text).into_iter().filter_map(|(number, _)| {
        let line = lines[number - 1];
        line.starts_with('#')
            .then(|| line.trim_start_matches('#').trim())
    });
    titles.map(anchor).collect()
}

fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::File;

    #[test]
    fn links_are_found_outside_of_code_and_only_relative_ones() {
        let page = "[a](b.md) ![c](d/e.png#f)\n```\n[no](code.md)\n```\n`[no](g.md)` [h](i \"t\")\n\
                    [j](https://k) [l](mailto:m)\n[n]: ../o.md\n";
        let found = targets(page);
        let expected = [(1, "b.md"), (1, "d/e.png#f"), (5, "i"), (7, "../o.md")];
        assert_eq!(
            found,
            expected.map(|(line, target)| (line, target.to_string()))
        );
    }

    #[test]
    fn a_link_is_relative_to_its_page() {
        for (folder, target, path) in [
            ("", "a.md", "a.md"),
            ("docs", "a.md", "docs/a.md"),
            ("docs", "../src/lib.rs", "src/lib.rs"),
            ("docs", "./x/", "docs/x"),
            ("", "../a.md", "../a.md"),
        ] {
            assert_eq!(resolve(folder, target), path);
        }
    }

    #[test]
    fn a_dead_link_and_a_dead_heading_are_found_and_live_ones_are_not() {
        let page = "# One `two`, three\n[a](#one-two-three) [b](#four)\n[c](Cargo.toml)\n\
                    [d](missing.md) [e](../outside.md) [f](src/lib.rs#L3)\n";
        let mut tree = Tree::load();
        tree.files = vec![File::new("PAGE.md", page), File::new("Cargo.toml", "")];
        // The page itself is no file on the disk; its own anchors are found all the same.
        tree.files[0].path = "README.md".into();
        let mut findings = Vec::new();
        let root = tempfile::tempdir().expect("a temporary folder");
        for path in ["README.md", "Cargo.toml", "src/lib.rs"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        tree.root = root.path().into();
        links(&tree, &mut findings);
        let found: Vec<_> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(found, [2, 4, 4]);
    }
}
