//! The URLs of channels.

use url::Url;

/// Checks the URL of a server that messages are posted to. The error does not repeat it.
pub fn check_channel_url(text: &str) -> Result<(), String> {
    let url = parsed(text)?;
    match url.fragment() {
        Some(_) => Err("the URL has # in it: remove it and what follows".to_owned()),
        None => Ok(()),
    }
}

/// Checks the URL of a check of healthchecks. The error does not repeat it.
pub fn check_ping_url(text: &str) -> Result<(), String> {
    let url = parsed(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            "the URL of a check has ? or # in it: write it as far as the id of the check"
                .to_owned(),
        );
    }
    match url.path().trim_matches('/').is_empty() {
        true => Err("the URL of a check ends in the id of the check".to_owned()),
        false => Ok(()),
    }
}

fn parsed(text: &str) -> Result<Url, String> {
    let wrong = || "this is not a URL such as \"https://ntfy.example.org/topic\"".to_owned();
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("the URL has a blank in it".to_owned());
    }
    let url = Url::parse(text).map_err(|_| wrong())?;
    match matches!(url.scheme(), "http" | "https") && url.has_host() {
        true if url.username().is_empty() && url.password().is_none() => Ok(url),
        true => Err("the URL has a user or a password in it: use token_file".to_owned()),
        false => Err(wrong()),
    }
}
