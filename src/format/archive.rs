//! The layout inside one archive: tar members, compressed into zstd frames with a table of them,
//! encrypted as an age file.

pub mod age_header;
pub mod age_payload;
pub(crate) mod frame_reader;
pub mod seek_table;
pub mod tar_member;
