use std::path::Path;

use proptest::prelude::*;

use super::super::{
    Config, NewSource, NewSourceKind, NewTarget, TableKind, render_source, render_target,
};
use super::*;

const HEAD: &str = "host = \"h\"\nrecipients = [\"age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9\"]\n\
                    signer = \"signer\"\nstate = \"state\"\n";

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/c.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn new_target() -> String {
    render_target(&NewTarget {
        name: "added".to_owned(),
        url: "rsync://me@nas/x".to_owned(),
        ssh: Some("ssh -i \"a key\"".to_owned()),
        ..NewTarget::default()
    })
}

fn new_source() -> String {
    render_source(&NewSource {
        kind: NewSourceKind::Tree("/added".into(), vec!["# [[source]]".to_owned()]),
        to: "added".to_owned(),
        name: None,
    })
}

/// Returns the sections of a file in some order, with the filler between their lines.
fn texts() -> impl Strategy<Value = String> {
    let filler = prop_oneof![
        3 => Just(""),
        2 => Just("\n"),
        2 => Just("# a comment\n"),
        1 => Just("\n\n# one\n#two [[target]]\n\n"),
        1 => Just("  # indented\n"),
    ];
    let section = (0..9_u8, filler.clone(), filler.clone(), filler);
    let sections = proptest::collection::vec(section, 0..8);
    (sections, any::<bool>(), any::<bool>(), 0..3_u8).prop_map(|(sections, crlf, ends, last)| {
        let mut text = HEAD.to_owned();
        let mut once = Vec::new();
        let mut targets = 0;
        for (number, (what, above, inside, below)) in sections.into_iter().enumerate() {
            let lines = match what {
                0 | 1 => {
                    targets += 1;
                    format!("[[target]]\n{inside}name = \"t{number}\" # it\nurl = \"/b/{number}\"\n")
                }
                2 => format!(
                    "[[source]]\nkind = \"json\"\n{inside}path = \"/s/{number}.json\"\nmode = \"0600\"\n"
                ),
                3 => format!(
                    "  [[ \"source\" ]] # odd\nkind = \"tree\"\npath = \"/t/{number}\"\nexclude = [ # many\n{inside}\"[[x]]\",\n]\n"
                ),
                4 => format!(
                    "[[source]]\nkind = \"command\"\nname = \"n{number}\"\ncommand = '''\n\n[[target]]\n# no comment\n{inside}'''\n"
                ),
                _ if once.contains(&what) => continue,
                5 => format!("[retention]\ndaily = 7\n{inside}"),
                6 => format!("[schedule]\n{inside}backup = \"0 6 * * *\"\n"),
                7 => format!("[pack]\nlevel = 4 # [[target]]\n{inside}"),
                _ if targets > 0 => format!("[target.retention]\n{inside}last = 3\n"),
                _ => continue,
            };
            once.push(what);
            // A second `[target.retention]` may follow another target, but not the same one.
            text += &format!("{above}{lines}{below}");
        }
        text += ["", "\n", "# the end\n"][usize::from(last)];
        if !ends {
            text.truncate(text.trim_end_matches('\n').len());
        }
        match crlf {
            true => text.replace('\n', "\r\n"),
            false => text,
        }
    })
}

fn names(config: &Config, kind: TableKind) -> Vec<String> {
    match kind {
        TableKind::Source => config.sources.iter().map(|one| one.name.clone()).collect(),
        TableKind::Target => config.targets.iter().map(|one| one.name.clone()).collect(),
    }
}

proptest! {
    #[test]
    fn what_is_added_is_removed_again_and_every_byte_is_as_before(text in texts()) {
        let before = parse(&text);
        for (kind, block) in [(TableKind::Target, new_target()), (TableKind::Source, new_source())] {
            let added = add_table(&text, kind, &block).unwrap();
            let mut expected = names(&before, kind);
            expected.push("added".to_owned());
            prop_assert_eq!(names(&parse(&added), kind), expected.clone(), "{}", added);
            let removed = remove_table(&added, kind, expected.len() - 1).unwrap();
            prop_assert_eq!(&removed, &text, "{}", added);
        }
    }

    #[test]
    fn any_table_is_removed_and_the_others_stay(text in texts()) {
        let before = parse(&text);
        for kind in [TableKind::Target, TableKind::Source] {
            let all = names(&before, kind);
            for index in 0..all.len() {
                let removed = remove_table(&text, kind, index).unwrap();
                let mut expected = before.clone();
                match kind {
                    TableKind::Source => drop(expected.sources.remove(index)),
                    TableKind::Target => drop(expected.targets.remove(index)),
                }
                let found = parse(&removed);
                prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{}", removed);
                let written = Config::written_tables(&removed, Path::new("/c.toml"), kind).unwrap();
                let written: Vec<String> = written.into_iter().map(|table| table.name).collect();
                prop_assert_eq!(written, names(&found, kind));
            }
            let past_the_end = remove_table(&text, kind, all.len());
            prop_assert!(matches!(past_the_end, Err(EditError::Absent(_))));
        }
    }
}

#[test]
fn a_table_goes_behind_its_kind_with_its_comments() {
    let text = format!(
        "{HEAD}\n# Photos.\n[[source]]\nkind = \"tree\"\npath = \"/p\"\n# exclude = []\n\n# Stays.\n[retention]\nlast = 1\n"
    );
    let added = add_table(&text, TableKind::Source, "[[source]]\nx\n# y\n").unwrap();
    let expected = text.replace("# exclude = []\n", "# exclude = []\n\n[[source]]\nx\n# y\n");
    assert_eq!(added, expected);
    let removed = remove_table(&text, TableKind::Source, 0).unwrap();
    assert_eq!(
        removed,
        format!("{HEAD}\n# Stays.\n[retention]\nlast = 1\n")
    );
}

#[test]
fn tables_in_one_array_are_left_alone() {
    let text = format!("target = [{{ name = \"a\", url = \"/a\" }}]\n{HEAD}");
    assert_eq!(parse(&text).targets.len(), 1);
    let added = add_table(&text, TableKind::Target, &new_target());
    assert!(matches!(added, Err(EditError::Inline("target"))));
    let removed = remove_table(&text, TableKind::Target, 0);
    assert!(matches!(removed, Err(EditError::Inline("target"))));
}
