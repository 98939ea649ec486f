//! `packer`: whatever a tree holds comes back from its archives.

mod hard_links;
mod round_trip;
