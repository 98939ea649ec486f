//! The style of the pages.

/// The style of all pages.
pub(super) const STYLE: &str = include_str!("pages/style.css");
