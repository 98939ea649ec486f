//! Lower-case hexadecimal text of bytes.

use std::fmt;

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex_digits(*byte)).collect()
}

fn hex_digits(byte: u8) -> [char; 2] {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    [digit(byte >> 4), digit(byte & 15)]
}

/// Lower-case hex of at most 32 bytes, at once: an index is full of it.
pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let mut text = [0; 64];
    for (two, byte) in text.chunks_exact_mut(2).zip(bytes) {
        two.copy_from_slice(&hex_digits(*byte).map(|digit| digit as u8));
    }
    let text = std::str::from_utf8(&text[..2 * bytes.len()]);
    f.write_str(text.map_err(|_| fmt::Error)?)
}

/// The bytes of an even number of lower-case hex digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(unhex_pair).collect()
}

/// The bytes of exactly twice as many lower-case hex digits.
pub(super) fn unhex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = unhex_pair(pair)?;
    }
    Some(bytes)
}

fn unhex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}
