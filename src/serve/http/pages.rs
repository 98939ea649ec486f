//! Pages for people: plain HTML, without a script.

mod layout;
pub(super) mod login;
mod main_page;
mod small_pages;

pub(super) use layout::problem;
pub(super) use main_page::main;
pub(super) use small_pages::{cancel, proof, run, snapshot, target};
