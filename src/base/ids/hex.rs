//! Lower-case hexadecimal text of bytes.

use std::fmt;

/// Returns `bytes` as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex_digits(*byte)).collect()
}

fn hex_digits(byte: u8) -> [char; 2] {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    [digit(byte >> 4), digit(byte & 15)]
}

/// Returns at most 32 bytes as lower-case hex, followed by zero bytes.
pub(super) fn hex_text(bytes: &[u8]) -> [u8; 64] {
    let mut text = [0; 64];
    for (two, byte) in text.chunks_exact_mut(2).zip(bytes) {
        two.copy_from_slice(&hex_digits(*byte).map(|digit| digit as u8));
    }
    text
}

/// Writes at most 32 bytes as lower-case hex in one call of the formatter: an index holds millions
/// of hashes.
pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let text = hex_text(bytes);
    let text = std::str::from_utf8(&text[..2 * bytes.len()]);
    f.write_str(text.map_err(|_| fmt::Error)?)
}

/// Parses an even number of lower-case hex digits; `None` for any other text.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(unhex_pair).collect()
}

/// Parses exactly `2 * N` lower-case hex digits; `None` for any other text.
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
