use std::path::Path;

use super::*;

fn config(text: &str) -> Config {
    let text = format!(
        "host = \"h\"\nrecipients = [\"age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9\"]\n\
         signer = \"/etc/sealift/signer\"\nstate = \"/nowhere/state\"\n{text}"
    );
    Config::parse(&text, Path::new("/etc/sealift/sealift.toml")).unwrap()
}

fn settings(name: UnitName, text: &str) -> Vec<String> {
    let config = config(text);
    let program = Path::new("/usr/bin/sealift");
    let files = files(name, Some(&config), program, DateTime::UNIX_EPOCH);
    let drop_in = files.iter().find(|file| file.part == "drop_in").unwrap();
    let lines = drop_in.text.lines();
    let lines = lines.filter(|line| line.contains('=') && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn without_commands_only_what_is_written_is_writable() {
    let text = "[[source]]\nkind = \"sqlite\"\npath = \"/srv/app/db/app.db\"\n\
                [[source]]\nkind = \"tree\"\npath = \"/srv/my photos\"\n\
                [[target]]\nname = \"disk\"\nurl = \"file:///mnt/backup\"\n\
                [[target]]\nname = \"s3\"\nurl = \"s3://bucket/x\"\n";
    assert_eq!(
        settings(UnitName::Agent, text),
        [
            "ProtectSystem=strict",
            "ReadWritePaths=-/mnt/backup",
            "ReadWritePaths=-/nowhere/state",
            "ReadWritePaths=-/srv/app/db",
            "ProtectHome=yes",
        ]
    );
    // A restore in place renames beside the live path.
    assert_eq!(
        settings(UnitName::Recover, text),
        [
            "ProtectSystem=strict",
            "ReadWritePaths=-/nowhere/state",
            "ReadWritePaths=-/srv",
            "ProtectHome=yes",
        ]
    );
}

#[test]
fn what_commands_homes_and_ssh_need_is_opened() {
    let text = "[[source]]\nkind = \"tree\"\npath = \"/home/me/documents\"\n\
                [[source]]\nkind = \"command\"\nname = \"pg\"\ncommand = \"runuser -u postgres -- pg_dump app\"\n\
                [restore]\nstop = \"/usr/bin/docker compose stop\"\nstart = \"docker compose up\"\n\
                [[target]]\nname = \"nas\"\nurl = \"sftp://me@nas/x\"\n";
    assert_eq!(
        settings(UnitName::Agent, text),
        [
            "ProtectSystem=full",
            "ReadWritePaths=-/nowhere/state",
            "ReadOnlyPaths=-/home/me/documents",
            "ProtectHome=read-only",
            "InaccessiblePaths=",
            "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_AUDIT_WRITE",
            "NoNewPrivileges=no",
        ]
    );
    // No backup stops the service.
    let backup = settings(UnitName::Backup, text);
    assert!(
        !backup.contains(&"InaccessiblePaths=".to_owned()),
        "{backup:?}"
    );
    let hooks = "[hooks]\nbefore = \"mount /mnt/backup\"\n\
                 [[source]]\nkind = \"tree\"\npath = \"/tmp/x\"\n";
    let hooks = settings(UnitName::Agent, hooks);
    for setting in [
        "PrivateTmp=no",
        "CapabilityBoundingSet=CAP_SYS_ADMIN",
        "SystemCallFilter=@mount",
    ] {
        assert!(hooks.contains(&setting.to_owned()), "{setting}: {hooks:?}");
    }
    assert!(
        !hooks.iter().any(|line| line.starts_with("ReadOnlyPaths")),
        "{hooks:?}"
    );
    // A key and known hosts elsewhere need no home directory.
    let ssh = "[[target]]\nname = \"nas\"\nurl = \"rsync://me@nas/x\"\n\
               ssh = \"ssh -i /etc/sealift/key -o UserKnownHostsFile=/etc/sealift/known_hosts\"\n";
    assert!(settings(UnitName::Agent, ssh).contains(&"ProtectHome=yes".to_owned()));
}

#[test]
fn what_the_agent_shows_and_whom_it_notifies_is_opened() {
    let text = "[serve]\nlisten = [\"unix:/srv/web/sealift.sock\", \"unix:/run/sealift/http.sock\"]\n\
                token_file = \"/root/token\"\n\
                textfile = \"/var/lib/prometheus/node-exporter/sealift.prom\"\n\
                [[notify]]\nname = \"phone\"\nkind = \"ntfy\"\nurl_file = \"/home/me/ntfy-url\"\n";
    let agent = settings(UnitName::Agent, text);
    assert_eq!(
        agent,
        [
            "ProtectSystem=strict",
            "ReadWritePaths=-/nowhere/state",
            "ReadWritePaths=-/srv/web",
            "ReadWritePaths=-/var/lib/prometheus/node-exporter",
            "ProtectHome=read-only",
        ]
    );
    // A backup by a timer writes the metrics and sends messages, and answers nobody.
    let backup = settings(UnitName::Backup, text);
    assert!(
        !backup.contains(&"ReadWritePaths=-/srv/web".to_owned()),
        "{backup:?}"
    );
    for setting in [
        "ReadWritePaths=-/var/lib/prometheus/node-exporter",
        "ProtectHome=read-only",
    ] {
        assert!(backup.contains(&setting.to_owned()), "{backup:?}");
    }
    let token = "[serve]\ntoken_file = \"/root/token\"\n";
    assert!(settings(UnitName::Agent, token).contains(&"ProtectHome=read-only".to_owned()));
    assert!(settings(UnitName::Backup, token).contains(&"ProtectHome=yes".to_owned()));
    let command =
        "[[notify]]\nkind = \"command\"\ncommand = [\"/home/me/bin/page-me\", \"docker\"]\n";
    for name in [UnitName::Agent, UnitName::Backup] {
        let settings = settings(name, command);
        for setting in [
            "ProtectSystem=full",
            "ProtectHome=read-only",
            "InaccessiblePaths=",
        ] {
            assert!(settings.contains(&setting.to_owned()), "{settings:?}");
        }
    }
    assert!(settings(UnitName::Recover, command).contains(&"ProtectSystem=strict".to_owned()));
}

#[test]
fn a_drill_gets_what_its_own_configuration_needs() {
    let of = |text: &str| {
        let text = format!(
            "[drill]\nidentity = \"/etc/sealift/key.txt\"\nsigner = \"/etc/sealift/drill\"\n{text}"
        );
        let config = DrillConfig::parse(&text, Path::new("/etc/sealift/d.toml")).unwrap();
        drill_files(&config, Path::new("/usr/bin/sealift"))
    };
    let quiet = of("from = [\"s3://bucket/x\", \"/mnt/backup\"]\n");
    let parts: Vec<&str> = quiet.iter().map(|file| file.part).collect();
    assert_eq!(parts, ["unit", "drop_in", "timer"]);
    assert!(quiet[0].text.contains(
        "\nExecStart=/usr/bin/sealift --quiet --retry 3m --config /etc/sealift/d.toml drill "
    ));
    for timed in [
        "OnCalendar=quarterly",
        "Persistent=true",
        "RandomizedDelaySec=",
    ] {
        assert!(quiet[2].text.contains(timed), "{timed}");
    }
    let drop_in = &quiet[1].text;
    for setting in [
        "\nProtectSystem=strict\n",
        "\nReadWritePaths=-/mnt/backup\n",
        "\nProtectHome=yes\n",
    ] {
        assert!(drop_in.contains(setting), "{drop_in}");
    }
    let service = of("from = \"s3://bucket/x\"\nscratch = \"/home/me/drills\"\n\
                      start = \"docker compose up -d\"\nstop = \"docker compose down\"\n");
    let drop_in = &service[1].text;
    for setting in [
        "\nProtectSystem=full\n",
        "\nReadWritePaths=-/home/me/drills\n",
        "\nProtectHome=read-only\n",
        "\nInaccessiblePaths=\n",
    ] {
        assert!(drop_in.contains(setting), "{drop_in}");
    }
}

#[test]
fn a_database_in_use_in_a_tree_is_writable() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    for name in ["quiet", "in/use"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::write(root.join("quiet/a.db"), "x").unwrap();
    std::fs::write(root.join("in/use/b.db-wal"), "x").unwrap();
    let text = format!(
        "[[source]]\nkind = \"tree\"\npath = \"{}\"\n",
        root.display()
    );
    let expected = format!("ReadWritePaths=-{}", root.join("in/use").display());
    let settings = settings(UnitName::Agent, &text);
    let writes = settings
        .iter()
        .filter(|line| line.starts_with("ReadWritePaths"));
    assert_eq!(
        writes.collect::<Vec<_>>(),
        ["ReadWritePaths=-/nowhere/state", &expected]
    );
}

#[test]
fn the_paths_of_the_configuration_are_in_the_unit_and_the_timer_keeps_its_time() {
    let program = Path::new("/opt/my tools/sealift");
    let of = |name, text: &str| files(name, Some(&config(text)), program, DateTime::UNIX_EPOCH);
    let backup = of(UnitName::Backup, "[schedule]\nbackup = \"30 4 * * *\"\n");
    assert_eq!(backup[0].path, "/etc/systemd/system/sealift-backup.service");
    assert!(backup[0].text.contains(
        "ExecStart=\"/opt/my tools/sealift\" --quiet --config /etc/sealift/sealift.toml backup"
    ));
    assert!(!backup[0].text.contains("StateDirectory"));
    assert_eq!(
        backup[1].path,
        "/etc/systemd/system/sealift-backup.service.d/sandbox.conf"
    );
    assert!(backup[2].text.contains("\nOnCalendar=*-*-* 04:30:00 UTC\n"));
    for schedule in [
        "",
        "[schedule]\nbackup = \"0 6 * * 1\"\n",
        "[schedule]\nbackup = \"0 */6 * * *\"\n",
    ] {
        let timer = of(UnitName::Backup, schedule).remove(2).text;
        assert!(
            timer.contains("\nOnCalendar=*-*-* 06:00:00 UTC\n"),
            "{timer}"
        );
        assert!(
            timer.contains("# Not as") || timer.contains("a guess"),
            "{timer}"
        );
    }
    let recover = &of(UnitName::Recover, "")[0].text;
    assert!(
        recover.contains("ConditionDirectoryNotEmpty=/nowhere/state/restores"),
        "{recover}"
    );
    assert!(!recover.contains("/var/lib/sealift"), "{recover}");
    assert!(of(UnitName::Agent, "")[0].text.contains(" serve\n"));
    let watch = files(UnitName::Watch, None, program, DateTime::UNIX_EPOCH);
    assert_eq!(
        watch.iter().map(|file| file.part).collect::<Vec<_>>(),
        ["unit", "timer"]
    );
}
