//! `restore --in-place`: where its content comes from.

mod content;
