//! Describes an `object_store` failure in words for the operator.
//!
//! The library's own text contains the request, a count of retries and the whole body of the
//! answer; for a broken connection it says only "error sending request". The text made here begins
//! with the cause: what happened, at which server, what the server answered. It names only the
//! server of an address, because queries carry signatures.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use super::classify::{STATUS, http_error, http_status, innermost, is_of_the_system, is_refused};
use super::faults::BrokeOff;
use super::proxy::{AtProxy, Proxy};
use super::response_text::{said, shortened};

/// The text that `object_store` puts before a request.
const PERFORMING: &str = "Error performing ";
/// Part of its text for a redirect that leads nowhere.
const REDIRECT: &str = "redirect without LOCATION";

/// The meaning of an answer, by its status (`None`: any) and by words in its code or message
/// (empty: any). The first match counts.
const MEANINGS: &[(Option<u16>, &[&str], &str)] = &[
    (
        None,
        &["RequestTimeTooSkewed", "RequestExpired"],
        "this machine's clock and the server's differ too much; set the clock right",
    ),
    (
        None,
        &["ExpiredToken", "TokenRefreshRequired"],
        "the credentials have expired",
    ),
    (
        None,
        &[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "NotSignedUp",
            "AuthenticationFailed",
        ],
        "the server does not accept the credentials",
    ),
    (
        None,
        &[
            "StorageFull",
            "InsufficientStorage",
            "InsufficientCapacity",
            "QuotaExceeded",
            "No space left",
        ],
        "the target is full",
    ),
    (Some(507), &[], "the target is full"),
    (None, &["NoSuchBucket"], "there is no such bucket"),
    (
        None,
        &["AuthorizationHeaderMalformed", "PermanentRedirect"],
        "the region or the endpoint belongs to another bucket",
    ),
    (Some(401), &[], "the server does not accept the credentials"),
    (Some(403), &[], "the credentials may not do this"),
    (
        Some(407),
        &[],
        "the proxy (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) needs a user name and a password, or other ones",
    ),
    (
        Some(429),
        &[],
        "the server is too busy and limits the rate of requests",
    ),
    (
        Some(503),
        &[],
        "the server is too busy, or down for maintenance",
    ),
    (Some(500), &[], "the server had an internal error"),
    (
        Some(502),
        &[],
        "a proxy or gateway in front of the server cannot reach it",
    ),
    (
        Some(504),
        &[],
        "a proxy or gateway in front of the server cannot reach it",
    ),
];

/// Describes a failure on one line, without secrets and without the number of tries.
pub(crate) fn explain(error: &object_store::Error) -> String {
    if let Some(broke_off) = broke_off(error) {
        return broke_off.to_string();
    }
    let text = error.to_string();
    let server = server(&text);
    let mut described = match (http_error(error), answer(error, &text)) {
        (Some(http), _) => broken(http, server.as_deref()),
        (None, Some(answer)) => answered(&answer, server.as_deref()),
        (None, None) => other(text.clone(), server.as_deref()),
    };
    if text.contains("token request") || text.contains("credentials") && text.contains("metadata") {
        described = format!("cannot get credentials: {described}");
    }
    described
}

/// Describes a failure that is neither a broken connection nor a bad status.
fn other(text: String, server: Option<&str>) -> String {
    let Some(server) = server else {
        return text;
    };
    if text.contains(REDIRECT) {
        return format!(
            "the region or the endpoint belongs to another bucket: {server} answers with a redirect"
        );
    }
    let cause = text
        .rsplit_once(PERFORMING)
        .and_then(|(_, rest)| rest.split_once(" - "));
    match cause {
        Some((_, cause)) => format!("{server}: {}", shortened(cause)),
        None => text,
    }
}

/// Describes a request that got no answer, or only a part of one.
fn broken(http: &HttpError, server: Option<&str>) -> String {
    let cause = innermost(http).to_string();
    let at = server.unwrap_or("the server");
    if let Some(described) = untrusted(http, at) {
        return described;
    }
    if let Some(proxy) = proxy_of(http) {
        return match cause.contains("tunnel") {
            true => format!("{proxy} cannot reach {at}: {cause}"),
            false => format!(
                "{}, on the way to {at}",
                unreached(http, &proxy.to_string())
            ),
        };
    }
    if is_refused(http) {
        return format!("{at} {cause}");
    }
    unreached(http, at)
}

/// Describes why a request did not reach `at`, the server or a proxy.
fn unreached(http: &HttpError, at: &str) -> String {
    let innermost = innermost(http);
    let cause = innermost.to_string();
    let io = innermost.downcast_ref::<io::Error>().map(io::Error::kind);
    let in_chain = |words: &str| {
        let mut next: Option<&(dyn Error + 'static)> = Some(http);
        std::iter::from_fn(|| {
            let error = next?;
            next = error.source();
            Some(error.to_string())
        })
        .any(|text| text.contains(words))
    };
    match (http.kind(), io) {
        (HttpErrorKind::Timeout, _) if in_chain("(Connect)") => {
            format!(
                "cannot connect to {at}: no answer; is it switched on, and does a firewall allow it?"
            )
        }
        (HttpErrorKind::Timeout, _) if is_of_the_system(http) => {
            format!("the connection to {at} broke off ({cause})")
        }
        (HttpErrorKind::Timeout, _) => {
            format!("no answer from {at} within the target's `timeout`, or only a part of it")
        }
        (HttpErrorKind::Connect, Some(io::ErrorKind::ConnectionRefused)) => {
            format!("{at} refuses the connection: nothing is listening on that port ({cause})")
        }
        (HttpErrorKind::Connect, _) if in_chain("dns error") => {
            format!("the name of {at} cannot be resolved ({cause})")
        }
        (HttpErrorKind::Connect, _) => format!("cannot connect to {at}: {cause}"),
        (HttpErrorKind::Interrupted | HttpErrorKind::Request, _) => {
            format!("the connection to {at} broke off ({cause})")
        }
        (_, Some(_)) => format!("the connection to {at} broke off ({cause})"),
        _ => format!("the request to {at} failed: {cause}"),
    }
}

/// Returns what kept a request from its answer, in a few words: a note while it is retried.
pub(crate) fn in_short(http: &HttpError) -> String {
    let cause = innermost(http);
    let io = cause.downcast_ref::<io::Error>();
    let said = match (http.kind(), io.map(io::Error::kind)) {
        (_, Some(io::ErrorKind::ConnectionRefused)) => "connection refused".to_owned(),
        (HttpErrorKind::Timeout, _) if !is_of_the_system(http) => "no answer".to_owned(),
        _ => cause.to_string(),
    };
    match proxy_of(http) {
        Some(proxy) => format!("{proxy}: {said}"),
        None => said,
    }
}

/// Returns the proxy at which the request failed, if it failed there.
fn proxy_of(http: &HttpError) -> Option<&Proxy> {
    let mut next: Option<&(dyn Error + 'static)> = Some(http);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<AtProxy>() {
            return Some(&found.proxy);
        }
        next = error.source();
    }
    None
}

/// Words of the TLS library about a certificate, and their meaning.
const UNTRUSTED: &[(&str, &str)] = &[
    (
        "CaUsedAsEndEntity",
        "is self-signed and marked as an authority (CA), which a server must not be; create an authority, have it \
         sign a certificate for the server (`basicConstraints=CA:FALSE`), and name the authority's certificate in \
         SSL_CERT_FILE",
    ),
    (
        "UnknownIssuer",
        "is signed by an unknown authority (CA); name that authority's certificate in SSL_CERT_FILE, or for S3 in \
         AWS_CA_BUNDLE",
    ),
    (
        "Expired",
        "has expired; renew it, or correct this machine's clock",
    ),
    (
        "expired",
        "has expired; renew it, or correct this machine's clock",
    ),
    (
        "NotValidYet",
        "is not valid yet; check the clocks of both machines",
    ),
    (
        "not valid yet",
        "is not valid yet; check the clocks of both machines",
    ),
    (
        "NotValidForName",
        "belongs to another server; use the name for which it was issued",
    ),
    (
        "not valid for name",
        "belongs to another server; use the name for which it was issued",
    ),
];

/// Describes a certificate that the TLS library rejected.
fn untrusted(http: &HttpError, at: &str) -> Option<String> {
    let cause = innermost(http).to_string();
    if !cause.contains("invalid peer certificate") {
        return None;
    }
    let known = UNTRUSTED.iter().find(|(word, _)| cause.contains(word));
    let meaning = known
        .map(|(_, meaning)| *meaning)
        .unwrap_or("is not accepted");
    Some(format!("the certificate of {at} {meaning} ({cause})"))
}

/// An answer with a bad status.
struct ServerAnswer {
    status: u16,
    /// The status with its number and name.
    reason: String,
    /// `Code: message` of the body, or what else there is to quote; may be empty.
    said: String,
}

fn answer(error: &object_store::Error, text: &str) -> Option<ServerAnswer> {
    let status = http_status(error)?;
    let rest = &text[text.find(STATUS)? + STATUS.len()..];
    let (reason, body) = rest.split_once(": ").unwrap_or((rest, ""));
    Some(ServerAnswer {
        status,
        reason: shortened(reason),
        said: said(body),
    })
}

/// Describes an answer with a bad status.
fn answered(answer: &ServerAnswer, server: Option<&str>) -> String {
    let fits = |(status, words, _): &&(Option<u16>, &[&str], &str)| {
        status.is_none_or(|status| status == answer.status)
            && (words.is_empty() || words.iter().any(|word| answer.said.contains(word)))
    };
    let meaning = MEANINGS.iter().find(fits).map(|(_, _, meaning)| *meaning);
    let server = server.unwrap_or("the server");
    let mut described = match meaning {
        Some(meaning) => format!("{meaning}: {server} answered {}", answer.reason),
        None => format!("{server} answered {}", answer.reason),
    };
    if !answer.said.is_empty() {
        let _ = write!(described, " ({})", answer.said);
    }
    described
}

/// Returns `host:port` of the request, from the library's text.
fn server(text: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once(PERFORMING)?;
    let address = rest.split(' ').nth(1)?;
    let url = url::Url::parse(address).ok()?;
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn broke_off(error: &object_store::Error) -> Option<&BrokeOff> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(found) = source.downcast_ref() {
            return Some(found);
        }
        next = source.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn an_answer_is_described_by_its_meaning_and_its_code() {
        let full = s3(
            "Error performing PUT http://me:secret@store:9000/b/x?sig=secret in 1.2s, after 3 retries, max_retries: \
             20, retry_timeout: 1s  - Server returned non-2xx status code: 507 Insufficient Storage: \
             <Error><Code>XMinioStorageFull</Code><Message>no\nroom</Message><AWSAccessKeyId>secret</AWSAccessKeyId></Error>",
        );
        assert_eq!(
            explain(&full),
            "the target is full: store:9000 answered 507 Insufficient Storage (XMinioStorageFull: no room)"
        );
        let page = s3(
            "Error performing GET https://store/b in 1ms - Server returned non-2xx status code: 502 Bad Gateway: \
             <html>secret</html>",
        );
        assert_eq!(
            explain(&page),
            "a proxy or gateway in front of the server cannot reach it: store answered 502 Bad Gateway"
        );
        let bare = s3(
            "Error performing GET https://store/b in 1ms - Server returned non-2xx status code: 418 I'm a teapot: ",
        );
        assert_eq!(explain(&bare), "store answered 418 I'm a teapot");
        let json = s3(
            "Error performing GET https://store/b in 1ms - Server returned non-2xx status code: 401 Unauthorized: \
             {\"error\":{\"code\":401,\"message\":\"Invalid Credentials\"}}",
        );
        assert_eq!(
            explain(&json),
            "the server does not accept the credentials: store answered 401 Unauthorized (401: Invalid Credentials)"
        );
    }

    #[test]
    fn any_other_failure_keeps_its_text() {
        let odd = s3("Got invalid list response: what is this");
        assert_eq!(explain(&odd), odd.to_string());
    }
}
