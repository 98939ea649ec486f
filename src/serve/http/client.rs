//! Who sends a request, by its connection and by what trusted proxies say.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::config::{ServeConfig, parse_base_path};

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connected {
    /// The address of the other end. `None`: it is a socket in the file system.
    pub(super) peer: Option<IpAddr>,
    /// The address of this end.
    pub(super) own: Option<IpAddr>,
}

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpClient {
    /// Its address. `None`: it is a program of this machine at a socket in the file system.
    pub(super) address: Option<IpAddr>,
    /// Whether it speaks TLS with a trusted proxy.
    pub(super) is_https: bool,
    /// The path below which it sees the agent, without a slash at its end.
    pub(super) prefix: String,
}

impl HttpClient {
    /// Returns the sender of a request with these headers.
    ///
    /// Only a trusted proxy's headers count. A proxy at a socket in the file system has no address,
    /// and is trusted if the configuration names any proxy.
    pub(super) fn of(connected: Connected, headers: &HeaderMap, serve: &ServeConfig) -> Self {
        let is_trusted = |address: IpAddr| {
            let mut proxies = serve.trusted_proxies.iter();
            proxies.any(|range| range.contains(address))
        };
        let is_proxy = match connected.peer {
            Some(address) => is_trusted(address),
            None => !serve.trusted_proxies.is_empty(),
        };
        if !is_proxy {
            return Self {
                address: connected.peer,
                is_https: false,
                prefix: serve.base_path.clone(),
            };
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let prefix = text("x-forwarded-prefix").and_then(|text| parse_base_path(text).ok());
        Self {
            address: forwarded(headers, &is_trusted).or(connected.peer),
            is_https: text("x-forwarded-proto").is_some_and(|text| text.trim() == "https"),
            prefix: prefix.unwrap_or_else(|| serve.base_path.clone()),
        }
    }
}

/// Returns the last address of `X-Forwarded-For` that is not a trusted proxy's: what is before it
/// may be forged. `None`: there is none.
fn forwarded(headers: &HeaderMap, is_trusted: &dyn Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let values = headers.get_all("x-forwarded-for").iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let parts: Vec<&str> = texts.flat_map(|text| text.split(',')).collect();
    let mut nearest = None;
    for part in parts.iter().rev() {
        let Ok(address) = part.trim().parse() else {
            break;
        };
        nearest = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> HttpClient {
        let serve = ServeConfig {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            base_path: "/own".to_owned(),
            ..ServeConfig::default()
        };
        let connected = Connected {
            peer: Some(peer.parse().unwrap()),
            own: None,
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        HttpClient::of(connected, &map, &serve)
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        let headers = [
            ("x-forwarded-for", "198.51.100.1, 192.0.2.7, 10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/backup"),
        ];
        let believed = client("10.0.0.1", &headers);
        assert_eq!(believed.address, "192.0.2.7".parse().ok());
        assert!(believed.is_https);
        assert_eq!(believed.prefix, "/backup");
        let forged = client("192.0.2.66", &headers);
        assert_eq!(forged.address, "192.0.2.66".parse().ok());
        assert!(!forged.is_https);
        assert_eq!(forged.prefix, "/own");
    }

    #[test]
    fn what_is_no_address_or_path_is_not_believed() {
        let odd = [
            ("x-forwarded-for", "192.0.2.7, evil"),
            ("x-forwarded-prefix", "//evil.example"),
        ];
        let client = client("10.0.0.1", &odd);
        assert_eq!(client.address, "10.0.0.1".parse().ok());
        assert_eq!(client.prefix, "/own");
    }
}
