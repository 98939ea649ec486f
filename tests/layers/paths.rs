//! The paths of sources and tests that comments and documents name are there.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

const FOLDERS: &[&str] = &[
    "src",
    "tests",
    "docs",
    "deploy",
    "bench",
    "benches",
    "fuzz/fuzz_targets",
    ".ci",
    ".config",
];
const FILES: &[&str] = &[
    "README.md",
    "Cargo.toml",
    "test",
    "fuzz/README.md",
    "fuzz/properties.rs",
];

fn texts(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = FILES.iter().map(|name| root.join(name)).collect();
    let mut dirs: Vec<PathBuf> = FOLDERS.iter().map(|name| root.join(name)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            // Frozen.
            let is_sample =
                path.starts_with(root.join("tests/samples")) && path.extension().is_none();
            match path.is_dir() {
                true if is_sample => {}
                true => dirs.push(path),
                false => found.push(path),
            }
        }
    }
    found
}

#[test]
fn every_path_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = Regex::new(r"(?:^|[^/\w.-])((?:tests|src)/[\w-]+(?:/[\w-]+)*(?:\.\w+)?)").unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in texts(root) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let lines = text.lines().enumerate();
        for (index, line) in
            lines.filter(|(_, line)| line.contains("tests/") || line.contains("src/"))
        {
            for found in named.captures_iter(line) {
                seen += 1;
                let name = found[1].trim_end_matches('-');
                // Such as `tests/storage/faults/steps*.rs`.
                let is_pattern = line[found.get(1).unwrap().end()..].starts_with('*');
                if !is_pattern && !root.join(name).exists() {
                    let file = path.strip_prefix(root).unwrap().display();
                    wrong.push(format!("{file}:{}: {name}", index + 1));
                }
            }
        }
    }
    assert!(seen > 30, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
