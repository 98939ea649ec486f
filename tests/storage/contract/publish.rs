//! What the shipper promises: a manifest on a target names only what is complete there, whatever
//! fails, and trying again gets there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealift::base::ids::{ArchiveId, Hash, HostName, ObjectKey, WriterId};
use sealift::format::known::KnownRef;
use sealift::format::manifest::{
    ArchiveKind, ArchiveRow, IndexRef, Manifest, ManifestCore, ManifestName, Totals, paginate,
    recipient_set_name,
};
use sealift::format::signature::{MANIFEST_NAMESPACE, Signer, Trust};
use sealift::repository::HostFolder;
use sealift::shipper::{
    Publication, ShipError, Support, publish, publish_all, publish_recovery, ship_archives,
};
use sealift::state::spool::Spool;
use sealift::storage::{Body, PutMode, Storage};

use super::{Backend, block_on, folder, memory, noise, s3_server};
use crate::support::watched_target::{Fault, Watched};

/// A host with a spool and a key.
struct Host {
    _dir: tempfile::TempDir,
    spool: Spool,
    signer: Signer,
    name: HostName,
}

const ARCHIVES: u64 = 70;

fn quiet(_: &ObjectKey, _: u64) {}

/// Nothing to lean on but the spool.
fn alone() -> Support {
    Support::default()
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            spool: Spool::open(&dir.path().join("spool")).unwrap(),
            _dir: dir,
            signer: Signer::generate("test").unwrap(),
            name: "dalidou".parse().unwrap(),
        }
    }

    /// Seals a snapshot of `archives` small archives (over 64: two pages) into the spool.
    fn seal(&self, sequence: u64, archives: u64, salt: u64) -> Publication {
        self.seal_heeding(&[], sequence, archives, salt)
    }

    /// The same, having taken notice of prune marks.
    fn seal_heeding(&self, marks: &[&str], sequence: u64, archives: u64, salt: u64) -> Publication {
        let recipients = vec!["age1test".to_owned()];
        let set = recipient_set_name(&recipients);
        let mut rows = Vec::new();
        for counter in 1..=archives {
            let sealed = noise(counter * 1000 + salt, 100 + counter as usize);
            let row = ArchiveRow {
                id: ArchiveId {
                    writer: WriterId([7; 8]),
                    counter,
                },
                kind: ArchiveKind::Data,
                blake3: Hash::blake3(&sealed),
                sha256: Hash::sha256(&sealed),
                bytes: sealed.len() as u64,
                recipient_set: set.clone(),
                head_sha256: Hash::sha256(&sealed[..16]),
            };
            self.spool.put(&row.key(), &sealed).unwrap();
            rows.push(row);
        }
        let archives = rows.clone();
        let mut pages = Vec::new();
        for (hash, bytes) in paginate(rows, &BTreeMap::from([(set, recipients.clone())])) {
            self.spool.put(&ObjectKey::table(&hash), &bytes).unwrap();
            pages.push(hash);
        }
        let core = ManifestCore {
            format: 1,
            requires: vec![],
            host: self.name.clone(),
            stamp: "20260407T060000Z".parse().unwrap(),
            sequence,
            parents: vec![],
            writer: WriterId([7; 8]),
            machine: "00".repeat(16),
            known: KnownRef::Inline(vec![]),
            marks_seen: marks.iter().map(|mark| (*mark).to_owned()).collect(),
            next_by: None,
            recipients,
            index: IndexRef {
                extents: vec![],
                bytes: salt,
                blake3: Hash::blake3(b""),
            },
            totals: Totals::default(),
            next_signer: None,
        };
        let manifest = Manifest::new(core, pages);
        let signature = self
            .signer
            .sign(MANIFEST_NAMESPACE, &manifest.bytes)
            .unwrap();
        let name = manifest.name();
        self.spool
            .put(&name.signature_key(), signature.as_bytes())
            .unwrap();
        self.spool.put(&name.key(), &manifest.bytes).unwrap();
        Publication {
            manifest,
            archives,
            known: Vec::new(),
            at_hand: HashMap::new(),
        }
    }

    fn folder(&self, target: Arc<dyn Storage>) -> HostFolder {
        HostFolder::new(target, self.name.clone())
    }

    fn trust(&self) -> Trust {
        Trust::Key(self.signer.public_key().clone())
    }

    /// What a push does: archives as they come, then the manifest.
    async fn push(
        &self,
        target: Arc<dyn Storage>,
        publication: &Publication,
    ) -> Result<(), ShipError> {
        let folder = self.folder(target);
        let (announce, requests) = tokio::sync::mpsc::unbounded_channel();
        for row in &publication.archives {
            announce.send(row.into()).unwrap();
        }
        drop(announce);
        ship_archives(&folder, &self.spool, requests, 3, Body::File, &quiet).await?;
        publish(&folder, &self.spool, publication, &alone(), &quiet).await?;
        Ok(())
    }

    /// Every manifest on the target has its signature and pages, and every archive in full.
    async fn check(&self, target: &Arc<dyn Storage>) -> usize {
        let folder = self.folder(target.clone());
        if folder.manifest_names().await.unwrap().is_empty() {
            return 0;
        }
        let chain = folder.chain(&self.trust()).await.unwrap();
        assert_eq!(chain.findings, []);
        let present = folder.archives_present().await.unwrap();
        for snapshot in &chain.snapshots {
            let table = folder.table(&snapshot.manifest).await.unwrap();
            for row in table.rows.values() {
                assert_eq!(present.get(&row.blake3), Some(&row.bytes), "{}", row.id);
                let sealed = target.get(&folder.key(&row.key()), 1 << 20).await.unwrap();
                assert_eq!(Hash::blake3(&sealed), row.blake3);
            }
        }
        chain.snapshots.len()
    }
}

fn assert_incomplete(error: ShipError, expected: usize) {
    match error {
        ShipError::Incomplete { count, .. } => assert_eq!(count, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_push_arrives_everywhere() {
    for backend in [folder, memory, s3_server] {
        let Backend { target, .. } = &backend();
        let host = Host::new();
        let publication = host.seal(1, ARCHIVES, 0);
        block_on(async {
            host.push(target.clone(), &publication).await.unwrap();
            assert_eq!(host.check(target).await, 1);
            // Once more changes nothing.
            let watched = Watched::new(target.clone(), Fault::None);
            let folder = host.folder(watched.clone());
            let published = publish(&folder, &host.spool, &publication, &alone(), &quiet).await;
            assert_eq!(published.unwrap().siblings, []);
            assert_eq!(
                watched.puts().len(),
                1,
                "the manifest alone is offered again"
            );
            assert_eq!(host.check(target).await, 1);
        });
    }
}

#[test]
fn the_order_is_archives_pages_signature_manifest() {
    let host = Host::new();
    let publication = host.seal(1, ARCHIVES, 0);
    let watched = Watched::new(memory().target, Fault::None);
    let folder = host.folder(watched.clone());
    let heard = Mutex::new(Vec::new());
    let on_shipped = |key: &ObjectKey, _| heard.lock().unwrap().push(folder.key(key));
    block_on(publish(
        &folder,
        &host.spool,
        &publication,
        &alone(),
        &on_shipped,
    ))
    .unwrap();
    let puts = watched.puts();
    let step = |key: &String| match key.trim_start_matches("dalidou/") {
        key if key.starts_with("archives/") => 0,
        key if key.starts_with("tables/") => 1,
        key if key.ends_with(".json.sig") => 2,
        _ => 3,
    };
    let steps: Vec<i32> = puts.iter().map(step).collect();
    assert!(steps.is_sorted(), "{puts:#?}");
    let count = |wanted| steps.iter().filter(|step| **step == wanted).count();
    assert_eq!([count(0), count(1), count(2), count(3)], [70, 2, 1, 1]);
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    let cold = watched.cold.lock().unwrap().clone();
    let archives = puts.iter().filter(|key| key.contains("/archives/"));
    assert_eq!(
        sorted(cold),
        sorted(archives.cloned().collect()),
        "data archives go into cold storage, nothing else does"
    );
    assert_eq!(sorted(heard.into_inner().unwrap()), sorted(puts));
}

/// A prune that sees a manifest that follows a prune mark may delete what it names: earlier ones must be there by then.
#[test]
fn manifests_that_heed_a_mark_come_after_those_that_do_not() {
    let host = Host::new();
    let mut publications = Vec::new();
    for sequence in 1..=6 {
        publications.push(host.seal(sequence, 2, sequence));
    }
    for sequence in 7..=12 {
        let heeding = host.seal_heeding(&["00ff00ff00ff00ff"], sequence, 2, sequence);
        publications.push(heeding);
    }
    let all = |target: Arc<dyn Storage>| {
        let folder = host.folder(target);
        let (spool, alone) = (&host.spool, alone());
        block_on(publish_all(&folder, spool, &publications, &alone, &quiet))
    };
    let watched = Watched::new(memory().target, Fault::None);
    *watched.slow.lock().unwrap() = Some("manifests/00000005");
    all(watched.clone()).unwrap();
    let is_manifest = |key: &&String| key.contains("/manifests/") && key.ends_with(".json");
    let puts = watched.puts();
    let early = |key: &String| key.as_str() < "dalidou/manifests/00000007";
    let order: Vec<bool> = puts.iter().filter(is_manifest).map(early).collect();
    assert_eq!(order, [[true; 6], [false; 6]].concat());
}

/// A snapshot waits for a copy source that does not answer, unless a newer manifest follows more prune marks: the archives
/// that these name may be gone by the time it comes.
#[test]
fn a_snapshot_waits_for_a_copy_source_unless_a_newer_one_follows_more_marks() {
    let host = Host::new();
    let waiting = host.seal(1, 2, 1);
    let gone = waiting.archives[0].key();
    host.spool.remove(gone.as_str()).unwrap();
    let after = |copy_sources_away, newer: Publication| {
        let support = Support {
            copy_sources_away,
            ..alone()
        };
        let folder = host.folder(memory().target);
        let both = [waiting.clone(), newer];
        let all = publish_all(&folder, &host.spool, &both, &support, &quiet);
        let published = block_on(all).unwrap();
        assert_eq!(published.done, [both[1].manifest.name()]);
        let name = |(name, _): &(ManifestName, ShipError)| name.sequence;
        let names = |all: &[(ManifestName, ShipError)]| all.iter().map(name).collect::<Vec<_>>();
        (names(&published.postponed), names(&published.incomplete))
    };
    assert_eq!(after(true, host.seal(2, 2, 2)), (vec![1], vec![]));
    assert_eq!(after(false, host.seal(3, 2, 3)), (vec![], vec![1]));
    let heeding = host.seal_heeding(&["00ff00ff00ff00ff"], 4, 2, 4);
    assert_eq!(after(true, heeding), (vec![], vec![1]));
}

#[test]
fn an_archive_that_is_nowhere_stops_the_manifest() {
    let host = Host::new();
    let publication = host.seal(1, ARCHIVES, 0);
    let target = memory().target;
    let folder = host.folder(target.clone());
    for key in publication.archives[3..5].iter().map(ArchiveRow::key) {
        host.spool.remove(key.as_str()).unwrap();
    }
    block_on(async {
        let error = publish(&folder, &host.spool, &publication, &alone(), &quiet)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains(publication.archives[3].key().as_str())
        );
        assert_incomplete(error, 2);
        assert_eq!(target.list("").await.unwrap(), [], "nothing was begun");
        // Half an archive in the spool is none.
        host.spool
            .put(&publication.archives[3].key(), b"half")
            .unwrap();
        let error = publish(&folder, &host.spool, &publication, &alone(), &quiet)
            .await
            .unwrap_err();
        assert_incomplete(error, 2);
    });
}

#[test]
fn a_missing_signature_or_page_stops_the_manifest() {
    for nth in 0..2 {
        let host = Host::new();
        let publication = host.seal(1, 3, 0);
        let missing = match nth {
            0 => publication.manifest.name().signature_key(),
            _ => ObjectKey::table(&publication.manifest.pages[0]),
        };
        host.spool.remove(missing.as_str()).unwrap();
        let target = memory().target;
        let folder = host.folder(target.clone());
        block_on(async {
            let error = publish(&folder, &host.spool, &publication, &alone(), &quiet)
                .await
                .unwrap_err();
            assert_incomplete(error, 1);
            assert_eq!(host.check(&target).await, 0);
        });
    }
}

#[test]
fn archives_that_the_caller_forgot_stop_the_manifest() {
    let host = Host::new();
    let mut publication = host.seal(1, 5, 0);
    let forgotten = publication.archives.pop().unwrap();
    publication.archives[0].bytes += 1;
    let target = memory().target;
    let folder = host.folder(target.clone());
    block_on(async {
        let error = publish(&folder, &host.spool, &publication, &alone(), &quiet)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ShipError::Unlisted { count: 2, .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(forgotten.key().as_str()));
        assert_eq!(target.list("").await.unwrap(), []);
    });
}

#[test]
fn what_is_missing_or_of_the_wrong_size_is_shipped() {
    for backend in [folder, memory, s3_server] {
        let Backend { target, .. } = &backend();
        let host = Host::new();
        let publication = host.seal(1, 5, 0);
        let folder = host.folder(target.clone());
        block_on(async {
            let (whole, torn) = (
                &publication.archives[0].key(),
                &publication.archives[1].key(),
            );
            let body = Body::File(host.spool.path(whole));
            target
                .put(&folder.key(whole), body, PutMode::Create)
                .await
                .unwrap();
            let body = Body::Bytes(Bytes::from_static(b"torn"));
            target
                .put(&folder.key(torn), body, PutMode::Create)
                .await
                .unwrap();
            let page = ObjectKey::table(&publication.manifest.pages[0]);
            let body = Body::Bytes(Bytes::from_static(b"{"));
            target
                .put(&folder.key(&page), body, PutMode::Create)
                .await
                .unwrap();
            // Shipped by an earlier run and gone from the spool since.
            host.spool.remove(whole.as_str()).unwrap();

            let watched = Watched::new(target.clone(), Fault::None);
            let folder = host.folder(watched.clone());
            publish(&folder, &host.spool, &publication, &alone(), &quiet)
                .await
                .unwrap();
            assert!(!watched.puts().contains(&folder.key(whole)));
            assert_eq!(watched.puts().len(), 4 + 1 + 1 + 1);
            assert_eq!(host.check(target).await, 1);
        });
    }
}

#[test]
fn whatever_call_fails_no_manifest_names_a_missing_archive() {
    for backend in [folder, memory] {
        for after in [false, true] {
            let mut failed_calls = 0;
            for nth in 0.. {
                let Backend {
                    target, _folder, ..
                } = backend();
                let host = Host::new();
                let publication = host.seal(1, 6, 0);
                let fault = match after {
                    true => Fault::After(nth),
                    false => Fault::Before(nth),
                };
                let watched = Watched::new(target.clone(), fault);
                let first = block_on(host.push(watched.clone(), &publication));
                if watched.calls() <= nth {
                    first.unwrap();
                    break;
                }
                first.unwrap_err();
                failed_calls += 1;
                block_on(async {
                    host.check(&target).await;
                    host.push(target.clone(), &publication).await.unwrap();
                    assert_eq!(host.check(&target).await, 1, "{fault:?}");
                });
            }
            // 6 archives; 3 listings; page, signature, manifest; a last listing.
            assert_eq!(failed_calls, 13);
        }
    }
}

#[test]
fn a_failed_upload_stops_the_queue_but_not_what_is_under_way() {
    let host = Host::new();
    let publication = host.seal(1, 40, 0);
    let watched = Watched::new(memory().target, Fault::Before(5));
    let error = block_on(host.push(watched.clone(), &publication)).unwrap_err();
    assert!(matches!(error, ShipError::Target(_)), "{error:?}");
    assert!(watched.calls() < 12, "{}", watched.calls());
    assert_eq!(watched.puts().len(), watched.calls() - 1);
}

#[test]
fn siblings_of_the_sequence_are_told() {
    let target = memory().target;
    let host = Host::new();
    let (ours, theirs) = (host.seal(4, 2, 0), host.seal(4, 2, 9));
    let before = host.seal(3, 1, 5);
    let folder = host.folder(target);
    block_on(async {
        for other in [&before, &theirs] {
            let published = publish(&folder, &host.spool, other, &alone(), &quiet)
                .await
                .unwrap();
            assert_eq!(published.siblings, []);
        }
        let published = publish(&folder, &host.spool, &ours, &alone(), &quiet)
            .await
            .unwrap();
        assert_eq!(published.siblings, [theirs.manifest.name()]);
    });
}

#[test]
fn recovery_files_are_put_once() {
    let host = Host::new();
    let target = memory().target;
    let folder = host.folder(target.clone());
    let files = |text: &'static str| {
        [(
            ObjectKey::fixed("RECOVER.md"),
            Bytes::from_static(text.as_bytes()),
        )]
    };
    block_on(async {
        publish_recovery(&folder, &files("first")).await.unwrap();
        publish_recovery(&folder, &files("second")).await.unwrap();
        assert_eq!(
            target.get("dalidou/RECOVER.md", 100).await.unwrap(),
            "first"
        );
    });
}

#[test]
fn tables_that_lie_are_refused() {
    let host = Host::new();
    let publication = host.seal(1, 2, 0);
    let target = memory().target;
    let folder = host.folder(target.clone());
    block_on(async {
        host.push(target.clone(), &publication).await.unwrap();
        let page = folder.key(&ObjectKey::table(&publication.manifest.pages[0]));
        let right = target.get(&page, 1 << 20).await.unwrap();
        let mut wrong = right.to_vec();
        let last = wrong.len() - 20;
        wrong[last] ^= 1;
        target
            .put(&page, Body::Bytes(wrong.into()), PutMode::Replace)
            .await
            .unwrap();
        let error = folder.table(&publication.manifest).await.unwrap_err();
        assert!(error.to_string().contains("damaged or forged"), "{error}");
        target
            .put(&page, Body::Bytes(right), PutMode::Replace)
            .await
            .unwrap();
        // The same page named twice gives the same ids twice.
        let hash = publication.manifest.pages[0];
        let twice = Manifest::new(publication.manifest.core.clone(), vec![hash, hash]);
        let error = folder.table(&twice).await.unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    });
}
