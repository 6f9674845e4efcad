//! What the crate depends on: no asynchronous runtime, and nothing without a reason.

use crate::bans::ASYNCHRONOUS;
use crate::source::{File, Finding};

/// Where the reasons stand.
const REASONS: &str = "docs/dependencies.md";

/// No dependency brings an asynchronous runtime, but for that of the load for etcd.
pub fn runtimes(file: &File, findings: &mut Vec<Finding>) {
    if file.is_in(ASYNCHRONOUS) {
        return;
    }
    for (line, name) in named_in(file) {
        let runtimes = ["tokio", "futures", "async", "smol", "mio-aio"];
        if runtimes.iter().any(|prefix| name.starts_with(prefix)) {
            let rule = format!("`{name}` is banned; threads block, and `mio` waits for sockets");
            findings.push(file.finding(line, rule));
        }
    }
}

/// Every dependency of the crate has a row in the table of reasons.
pub fn reasons(files: &[File], findings: &mut Vec<Finding>) {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let reasons = find(REASONS).map_or("", |file| &file.text);
    let Some(manifest) = find("Cargo.toml") else {
        return;
    };
    for (line, name) in named_in(manifest) {
        if !reasons
            .lines()
            .any(|row| row.starts_with(&format!("| `{name}`")))
        {
            let rule = format!("`{name}` has no row in {REASONS}; say why it is there");
            findings.push(manifest.finding(line, rule));
        }
    }
}

/// The lock file of the fuzz targets knows all that the crate depends on: they are built with what
/// it says, and not at all if it says too little.
pub fn fuzz_lock(manifest: &File, lock: &str, findings: &mut Vec<Finding>) {
    let own = lock
        .split("[[package]]\n")
        .find(|package| package.starts_with("name = \"raftkv\"\n"));
    let text = &manifest.text;
    let end = text.find("[dev-dependencies]").unwrap_or(text.len());
    let programs = text
        .lines()
        .find(|line| line.starts_with("cli = "))
        .unwrap_or_default();
    let last_line = text[..end].lines().count();
    for (line, name) in named_in(manifest) {
        let known = own.is_some_and(|own| own.contains(&format!("\"{name}")));
        // Those of features that are off by default are not locked.
        let own_line = text.lines().nth(line - 1).unwrap_or_default();
        let used =
            !own_line.contains("optional = true") || programs.contains(&format!("dep:{name}\""));
        if line <= last_line && used && !known {
            let rule = format!("fuzz/Cargo.lock lacks `{name}`; run cargo metadata in fuzz/");
            findings.push(manifest.finding(line, rule));
        }
    }
}

/// The dependencies that a manifest names, with their lines.
fn named_in(file: &File) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut listed = false;
    if !file.path.ends_with("Cargo.toml") {
        return found;
    }
    for (number, line) in file.text.lines().enumerate() {
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if line.starts_with('[') {
            listed = line.ends_with("dependencies]");
        } else if listed && !name.is_empty() && !name.starts_with('#') {
            found.push((number + 1, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"futures-x\"\n[dependencies]\ntokio = \"1\"\n\
                            # why\nmio = \"1\"\n\n[dev-dependencies]\n\
                            futures-util.version = \"1\"\n";

    #[test]
    fn a_runtime_among_the_dependencies_is_found() {
        let mut findings = Vec::new();
        runtimes(&File::new("Cargo.toml", MANIFEST), &mut findings);
        assert_eq!(
            findings
                .iter()
                .map(|finding| finding.line)
                .collect::<Vec<_>>(),
            [4, 9]
        );
    }

    #[test]
    fn the_load_for_etcd_may_have_a_runtime_and_others_may_not() {
        let found = |path| {
            let mut findings = Vec::new();
            runtimes(&File::new(path, MANIFEST), &mut findings);
            findings.len()
        };
        assert_eq!(found("bench/etcd-load/Cargo.toml"), 0);
        assert_eq!(found("verify/Cargo.toml"), 2);
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let page = File::new(REASONS, "| `mio` | MIT |\n| `tokio` =1 | MIT |\n");
        let mut findings = Vec::new();
        reasons(&[File::new("Cargo.toml", MANIFEST), page], &mut findings);
        assert_eq!(
            findings
                .iter()
                .map(|finding| finding.line)
                .collect::<Vec<_>>(),
            [9]
        );
    }

    #[test]
    fn a_lock_file_that_lags_behind_the_manifest_is_found() {
        let manifest = File {
            path: "Cargo.toml".into(),
            text: MANIFEST.into(),
        };
        let lock = "[[package]]\nname = \"mio\"\n\n[[package]]\nname = \"raftkv\"\n\
                    dependencies = [\n \"mio\",\n]\n";
        let mut findings = Vec::new();
        fuzz_lock(&manifest, lock, &mut findings);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [4], "{findings:?}");
    }
}
