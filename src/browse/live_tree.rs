//! A directory as entries.
