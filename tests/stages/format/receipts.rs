//! Samples of receipts, made once and read by today's code: tests/samples/README.md.

use std::fs;
use std::path::{Path, PathBuf};

use sealift::base::ids::Hash;
use sealift::format::manifest::ManifestName;
use sealift::format::receipt::{
    JudgedReceipt, Receipt, ReceiptContext, ReceiptFile, ReceiptKind, ReceiptOutcome,
    ReceiptRefusal, Schemas, WitnessState, judge, keyed_schema, target_id,
};
use sealift::format::signature::Trust;

/// The salt of the index that the samples are about.
const SALT: [u8; 32] = [0x5a; 32];

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/receipts-1")
}

fn core() -> Hash {
    Hash::sha256(b"the core of the sample")
}

fn judged(
    name: &ManifestName,
    bytes: &[u8],
    signature: &[u8],
) -> Result<JudgedReceipt, ReceiptRefusal> {
    let path = samples().join("allowed_signers");
    let trust = Trust::parse(path.to_str().unwrap()).unwrap();
    let file = ReceiptFile {
        name: name.clone(),
        bytes,
        signature: Some(signature),
    };
    let context = ReceiptContext {
        host: &"sample".parse().unwrap(),
        trust: &trust,
        host_signers: &[],
        is_snapshot: &|found, sequence, _| *found == core() && sequence == 43,
        salt: &|_| Some(SALT),
        now: "2026-12-01T00:00:00Z".parse().unwrap(),
    };
    judge(&file, &context)
}

/// Kind: a change of the program makes receipts of today unreadable, or their meaning another one.
#[test]
fn the_samples_of_receipts_are_read() {
    let (mut drills, mut keys, mut failed) = (0, 0, 0);
    for entry in fs::read_dir(samples().join("receipts")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(name) = Receipt::name_of(&format!("receipts/{file}")) else {
            continue;
        };
        let bytes = fs::read(&path).unwrap();
        let signature = fs::read(path.with_extension("json.sig")).unwrap();
        let judged_one = judged(&name, &bytes, &signature).unwrap();
        assert_eq!(judged_one.witness, WitnessState::Right);
        assert_eq!(judged_one.receipt.name(), name);
        match (judged_one.receipt.kind, judged_one.receipt.outcome) {
            (ReceiptKind::Drill, ReceiptOutcome::Passed) => {
                drills += 1;
                assert!(judged_one.proves_restore());
                let target = &judged_one.receipt.target;
                assert_eq!(target.id, target_id("s3://backups/sample/"));
                let schema = judged_one.receipt.schema;
                assert_eq!(schema, keyed_schema(&SALT, &schemas()));
            }
            (ReceiptKind::Key, _) => {
                keys += 1;
                assert!(judged_one.proves_keys() && !judged_one.proves_restore());
            }
            _ => failed += 1,
        }
        for place in (0..bytes.len()).step_by(16) {
            let mut wrong = bytes.clone();
            wrong[place] ^= 1;
            assert!(judged(&name, &wrong, &signature).is_err());
        }
    }
    assert_eq!((drills, keys, failed), (1, 1, 1));
}

fn schemas() -> Schemas {
    Schemas::from([("db/app.db".to_owned(), Some(Hash::sha256(b"tables")))])
}
