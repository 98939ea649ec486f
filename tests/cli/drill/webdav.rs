//! Receipts on WebDAV. `./test --long` starts a server and names it in `SEALIFT_TEST_WEBDAV_URL`.

use std::fs;
use std::process::Command;

use super::{Drilling, result};

/// Puts a file on the server, which makes no directory for it.
fn put(drilling: &Drilling, url: &str, bytes: &[u8]) {
    let file = drilling.path("put");
    fs::write(&file, bytes).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--upload-file"]);
    let done = curl.arg(&file).arg(url).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
#[ignore = "needs a WebDAV server"]
fn a_drill_from_webdav_leaves_a_receipt_there() {
    let server =
        std::env::var("SEALIFT_TEST_WEBDAV_URL").expect("SEALIFT_TEST_WEBDAV_URL is not set");
    let mut drilling = Drilling::without_backup("");
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let server = server.trim_end_matches('/');
    let url = format!("{server}/drills/{}", sealift::base::ids::hex(&random));
    let config = drilling.host.config();
    let target = format!("{config}\n[[target]]\nname = \"dav\"\nurl = {url:?}\n");
    fs::write(drilling.path("c.toml"), target).unwrap();
    drilling.host.clock = Some("2026-11-28T01:00:00Z".to_owned());
    drilling.host.backup();
    drilling.host.clock = Some("2026-11-28T02:00:00Z".to_owned());
    let (report, _) = result(
        drilling.drill_command(&["--from", &url]).output().unwrap(),
        0,
    );
    assert_eq!(report["uploaded"], true, "{report}");
    // The host verifies it there: the folder has none.
    assert!(drilling.receipts().is_empty());
    let proof = drilling.proof();
    assert_eq!(proof["newest"]["target"], "dav", "{proof}");
    assert_eq!(proof["newest"]["by"], "drill@laptop", "{proof}");
    // One that fails leaves a receipt as well, which does not count.
    drilling.host.clock = Some("2026-11-28T03:00:00Z".to_owned());
    drilling.configure(
        "from = [\"./repo\"]",
        "start = \"false\"\nstop = \"true\"\n",
    );
    let (failed, _) = result(
        drilling.drill_command(&["--from", &url]).output().unwrap(),
        3,
    );
    assert_eq!(failed["outcome"], "failed", "{failed}");
    // A forged one is named, and counts as none.
    let name = "00000001-20261128T010000Z-0123456789abcdef";
    put(
        &drilling,
        &format!("{url}/dalidou/receipts/{name}.json"),
        b"{}\n",
    );
    put(
        &drilling,
        &format!("{url}/dalidou/receipts/{name}.json.sig"),
        b"x",
    );
    let after = drilling.proof();
    assert_eq!(after["newest"], proof["newest"]);
    assert_eq!(after["refused"], 1, "{after}");
    let receipts = after["receipts"].as_array().unwrap();
    let mut results: Vec<&str> = receipts
        .iter()
        .map(|one| one["result"].as_str().unwrap())
        .collect();
    results.sort_unstable();
    assert_eq!(results, ["failed", "foreign", "good"], "{after}");
}
