//! `backup`: sources of every kind, targets of every kind, and runs in which some of them fail.

mod asks_atocore;
mod atocore_day;
mod busy_databases;
mod failing_sources;
mod hooks;
mod lineage;
mod offline_targets;
mod partial_loss;
mod planted_marks;
mod proxies_and_certificates;
mod recipients;
mod run_hooks;
mod several_targets;
mod shrink;
mod shrink_of_trees;
mod signer_change;
mod slow_link;
mod write_only_credentials;
