//! Reads the secrets of a channel, and removes them from what is said about it.

use url::Url;

use crate::base::ownership;
use crate::config::{
    EmailSettings, MailServer, SECRET_BYTES, SecretText, check_channel_url, check_ping_url,
};

/// A part of a URL of fewer characters is no secret, and too common to be removed.
const LEAST_SECRET: usize = 4;

/// The secrets that were read, to remove them from errors and answers.
#[derive(Default)]
pub(super) struct Redaction {
    secrets: Vec<String>,
}

impl Redaction {
    /// Returns `text` without the secrets.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut secrets: Vec<&String> = self.secrets.iter().collect();
        // The longest first: a part of one may be another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "...")
        })
    }

    fn note(&mut self, secret: &str) {
        if secret.len() >= LEAST_SECRET {
            self.secrets.push(secret.to_owned());
        }
    }

    /// Returns the URL to which messages are posted.
    pub(super) fn url(&mut self, from: &SecretText) -> Result<String, String> {
        self.checked_url(from, check_channel_url)
    }

    /// Returns the URL of a check of healthchecks, without a slash at its end.
    pub(super) fn ping_url(&mut self, from: &SecretText) -> Result<String, String> {
        let url = self.checked_url(from, check_ping_url)?;
        Ok(url.trim_end_matches('/').to_owned())
    }

    fn checked_url(
        &mut self,
        from: &SecretText,
        check: fn(&str) -> Result<(), String>,
    ) -> Result<String, String> {
        let text = read(from)?;
        check(&text).map_err(|what| format!("{}: {what}", place(from)))?;
        self.note(&text);
        if let Ok(url) = Url::parse(&text) {
            self.note(url.path().trim_matches('/'));
            url.path_segments()
                .into_iter()
                .flatten()
                .for_each(|part| self.note(part));
            self.note(url.query().unwrap_or_default());
        }
        Ok(text)
    }

    /// Returns a token or key: one word of visible ASCII.
    pub(super) fn word(&mut self, from: Option<&SecretText>) -> Result<Option<String>, String> {
        let Some(from) = from else { return Ok(None) };
        let text = read(from)?;
        self.note(&text);
        match !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
            true => Ok(Some(text)),
            false => Err(format!(
                "{} must hold one word of ASCII characters",
                place(from)
            )),
        }
    }

    /// Returns the mail server, with its password.
    pub(super) fn mail_server(&mut self, settings: &EmailSettings) -> Result<MailServer, String> {
        let text = read(&settings.smtp)?;
        let server = MailServer::parse(&text);
        let mut server = server.map_err(|what| format!("{}: {what}", place(&settings.smtp)))?;
        if let Some(from) = &settings.password {
            server.password = Some(read(from)?);
        }
        if let Some(password) = &server.password {
            self.note(password);
            // As the dialogue with the server has it.
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD;
            self.note(&encoded.encode(password));
            let user = server.user.as_deref().unwrap_or_default();
            self.note(&encoded.encode(format!("\0{user}\0{password}")));
        }
        match (&server.user, &server.password) {
            (Some(_), None) => {
                Err("the mail server's user has no password: add password_file".to_owned())
            }
            _ => Ok(server),
        }
    }
}

/// Names where a secret is, without the secret.
fn place(from: &SecretText) -> String {
    match from {
        SecretText::Inline(_) => "the value in the configuration".to_owned(),
        SecretText::File(path) => format!("the file {}", path.display()),
        SecretText::Environment(name) => format!("the environment variable {name}"),
    }
}

/// Returns the text without blanks and line breaks around it.
fn read(from: &SecretText) -> Result<String, String> {
    let text = match from {
        SecretText::Inline(text) => text.clone(),
        SecretText::File(path) => {
            let read = ownership::open_regular(path);
            let read = read.and_then(|file| ownership::read_text(&file, SECRET_BYTES));
            read.map_err(|error| format!("{} cannot be read: {error}", place(from)))?
        }
        SecretText::Environment(name) => std::env::var(name)
            .map_err(|_| format!("{} is not set, or is not text", place(from)))?,
    };
    match text.trim() {
        "" => Err(format!("{} is empty", place(from))),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_from_what_is_said() {
        let mut redaction = Redaction::default();
        let url = SecretText::Inline("https://h/up/topic-hunter2?auth=hunter3".to_owned());
        redaction.url(&url).unwrap();
        let token = SecretText::Inline("tk_hunter4".to_owned());
        redaction.word(Some(&token)).unwrap();
        let said = "POST /up/topic-hunter2?auth=hunter3 with tk_hunter4: no topic-hunter2";
        let said = redaction.apply(said);
        assert!(!said.contains("hunter"), "{said}");
        let blank = SecretText::Inline("two words".to_owned());
        let error = redaction.word(Some(&blank)).unwrap_err();
        assert!(!error.contains("two words"), "{error}");
    }
}
