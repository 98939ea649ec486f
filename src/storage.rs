//! Destinations of sealed objects: list, put, get and delete, nothing else.
//!
//! [`Storage`] is the contract of all kinds of targets (`contract`). [`open`] turns a
//! [`TargetSpec`] into one of them:
//!
//! - `folder`: a folder that this machine reaches by a path;
//! - `rsync`: another machine, by the system's `rsync`;
//! - `sftp`: another machine, by sftp over the system's `ssh`;
//! - `object_store`: S3, Google, Azure, WebDAV and memory, by the library of that name. `http`
//!   holds what these share, `s3` what only S3 has.
//!
//! Each implementation decides whether an error is worth another try where the error arises
//! ([`ErrorKind`]) and retries transient faults itself, within a bounded time. So a caller treats
//! every error as final for its run. Secrets come from the environment and the usual files, and no
//! label or error carries one.

mod allowance;
mod contact;
mod contract;
mod environment;
mod error;
mod folder;
mod foreign_url;
mod http;
mod isolated;
mod kept_objects;
mod key;
mod machine_name;
mod meter;
mod object_store;
mod offline;
mod open;
mod patience;
mod place;
mod process_failure;
mod redact;
mod retry;
mod rsync;
mod s3;
mod service_client;
mod setting;
mod sftp;
mod size_error;
mod spec;
mod ssh;
mod throttle;
mod url;
mod via;

pub use allowance::Allowance;
pub use contract::{Body, Listed, PutMode, PutOutcome, Storage, Thaw};
pub use environment::Environment;
pub use error::{ErrorKind, Fault, OpenError, TargetError};
pub use folder::reserve::is_full;
pub(crate) use http::crypto::install as install_ciphers;
pub use isolated::{isolated, panicked};
pub use kept_objects::{keeping_objects, only_kept_objects};
pub(crate) use meter::attempt;
pub use meter::{Meter, metered};
pub use open::{
    check_folder, check_url, folder_path, is_over_ssh, open, open_existing, open_or_offline,
    open_with, runs_programs,
};
pub use patience::Patience;
pub use place::{place, place_without_user};
pub use service_client::{
    RequestContent, ServiceAnswer, ServiceError, ServiceRequest, is_private_way, read_token,
};
pub use spec::TargetSpec;
pub(crate) use via::{ViaCommand, ViaEnd, ViaInput, ViaOutput, ViaProcess};
