//! The certificates of authorities (CA) that the environment names.
//!
//! The system's certificates apply, or in their place those of `SSL_CERT_FILE` and `SSL_CERT_DIR`,
//! which the TLS library reads. S3 targets add those of `AWS_CA_BUNDLE`, as Amazon's own tools do.
//! A named file that cannot be used is an error that names its variable: the library would continue
//! without it.

use std::io::Read as _;
use std::path::Path;

use crate::base::ownership;
use crate::storage::environment::Environment;
use crate::storage::error::OpenError;

/// Maximum size of a file; all public authorities together need a quarter of a megabyte.
const MOST_BYTES: u64 = 16 << 20;

/// Checks the files and folders that the TLS library will read.
pub(crate) fn check(target: &str, environment: &Environment) -> Result<(), OpenError> {
    if let Some(file) = environment.get("SSL_CERT_FILE") {
        read(target, "SSL_CERT_FILE", Path::new(file))?;
    }
    let dirs = environment.get("SSL_CERT_DIR").unwrap_or_default();
    // As for other programs, one of several folders may be missing.
    let named: Vec<&str> = dirs.split(':').filter(|dir| !dir.is_empty()).collect();
    match named.is_empty() || named.iter().any(|dir| Path::new(dir).is_dir()) {
        true => Ok(()),
        false => Err(OpenError::setting(
            target,
            "SSL_CERT_DIR",
            format!("names {}, which is not a directory", named.join(":")),
        )),
    }
}

/// Reads the file that the setting `name` names: one or more certificates in PEM form.
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
