//! Removes the secrets from a target's URL, for messages.

/// Returns `url` without user, password, query and fragment.
pub(super) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return match url.rsplit_once('@') {
            // `user:password@host:path` and the like.
            Some((before, after)) if before.contains(':') && !before.starts_with(['/', '.']) => {
                let first = before.split(':').next().unwrap_or_default();
                format!("{first}:...@{after}")
            }
            _ => url.to_owned(),
        };
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    // The last @, because a password may contain an unescaped one.
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_reaches_a_message() {
        for url in [
            "https://me:hunter2@dav.example/x",
            "https://me:hunt@hunter2@dav.example/x",
            "https://dav.example/x?sig=hunter2",
            "s3://key:hunter2@bucket/x",
            "az://c/p?sv=1&sig=hunter2",
            "foo://me:hunter2@x",
            "sftp://me:hunter2@nas/b",
            "sftp:me:hunter2@nas:/b",
            "me:hunter2@nas:/b",
        ] {
            assert!(!without_secrets(url).contains("hunter2"), "{url}");
            let error = crate::storage::check_url(url).err().map(|e| e.to_string());
            assert!(!error.unwrap_or_default().contains("hunter2"), "{url}");
        }
        assert_eq!(without_secrets("https://a:b@c:1/d"), "https://c:1/d");
    }
}
