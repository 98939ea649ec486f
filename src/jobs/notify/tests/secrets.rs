//! No secret is in an error, in the history, or in what the state directory has.

use super::stubs::Stub;
use super::{World, at, finding, verdict};
use crate::jobs::notify::send_tests;
use crate::jobs::verdict::FindingCode::DiskLow;
use crate::jobs::verdict::Severity::Red;

const SECRET: &str = "hunter2-hunter2";

fn assert_clean(world: &World, texts: &[String]) {
    for text in texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
    for entry in std::fs::read_dir(world.state()).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        let is_in = content.windows(7).any(|part| part == b"hunter2");
        assert!(!is_in, "{}", path.display());
    }
}

#[test]
fn no_secret_is_in_errors_or_in_the_state_directory() {
    let files = tempfile::tempdir().unwrap();
    let token = files.path().join("token");
    std::fs::write(&token, format!("{SECRET}\n")).unwrap();
    let (http, smtp) = (Stub::http(), Stub::smtp());
    let url_file = files.path().join("url");
    let url = format!("http://127.0.0.1:{}/{SECRET}\n", http.port);
    std::fs::write(&url_file, url).unwrap();
    let channels = format!(
        "[[notify]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/{SECRET}?key={SECRET}\"\n\
         token_file = {token:?}\nsecret_file = {token:?}\n\
         [[notify]]\nname = \"b\"\nkind = \"ntfy\"\nurl_file = {url_file:?}\ntoken_file = {token:?}\n\
         [[notify]]\nname = \"c\"\nkind = \"email\"\nsmtp = \"smtp://me@127.0.0.1:{mail}\"\n\
         password_file = {token:?}\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\n\
         [[notify]]\nname = \"d\"\nkind = \"healthchecks\"\nurl_file = {url_file:?}\njob = \"verdict\"\n\
         [[notify]]\nname = \"e\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/{SECRET}\"\n\
         [[notify]]\nname = \"f\"\nkind = \"email\"\nsmtp = \"smtp+starttls://me:{SECRET}@127.0.0.1:{mail}\"\n\
         from = \"a@example.org\"\nto = [\"b@example.org\"]\n",
        port = http.port,
        mail = smtp.port,
    );
    let world = World::new(&channels);
    http.answer(404);
    smtp.answer(554);
    let mut texts = vec![format!("{:?}", world.config.channels)];
    for second in [0, 300, 330, 600] {
        world.tick(&verdict(&[finding(DiskLow, Red, "x")]), at(second));
    }
    let report = send_tests(&world.config, None, at(3_000)).unwrap();
    assert!(
        report.channels.iter().all(|channel| !channel.sent),
        "{report:?}"
    );
    texts.push(format!("{report:?}"));
    let records = world.history().channel_records().unwrap();
    assert!(records.iter().all(|record| record.error.is_some()));
    texts.push(format!("{records:?}"));
    assert_clean(&world, &texts);
    // The server echoes the path, so there was something to remove.
    let a = &report.channels[0].error;
    assert_eq!(
        a.as_deref(),
        Some("the webhook answers 404: no /...?... here")
    );
    let f = report.channels[5].error.as_deref().unwrap();
    assert!(f.contains("mail server"), "{f}");
    // Without STARTTLS the password is not sent: nothing after EHLO.
    assert!(smtp.take().is_empty());
    // They are sent where they belong.
    http.answer(200);
    smtp.answer(250);
    let report = send_tests(&world.config, None, at(4_000)).unwrap();
    let sent: Vec<bool> = report.channels.iter().map(|channel| channel.sent).collect();
    assert_eq!(sent, [true, true, true, true, false, false], "{report:?}");
    assert_eq!(report.channels[1].id.as_deref(), Some("abc"));
    assert_eq!(
        report.channels[2].answer.as_deref(),
        Some("250 queued as 4711")
    );
    let got = http.take();
    assert!(
        got[0]
            .head
            .contains(&format!("authorization: Bearer {SECRET}")),
        "{got:?}"
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = crate::base::ids::hex(ring::hmac::sign(&key, got[0].body.as_bytes()).as_ref());
    let line = format!("x-sealift-signature: sha256={signature}\n");
    assert!(got[0].head.contains(&line), "{got:?}");
    assert_eq!(got[0].json()["event"], "test");
    assert!(smtp.take()[0].head.contains("AUTH PLAIN"));
    assert_clean(&world, &[format!("{report:?}")]);
}

#[test]
fn a_command_gets_the_event_and_a_secret_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("event");
    let script = format!(
        "cat >{}; echo $SEALIFT_EVENT $SEALIFT_HOST >>{0}",
        out.display()
    );
    let channels = format!(
        "[[notify]]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", {script:?}]\n\
         [[notify]]\nname = \"broken\"\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"echo no >&2; exit 4\"]\n\
         [[notify]]\nkind = \"ntfy\"\nurl_file = \"/nowhere/url\"\n\
         [[notify]]\nkind = \"webhook\"\nurl = \"env:SEALIFT_NOTIFY_NOT_SET\"\n"
    );
    let world = World::new(&channels);
    let report = send_tests(&world.config, None, at(0)).unwrap();
    let errors: Vec<_> = report
        .channels
        .iter()
        .map(|one| one.error.as_deref())
        .collect();
    assert_eq!(errors[0], None, "{report:?}");
    assert!(errors[1].unwrap().contains("no"), "{report:?}");
    assert!(
        errors[2].unwrap().contains("/nowhere/url cannot be read"),
        "{report:?}"
    );
    assert!(
        errors[3]
            .unwrap()
            .contains("SEALIFT_NOTIFY_NOT_SET is not set"),
        "{report:?}"
    );
    let event = std::fs::read_to_string(out).unwrap();
    let (json, environment) = event.split_at(event.rfind('}').unwrap() + 1);
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(
        (json["v"].as_u64(), &json["event"]),
        (Some(1), &"test".into())
    );
    assert_eq!(environment, "test dalidou\n");
    let named = send_tests(&world.config, Some("broken"), at(0)).unwrap();
    assert_eq!(named.channels.len(), 1);
    assert!(send_tests(&world.config, Some("nobody"), at(0)).is_err());
    let none = World::new("");
    assert!(
        send_tests(&none.config, None, at(0))
            .unwrap_err()
            .is_request()
    );
}
