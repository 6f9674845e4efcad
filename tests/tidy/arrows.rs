//! Who may import whom: the arrows of `docs/architecture.md`, as a table.

use crate::source::{File, Finding, line_of};

/// Each module at the top of the crate, and what its shipped code may import: a module, or only a
/// part of one. What is not here must not be: a new module draws its arrows first.
const ARROWS: &[(&str, &[&str])] = &[
    ("raft", &[]),
    ("wire", &["raft"]),
    ("machine", &["raft"]),
    ("kv", &["machine", "wire::codec"]),
    ("storage", &["raft", "wire::codec"]),
    ("net", &["wire", "raft"]),
    ("client", &["kv", "wire", "raft"]),
    ("node", &["net", "storage", "kv", "machine", "wire", "raft"]),
    ("kvnode", &["node", "storage", "kv", "machine", "raft"]),
    // The names are what a status and a report about the members, which are `wire`'s, are made of.
    (
        "cli",
        &[
            "client",
            "kv",
            "wire",
            "raft::NodeId",
            "raft::RoleName",
            "raft::Index",
            "raft::Configuration",
            "raft::Member",
            "raft::MemberRole",
        ],
    ),
    (
        "testkit",
        &[
            "client", "node", "net", "storage", "kv", "machine", "wire", "raft",
        ],
    ),
    // Of the package in `verify`, which may use all that the product makes public.
    ("sim", &[]),
    ("soak", &["sim"]),
    ("course", &["sim"]),
];

/// Shipped code imports only along the arrows.
pub fn imports(file: &File, findings: &mut Vec<Finding>) {
    let Some(module) = module_of(&file.path) else {
        return;
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module[0]) else {
        let rule = format!(
            "module `{}` has no arrows; add it to the table in arrows.rs",
            module[0]
        );
        findings.push(file.finding(1, rule));
        return;
    };
    let code = file.shipped_code();
    for (at, path) in crate_paths(&code, module.len()) {
        let own = path.first() == Some(&module[0]);
        let along = allowed.iter().any(|arrow| starts_with(&path, arrow));
        if !own && !along {
            let rule = format!(
                "`{}` may not import `{}`; it may use: {}",
                module[0],
                path.join("::"),
                if allowed.is_empty() {
                    "nothing".into()
                } else {
                    allowed.join(", ")
                },
            );
            findings.push(file.finding(line_of(&code, at), rule));
        }
    }
}

/// The module that a file holds, as names from the crate's root. `None` for what stands above the
/// arrows: the root itself, the programs, and everything outside `src` and `verify/src`.
fn module_of(path: &str) -> Option<Vec<String>> {
    let product = path.strip_prefix("verify/").unwrap_or(path);
    let inner = product.strip_prefix("src/")?.strip_suffix(".rs")?;
    if inner == "lib" || inner.starts_with("bin/") {
        return None;
    }
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    Some(inner.split('/').map(String::from).collect())
}

fn starts_with(path: &[String], arrow: &str) -> bool {
    let mut names = path.iter();
    arrow
        .split("::")
        .all(|part| names.next().is_some_and(|name| name == part))
}

/// All paths from the root of the crate that the code names, each with its offset: those that
/// begin with `crate::`, and those that climb up to the root with `super::`.
fn crate_paths(code: &str, depth: usize) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let climb = "super::".repeat(depth);
    for root in ["crate::", climb.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].trim_end();
            let inside = before.ends_with(crate::lexer::is_word) && before.len() == at;
            if inside || before.ends_with("::") || before.ends_with('$') {
                continue;
            }
            let mut paths = Vec::new();
            expand(&mut code[at + root.len()..].trim_start(), &[], &mut paths);
            found.extend(paths.into_iter().map(|path| (at, path)));
        }
    }
    found
}

/// Reads one path or tree of paths, such as `a::{b, c::d}`, from the front of the text.
fn expand(text: &mut &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    loop {
        *text = text.trim_start();
        if let Some(rest) = text.strip_prefix('{') {
            *text = rest;
            expand_list(text, &path, paths);
            return;
        }
        let end = text
            .find(|c| !crate::lexer::is_word(c))
            .unwrap_or(text.len());
        if end > 0 {
            path.push(text[..end].to_string());
            *text = text[end..].trim_start();
        }
        match text.strip_prefix("::") {
            Some(rest) if end > 0 => *text = rest,
            _ => break,
        }
    }
    paths.push(path);
}

fn expand_list(text: &mut &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    while !text.is_empty() {
        expand(text, prefix, paths);
        // Past a rename or a star, to the next one of the list.
        let end = text.find([',', '}']).unwrap_or(text.len());
        let last = !text[end..].starts_with(',');
        *text = text.get(end + 1..).unwrap_or_default().trim_start();
        if last {
            return;
        }
        if let Some(rest) = text.strip_prefix('}') {
            *text = rest;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str, depth: usize) -> Vec<String> {
        crate_paths(code, depth)
            .iter()
            .map(|(_, path)| path.join("::"))
            .collect()
    }

    #[test]
    fn trees_of_imports_are_taken_apart() {
        assert_eq!(paths("use crate::raft::Index;", 1), ["raft::Index"]);
        assert_eq!(
            paths(
                "use crate::{raft::{self, log::{A as B, C}},\n  wire::*,\n};",
                1
            ),
            ["raft::self", "raft::log::A", "raft::log::C", "wire"]
        );
        assert_eq!(
            paths("fn f(x: crate::kv::Op) -> crate::net::Id {}", 1),
            ["kv::Op", "net::Id"]
        );
        assert_eq!(paths("use other::crate::x; use xcrate::y;", 1), [""; 0]);
    }

    #[test]
    fn climbing_to_the_root_counts_as_an_import() {
        assert_eq!(paths("use super::super::net::X;", 2), ["net::X"]);
        assert_eq!(paths("use super::inner::X;", 2), [""; 0]);
    }

    fn judged(path: &str, text: &str) -> Vec<(usize, String)> {
        let mut findings = Vec::new();
        imports(&File::new(path, text), &mut findings);
        findings
            .into_iter()
            .map(|finding| (finding.line, finding.rule))
            .collect()
    }

    #[test]
    fn an_import_against_an_arrow_is_found_with_its_line() {
        let found = judged("src/raft/log.rs", "\nuse crate::wire::frame;\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 2);
        assert!(
            found[0].1.contains("`raft` may not import `wire::frame`"),
            "{}",
            found[0].1
        );
        assert_eq!(judged("src/storage/x.rs", "use crate::net::X;").len(), 1);
        assert_eq!(judged("src/net.rs", "use crate::storage::X;").len(), 1);
        assert_eq!(
            judged("src/net/x.rs", "use super::super::storage::X;").len(),
            1
        );
        assert_eq!(
            judged("src/kv/x.rs", "use crate::wire::{codec, frame};").len(),
            1
        );
        assert_eq!(judged("src/kv/x.rs", "use crate::RootAlias;").len(), 1);
        assert_eq!(judged("src/newcomer.rs", "").len(), 1);
    }

    #[test]
    fn imports_along_the_arrows_pass_and_so_do_tests() {
        for (path, text) in [
            (
                "src/raft/log.rs",
                "use crate::raft::Index; use super::types::Term;",
            ),
            (
                "src/kv/x.rs",
                "use crate::wire::codec::decode; use crate::kv::Op;",
            ),
            (
                "src/net/x.rs",
                "#[cfg(test)]\nmod tests { use crate::storage::X; }",
            ),
            ("src/net/tests.rs", "use crate::storage::X;"),
            ("src/lib.rs", "use crate::net::X;"),
            ("src/bin/kvnode.rs", "use crate::net::X;"),
        ] {
            assert_eq!(judged(path, text), [], "{path}");
        }
    }
}
