//! HTTP for all targets that `object_store` reaches: the client, its proxies and certificates, and
//! the meaning of answers and failures.
//!
//! Every request passes through [`exchange`] to [`client`]. A failure comes back as an
//! [`StoreError`](store_error::StoreError): [`classify`] says what it means for the caller, and
//! [`error_text`] says it in words.

pub(super) mod classify;
pub(super) mod client;
pub(super) mod crypto;
pub(super) mod error_text;
pub(super) mod exchange;
pub(super) mod faults;
pub(super) mod listing_guard;
pub(super) mod proxy;
pub(super) mod response_text;
pub(super) mod resume;
pub(super) mod retry_after;
pub(super) mod roots;
pub(super) mod store_error;
pub(super) mod tries;
