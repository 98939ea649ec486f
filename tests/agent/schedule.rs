//! When jobs run.
