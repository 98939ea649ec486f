//! What the preset brings for AtoCore's restore procedure: where the safety copies go, the four
//! checks after a restore, and what the failures of its table mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::post_check::{
    Expectation, Explanation, HttpCheck, Operator, PostCheck, PostCheckKind,
};
use crate::config::restore_settings::RestoreSettings;
use crate::config::source::AtoCoreSource;

/// Where AtoCore answers on its own host.
const BASE_URL: &str = "http://127.0.0.1:8100";
/// The directory of the safety copies, below the root.
const PRESERVE_DIR: &str = "backups";
/// How long one attempt of a check may take: a context query loads a model at first.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

const DID_NOT_START: &str = "AtoCore did not start as it should. If it does not start at all, the owner or mode of the \
     restored files may be wrong: compare them with the safety copy, and give them the container's user (chown 1000:1000)";
const OTHER_DEPLOYMENT: &str = "this backup comes from a different deployment: the paths in source_documents are not this host's. \
     Do not trust this restore";
const NO_REGISTRY: &str = "the project registry does not load: it may have been edited while the backup was made. Restore another \
     snapshot; the registry is small, so a fresh backup is cheap";
const NO_CHUNKS: &str = "the vector store does not fit the database: a snapshot without Chroma leaves the vectors as they were. \
     Answers may lack results, and are not wrong. Ingest again, or restore an older snapshot with Chroma";

/// Returns the defaults of `[restore]` for the deployment below `root`.
pub(in crate::config) fn restore_defaults(
    root: &Path,
    atocore: Option<&AtoCoreSource>,
) -> RestoreSettings {
    let url = atocore.map_or(BASE_URL, |source| &source.url);
    RestoreSettings {
        base_url: Some(url.to_owned()),
        preserve_dir: Some(root.join(PRESERVE_DIR)),
        ..RestoreSettings::default()
    }
}

/// Returns the checks of the procedure.
pub(in crate::config) fn checks(atocore: Option<&AtoCoreSource>) -> Vec<PostCheck> {
    let token_file = atocore.and_then(|source| source.token_file.clone());
    let get = |path: &str, pointer: &str, expectation| HttpCheck {
        json: vec![(pointer.to_owned(), vec![expectation])],
        ..request("GET", path, None, token_file.clone())
    };
    let context = json!({ "prompt": "what is p05 about", "project": "p05-interferometer" });
    let context = HttpCheck {
        json: vec![("/chunks_used".to_owned(), vec![is(Operator::Ge, 1.into())])],
        ..request("POST", "/context/build", Some(context), token_file.clone())
    };
    let missing = || is(Operator::Exists, false.into());
    let zero = || is(Operator::Eq, 0.into());
    vec![
        check(
            "healthy",
            get("/health", "/status", is(Operator::Eq, "ok".into())),
            &[(missing(), DID_NOT_START)],
        ),
        check(
            "documents",
            get("/stats", "/documents", is(Operator::Ge, 1.into())),
            &[(zero(), OTHER_DEPLOYMENT)],
        ),
        check(
            "projects",
            get("/projects", "/projects", is(Operator::LenGe, 0.into())),
            &[(is(Operator::Ge, 500.into()), NO_REGISTRY)],
        ),
        check("context", context, &[(zero(), NO_CHUNKS)]),
    ]
}

fn request(
    method: &str,
    path: &str,
    body: Option<Value>,
    token_file: Option<PathBuf>,
) -> HttpCheck {
    HttpCheck {
        method: method.to_owned(),
        path: path.to_owned(),
        body,
        token_file,
        status: 200,
        json: Vec::new(),
    }
}

fn is(operator: Operator, with: Value) -> Expectation {
    Expectation { operator, with }
}

fn check(name: &str, http: HttpCheck, explain: &[(Expectation, &str)]) -> PostCheck {
    let explain = explain.iter().map(|(of, text)| Explanation {
        of: of.clone(),
        text: (*text).to_owned(),
    });
    PostCheck {
        name: name.to_owned(),
        kind: PostCheckKind::Http(http),
        in_restore: true,
        in_drill: true,
        when_staged: false,
        timeout: ATTEMPT_TIMEOUT,
        explain: explain.collect(),
    }
}
