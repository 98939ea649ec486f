//! The use cases that the command line and other front ends share.
//!
//! A job takes a request, does the work and returns a report. It prints nothing and picks no exit
//! code: what it has to say meanwhile goes to a [`FrontEnd`](context::FrontEnd), and its report is
//! data ([`serde::Serialize`]).

pub(crate) mod acknowledge;
pub(crate) mod adopt;
pub(crate) mod backup;
pub(crate) mod catch_up;
pub(crate) mod check_config;
pub(crate) mod check_drill_config;
pub(crate) mod choose;
pub(crate) mod config_edit;
pub(crate) mod context;
pub(crate) mod credentials;
pub(crate) mod drill;
pub(crate) mod dry_run;
pub(crate) mod error;
pub(crate) mod forget_local;
pub(crate) mod in_place_content;
pub(crate) mod init;
pub(crate) mod kept_tags;
pub(crate) mod key_proof;
pub(crate) mod list;
pub(crate) mod local_retention;
pub(crate) mod local_snapshots;
pub(crate) mod metric_facts;
pub(crate) mod mode;
pub(crate) mod notify;
pub(crate) mod operator_marks;
pub(crate) mod paper;
pub(crate) mod pin;
pub(crate) mod prune;
pub mod push;
pub(crate) mod rebuild_catalog;
pub(crate) mod receipt_origin;
pub(crate) mod receipts;
pub(crate) mod recipients;
pub(crate) mod recovery_files;
pub mod repair;
pub(crate) mod restore_by_push;
pub(crate) mod restore_in_place;
pub(crate) mod run_history;
pub(crate) mod run_report;
pub(crate) mod shrunk;
pub(crate) mod signer_change;
pub(crate) mod signer_memory;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod systemd_unit;
pub(crate) mod target_setup;
pub(crate) mod targets;
pub mod test_restore;
pub(crate) mod verdict;
pub(crate) mod verify;
pub(crate) mod wrong_key;
