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
