//! The URL of a mail server.

use std::net::IpAddr;

use url::Url;

/// A mail server.
#[derive(Clone, PartialEq, Eq)]
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub transport: MailTransport,
    /// The user; `None`: the server is used without one.
    pub user: Option<String>,
    /// The password in the URL; `None`: there is none.
    pub password: Option<String>,
}

/// How the connection to a mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTransport {
    /// By TLS from the first byte.
    Tls,
    /// By STARTTLS, and not used without.
    StartTls,
    /// Not at all: only to this machine.
    Plain,
}

impl MailServer {
    /// Parses a URL such as `smtps://user@mail.example.org:465`. The error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "smtps://USER@HOST, smtp+starttls://USER@HOST, or smtp://localhost for this machine";
        let text = text.trim();
        let wrong = || format!("this is not the URL of a mail server: write {FORMS}");
        let (scheme, _) = text.split_once("://").ok_or_else(wrong)?;
        let (transport, port) = match scheme {
            "smtps" => (MailTransport::Tls, 465),
            "smtp+starttls" => (MailTransport::StartTls, 587),
            "smtp" => (MailTransport::Plain, 25),
            _ => return Err(wrong()),
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let is_bare = matches!(url.path(), "" | "/");
        if !is_bare || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "the URL of a mail server has nothing after the port: write {FORMS}"
            ));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() || !host.is_ascii() || host.contains('%') {
            return Err(wrong());
        }
        if transport == MailTransport::Plain && !is_this_machine(host) {
            return Err(
                "smtp:// sends mail in clear text, and only to this machine: write smtps:// or smtp+starttls://"
                    .to_owned(),
            );
        }
        let decoded = |text: &str| {
            let decoded = percent_decoded(text).ok_or_else(wrong)?;
            match decoded.chars().any(char::is_control) {
                true => Err(wrong()),
                false => Ok(decoded),
            }
        };
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let server = Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(port),
            transport,
            user: user.map(decoded).transpose()?,
            password: url.password().map(decoded).transpose()?,
        };
        if server.password.is_some() && server.user.is_none() {
            return Err("the URL has a password and no user".to_owned());
        }
        Ok(server)
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Decodes `%40` and the like; `None` if what comes out is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|two| std::str::from_utf8(two).ok());
        let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (bytes[at], value) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

impl std::fmt::Debug for MailServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}:{}", self.transport, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_mail_servers_are_read_and_not_repeated() {
        let one = MailServer::parse("smtps://me%40example.org:p%3Aw@mail.example.org").unwrap();
        assert_eq!((one.host.as_str(), one.port), ("mail.example.org", 465));
        assert_eq!(one.user.as_deref(), Some("me@example.org"));
        assert_eq!(one.password.as_deref(), Some("p:w"));
        assert!(!format!("{one:?}").contains("p:w"));
        let two = MailServer::parse("smtp+starttls://me@mail:2525").unwrap();
        assert_eq!((two.transport, two.port), (MailTransport::StartTls, 2525));
        let three = MailServer::parse("smtp://[::1]:21/").unwrap();
        assert_eq!((three.host.as_str(), three.port), ("::1", 21));
        for wrong in [
            "smtp://mail.example.org",
            "smtps://",
            "mail.example.org",
            "https://me:hunter2@mail",
            "smtps://me:hunter2@mail/path",
            "smtps://me:hunter2@mail?x",
            "smtps://:hunter2@mail",
            "smtps://me:hunter2%0a@mail",
        ] {
            let error = MailServer::parse(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
