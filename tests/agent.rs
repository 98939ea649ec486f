//! The program as its users run it: hosts that back up, key holders that restore, and what can go
//! wrong between them.

#[path = "support/host.rs"]
mod host;
#[path = "support/rsync.rs"]
mod rsync;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/small_disk.rs"]
mod small_disk;
#[path = "support/tree.rs"]
mod tree;

#[path = "agent/by_hand.rs"]
mod by_hand;
#[path = "agent/clocks.rs"]
mod clocks;
#[path = "agent/cold.rs"]
mod cold;
#[path = "agent/commands.rs"]
mod commands;
#[path = "agent/crash.rs"]
mod crash;
#[path = "agent/day.rs"]
mod day;
#[path = "agent/destinations.rs"]
mod destinations;
#[path = "agent/edges.rs"]
mod edges;
#[path = "agent/fire.rs"]
mod fire;
#[path = "agent/forget.rs"]
mod forget;
#[path = "agent/hooks.rs"]
mod hooks;
#[path = "agent/identities.rs"]
mod identities;
#[path = "agent/keys.rs"]
mod keys;
#[path = "agent/left_out.rs"]
mod left_out;
#[path = "agent/lineage.rs"]
mod lineage;
#[path = "agent/marks.rs"]
mod marks;
#[path = "agent/offline.rs"]
mod offline;
#[path = "agent/on_the_way.rs"]
mod on_the_way;
#[path = "agent/prune.rs"]
mod prune;
#[path = "agent/rebuild.rs"]
mod rebuild;
#[path = "agent/rights.rs"]
mod rights;
#[path = "agent/shrink.rs"]
mod shrink;
#[path = "agent/shrink_of_trees.rs"]
mod shrink_of_trees;
#[path = "agent/slow_link.rs"]
mod slow_link;
#[path = "agent/stock.rs"]
mod stock;
#[path = "agent/sync.rs"]
mod sync;
#[path = "agent/tamper.rs"]
mod tamper;
#[path = "agent/targets.rs"]
mod targets;
#[path = "agent/times.rs"]
mod times;
#[path = "agent/truth.rs"]
mod truth;
#[path = "agent/verify.rs"]
mod verify;
#[path = "agent/verify_repair.rs"]
mod verify_repair;
#[path = "agent/write_only.rs"]
mod write_only;
