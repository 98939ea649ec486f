//! What all targets over HTTP share: the client, its proxies and certificates, and what an answer means.

pub mod classify;
pub mod client;
pub mod error_text;
pub mod proxy;
pub mod resume;
pub mod retry_after;
pub mod roots;
