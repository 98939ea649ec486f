//! Certificates of authorities (CA) that the environment names.
//!
//! The system's own count, or in their place those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, which the TLS library reads.
//! To these, S3 targets add those of `AWS_CA_BUNDLE`, as Amazon's own tools have it. A file that is named and cannot
//! be used is an error that names its variable: the library would go on without it.

use std::io::Read as _;
use std::path::Path;

use crate::base::ownership;
use crate::storage::{Environment, OpenError};

/// All authorities of the world need a quarter of a megabyte.
const MOST_BYTES: u64 = 16 << 20;

/// Checks what the TLS library will read.
pub(crate) fn check(target: &str, environment: &Environment) -> Result<(), OpenError> {
    if let Some(file) = environment.get("SSL_CERT_FILE") {
        read(target, "SSL_CERT_FILE", Path::new(file))?;
    }
    let dirs = environment.get("SSL_CERT_DIR").unwrap_or_default();
    // As other programs have it, one of several may be missing.
    let named: Vec<&str> = dirs.split(':').filter(|dir| !dir.is_empty()).collect();
    match named.is_empty() || named.iter().any(|dir| Path::new(dir).is_dir()) {
        true => Ok(()),
        false => Err(OpenError::setting(
            target,
            "SSL_CERT_DIR",
            format!("names {}, which is no directory", named.join(":")),
        )),
    }
}

/// What the file holds that the setting `name` names: certificates in PEM form, one at the least.
pub(crate) fn read(target: &str, name: &str, file: &Path) -> Result<Vec<u8>, OpenError> {
    let wrong = |what: String| {
        OpenError::setting(target, name, format!("names {}, {what}", file.display()))
    };
    let mut pem = Vec::new();
    let read = ownership::open_regular(file);
    let read = read.and_then(|file| file.take(MOST_BYTES).read_to_end(&mut pem));
    read.map_err(|error| wrong(format!("which cannot be read: {error}")))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(pem),
        _ => Err(wrong("which holds no certificate in PEM form".to_owned())),
    }
}
