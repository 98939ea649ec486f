//! `restore` and `recover.py`: who can open a snapshot, where it may go, and what comes back.

mod cold_storage;
mod destinations;
mod extreme_times;
mod few_bytes;
mod identities;
pub mod keys;
mod record;
mod recover_py_rights;
mod rights;
mod stock_tools;
pub mod tamper;
