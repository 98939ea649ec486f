//! The one test for text that looks like a private key.
//!
//! A host that packs must never hold an identity, so configuration values and lists of recipients
//! are refused if they contain one, even in part or in a comment.

/// Marks of private keys, in upper case, and the kind of key to which each belongs.
const MARKS: [(&str, &str); 5] = [
    ("AGE-SECRET-KEY-", "an age identity"),
    ("AGE-PLUGIN-", "a plugin's identity"),
    ("-----BEGIN AGE ENCRYPTED FILE", "a sealed age identity"),
    ("AGE-ENCRYPTION.ORG/V1", "a sealed age identity"),
    ("PRIVATE KEY-----", "a private key"),
];

/// Returns the kind of private key that `text` contains, such as `an age identity`; `None` if it
/// contains none.
pub fn private_part(text: &str) -> Option<&'static str> {
    let upper = text.to_ascii_uppercase();
    let found = MARKS.iter().find(|(mark, _)| upper.contains(mark));
    found.map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_private_key_is_recognized_anywhere_and_no_public_one() {
        for (text, expected) in [
            ("AGE-SECRET-KEY-1QQQQ", Some("an age identity")),
            ("  age-secret-key-1qqqq", Some("an age identity")),
            ("# old: AGE-SECRET-KEY-1QQQQ", Some("an age identity")),
            ("AGE-PLUGIN-YUBIKEY-1QQQQ", Some("a plugin's identity")),
            ("x AGE-PLUGIN-YUBIKEY-1QQQQ", Some("a plugin's identity")),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----",
                Some("a sealed age identity"),
            ),
            ("age-encryption.org/v1", Some("a sealed age identity")),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", Some("a private key")),
            ("-----BEGIN PRIVATE KEY-----", Some("a private key")),
            (
                "age1wwtd50lehm54edva2yxgj558d044pfqq6hm87qvx9qssys4qha5swez2ur",
                None,
            ),
            ("age1yubikey1qqqq", None),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA host", None),
            ("-----BEGIN PUBLIC KEY-----", None),
            ("/etc/sealift/recipients.txt", None),
            ("", None),
        ] {
            assert_eq!(private_part(text), expected, "{text}");
        }
    }
}
