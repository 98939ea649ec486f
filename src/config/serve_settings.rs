//! The `[serve]` table: how the agent answers over HTTP, and what it keeps.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::ConfigError;
use super::value::{self, ValueText, optional};

/// Where the agent listens if the configuration does not say.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8101);
const DAY: u64 = 86_400;

/// `[serve]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// The addresses to listen on; empty: none, and there is no HTTP.
    pub listen: Vec<ListenAddress>,
    /// The file of the token that may do everything. `None`: that of `SEALIFT_TOKEN`, or none.
    pub token_file: Option<PathBuf>,
    /// The file of the token that may only look; `None`: none.
    pub read_token_file: Option<PathBuf>,
    /// Names, apart from those of this machine, under which clients reach the agent.
    pub allowed_hosts: Vec<String>,
    /// Addresses of proxies whose `X-Forwarded-` headers are believed.
    pub trusted_proxies: Vec<IpRange>,
    /// The path below which a proxy shows the agent, without a slash at its end; empty: none.
    pub base_path: String,
    /// Metrics are shown without a token.
    pub metrics_without_token: bool,
    /// How long the history is kept.
    pub history: HistoryLimits,
    /// The file to which the metrics are written after each run; `None`: none.
    pub textfile: Option<PathBuf>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddress::Tcp(LISTEN)],
            token_file: None,
            read_token_file: None,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            base_path: String::new(),
            metrics_without_token: false,
            history: HistoryLimits::default(),
            textfile: None,
        }
    }
}

/// How long the history of runs is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Age at which runs are forgotten.
    pub runs: Duration,
    /// Age at which the log files of runs are deleted.
    pub logs: Duration,
    /// Bytes that the history and the log files may take together.
    pub max_bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            runs: Duration::from_secs(400 * DAY),
            logs: Duration::from_secs(90 * DAY),
            max_bytes: 200_000_000,
        }
    }
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns whether only programs of this machine reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is neither an address with a port, such as \"127.0.0.1:8101\" or \"[::1]:8101\", nor a \
                 socket such as \"unix:/run/sealift/http.sock\""
            )
        };
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err(wrong()),
            None => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A range of IP addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    first: IpAddr,
    /// Number of leading bits that an address must share with `first`.
    bits: u32,
}

impl IpRange {
    /// Returns whether `address` is in the range. An IPv4 address within IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(other)) => {
                (u32::from(first) ^ u32::from(other)).leading_zeros()
            }
            (IpAddr::V6(first), IpAddr::V6(other)) => {
                (u128::from(first) ^ u128::from(other)).leading_zeros()
            }
            _ => return false,
        };
        shared >= self.bits
    }
}

impl FromStr for IpRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let parsed = address.parse::<IpAddr>().ok().and_then(|first| {
            let most = if first.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
            (bits <= most).then_some(Self { first, bits })
        });
        parsed.ok_or_else(|| {
            format!("{text:?} is not a range of addresses like \"10.0.0.0/8\" or \"::1\"")
        })
    }
}

/// `[serve]` as serde reads it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServe {
    listen: Option<Vec<Spanned<String>>>,
    token_file: Option<String>,
    read_token_file: Option<Spanned<String>>,
    allowed_hosts: Vec<Spanned<String>>,
    trusted_proxies: Vec<Spanned<String>>,
    base_path: Option<Spanned<String>>,
    metrics_without_token: bool,
    history: RawHistory,
    textfile: Option<String>,
}

/// `[serve] history`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHistory {
    runs: Option<Spanned<ValueText>>,
    logs: Option<Spanned<ValueText>>,
    max: Option<Spanned<ValueText>>,
}

impl RawServe {
    pub(super) fn validate(
        &self,
        document: &ConfigDocument<'_>,
    ) -> Result<ServeConfig, ConfigError> {
        let defaults = ServeConfig::default();
        let path = |text: &Option<String>| text.as_deref().map(|text| document.resolve(text));
        let read_token = self.read_token_file.as_ref();
        Ok(ServeConfig {
            listen: match &self.listen {
                Some(listen) => parsed(document, listen)?,
                None => defaults.listen,
            },
            token_file: path(&self.token_file),
            read_token_file: read_token.map(|text| document.resolve(text.get_ref())),
            allowed_hosts: self.hosts(document)?,
            trusted_proxies: parsed(document, &self.trusted_proxies)?,
            base_path: match &self.base_path {
                Some(text) => parse_base_path(text.get_ref())
                    .map_err(|what| document.invalid(&text.span(), what))?,
                None => defaults.base_path,
            },
            metrics_without_token: self.metrics_without_token,
            history: self.history.validate(document)?,
            textfile: path(&self.textfile),
        })
    }

    /// Returns the allowed hosts in lower case.
    fn hosts(&self, document: &ConfigDocument<'_>) -> Result<Vec<String>, ConfigError> {
        let hosts = self.allowed_hosts.iter().map(|host| {
            let text = host.get_ref();
            let is_part = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
            match !text.is_empty() && text.chars().all(is_part) {
                true => Ok(text.to_ascii_lowercase()),
                false => {
                    let what = format!(
                        "{text:?} is not a host name like \"backup.example.org\": no scheme, path or wildcard"
                    );
                    Err(document.invalid(&host.span(), what))
                }
            }
        });
        hosts.collect()
    }
}

impl RawHistory {
    fn validate(&self, document: &ConfigDocument<'_>) -> Result<HistoryLimits, ConfigError> {
        let defaults = HistoryLimits::default();
        let age = |value| optional(document, value, value::parse_age);
        Ok(HistoryLimits {
            runs: age(&self.runs)?.unwrap_or(defaults.runs),
            logs: age(&self.logs)?.unwrap_or(defaults.logs),
            max_bytes: optional(document, &self.max, value::parse_size)?
                .unwrap_or(defaults.max_bytes),
        })
    }
}

/// Parses each of `texts`; an error has its line.
fn parsed<T: FromStr<Err = String>>(
    document: &ConfigDocument<'_>,
    texts: &[Spanned<String>],
) -> Result<Vec<T>, ConfigError> {
    let parse = |text: &Spanned<String>| {
        let value = text.get_ref().parse();
        value.map_err(|what| document.invalid(&text.span(), what))
    };
    texts.iter().map(parse).collect()
}

/// Returns a path of a URL without a slash at its end: `/sealift/` as `/sealift`, `/` as nothing.
pub(crate) fn parse_base_path(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let has_dots = text.split('/').any(|part| part == ".." || part == ".");
    match text.starts_with('/') && !text.contains("//") && text.chars().all(is_part) && !has_dots {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(format!("{text:?} is not a path like \"/sealift\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_contains_the_addresses_that_share_its_leading_bits() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ] {
            assert!(range(text).contains(inside.parse().unwrap()), "{text}");
            assert!(!range(text).contains(outside.parse().unwrap()), "{text}");
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "host",
            "::/129",
            "10.0.0.0/-1",
        ] {
            assert!(wrong.parse::<IpRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_to_listen_on_is_an_address_with_a_port_or_a_socket() {
        let local = |text: &str| text.parse::<ListenAddress>().map(|one| one.is_local());
        assert_eq!(local("127.0.0.1:8101"), Ok(true));
        assert_eq!(local("[::1]:8101"), Ok(true));
        assert_eq!(local("unix:/run/sealift/http.sock"), Ok(true));
        assert_eq!(local("0.0.0.0:8101"), Ok(false));
        assert_eq!(local("[::]:0"), Ok(false));
        for wrong in [
            "8101",
            "localhost:8101",
            "127.0.0.1",
            "unix:here",
            "http://127.0.0.1:1",
        ] {
            assert!(local(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_base_path_has_no_slash_at_its_end() {
        assert_eq!(parse_base_path("/").unwrap(), "");
        assert_eq!(parse_base_path("/ops/sealift/").unwrap(), "/ops/sealift");
        for wrong in ["", "sealift", "//evil", "/a//b", "/../x", "/a b", "/\"><x"] {
            assert!(parse_base_path(wrong).is_err(), "{wrong}");
        }
    }
}
