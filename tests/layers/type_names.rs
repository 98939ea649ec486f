//! No two types of `src` share a name: a name says which type is meant without its path.

use std::collections::BTreeMap;

use regex::Regex;

use super::{sources, without_tests};

/// Names that two modules may define, and why.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// Whether `path` holds tests alone.
fn is_test(path: &str) -> bool {
    let mut parts = path.trim_end_matches(".rs").split('/');
    parts.any(|part| part == "tests" || part.ends_with("_tests"))
}

#[test]
fn no_type_name_is_defined_twice() {
    // A `type` that is not at the margin belongs to a trait.
    let definition = r"(?m)^(?:\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|union|(?:unsafe )?trait)|(?:pub(?:\([^)]*\))? )?type) (\w+)";
    let definition = Regex::new(definition).unwrap();
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        if is_test(&source.path) {
            continue;
        }
        for found in definition.captures_iter(without_tests(&source.code)) {
            let places = defined.entry(found[1].to_owned()).or_default();
            places.push(source.path.clone());
        }
    }
    assert!(defined.len() > 300, "{}", defined.len());
    for (name, reason) in EXCEPTIONS {
        let is_double = defined.remove(*name).is_some_and(|places| places.len() > 1);
        assert!(is_double, "{name} ({reason}) is no exception any more");
    }
    defined.retain(|_, places| places.len() > 1);
    let doubles: Vec<String> = defined
        .iter()
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(doubles.is_empty(), "{}", doubles.join("\n"));
}
