//! Every key of the configuration, in this process: what is accepted and what is refused, but never a panic, and each
//! refusal names the file and the line.

use std::path::Path;

use sealift::config::Config;

use super::values::Source;
use crate::support::is_long;

const RECIPIENT: &str = "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9";

/// The keys of each table, as the program knows them; the first is the top.
fn tables() -> Vec<(String, Vec<String>)> {
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let tables = Config::known_keys().into_iter();
    tables
        .map(|(table, keys)| (table.to_owned(), owned(keys)))
        .collect()
}

pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A right value for the keys without which a table is none.
fn base(table: &str) -> &'static [(&'static str, &'static str)] {
    match table {
        "" => &[
            ("host", "\"h\""),
            ("recipients", "[\"RECIPIENT\"]"),
            ("signer", "\"signer\""),
            ("state", "\"state\""),
        ],
        "source" => &[("kind", "\"tree\""), ("path", "\"/x\""), ("to", "\"x\"")],
        "target" => &[("name", "\"t\""), ("url", "\"s3://bucket/x\"")],
        "check" => &[("name", "\"c\""), ("command", "\"true\"")],
        "snapshots" => &[("preset", "\"atocore\""), ("root", "\"/x\"")],
        _ => &[],
    }
}

/// A configuration whose `key` in `table` has this value, written as TOML.
fn with(table: &str, key: &str, value: &str) -> String {
    let render = |table: &str, changed: bool| {
        let rest = base(table)
            .iter()
            .filter(|(name, _)| !(changed && *name == key));
        let mut lines: String = rest
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        if changed {
            lines += &format!("{key} = {value}\n");
        }
        lines.replace("RECIPIENT", RECIPIENT)
    };
    let mut text = render("", table.is_empty());
    if !table.is_empty() {
        let header = match table {
            "source" | "target" | "check" => format!("[[{table}]]\n"),
            other => format!("[{other}]\n"),
        };
        text += &header;
        text += &render(table, true);
    }
    text
}

#[test]
fn a_key_that_is_garbage_is_accepted_or_named() {
    let tables = tables();
    let keys: usize = tables.iter().map(|(_, keys)| keys.len()).sum();
    assert!(tables.len() > 6 && keys > 60, "{tables:?}");
    let mut source = Source::new();
    let mut accepted = 0;
    let rounds = if is_long() { 400 } else { 25 };
    for (table, key) in tables
        .iter()
        .flat_map(|(table, keys)| keys.iter().map(move |key| (table, key)))
    {
        for _ in 0..rounds {
            let garbage = source.garbage();
            let value = match source.below(6) {
                0..=2 => quoted(&garbage),
                3 => format!("[{}, {}]", quoted(&garbage), quoted(&source.garbage())),
                4 => (*source.of(&[
                    "-1",
                    "0",
                    "1",
                    "9223372036854775807",
                    "1e400",
                    "nan",
                    "true",
                    "{}",
                    "[[]]",
                ]))
                .to_owned(),
                _ => garbage,
            };
            let text = with(table, key, &value);
            match Config::parse(&text, Path::new("/nonexistent/sealift.toml")) {
                Ok(_) => accepted += 1,
                Err(error) => {
                    let told = error.to_string();
                    let is_named = told.contains("sealift.toml:") || told.contains("cannot read");
                    assert!(is_named, "{table} {key} = {value:?}: {told}");
                }
            }
        }
    }
    println!("{accepted} accepted");
    assert!(accepted > 20);
}

/// Values with a meaning of their own, next to a value that is right, at their line.
#[test]
fn a_targets_settings_are_refused_at_their_line() {
    let complaint = |key: &str, value: &str| {
        let text = with("target", key, value);
        let line = text
            .lines()
            .position(|line| line.starts_with(&format!("{key} =")))
            .unwrap()
            + 1;
        let error = Config::parse(&text, Path::new("/c/sealift.toml"))
            .unwrap_err()
            .to_string();
        let (place, what) = error.split_once(": ").unwrap();
        assert_eq!(place, format!("/c/sealift.toml:{line}"), "{error}");
        what.to_owned()
    };
    for (key, value, words) in [
        ("endpoint", "\"s3.example.org\"", "endpoint has no scheme"),
        (
            "endpoint",
            "\"https://x\\n\"",
            "endpoint ends in a line break",
        ),
        (
            "endpoint",
            "\"https://me:hunter2@x\"",
            "user name or a password",
        ),
        ("region", "\"eu west\"", "region has a blank in it"),
        ("ssh", "\"ssh 'x\"", "ssh has a quote that is not closed"),
        ("ssh", "\"\"", "ssh is empty"),
        ("class", "\"a b\"", "class: \"a b\" is not a storage class"),
        (
            "url",
            "\"s3:https://store.example/bucket/x\"",
            "write url = \"s3://bucket/x\" with endpoint",
        ),
        ("url", "\"file:/srv/repo\"", "write file:///srv/repo"),
        ("url", "\"repo\"", "write ./repo"),
        ("url", "\"memory://x\"", "lost at the end of the run"),
        ("url", "\"https://me:hunter2@x/y\"", "a password in a URL"),
        ("url", "\"s3://b b/x\"", "its bucket's name is invalid"),
        ("timeout", "\"99999999999d\"", "longer than a year"),
        ("retry", "18446744073709551615", "sealift.toml"),
    ] {
        let told = match words {
            "sealift.toml" => continue,
            _ => complaint(key, value),
        };
        assert!(
            told.contains(words) && !told.contains("hunter2"),
            "{key} = {value}: {told}"
        );
    }
}

#[test]
fn a_path_is_a_folder_as_on_the_command_line() {
    let url = |value: &str| {
        let text = with("target", "url", value);
        Config::parse(&text, Path::new("/c/sealift.toml"))
            .unwrap()
            .targets[0]
            .url
            .clone()
    };
    assert_eq!(url("\"/srv/my repo\""), "/srv/my repo");
    assert_eq!(url("\"./repo\""), "/c/repo");
    assert_eq!(url("\"../repo\""), "/c/../repo");
    assert_eq!(url("\"me@nas:/repo\""), "me@nas:/repo");
}
