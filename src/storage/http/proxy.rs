//! The proxies that the environment names, as the HTTP client reads them.
//!
//! The client ignores a value that it does not understand, and reports a dead proxy as a server
//! that cannot be reached. Here such a value is refused, and a failure names the proxy and its
//! variable.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest};

use crate::storage::environment::Environment;
use crate::storage::setting;

const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NONE: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxy variables: name and value each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    http: Option<(&'static str, String)>,
    https: Option<(&'static str, String)>,
    all: Option<(&'static str, String)>,
    /// The servers to reach without a proxy.
    not_for: String,
}

/// A proxy, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    /// `HOST:PORT`.
    pub server: String,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} ({})", self.server, self.variable)
    }
}

/// A request that failed at a proxy.
#[derive(Debug, thiserror::Error)]
#[error("{proxy} failed")]
pub(crate) struct AtProxy {
    pub proxy: Proxy,
    #[source]
    source: HttpError,
}

impl Proxies {
    pub(crate) fn of(environment: &Environment) -> Self {
        // Remote clients control part of the environment of a CGI program.
        if environment.is_set("REQUEST_METHOD") {
            return Self::default();
        }
        let first = |names: [&'static str; 2]| {
            let name = names.into_iter().find(|name| environment.is_set(name))?;
            let value = environment.get(name)?;
            Some((name, value.to_owned()))
        };
        Self {
            http: first(HTTP),
            https: first(HTTPS),
            all: first(ALL),
            not_for: first(NONE).map_or(String::new(), |(_, value)| value),
        }
    }

    /// Returns the variable that applies to requests to `url`, and its value. `None`: they use no
    /// proxy.
    fn deciding(&self, url: &str) -> Option<&(&'static str, String)> {
        let own = match url.starts_with("https:") {
            true => self.https.as_ref(),
            false => self.http.as_ref(),
        };
        let named = own.or(self.all.as_ref())?;
        let probe = Matcher::builder()
            .all("http://proxy")
            .no(self.not_for.as_str());
        probe.build().intercept(&url.parse().ok()?)?;
        Some(named)
    }

    /// Checks the variable that applies to `url`. An error is its name and what is wrong with it.
    pub(crate) fn check(&self, url: &str) -> Result<(), (&'static str, String)> {
        let Some((name, value)) = self.deciding(url) else {
            return Ok(());
        };
        let wrong = |what: String| Err((*name, what));
        if let Err(what) = setting::check(setting::Takes::Word, value) {
            return wrong(what);
        }
        let scheme = value.split_once("://").map(|(scheme, _)| scheme);
        if let Some(scheme) = scheme.filter(|scheme| scheme.starts_with("socks")) {
            return wrong(format!(
                "names a {scheme} proxy, which sealift does not support: use an http:// proxy, or list the server in NO_PROXY"
            ));
        }
        match server_of(value, url) {
            Some(_) => Ok(()),
            None => wrong("is not the address of a proxy: write http://HOST:PORT".to_owned()),
        }
    }

    /// Names the proxy in a failure that may be the proxy's.
    pub(crate) fn name_in(&self, error: HttpError, url: &str) -> HttpError {
        let kind = error.kind();
        let is_early = matches!(kind, HttpErrorKind::Connect | HttpErrorKind::Timeout);
        let proxy = self
            .deciding(url)
            .filter(|_| is_early)
            .and_then(|(variable, value)| {
                let server = server_of(value, url)?;
                Some(Proxy { variable, server })
            });
        match proxy {
            Some(proxy) => HttpError::new(
                kind,
                AtProxy {
                    proxy,
                    source: error,
                },
            ),
            None => error,
        }
    }
}

/// Returns the address of the server to which `request` goes.
pub(crate) fn url_of(request: &HttpRequest) -> String {
    let uri = request.uri();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}/", uri.scheme_str().unwrap_or("http"))
}

/// Returns host and port of the proxy that `value` names, as requests to `url` use it.
fn server_of(value: &str, url: &str) -> Option<String> {
    let found = Matcher::builder().all(value).build();
    let found = found.intercept(&url.parse().ok()?)?;
    let authority = found.uri().authority()?;
    (!authority.host().is_empty()).then(|| authority.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::of(&Environment::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn an_unusable_proxy_is_refused_by_its_variable() {
        let wrong = |pairs: &[(&str, &str)], url: &str| proxies(pairs).check(url).unwrap_err();
        let (http, https) = ("http://store:9000/", "https://store/");
        assert_eq!(wrong(&[("http_proxy", "proxy\n")], http).0, "http_proxy");
        assert!(
            wrong(&[("HTTPS_PROXY", "ftp://proxy")], https)
                .1
                .contains("http://HOST:PORT")
        );
        let socks = wrong(
            &[("ALL_PROXY", "socks5h://me:hunter2@127.0.0.1:9050")],
            https,
        );
        assert!(
            socks.0 == "ALL_PROXY" && socks.1.contains("socks5h"),
            "{socks:?}"
        );
        assert!(!socks.1.contains("hunter2"));
        for (pairs, url) in [
            (vec![("http_proxy", "garbage\n")], https),
            (
                vec![("HTTPS_PROXY", "gar bage"), ("NO_PROXY", "store")],
                https,
            ),
            (vec![("HTTPS_PROXY", "proxy:3128")], https),
            (vec![("ALL_PROXY", "http://me:pw@proxy")], http),
            (vec![("HTTP_PROXY", ""), ("http_proxy", "garbage\n")], http),
            (vec![("REQUEST_METHOD", "GET"), ("http_proxy", "x\n")], http),
        ] {
            assert_eq!(proxies(&pairs).check(url), Ok(()), "{pairs:?}");
        }
    }

    #[test]
    fn a_failure_names_the_proxy_without_its_password() {
        let refused = || HttpError::new(HttpErrorKind::Connect, std::io::Error::other("refused"));
        let named_in = |pairs: &[(&str, &str)]| {
            let error = proxies(pairs).name_in(refused(), "http://store/");
            let source = std::error::Error::source(&error).map(ToString::to_string);
            source.unwrap()
        };
        let named = named_in(&[("http_proxy", "http://me:hunter2@proxy:3128")]);
        assert_eq!(named, "the proxy proxy:3128 (http_proxy) failed");
        assert_eq!(named_in(&[("https_proxy", "http://proxy:3128")]), "refused");
        assert_eq!(
            named_in(&[("http_proxy", "proxy"), ("no_proxy", "*")]),
            "refused"
        );
    }
}
