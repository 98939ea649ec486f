//! `key prove`: an identity is known to exist.
