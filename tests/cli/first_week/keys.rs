//! The keys are replaced, as keys/README.md says: a recipient, then the signer.

use super::week::{Host, KeyHolder, View, Week};
use super::{is_as_recorded, set_up};

/// Restores the newest snapshot and an early one, lists, verifies and asks for the state: on the host and on the key
/// holder's machine. `identity` opens the newest, `early` the first.
fn all_is_well(week: &mut Week, identity: &str, early: &str) {
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift list");
    week.calm(Host, "sealift verify");
    week.calm(KeyHolder, "sealift list --from home");
    week.calm(KeyHolder, "sealift verify --from home");
    week.calm(KeyHolder, "sealift status --from home");
    for (snapshot, identity) in [("latest", identity), ("1", early)] {
        week.calm(
            KeyHolder,
            &format!("sealift restore {snapshot} --from home --identity {identity} --to out"),
        );
        week.unseen(KeyHolder, "test -f out/photos/1.txt && rm -r out");
    }
}

/// A new signer: its name, and its fingerprint's name in the recording.
fn make_signer(week: &mut Week, name: &str) {
    week.unseen(Host, &format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {name} && ssh-keygen -lf {name} | cut -d' ' -f2 >print"));
    let print = week.read(Host, "print");
    week.name(print.trim(), &format!("[{}]", name.to_uppercase()));
}

fn rotations(view: View) -> Week {
    let mut week = Week::new(view, "New keys");
    set_up(&mut week);
    week.unseen(Host, "ssh-keygen -lf c.signer | cut -d' ' -f2 >print");
    let print = week.read(Host, "print");
    week.name(print.trim(), "[SIGNER-1]");
    week.day("Before", "07 06:00");
    week.calm(Host, "sealift backup");
    week.calm(
        KeyHolder,
        "sealift remote add home s3://backups/home --endpoint $S3",
    );
    week.calm_first_use(KeyHolder, "sealift list --from home");
    all_is_well(&mut week, "key.txt", "key.txt");
    recipient(&mut week);
    signer(&mut week);
    strange_signer(&mut week);
    week
}

fn recipient(week: &mut Week) {
    week.day("A second recipient", "08 06:00");
    week.unseen(
        KeyHolder,
        "sealift key generate --output key-2.txt >recipient-2.txt",
    );
    let second = week.read(KeyHolder, "recipient-2.txt").trim().to_owned();
    week.name(&second, "[RECIPIENT-2]");
    week.calm(
        Host,
        &format!("sed -i 's/^recipients = \\[/recipients = [\"{second}\", /' c.toml && sealift config check"),
    );
    week.calm(Host, "sealift status");
    week.calm(Host, "sealift backup");
    all_is_well(week, "key-2.txt", "key.txt");
    week.note("The second identity opens nothing that was sent before it.");
    week.alarm(
        KeyHolder,
        "sealift restore 1 --from home --identity key-2.txt --to out",
        1,
        &["cannot decrypt", &second],
    );

    week.day("The first recipient goes", "09 06:00");
    week.calm(Host, "sed -i 's/^recipients = .*/recipients = [\"'$(cat ../holder/recipient-2.txt)'\"]/' c.toml && sealift backup");
    all_is_well(week, "key-2.txt", "key.txt");
}

fn signer(week: &mut Week) {
    week.day("A new signer", "10 06:00");
    make_signer(week, "signer-2");
    week.note("Step 1 and 2 of keys/README.md: the old signer introduces the new one.");
    week.calm(
        Host,
        "sed -i '/^signer = /a next_signer = \"signer-2.pub\"' c.toml && sealift backup",
    );
    all_is_well(week, "key-2.txt", "key.txt");
    week.note("Steps 3 to 6: the new signer signs.");
    week.at("11 06:00");
    week.calm(
        Host,
        "sed -i '/^next_signer/d; s/^signer = .*/signer = \"signer-2\"/' c.toml\n\
         echo \"dalidou namespaces=\\\"sealift-manifest,sealift-prune\\\" $(cat signer-2.pub)\" >>allowed_signers\n\
         sealift backup",
    );
    all_is_well(week, "key-2.txt", "key.txt");
}

/// A signer that nothing introduced.
fn strange_signer(week: &mut Week) {
    week.day("A signer that was not introduced", "12 06:00");
    make_signer(week, "signer-3");
    week.alarm(
        Host,
        "sed -i 's/^signer = .*/signer = \"signer-3\"/' c.toml; sealift backup",
        2,
        &["signer-3", "next_signer", "allowed_signers"],
    );
    week.note("Nothing was sent, so readers notice nothing.");
    week.calm(KeyHolder, "sealift list --from home");
    week.calm(
        Host,
        "sed -i 's/^signer = .*/signer = \"signer-2\"/' c.toml; sealift backup",
    );
    week.calm(Host, "sealift status");

    week.note(
        "The host lists it, so it signs. A reader who knows the signers before it is warned.",
    );
    week.at("13 06:00");
    week.calm(
        Host,
        "sed -i 's/^signer = .*/signer = \"signer-3\"/' c.toml\n\
         echo \"dalidou namespaces=\\\"sealift-manifest,sealift-prune\\\" $(cat signer-3.pub)\" >>allowed_signers\n\
         sealift backup",
    );
    week.reminder(
        Host,
        "sealift status",
        &["readers who trust only", "refuse"],
    );
    let introduced_by_none = "was introduced by none";
    week.alarm(
        KeyHolder,
        "sealift list --from home",
        3,
        &[introduced_by_none],
    );
    week.alarm(
        KeyHolder,
        "sealift verify --from home",
        3,
        &[introduced_by_none],
    );
    week.alarm(
        KeyHolder,
        "sealift status --from home",
        3,
        &[introduced_by_none],
    );
    week.alarm(
        KeyHolder,
        "sealift restore latest --from home --identity key-2.txt --to out",
        1,
        &[introduced_by_none, "next:"],
    );
    week.note("The key holder compares the fingerprint with the host's, and trusts it.");
    week.calm(
        KeyHolder,
        "sealift remote trust home --signer $(ssh-keygen -lf ../host/signer-3.pub | cut -d' ' -f2)",
    );
    week.calm(KeyHolder, "sealift list --from home");
    week.calm(KeyHolder, "sealift verify --from home");
    week.calm(
        KeyHolder,
        "sealift restore latest --from home --identity key-2.txt --to out",
    );
}

#[test]
fn keys_are_replaced_without_a_false_alarm_on_the_host_or_beside_it() {
    is_as_recorded(rotations(View::Terminal), "new-keys");
}

#[test]
fn in_a_pipe_new_keys_are_plain_text() {
    rotations(View::Pipe).finish();
}
