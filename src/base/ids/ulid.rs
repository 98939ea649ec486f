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
}
