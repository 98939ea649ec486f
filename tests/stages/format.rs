//! `format`: samples of every version, and readers held against other programs and against damaged bytes.

mod age_payload;
mod allowed_signers;
mod fuzzed_bytes;
mod receipts;
mod samples;
