//! Wrong variants of the product fit the product: each names its check, and its change can be made.
//!
//! `scripts/canaries.sh` makes them and takes minutes. That one has been left behind by a change of
//! the code is to be known at once.

use std::fs;
use std::path::Path;

use crate::source::{Finding, Tree};

const FOLDER: &str = "verify/canaries";

/// What stands above the change, in this order.
const FIELDS: [&str; 3] = ["check: ", "notices: ", "why: "];

/// Every patch in the folder of canaries has its fields, and applies.
pub fn fit(tree: &Tree, findings: &mut Vec<Finding>) {
    let listing = fs::read_dir(tree.root.join(FOLDER)).expect("the folder of canaries is there");
    for item in listing {
        let path = item.expect("the folder can be read").path();
        let text = fs::read_to_string(&path).expect("a patch can be read");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let read = |path: &str| fs::read_to_string(tree.root.join(path)).ok();
        if let Some((line, rule)) = problem(&text, read) {
            let path = Path::new(FOLDER).join(&*name);
            let path = path.to_string_lossy().into_owned();
            findings.push(Finding { path, line, rule });
        }
    }
}

/// What is wrong with a patch, and on which line. `read` gives the text of a file of the tree.
fn problem(patch: &str, read: impl Fn(&str) -> Option<String>) -> Option<(usize, String)> {
    for (number, field) in FIELDS.iter().enumerate() {
        let line = patch.lines().nth(number).unwrap_or_default();
        if !line.starts_with(field) {
            let field = field.trim_end();
            return Some((number + 1, format!("this line begins with `{field}`")));
        }
    }
    let mut text = None;
    let mut before: Vec<&str> = Vec::new();
    let mut begin = 0;
    let mut hunks = 0;
    // One more line, at which the last hunk ends.
    for (number, line) in patch.lines().chain(["diff "]).enumerate() {
        let ends = line.starts_with("@@ ") || line.starts_with("diff ");
        if ends && begin > 0 {
            let old = before.join("\n");
            let fits = |text: &String| text.contains(&old);
            if !text.as_ref().is_some_and(fits) {
                let rule = "the code that it changes is not there any more: make it anew";
                return Some((begin, rule.into()));
            }
            hunks += 1;
            begin = 0;
        }
        if line.starts_with("@@ ") {
            before.clear();
            begin = number + 1;
        } else if begin > 0 {
            before.extend(line.strip_prefix([' ', '-']));
        } else if let Some(path) = line.strip_prefix("--- a/") {
            text = read(path);
        }
    }
    (hunks == 0).then(|| (FIELDS.len(), "it changes nothing".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patch: &str) -> Option<usize> {
        let read = |path: &str| (path == "x.rs").then(|| "one\ntwo\n\nthree\n".to_string());
        problem(patch, read).map(|(line, _)| line)
    }

    #[test]
    fn a_canary_that_fits_is_left_alone() {
        let head = "check: cargo test\nnotices: it is wrong\nwhy: it costs\n     much\n\n";
        let diff = "diff --git a/x.rs b/x.rs\n--- a/x.rs\n+++ b/x.rs\n@@ -1,4 +1,4 @@\n";
        assert_eq!(
            found(&format!("{head}{diff} one\n-two\n+2\n \n three\n")),
            None
        );
        assert_eq!(found(&format!("{head}{diff} one\n-three\n")), Some(9));
        assert_eq!(
            found(&format!("{head}{}", diff.replace("x.rs", "y.rs"))),
            Some(9)
        );
        assert_eq!(found(head), Some(3));
    }

    #[test]
    fn a_canary_without_its_check_or_its_sentence_is_found() {
        assert_eq!(found(""), Some(1));
        assert_eq!(found("check: cargo test\n\ndiff"), Some(2));
        assert_eq!(found("check: cargo test\nnotices: it\n"), Some(3));
    }
}
