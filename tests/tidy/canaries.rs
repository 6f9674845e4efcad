//! Wrong variants of the product fit the product: each names its check, and its change can be made.
//!
//! `scripts/canaries.sh` makes them and takes minutes. That one has been left behind by a change of
//! the code is to be known at once.

use std::fs;
use std::path::Path;

use crate::source::{Finding, Tree};

const FOLDER: &str = "verify/canaries";

/// What stands above the change, in this order.
const FIELDS: [&str; 4] = ["what: ", "check: ", "notices: ", "why: "];

/// Where there is a table of them all.
const TABLE: &str = "docs/testing.md";

/// Every patch in the folder of canaries has its fields, applies, and is in the table.
pub fn fit(tree: &Tree, findings: &mut Vec<Finding>) {
    let table = fs::read_to_string(tree.root.join(TABLE)).expect("the guide can be read");
    let listing = fs::read_dir(tree.root.join(FOLDER)).expect("the folder of canaries is there");
    for item in listing {
        let path = item.expect("the folder can be read").path();
        let text = fs::read_to_string(&path).expect("a patch can be read");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let read = |path: &str| fs::read_to_string(tree.root.join(path)).ok();
        let problem = problem(&text, read).or_else(|| {
            let name = name.strip_suffix(".patch")?;
            let row = row(name, &text);
            let is_there = table.lines().any(|line| line == row);
            (!is_there).then(|| (1, format!("{TABLE} lacks this line: {row}")))
        });
        if let Some((line, rule)) = problem {
            let path = Path::new(FOLDER).join(&*name);
            let path = path.to_string_lossy().into_owned();
            findings.push(Finding { path, line, rule });
        }
    }
}

/// The row of the table, as `scripts/canaries.sh --table` prints it.
fn row(name: &str, patch: &str) -> String {
    let field = |name: &str| {
        let mut lines = patch.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    let (check, notices) = (field("check: "), field("notices: "));
    let by = match check.contains("kvsim") {
        true => {
            let checker = notices.trim_start_matches("FAILED: ").trim_end_matches(':');
            format!("the simulator: {checker}")
        }
        false => format!("`{}`", check.rsplit([' ', ':']).next().unwrap_or_default()),
    };
    let what = field("what: ");
    format!("| [{name}](../verify/canaries/{name}.patch) | {what} | {by} |")
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
        let head =
            "what: it\ncheck: cargo test\nnotices: it is wrong\nwhy: it costs\n     much\n\n";
        let diff = "diff --git a/x.rs b/x.rs\n--- a/x.rs\n+++ b/x.rs\n@@ -1,4 +1,4 @@\n";
        assert_eq!(
            found(&format!("{head}{diff} one\n-two\n+2\n \n three\n")),
            None
        );
        assert_eq!(found(&format!("{head}{diff} one\n-three\n")), Some(10));
        assert_eq!(
            found(&format!("{head}{}", diff.replace("x.rs", "y.rs"))),
            Some(10)
        );
        assert_eq!(found(head), Some(4));
    }

    #[test]
    fn a_canary_without_its_check_or_its_sentence_is_found() {
        assert_eq!(found(""), Some(1));
        assert_eq!(found("check: cargo test"), Some(1));
        assert_eq!(found("what: it\ncheck: cargo test\n\ndiff"), Some(3));
        assert_eq!(found("what: it\ncheck: cargo test\nnotices: it\n"), Some(4));
    }

    #[test]
    fn the_row_of_a_canary_names_the_test_or_the_check_of_the_simulator() {
        let of = |check: &str| row("x", &format!("what: it is wrong\n{check}\nwhy: it costs\n"));
        let begin = "| [x](../verify/canaries/x.patch) | it is wrong | ";
        let test = of("check: cargo test --lib a::b::says_so\nnotices: left");
        assert_eq!(test, format!("{begin}`says_so` |"));
        let simulator = of("check: cargo run --bin kvsim -- --seeds 9\nnotices: FAILED: one log:");
        assert_eq!(simulator, format!("{begin}the simulator: one log |"));
    }
}
