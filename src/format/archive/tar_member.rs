//! Headers of tar members: POSIX ustar, with a pax header if a field does not fit.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Bytes of a tar block: headers and data fill whole blocks.
pub const BLOCK_BYTES: usize = 512;

/// The header fields of one member.
#[derive(Debug, Clone, Default)]
pub struct TarMember {
    /// Raw path bytes, such as `files/db/atocore.db`.
    pub path: Vec<u8>,
    /// Bytes of data behind the header.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the owner; `None` if there is none.
    pub user: Option<String>,
    /// Name of the group; `None` if there is none.
    pub group: Option<String>,
    /// Whole seconds since 1970.
    pub mtime_s: i64,
}

const MAX_OCTAL_ID: u32 = 0o7_777_777;
/// Twelve octal digits less the terminator.
const MAX_OCTAL_TIME: i64 = 0o77_777_777_777;

impl TarMember {
    /// Returns the header blocks, a multiple of 512 bytes.
    pub fn header(&self) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        let mut pax = Vec::new();
        if header
            .set_path(Path::new(OsStr::from_bytes(&self.path)))
            .is_err()
        {
            if std::str::from_utf8(&self.path).is_err() {
                pax_record(&mut pax, "hdrcharset", b"BINARY");
            }
            pax_record(&mut pax, "path", &self.path);
            set_cut_name(&mut header, &self.path);
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            let fits = id <= MAX_OCTAL_ID;
            let written = if fits { u64::from(id) } else { 0 };
            match key {
                "uid" => header.set_uid(written),
                _ => header.set_gid(written),
            }
            if !fits {
                pax_record(&mut pax, key, id.to_string().as_bytes());
            }
        }
        if (0..=MAX_OCTAL_TIME).contains(&self.mtime_s) {
            header.set_mtime(self.mtime_s as u64);
        } else {
            header.set_mtime(0);
            pax_record(&mut pax, "mtime", self.mtime_s.to_string().as_bytes());
        }
        // A name that does not fit is left out; the number is enough.
        if let Some(user) = &self.user {
            let _ = header.set_username(user);
        }
        if let Some(group) = &self.group {
            let _ = header.set_groupname(group);
        }
        header.set_mode(self.mode);
        header.set_size(self.size);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let mut blocks = Vec::with_capacity(3 * BLOCK_BYTES);
        if !pax.is_empty() {
            blocks.extend(pax_blocks(&pax));
        }
        blocks.extend_from_slice(header.as_bytes());
        blocks
    }
}

/// Returns the number of zeros that fill data of `size` bytes up to whole blocks.
pub fn padding(size: u64) -> usize {
    (BLOCK_BYTES - (size % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(length.to_string().as_bytes());
    out.push(b' ');
    out.extend(key.as_bytes());
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

fn pax_blocks(records: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    set_cut_name(&mut header, b"PaxHeaders/member");
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    let mut blocks = header.as_bytes().to_vec();
    blocks.extend_from_slice(records);
    blocks.resize(blocks.len() + padding(records.len() as u64), 0);
    blocks
}

/// Puts the beginning of a name into the header itself, for readers that do not know pax.
fn set_cut_name(header: &mut tar::Header, path: &[u8]) {
    let name = &mut header.as_old_mut().name;
    name.fill(0);
    let cut = path.len().min(name.len() - 1);
    name[..cut].copy_from_slice(&path[..cut]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_any_name_read_back() {
        let names: [Vec<u8>; 4] = [
            b"files/db/x".to_vec(),
            [b"files/".to_vec(), vec![b'n'; 400]].concat(),
            [
                b"files/".to_vec(),
                [b"dir/".repeat(60), vec![b'x'; 120]].concat(),
            ]
            .concat(),
            [b"blocks/".to_vec(), vec![0xff; 300]].concat(),
        ];
        for path in names {
            let member = TarMember {
                path: path.clone(),
                size: 3,
                mode: 0o4755,
                uid: 3_000_000,
                gid: 5,
                user: Some("somebody".to_owned()),
                group: Some("g".repeat(99)),
                mtime_s: -5,
            };
            let mut stream = member.header();
            assert_eq!(stream.len() % BLOCK_BYTES, 0);
            stream.extend(b"abc");
            stream.resize(stream.len() + padding(3) + 2 * BLOCK_BYTES, 0);
            let mut archive = tar::Archive::new(&stream[..]);
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!(&*entry.path_bytes(), &path[..]);
            assert_eq!(entry.header().mode().unwrap(), 0o4755);
            let pax: Vec<String> = entry
                .pax_extensions()
                .unwrap()
                .unwrap()
                .map(|r| r.unwrap().key().unwrap().to_owned())
                .collect();
            assert!(pax.contains(&"uid".to_owned()) && pax.contains(&"mtime".to_owned()));
            assert!(entries.next().is_none());
        }
    }
}
