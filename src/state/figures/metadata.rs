//! Reads figures from the `backup-metadata.json` of a local snapshot, for a host that has lost its
//! own figures or has none yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Database, Figures};

#[derive(Deserialize, Default)]
#[serde(default)]
struct FiguresSection {
    sources: Vec<StagedSource>,
    databases: Vec<CountedDatabase>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StagedSource {
    kind: String,
    to: String,
    stage: bool,
    present: bool,
    files: u64,
    bytes: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CountedDatabase {
    path: String,
    tables: BTreeMap<String, u64>,
    integrity: String,
}

/// Returns the figures by the source's path in the snapshot. A tree that was read in place has none
/// there; a snapshot that another program made has none at all.
pub fn of_metadata(metadata: &Value) -> BTreeMap<String, Figures> {
    let section = metadata.get("sealift").map(FiguresSection::deserialize);
    let Some(Ok(section)) = section else {
        return BTreeMap::new();
    };
    let mut all = BTreeMap::new();
    for source in section.sources {
        if !source.stage || !source.present {
            continue;
        }
        let is_one = |path: &str| {
            let rest = path.strip_prefix(&source.to);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_tree = source.kind == "tree";
        let databases = section.databases.iter().filter(|one| is_one(&one.path));
        let databases: BTreeMap<String, Database> = databases
            .map(|one| {
                let database = Database {
                    bytes: if is_tree { 0 } else { source.bytes },
                    tables: (one.integrity == "ok").then(|| one.tables.clone()),
                };
                (one.path.clone(), database)
            })
            .collect();
        let figures = Figures {
            kind: source.kind.clone(),
            files: source.files,
            // The metadata does not say how many of a tree's bytes are those of databases, so zero
            // stands for "do not compare".
            bytes: match is_tree && !databases.is_empty() {
                true => 0,
                false => source.bytes,
            },
            databases,
            ..Figures::default()
        };
        all.insert(source.to, figures);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_staged_sources_have_figures_there() {
        let source = |to: &str, kind: &str, stage: bool, present: bool| {
            json!({ "name": to, "kind": kind, "path": "/x", "to": to, "stage": stage, "present": present,
                    "files": 3, "bytes": 5000 })
        };
        let metadata = json!({ "sealift": {
            "sources": [
                source("db/a.db", "sqlite", true, true), source("tree", "tree", true, true),
                source("place", "tree", false, true), source("none", "json", true, false),
            ],
            "databases": [
                { "path": "db/a.db", "page_size": 4096, "tables": { "t": 7 }, "integrity": "ok" },
                { "path": "tree/b.db", "page_size": 4096, "tables": {}, "integrity": "damaged" },
            ],
        } });
        let figures = of_metadata(&metadata);
        let found: Vec<&str> = figures.keys().map(String::as_str).collect();
        assert_eq!(found, ["db/a.db", "tree"]);
        let database = &figures["db/a.db"].databases["db/a.db"];
        assert_eq!(database.bytes, 5000);
        assert_eq!(database.tables.as_ref().unwrap()["t"], 7);
        assert_eq!((figures["tree"].files, figures["tree"].bytes), (3, 0));
        assert_eq!(figures["tree"].databases["tree/b.db"].tables, None);
        for other in [
            json!({}),
            json!({ "sealift": 7 }),
            json!({ "sealift": { "sources": 7 } }),
        ] {
            assert!(of_metadata(&other).is_empty());
        }
    }
}
