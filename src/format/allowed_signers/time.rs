//! Parses times as OpenSSH does: `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, in UTC if `Z` or
//! `UTC` follows, else in the local time zone.
//!
//! OpenSSH leaves the arithmetic to the C library, and so does this module: the 31st of February is
//! in March, and a time in summer is read as standard time, since nothing indicates otherwise.
#![allow(unsafe_code)]

/// Returns seconds since 1970. Earlier times are malformed, as in OpenSSH up to 9.9; later versions
/// read them as times in a far future.
pub(super) fn parse(text: &[u8]) -> Option<u64> {
    let (digits, is_utc) = without_zone(text);
    if ![8, 12, 14].contains(&digits.len()) {
        return None;
    }
    let field = |at: usize, length: usize, from: i32, to: i32| match digits.get(at..at + length) {
        Some(field) => number(field).filter(|value| (from..=to).contains(value)),
        None => Some(0),
    };
    let year = field(0, 4, 0, 9999)?;
    let month = field(4, 2, 1, 12)?;
    let day = field(6, 2, 1, 31)?;
    let hour = field(8, 2, 0, 23)?;
    let minute = field(10, 2, 0, 59)?;
    // `strptime` accepts two leap seconds.
    let second = field(12, 2, 0, 61)?;
    // SAFETY: `tm` is plain data, for which zeros are valid.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    time.tm_year = year - 1900;
    time.tm_mon = month - 1;
    time.tm_mday = day;
    (time.tm_hour, time.tm_min, time.tm_sec) = (hour, minute, second);
    // SAFETY: both read and write `time` only, which is ours and initialized.
    let seconds = match is_utc {
        true => unsafe { libc::timegm(&raw mut time) },
        false => unsafe { libc::mktime(&raw mut time) },
    };
    u64::try_from(seconds).ok()
}

fn without_zone(text: &[u8]) -> (&[u8], bool) {
    for zone in ["Z", "UTC"] {
        if let Some(at) = text.len().checked_sub(zone.len())
            && at > 0
            && text[at..].eq_ignore_ascii_case(zone.as_bytes())
        {
            return (&text[..at], true);
        }
    }
    (text, false)
}

/// Returns a field's number; `strptime` passes over spaces before it.
fn number(field: &[u8]) -> Option<i32> {
    let spaces = field.iter().take_while(|byte| **byte == b' ').count();
    let digits = std::str::from_utf8(&field[spaces..]).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_utc() {
        for (text, expected) in [
            ("19700101Z", Some(0)),
            ("19700102Z", Some(86_400)),
            ("197001020304z", Some(86_400 + 3 * 3600 + 240)),
            ("19700102030405utc", Some(86_400 + 3 * 3600 + 245)),
            ("19691231235959Z", None),
            ("00000101Z", None),
            ("1970 1 2Z", Some(86_400)),
            ("20260231Z", parse(b"20260303Z")),
            ("19700101235961Z", Some(86_401)),
            ("19701301Z", None),
            ("19700001Z", None),
            ("197001010060Z", None),
            ("1970-1-1Z", None),
            ("197001020Z", None),
            ("Z", None),
            ("UTC", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }
}
