//! Checks on the raw document: every key is known, and no value is an identity.
//!
//! The keys of a table are the fields of the struct that it is read into, so the two lists cannot
//! differ. (serde's own complaint about an unknown key would come too late: it names no other key,
//! and an identity must be found first.)

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use toml::de::{DeTable, DeValue};

use super::document::ConfigDocument;
use super::error::ConfigError;
use crate::base::similar::nearest;

pub(super) use crate::keys::private_key_text::private_part;

/// The keys of the configuration.
pub(super) struct KnownKeys {
    /// Of the document itself.
    pub top: &'static [&'static str],
    /// Of each table, by the key that holds the table or the array of tables.
    pub tables: Vec<(&'static str, &'static [&'static str])>,
    /// Of tables in these, by their keys, such as `target.retention`.
    pub nested: Vec<(&'static str, Nested)>,
}

/// The keys of a table in a table.
#[derive(Clone, Copy)]
pub(super) enum Nested {
    /// These.
    Known(&'static [&'static str]),
    /// Any: they are the operator's own.
    Free,
}

impl KnownKeys {
    /// Returns the keys of the table whose keys from the top are `path`. `None`: no such table is
    /// known.
    fn of(&self, path: &str) -> Option<Nested> {
        let table = self.tables.iter().find(|(table, _)| *table == path);
        let table = table.map(|(_, keys)| Nested::Known(keys));
        let nested = || self.nested.iter().find(|(table, _)| *table == path);
        table.or_else(|| nested().map(|(_, keys)| *keys))
    }
}

/// Returns the names of the fields of `T`, as serde reads them.
pub(super) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Never succeeds: only the names are wanted.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// Notes the fields of the struct that is deserialized, and fails.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("this is not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Refuses a key that no table has, and a value that holds an identity.
pub(super) fn keys_and_secrets(
    document: &ConfigDocument<'_>,
    known: &KnownKeys,
) -> Result<(), ConfigError> {
    check(document, known, IdentityKey::Refused)
}

/// Refuses a key that no table has, and a value that is an identity itself: in the configuration of
/// a key holder's machine, which names the files of identities.
pub(super) fn only_known_keys(
    document: &ConfigDocument<'_>,
    known: &KnownKeys,
) -> Result<(), ConfigError> {
    check(document, known, IdentityKey::Known)
}

/// Whether a key `identity` is an identity that must not be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdentityKey {
    Refused,
    Known,
}

fn check(
    document: &ConfigDocument<'_>,
    known: &KnownKeys,
    identity_key: IdentityKey,
) -> Result<(), ConfigError> {
    let table = DeTable::parse(document.text).map_err(|e| document.syntax(&e))?;
    let checker = KeyChecker {
        document,
        known,
        identity_key,
    };
    checker.check_table(table.get_ref(), Nested::Known(known.top), "")
}

struct KeyChecker<'a> {
    document: &'a ConfigDocument<'a>,
    known: &'a KnownKeys,
    identity_key: IdentityKey,
}

impl KeyChecker<'_> {
    /// Checks the table at `path`, whose keys are `known`.
    fn check_table(
        &self,
        table: &DeTable<'_>,
        known: Nested,
        path: &str,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Nested::Known(known) = known else {
                self.check_value(value, known, path)?;
                continue;
            };
            let is_identity = matches!(name, "identity" | "identities");
            if is_identity && self.identity_key == IdentityKey::Refused {
                let what = format!("the key {name:?}");
                return Err(self.document.identity(&key.span(), what));
            }
            if !known.contains(&name) {
                return Err(ConfigError::UnknownKey {
                    file: self.document.file.to_owned(),
                    line: self.document.line(&key.span()),
                    key: name.to_owned(),
                    nearest: nearest(name, known).map(str::to_owned),
                });
            }
            let path = match path {
                "" => name.to_owned(),
                path => format!("{path}.{name}"),
            };
            let keys = self.known.of(&path).unwrap_or(Nested::Known(&[]));
            self.check_value(value, keys, &path)?;
        }
        Ok(())
    }

    /// Checks the value at `path`; if it is a table, or an array of tables, their keys are `known`.
    fn check_value(
        &self,
        value: &toml::Spanned<DeValue<'_>>,
        known: Nested,
        path: &str,
    ) -> Result<(), ConfigError> {
        match value.get_ref() {
            DeValue::String(text) => match private_part(text) {
                Some(what) => {
                    let what = format!("this is {what}");
                    Err(self.document.identity(&value.span(), what))
                }
                None => Ok(()),
            },
            DeValue::Array(items) => items
                .iter()
                .try_for_each(|item| self.check_value(item, known, path)),
            DeValue::Table(table) => self.check_table(table, known, path),
            _ => Ok(()),
        }
    }
}
