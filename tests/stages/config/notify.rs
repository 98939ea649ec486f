//! `[[notify]]`: what is accepted, what is refused, and that no error repeats a secret.

use std::path::Path;
use std::time::Duration;

use sealift::config::{ChannelKind, Config, NotifyEvent, PartialPing, PingJob, SecretText};

use super::{minimal, parse, refused};

#[test]
fn the_specifications_example_is_accepted() {
    let config = parse(&minimal(
        r#"
[[notify]]
name = "phone"
kind = "ntfy"
url = "https://ntfy.sh/hunter2"
events = ["red","amber","recovered"]
min_interval = "15m"
quiet = "22:00-07:00"

[[notify]]
kind = "healthchecks"
url_file = "/etc/sealift/hc"

[[notify]]
kind = "email"
smtp = "smtps://user@mail.example.org:465"
password_file = "mail-password"
from = "sealift@example.org"
to = ["Me <me@example.org>"]
events = ["all"]
repeat = "off"
hold = "1m"
zone = "Europe/Berlin"

[[notify]]
kind = "webhook"
url = "env:HOOK"
secret_file = "env:HOOK_SECRET"

[[notify]]
kind = "command"
command = ["page", "me"]
"#,
    ))
    .unwrap();
    let names: Vec<&str> = config
        .channels
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["phone", "healthchecks", "email", "webhook", "command"]
    );
    let [phone, health, mail, hook, _] = &config.channels[..] else {
        panic!("five channels");
    };
    assert_eq!(phone.repeat, Some(Duration::from_secs(86_400)));
    assert_eq!((phone.hold, phone.zone), (None, None));
    let usual = [NotifyEvent::Red, NotifyEvent::Amber, NotifyEvent::Recovered];
    assert_eq!(hook.events, usual.into());
    assert!(phone.quiet.is_some() && health.events.is_empty());
    let ChannelKind::Healthchecks { job, partial, url } = &health.kind else {
        panic!("{health:?}");
    };
    assert_eq!((job, partial), (&PingJob::Backup, &PartialPing::Fail));
    assert_eq!(url, &SecretText::File("/etc/sealift/hc".into()));
    assert_eq!((mail.events.len(), mail.repeat), (7, None));
    let ChannelKind::Webhook { url, secret, .. } = &hook.kind else {
        panic!("{hook:?}");
    };
    assert_eq!(url, &SecretText::Environment("HOOK".to_owned()));
    assert_eq!(
        secret,
        &Some(SecretText::Environment("HOOK_SECRET".to_owned()))
    );
    assert!(!format!("{:?}", config.channels).contains("hunter2"));
}

#[test]
fn what_cannot_be_meant_is_refused_and_secrets_are_not_repeated() {
    const NTFY: &str = "kind = \"ntfy\"\nurl = \"https://h/hunter2\"\n";
    const MAIL: &str = "kind = \"email\"\nfrom = \"a@x\"\nto = [\"b@x\"]\n";
    const HEALTH: &str = "kind = \"healthchecks\"\n";
    for (lines, why) in [
        ("kind = \"sms\"", "kind \"sms\" is not known"),
        ("name = \"x\"", "missing field `kind`"),
        ("kind = \"ntfy\"", "needs `url` or `url_file`"),
        (
            &format!("{NTFY}url_file = \"x\""),
            "both `url` and `url_file`",
        ),
        (&format!("{NTFY}topic = \"x\""), "unknown key \"topic\""),
        (&format!("{NTFY}smtp = \"x\""), "\"smtp\" has no effect"),
        (&format!("{NTFY}job = \"backup\""), "\"job\" has no effect"),
        (
            &format!("{NTFY}events = [\"blue\"]"),
            "event \"blue\" is not known",
        ),
        (
            &format!("{NTFY}events = [\"test\"]"),
            "event \"test\" is not known",
        ),
        (
            &format!("{NTFY}events = [\"recovered\"]"),
            "needs `red` or `amber`",
        ),
        (&format!("{NTFY}events = []"), "name one at least"),
        (&format!("{NTFY}quiet = \"at night\""), "not hours like"),
        (&format!("{NTFY}zone = \"Mars\""), "not a time zone"),
        (&format!("{NTFY}hold = \"long\""), "not a duration"),
        (&format!("{NTFY}name = \"a b\""), "is not made of letters"),
        (
            &format!("{NTFY}[[notify]]\n{NTFY}"),
            "two channels are named \"ntfy\"",
        ),
        ("kind = \"ntfy\"\nurl = \"h/hunter2\"", "not a URL"),
        (
            "kind = \"ntfy\"\nurl = \"https://me:hunter2@h/\"",
            "user or a password",
        ),
        ("kind = \"ntfy\"\nurl = \"https://h/hunter2#x\"", "# in it"),
        (
            "kind = \"ntfy\"\nurl = \"env:a-b\"",
            "name of an environment variable",
        ),
        (
            &format!("{HEALTH}url = \"https://h/hunter2?rid=1\""),
            "has ? or #",
        ),
        (
            &format!("{HEALTH}url = \"https://h/hun ter2\""),
            "a blank in it",
        ),
        (&format!("{HEALTH}url = \"https://h/\""), "ends in the id"),
        (
            &format!("{HEALTH}url = \"https://h/x\"\nevents = [\"red\"]"),
            "no effect",
        ),
        (
            &format!("{HEALTH}url = \"https://h/x\"\njob = \"push\""),
            "job \"push\"",
        ),
        (
            &format!("{HEALTH}url = \"https://h/x\"\npartial = \"ok\""),
            "partial is",
        ),
        (MAIL, "needs `smtp`"),
        (
            &format!("{MAIL}smtp = \"smtp://mail.example.org\""),
            "clear text",
        ),
        (
            &format!("{MAIL}smtp = \"smtps://me@mail\""),
            "a user without a password",
        ),
        (
            &format!("{MAIL}smtp = \"smtps://mail\"\npassword_file = \"p\""),
            "names no user",
        ),
        (
            &format!("{MAIL}smtp = \"smtps://me:hunter2@mail\"\npassword_file = \"p\""),
            "both a password",
        ),
        (
            "kind = \"email\"\nsmtp = \"smtps://m\"\nfrom = \"x\"\nto = []",
            "`to` is empty",
        ),
        (
            "kind = \"email\"\nsmtp = \"smtps://m\"\nfrom = \"x\"\nto = [\"b@x\"]",
            "not a mail address",
        ),
        ("kind = \"command\"", "needs `command`"),
        ("kind = \"command\"\ncommand = [\"\"]", "names no program"),
    ] {
        let error = refused(&format!("[[notify]]\n{lines}\n"));
        assert!(error.contains(why), "{lines}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let line = refused(&format!("[[notify]]\n{NTFY}quiet = \"x\"\n"));
    assert!(line.starts_with("/etc/sealift/sealift.toml:8: "), "{line}");
}

#[test]
fn the_effective_configuration_shows_no_secret() {
    let text = minimal(
        "[[notify]]\nkind = \"ntfy\"\nurl = \"https://ntfy.sh/hunter2\"\n\
         [[notify]]\nkind = \"email\"\nsmtp = \"smtps://me:hunter2@mail\"\nfrom = \"a@x\"\nto = [\"b@x\"]\n\
         [[notify]]\nkind = \"command\"\ncommand = [\"page\", \"hunter2\"]\n",
    );
    let settings = Config::settings(&text, Path::new("/etc/sealift/sealift.toml")).unwrap();
    let lines: Vec<String> = settings
        .iter()
        .filter(|one| one.table == "notify")
        .map(|one| format!("{} {} {}", one.index, one.key, one.value))
        .collect();
    let all = lines.join("\n");
    assert!(!all.contains("hunter2"), "{all}");
    for line in [
        "0 url \"https://ntfy.sh/...\"",
        "1 smtp \"smtps://me@mail:465\"",
        "0 repeat \"1d\"",
        "2 command \"page ...\"",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line} in {all}");
    }
}
