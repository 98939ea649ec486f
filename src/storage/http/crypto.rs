//! The ciphers of TLS.

/// Chooses the ciphers of TLS, which the process must do once; an earlier choice stays.
pub(crate) fn install() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
