//! Makes new identities, and seals them with a passphrase.

use std::io::{self, Write as _};

use age::armor::{ArmoredWriter, Format};
use age::secrecy::{ExposeSecret as _, SecretString};
use age::{Encryptor, x25519};
use zeroize::Zeroizing;

use super::identities::IdentityError;
use crate::base::clock;

/// Returns a new native key: the identity file's text, as `age-keygen` writes it, and its
/// recipient.
pub fn generate() -> (Zeroizing<String>, String) {
    let key = x25519::Identity::generate();
    let recipient = key.to_public().to_string();
    let created = clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let secret = key.to_string();
    let secret = secret.expose_secret();
    let parts = [
        "# created: ",
        &created,
        "\n# public key: ",
        &recipient,
        "\n",
        secret,
        "\n",
    ];
    // Allocated at its final size: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    parts.iter().for_each(|part| text.push_str(part));
    (text, recipient)
}

/// Seals an identity file's `text` as `age -p -a` does.
pub fn seal_with_passphrase(
    text: &str,
    passphrase: SecretString,
) -> Result<Vec<u8>, IdentityError> {
    let seal = || -> io::Result<Vec<u8>> {
        let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = Encryptor::with_user_passphrase(passphrase).wrap_output(armor)?;
        writer.write_all(text.as_bytes())?;
        writer.finish()?.finish()
    };
    seal().map_err(IdentityError::Seal)
}
