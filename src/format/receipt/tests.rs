use super::*;
use crate::format::signature::Trust;

struct Scene {
    host: HostName,
    host_signer: Signer,
    driller: Signer,
    trust: Trust,
    salt: [u8; 32],
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Returns the trust that an `allowed_signers` file with these lines expresses.
fn listed(lines: &str) -> Trust {
    Trust::read("allowed_signers", lines.as_bytes(), |line| panic!("{line}")).unwrap()
}

impl Scene {
    fn new() -> Self {
        let (host_signer, driller) = (
            Signer::generate("dalidou").unwrap(),
            Signer::generate("laptop").unwrap(),
        );
        let trust = listed(&format!(
            "dalidou namespaces=\"sealift-manifest,sealift-prune\" {}\n\
             drill@laptop namespaces=\"sealift-receipt\" {}\n",
            host_signer.public_line(),
            driller.public_line(),
        ));
        Self {
            host: "dalidou".parse().unwrap(),
            host_signer,
            driller,
            trust,
            salt: [7; 32],
        }
    }

    fn receipt(&self) -> Receipt {
        let mut receipt = Receipt {
            format: RECEIPT_FORMAT,
            kind: ReceiptKind::Drill,
            requires: Vec::new(),
            host: self.host.clone(),
            sequence: 43,
            stamp: "20260408T060000Z".parse().unwrap(),
            core: Hash::sha256(b"core"),
            manifest: "00000043-20260408T060000Z-0123456789abcdef".to_owned(),
            target: ReceiptTarget {
                name: "s3".to_owned(),
                id: target_id("s3://backups/atocore/"),
            },
            by: "drill@laptop".to_owned(),
            tool: "sealift 0.1.0".to_owned(),
            machine: "00".repeat(16),
            started_at: at("2026-04-08T19:02:11Z"),
            finished_at: at("2026-04-08T19:02:24Z"),
            milliseconds: ReceiptTimes {
                fetch: 700,
                restore: 11_000,
                checks: 700,
            },
            outcome: ReceiptOutcome::Passed,
            restored: Some(RestoredTotals {
                files: 3,
                bytes: 283_000_000,
                databases: 2,
                fetched_bytes: 90_000_000,
                archives: 5,
            }),
            checks: vec![ReceiptCheck {
                name: "health".to_owned(),
                outcome: ReceiptOutcome::Passed,
                milliseconds: 12,
            }],
            errors: Vec::new(),
            recipients: vec!["age1example".to_owned()],
            schema: Some("0123456789abcdef".to_owned()),
            witness: String::new(),
        };
        receipt.attest(&self.salt);
        receipt
    }

    fn judge_bytes(
        &self,
        name: &ManifestName,
        bytes: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<JudgedReceipt, ReceiptRefusal> {
        let file = ReceiptFile {
            name: name.clone(),
            bytes,
            signature,
        };
        let core = Hash::sha256(b"core");
        judge(
            &file,
            &ReceiptContext {
                host: &self.host,
                trust: &self.trust,
                host_signers: &[self.host_signer.fingerprint()],
                is_snapshot: &|found, sequence, stamp| {
                    *found == core && sequence == 43 && stamp == "20260408T060000Z".parse().unwrap()
                },
                salt: &|found| (*found == core).then_some(self.salt),
                now: at("2026-04-09T08:00:00Z"),
            },
        )
    }

    fn judge(&self, receipt: &Receipt, signer: &Signer) -> Result<JudgedReceipt, ReceiptRefusal> {
        let [(_, signature), (key, bytes)] = receipt.sign(signer).unwrap();
        let name = Receipt::name_of(key.as_str()).unwrap();
        self.judge_bytes(&name, &bytes, Some(&signature))
    }
}

#[test]
fn a_receipt_of_a_listed_driller_proves_its_snapshot() {
    let scene = Scene::new();
    let receipt = scene.receipt();
    let judged = scene.judge(&receipt, &scene.driller).unwrap();
    assert_eq!(judged.witness, WitnessState::Right);
    assert!(judged.proves_restore() && judged.proves_keys());
    assert_eq!(judged.receipt, receipt);
    let [(signature, _), (key, _)] = receipt.sign(&scene.driller).unwrap();
    assert_eq!(signature.as_str(), format!("{key}.sig"));
    assert_eq!(Receipt::name_of(signature.as_str()), None);
}

/// Kind: somebody changes, moves or makes a receipt. Each is refused for its own reason.
#[test]
fn every_forgery_is_refused_by_its_reason() {
    use ReceiptRefusal as No;
    type Change = fn(&mut Receipt);
    type Expected = fn(&No) -> bool;
    type ForgedCase = (&'static str, Change, Expected);
    let scene = Scene::new();
    let stranger = Signer::generate("stranger").unwrap();
    let cases: [ForgedCase; 10] = [
        (
            "other host",
            |r| r.host = "other".parse().unwrap(),
            |no| matches!(no, No::OtherHost(_)),
        ),
        (
            "other sequence",
            |r| r.sequence = 44,
            |no| matches!(no, No::UnknownSnapshot),
        ),
        (
            "other core",
            |r| r.core = Hash::sha256(b"other"),
            |no| matches!(no, No::UnknownSnapshot),
        ),
        (
            "other stamp",
            |r| r.stamp = "20260407T060000Z".parse().unwrap(),
            |no| matches!(no, No::UnknownSnapshot),
        ),
        (
            "other principal",
            |r| r.by = "drill@other".to_owned(),
            |no| matches!(no, No::Stranger { .. }),
        ),
        (
            "before the snapshot",
            |r| r.started_at = at("2026-04-08T05:59:59Z"),
            |no| matches!(no, No::Times { .. }),
        ),
        (
            "ends before it begins",
            |r| r.finished_at = at("2026-04-08T19:00:00Z"),
            |no| matches!(no, No::Times { .. }),
        ),
        (
            "in the future",
            |r| r.finished_at = at("2026-04-09T08:05:01Z"),
            |no| matches!(no, No::Times { .. }),
        ),
        (
            "newer",
            |r| r.requires = vec!["escrow".to_owned()],
            |no| matches!(no, No::Newer(_)),
        ),
        (
            "nothing restored",
            |r| r.restored = None,
            |no| matches!(no, No::Empty),
        ),
    ];
    for (what, change, is_expected) in cases {
        let mut receipt = scene.receipt();
        change(&mut receipt);
        receipt.attest(&scene.salt);
        let refused = scene.judge(&receipt, &scene.driller).unwrap_err();
        assert!(is_expected(&refused), "{what}: {refused:?}");
    }
    let receipt = scene.receipt();
    let by_stranger = scene.judge(&receipt, &stranger).unwrap_err();
    assert!(
        matches!(by_stranger, No::Stranger { .. }),
        "{by_stranger:?}"
    );
    let by_host = scene.judge(&receipt, &scene.host_signer).unwrap_err();
    assert_eq!(by_host, No::OwnSigner);
    // A thief of the signer without an identity, and a witness of another snapshot.
    for salt in [[0; 32], [8; 32]] {
        let mut receipt = scene.receipt();
        receipt.attest(&salt);
        let refused = scene.judge(&receipt, &scene.driller).unwrap_err();
        assert_eq!(refused, No::Witness(43));
    }
    let mut receipt = scene.receipt();
    receipt.witness = String::new();
    let refused = scene.judge(&receipt, &scene.driller).unwrap_err();
    assert_eq!(refused, No::Witness(43));
}

/// Kind: the bytes are not those that were signed, or not a receipt at all.
#[test]
fn every_changed_byte_is_refused() {
    let scene = Scene::new();
    let [(_, signature), (key, bytes)] = scene.receipt().sign(&scene.driller).unwrap();
    let name = Receipt::name_of(key.as_str()).unwrap();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(
            scene
                .judge_bytes(&name, &changed, Some(&signature))
                .is_err()
        );
        // Under the name of the changed content, the signature is what refuses it.
        let renamed = ManifestName {
            hash16: Hash::sha256(&changed).short(),
            ..name.clone()
        };
        assert!(
            scene
                .judge_bytes(&renamed, &changed, Some(&signature))
                .is_err()
        );
    }
    let refusal = |bytes: &[u8], signature: Option<&[u8]>| {
        let name = ManifestName {
            hash16: Hash::sha256(bytes).short(),
            ..name.clone()
        };
        scene.judge_bytes(&name, bytes, signature).unwrap_err()
    };
    assert_eq!(refusal(&bytes, None), ReceiptRefusal::Unsigned);
    let large = vec![b' '; MAX_RECEIPT_BYTES as usize + 1];
    assert_eq!(refusal(&large, None), ReceiptRefusal::TooLarge);
    assert_eq!(refusal(b"\xff\xfe", None), ReceiptRefusal::NotUtf8);
    let blank = [b" ", &bytes[..]].concat();
    let blank = refusal(&blank, Some(&signature));
    assert!(matches!(blank, ReceiptRefusal::Malformed(_)), "{blank:?}");
    // The same object under the name of another snapshot.
    let moved = ManifestName {
        sequence: 42,
        ..name.clone()
    };
    let refused = scene.judge_bytes(&moved, &bytes, Some(&signature));
    assert_eq!(refused.unwrap_err(), ReceiptRefusal::WrongName);
}

#[test]
fn the_hosts_own_receipt_never_counts_even_if_a_line_allows_it() {
    let mut scene = Scene::new();
    scene.trust = listed(&format!(
        "drill@laptop namespaces=\"sealift-receipt\" {}\n",
        scene.host_signer.public_line()
    ));
    let judged = scene.judge(&scene.receipt(), &scene.host_signer).unwrap();
    assert!(judged.is_by_host && !judged.proves_restore() && !judged.proves_keys());
}

#[test]
fn a_failed_drill_is_believed_and_proves_nothing() {
    let scene = Scene::new();
    let mut receipt = scene.receipt();
    receipt.outcome = ReceiptOutcome::Failed;
    receipt.restored = None;
    receipt.errors = vec!["archive_damaged".to_owned()];
    receipt.witness = String::new();
    let judged = scene.judge(&receipt, &scene.driller).unwrap();
    assert_eq!(judged.witness, WitnessState::NotCheckable);
    assert!(!judged.proves_restore() && !judged.proves_keys());
}

#[test]
fn a_signature_of_another_namespace_is_refused() {
    let scene = Scene::new();
    let [_, (key, bytes)] = scene.receipt().sign(&scene.driller).unwrap();
    let name = Receipt::name_of(key.as_str()).unwrap();
    for namespace in ["sealift-manifest", "sealift-prune", "file"] {
        let signature = scene.driller.sign(namespace, &bytes).unwrap();
        let refused = scene.judge_bytes(&name, &bytes, Some(signature.as_bytes()));
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, ReceiptRefusal::Signature(_)),
            "{refused:?}"
        );
    }
}
