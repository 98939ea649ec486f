//! Compares two snapshots, or one with a directory. Pure.
