//! The login of a WebDAV target.

use base64::Engine as _;
use object_store::{HeaderMap, HeaderValue};

use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::setting::Takes;
use crate::storage::spec::TargetSpec;

const USER: &str = "SEALIFT_WEBDAV_USER";
const PASSWORD: &str = "SEALIFT_WEBDAV_PASSWORD";

/// Checks the variables of the login.
pub(super) fn check(spec: &TargetSpec, environment: &Environment) -> Result<(), OpenError> {
    environment.check(&spec.label(), |name| {
        [USER, PASSWORD].contains(&name).then_some(Takes::Text)
    })
}

/// Returns user and password, from the URL or from the environment. `None`: there is no login.
pub(super) fn login(
    from_url: &Option<(String, String)>,
    environment: &Environment,
) -> Option<(String, String)> {
    let user = environment.get(USER);
    let password = environment.get(PASSWORD);
    match (from_url, user, password) {
        (Some((user, secret)), _, Some(password)) if secret.is_empty() => {
            Some((user.clone(), password.to_owned()))
        }
        (Some(login), _, _) => Some(login.clone()),
        (None, Some(user), password) => {
            Some((user.to_owned(), password.unwrap_or_default().to_owned()))
        }
        (None, None, _) => None,
    }
}

/// Returns the headers of basic authentication.
pub(super) fn basic_auth(
    (user, password): (String, String),
    spec: &TargetSpec,
) -> Result<HeaderMap, OpenError> {
    let login = format!("{user}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(login);
    let mut value =
        HeaderValue::from_str(&format!("Basic {encoded}")).map_err(|source| OpenError::Client {
            target: spec.label(),
            source: Box::new(source),
        })?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    Ok(headers)
}
