use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn remote(url: &str) -> NamedRemote {
    NamedRemote {
        url: url.to_owned(),
        host: None,
        signer: None,
        endpoint: None,
        region: None,
        ssh: None,
    }
}

fn full() -> NamedRemote {
    NamedRemote {
        host: Some("dalidou".parse().unwrap()),
        signer: Some(format!("SHA256:{}", "A".repeat(43))),
        endpoint: Some("https://s3.example.org".to_owned()),
        region: Some("eu-1".to_owned()),
        ssh: Some("ssh -i \"my key\"".to_owned()),
        ..remote("s3://bucket/a \"b\"\\c")
    }
}

fn parse(text: &str) -> Result<Remotes, ConfigError> {
    Remotes::parse(Path::new("/x/remotes.toml"), text.to_owned())
}

#[test]
fn a_name_is_neither_a_path_nor_a_url() {
    for name in ["dalidou", "nas.local", "a", "A-b_c.9"] {
        assert!(is_name(name), "{name}");
    }
    let long = "a".repeat(65);
    for name in [
        "", ".", "..", "./a", "a/b", "a:b", "-a", "a.", "a b", "ä", "~", &long,
    ] {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn what_is_added_is_read_back_and_what_is_removed_leaves_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("sealift/remotes.toml");
    let add = |name: &str, remote: &NamedRemote| change(&file, |all| all.with(name, remote));
    add("dalidou", &full()).unwrap();
    add("nas.local", &remote("/mnt/nas")).unwrap();
    add("usb", &remote("me@laptop:backups")).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let read = Remotes::read(&file).unwrap();
    assert_eq!(read.all.len(), 3);
    assert_eq!(read.all["dalidou"], full());
    assert!(matches!(add("usb", &full()), Err(RemotesError::Taken(_))));
    // The operator's own words.
    let text = read.text.replace("[usb]", "# of the kitchen\n[usb]");
    std::fs::write(&file, &text).unwrap();
    change(&file, |all| all.without("nas.local")).unwrap();
    let left = Remotes::read(&file).unwrap();
    assert_eq!(left.all.keys().collect::<Vec<_>>(), ["dalidou", "usb"]);
    assert!(
        left.text.contains("# of the kitchen\n[usb]"),
        "{}",
        left.text
    );
    let unknown = change(&file, |all| all.without("dalidu")).unwrap_err();
    assert!(
        unknown.to_string().contains("did you mean \"dalidou\"?"),
        "{unknown}"
    );
}

#[test]
fn a_table_that_is_written_otherwise_is_left_to_the_operator() {
    let read = parse("usb = { url = \"/mnt/usb\" }\n").unwrap();
    assert!(matches!(
        read.without("usb"),
        Err(RemotesError::Entangled { .. })
    ));
    // What looks like a head is inside a string.
    let read = parse("[a]\nurl = \"/a\"\nregion = '''\n[b]\n'''\n[b]\nurl = \"/b\"\n");
    assert!(read.is_err() || read.unwrap().without("b").is_err());
}

#[test]
fn an_invalid_file_is_named_with_its_line() {
    for (text, line, what) in [
        ("[a]\nurl = 1", 2, "invalid type"),
        ("[a]\nhost = \"x\"", 1, "missing field"),
        ("[a]\nurl = \"/a\"\nidentity = \"k\"", 3, "unknown field"),
        ("[a]\nurl = \"/a\"\nhost = \"a/b\"", 3, "a/b"),
        ("\n[a]\nurl = \"gopher://x\"", 3, "sealift knows"),
        ("[a]\nurl = \"backups\"", 2, "absolute path"),
        (
            "[a]\nurl = \"https://me:hunter2@x/y\"",
            2,
            "a password in a URL",
        ),
        ("[a]\nurl = \"/a\"\nendpoint = \"x y\"", 2, "endpoint"),
        ("[\"a/b\"]\nurl = \"/a\"", 1, "cannot be the name"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        let place = format!("/x/remotes.toml:{line}: ");
        assert!(
            error.starts_with(&place) && error.contains(what),
            "{text:?}: {error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("sealift/remotes.toml");
    change(&file, |all| all.with("a", &remote("/a"))).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
    let refused = [
        Remotes::read(&file).err(),
        change(&file, |all| all.with("b", &remote("/b"))).err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(RemotesError::Exposed { .. })),
            "{error:?}"
        );
    }
}
