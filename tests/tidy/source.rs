//! The files of the repository, as the rules see them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::lexer;

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the repository.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The rule, and what to write instead.
    pub rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// All the text files of the repository that the rules look at.
pub struct Tree {
    /// Where the repository lies.
    pub root: PathBuf,
    /// Sorted by path.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the repository that this test was built from.
    pub fn load() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        collect(&root, "", &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { root, files }
    }
}

fn collect(root: &Path, folder: &str, files: &mut Vec<File>) {
    let listing = fs::read_dir(root.join(folder)).expect("the repository can be read");
    for item in listing {
        let item = item.expect("the repository can be read");
        let name = item.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}{name}");
        let hidden = name.starts_with('.') && name != ".ci";
        if hidden || path == "target" || path == "data" {
            continue;
        }
        if item
            .file_type()
            .expect("the repository can be read")
            .is_dir()
        {
            collect(root, &format!("{path}/"), files);
        } else if is_looked_at(&path) {
            let text = fs::read_to_string(item.path());
            let text = text.unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
            files.push(File { path, text });
        }
    }
}

fn is_looked_at(path: &str) -> bool {
    let kinds = [".rs", ".sh", ".md", ".toml"];
    kinds.iter().any(|kind| path.ends_with(kind)) || path.starts_with(".ci/")
}

/// One text file.
pub struct File {
    /// Relative to the repository, with slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl File {
    /// A file of the given content, for the tests of the rules.
    #[cfg(test)]
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Whether this is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether this is Markdown.
    pub fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// Whether this is a shell script.
    pub fn is_shell(&self) -> bool {
        self.path.ends_with(".sh") || self.path.starts_with(".ci/")
    }

    /// Whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        let inner = |folder: &str| self.path.contains(&format!("/{folder}/"));
        let named = ["/tests.rs", "_tests.rs"]
            .iter()
            .any(|end| self.path.ends_with(end));
        let outer = ["tests/", "benches/"];
        let outer = outer.iter().any(|folder| self.path.starts_with(folder));
        named || outer || inner("tests")
    }

    /// Whether the file lies in one of the folders, or is the folder's own file: `src/kv` means
    /// `src/kv/…` and `src/kv.rs`.
    pub fn is_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| {
            let rest = self.path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
        })
    }

    /// The code without comments and strings; line numbers are those of the file.
    pub fn code(&self) -> String {
        lexer::code_only(&self.text)
    }

    /// The code that is not test code: empty for a test file, and without the items that stand
    /// under `#[cfg(test)]`; line numbers are those of the file.
    pub fn shipped_code(&self) -> String {
        if self.is_test() {
            String::new()
        } else {
            without_test_items(&self.code())
        }
    }

    /// A finding in this file.
    pub fn finding(&self, line: usize, rule: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            rule: rule.into(),
        }
    }
}

/// The number of the line that the byte offset lies on.
pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Blanks each item that a `#[cfg(test)]` stands before.
fn without_test_items(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_string();
    while let Some(start) = out.find(MARK) {
        let body = start + MARK.len();
        let end = item_end(&out[body..]).map_or(out.len(), |length| body + length);
        let blank = |c| if c == '\n' { '\n' } else { ' ' };
        let blanked: String = out[start..end].chars().map(blank).collect();
        out.replace_range(start..end, &blanked);
    }
    out
}

/// The length of the item at the start of the code: up to its semicolon or its closing brace.
/// `None` if it does not end.
pub fn item_end(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return Some(at + 1);
                }
            }
            ';' if depth == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_items_do_not_count_as_shipped_and_what_follows_them_does() {
        let text = "a();\n#[cfg(test)]\nmod t {\n fn f() { b(\"}\") }\n}\nc();\n";
        let shipped = File::new("src/x.rs", text).shipped_code();
        assert_eq!(shipped.lines().count(), 6);
        assert!(shipped.contains("a()") && shipped.contains("c()"));
        assert!(!shipped.contains("b("));
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_hides_nothing_else() {
        let shipped = File::new("src/x.rs", "#[cfg(test)]\nmod tests;\na();\n").shipped_code();
        assert!(shipped.contains("a()") && !shipped.contains("mod"));
    }

    #[test]
    fn test_files_ship_nothing() {
        for path in [
            "tests/a.rs",
            "tests/b/c.rs",
            "src/x/tests.rs",
            "src/x/tests/y.rs",
        ] {
            assert_eq!(File::new(path, "a();").shipped_code(), "", "{path}");
        }
        assert_eq!(File::new("src/contests.rs", "a();").shipped_code(), "a();");
    }

    #[test]
    fn a_folder_means_its_files_and_not_its_namesakes() {
        assert!(File::new("src/kv/mod.rs", "").is_in(&["src/kv"]));
        assert!(File::new("src/kv.rs", "").is_in(&["src/kv"]));
        assert!(!File::new("src/kvx/mod.rs", "").is_in(&["src/kv"]));
    }
}
