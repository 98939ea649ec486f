//! Every path and method that the agent answers. `openapi.json` describes the same ones.

use axum::http::Method;

use super::access::AccessLevel;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Health,
    BackupHealth,
    StartAdminBackup,
    ListAdminBackups,
    ValidateAdminBackup,
    Status,
    ListRuns,
    StartRun,
    ShowRun,
    ShowLog,
    CancelRun,
    ListSnapshots,
    ShowSnapshot,
    PinSnapshot,
    UnpinSnapshot,
    ListTargets,
    ShowTarget,
    ProbeTarget,
    Proof,
    Series,
    Events,
    Pause,
    Resume,
    Acknowledge,
    TestNotifications,
    Reload,
    Metrics,
    OpenApi,
    MainPage,
    SnapshotPage,
    RunPage,
    CancelPage,
    TargetPage,
    ProofPage,
    LoginPage,
    LogIn,
    LogOut,
}

impl Operation {
    /// Whether a person's browser shows the answer.
    pub(super) fn is_page(self) -> bool {
        self >= Self::MainPage
    }
}

/// One path and method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// `GET` is `HEAD`, too.
    pub(super) method: &'static str,
    /// Segments in braces stand for any text.
    pub(super) path: &'static str,
    pub(super) operation: Operation,
    /// What the caller must be allowed to do.
    pub(super) needs: AccessLevel,
}

const fn route(
    method: &'static str,
    path: &'static str,
    operation: Operation,
    needs: AccessLevel,
) -> Route {
    Route {
        method,
        path,
        operation,
        needs,
    }
}

/// All routes.
pub(super) const ROUTES: &[Route] = {
    use AccessLevel::{None, Read, Write};
    use Operation as Do;
    const GET: &str = "GET";
    const POST: &str = "POST";
    &[
        route(GET, "/health", Do::Health, None),
        route(GET, "/health/backup", Do::BackupHealth, None),
        route(POST, "/admin/backup", Do::StartAdminBackup, Write),
        route(GET, "/admin/backup", Do::ListAdminBackups, Read),
        route(
            GET,
            "/admin/backup/{stamp}/validate",
            Do::ValidateAdminBackup,
            Read,
        ),
        route(GET, "/api/v1/status", Do::Status, Read),
        route(GET, "/api/v1/runs", Do::ListRuns, Read),
        route(POST, "/api/v1/runs", Do::StartRun, Write),
        route(GET, "/api/v1/runs/{id}", Do::ShowRun, Read),
        route(GET, "/api/v1/runs/{id}/log", Do::ShowLog, Read),
        route(POST, "/api/v1/runs/{id}/cancel", Do::CancelRun, Write),
        route(GET, "/api/v1/snapshots", Do::ListSnapshots, Read),
        route(GET, "/api/v1/snapshots/{id}", Do::ShowSnapshot, Read),
        route("PUT", "/api/v1/snapshots/{id}/pin", Do::PinSnapshot, Write),
        route(
            "DELETE",
            "/api/v1/snapshots/{id}/pin",
            Do::UnpinSnapshot,
            Write,
        ),
        route(GET, "/api/v1/targets", Do::ListTargets, Read),
        route(GET, "/api/v1/targets/{name}", Do::ShowTarget, Read),
        route(POST, "/api/v1/targets/{name}/probe", Do::ProbeTarget, Write),
        route(GET, "/api/v1/proof", Do::Proof, Read),
        route(GET, "/api/v1/series", Do::Series, Read),
        route(GET, "/api/v1/events", Do::Events, Read),
        route(POST, "/api/v1/pause", Do::Pause, Write),
        route(POST, "/api/v1/resume", Do::Resume, Write),
        route(POST, "/api/v1/ack", Do::Acknowledge, Write),
        route(POST, "/api/v1/notify/test", Do::TestNotifications, Write),
        route(POST, "/api/v1/reload", Do::Reload, Write),
        route(GET, "/metrics", Do::Metrics, Read),
        route(GET, "/openapi.json", Do::OpenApi, None),
        route(GET, "/", Do::MainPage, Read),
        route(GET, "/snapshots/{id}", Do::SnapshotPage, Read),
        route(GET, "/runs/{id}", Do::RunPage, Read),
        route(GET, "/runs/{id}/cancel", Do::CancelPage, Read),
        route(GET, "/targets/{name}", Do::TargetPage, Read),
        route(GET, "/proof", Do::ProofPage, Read),
        route(GET, "/login", Do::LoginPage, None),
        route(POST, "/login", Do::LogIn, None),
        route(POST, "/logout", Do::LogOut, None),
    ]
};

/// What the table says about a path and a method.
#[derive(Debug)]
pub(super) enum FoundRoute {
    /// The route, and the texts of its segments in braces.
    Route(&'static Route, Vec<String>),
    /// The path knows only these methods.
    OtherMethods(String),
    /// No route has the path.
    Nothing,
}

/// Looks the request up.
pub(super) fn find(method: &Method, path: &str) -> FoundRoute {
    let wanted = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    let mut known = Vec::new();
    for route in ROUTES {
        let Some(texts) = matched(route.path, path) else {
            continue;
        };
        if route.method == wanted {
            return FoundRoute::Route(route, texts);
        }
        known.push(route.method);
        if route.method == "GET" {
            known.push("HEAD");
        }
    }
    match known.is_empty() {
        true => FoundRoute::Nothing,
        false => FoundRoute::OtherMethods(known.join(", ")),
    }
}

/// Returns the decoded texts of the segments in braces, if `path` has the form of `pattern`. A
/// slash that is encoded does not end a segment.
fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut texts = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(texts),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => {
                let text = decoded(given, Plus::Itself)?;
                texts.push((!text.is_empty()).then_some(text)?);
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

/// What a plus sign means in an encoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// In a path.
    Itself,
    /// In a query or a form.
    Blank,
}

/// Returns the text that is encoded with percent signs. `None`: it is malformed.
pub(super) fn decoded(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if plus == Plus::Blank => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Returns the pairs of a query or a form. `None`: it is malformed.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decoded(name, Plus::Blank)?, decoded(value, Plus::Blank)?))
    };
    parts.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &str) -> Option<(Operation, Vec<String>)> {
        match find(&Method::GET, path) {
            FoundRoute::Route(route, texts) => Some((route.operation, texts)),
            _ => None,
        }
    }

    #[test]
    fn a_path_is_matched_by_segments() {
        assert_eq!(texts("/"), Some((Operation::MainPage, vec![])));
        let log = texts("/api/v1/runs/01%4A/log").unwrap();
        assert_eq!(log, (Operation::ShowLog, vec!["01J".to_owned()]));
        let climbing = texts("/admin/backup/..%2f..%2fetc/validate").unwrap();
        assert_eq!(climbing.1, ["../../etc"]);
        for unknown in [
            "",
            "/health/",
            "//",
            "/api/v1/runs/",
            "/admin/backup/../x/y",
            "/runs/%",
        ] {
            assert_eq!(texts(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_known_path_names_its_methods() {
        let allowed = |method: &Method, path: &str| match find(method, path) {
            FoundRoute::OtherMethods(allowed) => allowed,
            other => panic!("{other:?}"),
        };
        assert_eq!(allowed(&Method::PUT, "/health"), "GET, HEAD");
        let path = "/api/v1/snapshots/7/pin";
        assert_eq!(allowed(&Method::GET, path), "PUT, DELETE");
        assert_eq!(
            allowed(&Method::OPTIONS, "/admin/backup"),
            "POST, GET, HEAD"
        );
    }
}
