//! An `object_store` failure in words for whoever is woken by it.
//!
//! Its own text names the request, a count of retries and the whole body of the answer, and of a broken
//! connection nothing but "error sending request". Here the cause comes first: what happened, at which
//! server, what the server said of it. Of the answer only its code and message are told, for some servers put
//! credentials beside them; of the address only the server, for queries carry signatures.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use super::resume::BrokeOff;
use crate::storage::http::classify::{
    STATUS, http_error, http_status, innermost, is_of_the_system, is_refused,
};
use crate::storage::http::proxy::{AtProxy, Proxy};
use crate::storage::retry::with_tries;

/// Of what a server says, so much is told.
const MOST_SAID_CHARS: usize = 200;
/// What `object_store` writes before a request, around the count of retries, and of a redirect.
const PERFORMING: &str = "Error performing ";
const RETRIES: (&str, &str) = (", after ", " retries");
const REDIRECT: &str = "redirect without LOCATION";

/// What to make of an answer, by its status and what its code or its message contains.
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
        "the region or the endpoint is another bucket's",
    ),
    (Some(401), &[], "the server does not accept the credentials"),
    (Some(403), &[], "the credentials may not do this"),
    (
        Some(407),
        &[],
        "the proxy (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) wants a user name and a password, or others",
    ),
    (
        Some(429),
        &[],
        "the server is too busy and asks to come back later",
    ),
    (
        Some(503),
        &[],
        "the server is too busy, or down for a while",
    ),
    (Some(500), &[], "the server has a fault of its own"),
    (
        Some(502),
        &[],
        "what is before the server does not reach it",
    ),
    (
        Some(504),
        &[],
        "what is before the server does not reach it",
    ),
];

/// The failure on one line, without anything secret.
pub(crate) fn explain(error: &object_store::Error) -> String {
    if let Some(broke_off) = broke_off(error) {
        return broke_off.to_string();
    }
    let text = error.to_string();
    let server = server(&text);
    let mut told = match (http_error(error), answer(error, &text)) {
        (Some(http), _) => broken(http, server.as_deref()),
        (None, Some(answer)) => answered(&answer, server.as_deref()),
        (None, None) => other(text.clone(), server.as_deref()),
    };
    if text.contains("token request") || text.contains("credentials") && text.contains("metadata") {
        told = format!("cannot get credentials: {told}");
    }
    match tries(&text) {
        Some((tries, took)) => with_tries(told, tries, took),
        None => told,
    }
}

/// What is neither a broken connection nor a bad status.
fn other(text: String, server: Option<&str>) -> String {
    let Some(server) = server else {
        return text;
    };
    if text.contains(REDIRECT) {
        return format!(
            "the region or the endpoint is another bucket's: {server} answers with a redirect"
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

/// A request that got no answer, or half of one.
fn broken(http: &HttpError, server: Option<&str>) -> String {
    let cause = innermost(http).to_string();
    let at = server.unwrap_or("the server");
    if let Some(told) = untrusted(http, at) {
        return told;
    }
    if let Some(proxy) = proxy_of(http) {
        let told = match cause.contains("tunnel") {
            true => format!("{proxy} does not lead to {at}: {cause}"),
            false => format!(
                "{}, on the way to {at}",
                unreached(http, &proxy.to_string())
            ),
        };
        return told;
    }
    if is_refused(http) {
        return format!("{at} {cause}");
    }
    unreached(http, at)
}

/// What kept a request from `at`, the server or a proxy.
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
                "cannot connect to {at}: no answer; is it switched on, and does a firewall let through?"
            )
        }
        (HttpErrorKind::Timeout, _) if is_of_the_system(http) => {
            format!("the connection to {at} broke off ({cause})")
        }
        (HttpErrorKind::Timeout, _) => {
            format!("no answer from {at} within the target's `timeout`, or not all of it")
        }
        (HttpErrorKind::Connect, Some(io::ErrorKind::ConnectionRefused)) => {
            format!("{at} refuses the connection: nobody listens there ({cause})")
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

/// What the TLS library says of a certificate, and what to make of it.
const UNTRUSTED: &[(&str, &str)] = &[
    (
        "CaUsedAsEndEntity",
        "is self-signed and says of itself that it is an authority's (CA), which no server may show; make an authority,          have it sign one for the server (`basicConstraints=CA:FALSE`), and name the authority's certificate in          SSL_CERT_FILE",
    ),
    (
        "UnknownIssuer",
        "is signed by nobody who is known here; name the certificate of the authority (CA) that signed it in \
         SSL_CERT_FILE, or for S3 in AWS_CA_BUNDLE",
    ),
    (
        "Expired",
        "has expired; have it renewed, and see that the clock here is right",
    ),
    (
        "expired",
        "has expired; have it renewed, and see that the clock here is right",
    ),
    (
        "NotValidYet",
        "is not valid yet; see that the clocks here and there are right",
    ),
    (
        "not valid yet",
        "is not valid yet; see that the clocks here and there are right",
    ),
    (
        "NotValidForName",
        "is another server's; use the name that it was made for",
    ),
    (
        "not valid for name",
        "is another server's; use the name that it was made for",
    ),
];

/// A server whose certificate does not count.
fn untrusted(http: &HttpError, at: &str) -> Option<String> {
    let cause = innermost(http).to_string();
    if !cause.contains("invalid peer certificate") {
        return None;
    }
    let known = UNTRUSTED.iter().find(|(word, _)| cause.contains(word));
    let meaning = known
        .map(|(_, meaning)| *meaning)
        .unwrap_or("does not count");
    Some(format!("the certificate of {at} {meaning} ({cause})"))
}

/// What a server answered.
struct Answer {
    status: u16,
    /// With its number.
    reason: String,
    /// `Code: message`, as far as there is any.
    said: String,
}

fn answer(error: &object_store::Error, text: &str) -> Option<Answer> {
    let status = http_status(error)?;
    let rest = &text[text.find(STATUS)? + STATUS.len()..];
    let (reason, body) = rest.split_once(": ").unwrap_or((rest, ""));
    Some(Answer {
        status,
        reason: shortened(reason),
        said: said(body),
    })
}

fn answered(answer: &Answer, server: Option<&str>) -> String {
    let fits = |(status, words, _): &&(Option<u16>, &[&str], &str)| {
        status.is_none_or(|status| status == answer.status)
            && (words.is_empty() || words.iter().any(|word| answer.said.contains(word)))
    };
    let meaning = MEANINGS.iter().find(fits).map(|(_, _, meaning)| *meaning);
    let server = server.unwrap_or("the server");
    let mut told = match meaning {
        Some(meaning) => format!("{meaning}: {server} answered {}", answer.reason),
        None => format!("{server} answered {}", answer.reason),
    };
    if !answer.said.is_empty() {
        let _ = write!(told, " ({})", answer.said);
    }
    told
}

/// Code and message of an XML or JSON body, the title of a web page, the first line of any other.
pub(crate) fn said(body: &str) -> String {
    let xml = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
    };
    let json = |name: &str| {
        let value: serde_json::Value = serde_json::from_str(body).ok()?;
        let value = value.get("error").unwrap_or(&value);
        Some(value.get(name)?.to_string().trim_matches('"').to_owned())
    };
    let code = xml("Code").map(str::to_owned).or_else(|| json("code"));
    let message = xml("Message")
        .map(str::to_owned)
        .or_else(|| json("message"));
    match (code, message) {
        (Some(code), Some(message)) if message != code => shortened(&format!("{code}: {message}")),
        (Some(one), _) | (None, Some(one)) => shortened(&one),
        (None, None) if body.trim_start().starts_with('<') => {
            shortened(xml("title").unwrap_or_default())
        }
        (None, None) => shortened(body.trim().lines().next().unwrap_or_default()),
    }
}

/// On one line, without what a terminal would act upon.
fn shortened(text: &str) -> String {
    let plain = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = plain.take(MOST_SAID_CHARS + 1).collect();
    if short.chars().count() > MOST_SAID_CHARS {
        short.pop();
        short.push('…');
    }
    short
}

/// `host:port` of the request.
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

/// How often it was asked, if more than once, and for how long.
fn tries(text: &str) -> Option<(u32, Duration)> {
    let (before, rest) = text.split_once(RETRIES.0)?;
    let (retries, _) = rest.split_once(RETRIES.1)?;
    let took = before.rsplit_once(" in ")?.1;
    Some((
        retries.parse::<u32>().ok()?.saturating_add(1),
        duration(took)?,
    ))
}

/// As `Duration` shows itself: `1.5s`, `23.4ms`, `566.2µs`.
fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
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
    fn an_answer_is_told_by_its_meaning_and_its_code() {
        let full = s3(
            "Error performing PUT http://me:secret@store:9000/b/x?sig=secret in 1.2s, after 3 retries, max_retries: \
             20, retry_timeout: 1s  - Server returned non-2xx status code: 507 Insufficient Storage: \
             <Error><Code>XMinioStorageFull</Code><Message>no\nroom</Message><AWSAccessKeyId>secret</AWSAccessKeyId></Error>",
        );
        assert_eq!(
            explain(&full),
            "the target is full: store:9000 answered 507 Insufficient Storage (XMinioStorageFull: no room); tried 4 times in 1 s"
        );
        let page = s3(
            "Error performing GET https://store/b in 1ms - Server returned non-2xx status code: 502 Bad Gateway: \
             <html>secret</html>",
        );
        assert_eq!(
            explain(&page),
            "what is before the server does not reach it: store answered 502 Bad Gateway"
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
    fn what_is_neither_answer_nor_connection_is_told_as_it_is() {
        let odd = s3("Got invalid list response: what is this");
        assert_eq!(explain(&odd), odd.to_string());
    }

    #[test]
    fn what_a_server_says_does_not_fill_the_screen() {
        let long = said(&"é".repeat(5000));
        assert_eq!(long.chars().count(), MOST_SAID_CHARS + 1);
        assert_eq!(said("a\x1b[2Jb"), "a [2Jb");
    }
}
