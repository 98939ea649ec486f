//! Reads secrets into memory that is wiped.

use std::io;

use zeroize::Zeroizing;

/// Reads to the end into memory that is wiped when it is dropped. A `Vec` that grows leaves copies
/// behind; here each smaller buffer is wiped, too.
pub(crate) fn read_secret(mut from: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(vec![0; 4096]);
    let mut filled = 0;
    loop {
        match from.read(&mut content[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == content.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&content);
            content = larger;
        }
    }
    content.truncate(filled);
    Ok(content)
}
