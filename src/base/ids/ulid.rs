//! Ids that sort by their time: ULIDs.

use chrono::{DateTime, Utc};

/// Letters and digits of a ULID.
const ID_DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Returns a new ULID: 48 bits of time in milliseconds, 80 random bits.
pub fn ulid(now: DateTime<Utc>) -> String {
    let mut random = [0; 10];
    // Without random bits, the time must do.
    let _ = getrandom::fill(&mut random);
    let millis = now.timestamp_millis().max(0).cast_unsigned() & ((1 << 48) - 1);
    let mut value = u128::from(millis);
    for byte in random {
        value = value << 8 | u128::from(byte);
    }
    let digit = |place: u32| ID_DIGITS[(value >> (5 * place) & 31) as usize] as char;
    (0..26).rev().map(digit).collect()
}

/// Whether `text` is a ULID, in capital letters.
pub fn is_ulid(text: &str) -> bool {
    let bytes = text.as_bytes();
    // 26 digits have two bits more than the 128 of the value.
    bytes.len() == 26 && bytes[0] <= b'7' && bytes.iter().all(|byte| ID_DIGITS.contains(byte))
}

/// Returns the time that the ULID `id` begins with; `None`: it is no ULID.
pub fn ulid_time(id: &str) -> Option<DateTime<Utc>> {
    let digits = id.get(..10).filter(|_| is_ulid(id))?;
    let value = |byte| ID_DIGITS.iter().position(|digit| *digit == byte);
    let millis = digits
        .bytes()
        .try_fold(0_i64, |sum, byte| Some(sum << 5 | value(byte)? as i64))?;
    DateTime::from_timestamp_millis(millis)
}

/// Returns the ULID `text` as a UUID, the 128 bits in the other form; `None`: it is no ULID.
pub fn ulid_as_uuid(text: &str) -> Option<String> {
    if text.len() != 26 {
        return None;
    }
    let mut value = 0u128;
    for byte in text.bytes() {
        let digit = ID_DIGITS.iter().position(|known| *known == byte)?;
        value = value << 5 | digit as u128;
    }
    let hex = format!("{value:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Some(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sorted_by_time_and_differ() {
        let at = |seconds| DateTime::UNIX_EPOCH + chrono::Duration::seconds(seconds);
        let ids = [1_000_000_000, 1_775_620_000, 1_775_620_001].map(|time| ulid(at(time)));
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids.iter().all(|id| id.len() == 26));
        assert_ne!(ulid(at(1)), ulid(at(1)));
        assert!(ids.iter().all(|id| is_ulid(id)));
        assert_eq!(ulid_time(&ids[1]), Some(at(1_775_620_000)));
        assert_eq!(ulid_time("backup"), None);
        for wrong in [
            "",
            "backup",
            "20260407T060000Z-7",
            "../../../../../../etc/passwd",
        ] {
            assert!(!is_ulid(wrong), "{wrong}");
        }
        assert!(!is_ulid("8ZZZZZZZZZZZZZZZZZZZZZZZZZ") && !is_ulid(&ids[0].to_lowercase()));
        // The specification's example of the time's ten digits.
        assert!(
            ulid(DateTime::from_timestamp_millis(1_469_918_176_385).unwrap())
                .starts_with("01ARYZ6S41")
        );
    }

    #[test]
    fn a_ulid_is_a_uuid_in_another_form() {
        let uuid = ulid_as_uuid("01ARZ3NDEKTSV4RRFFQ69G5FAV");
        assert_eq!(
            uuid.as_deref(),
            Some("01563e3a-b5d3-d676-4c61-efb99302bd5b")
        );
        for other in [
            "",
            "01ARZ3NDEKTSV4RRFFQ69G5FAVX",
            "01ARZ3NDEKTSV4RRFFQ69G5FAI",
        ] {
            assert_eq!(ulid_as_uuid(other), None);
        }
    }
}
