//! Counts wrong tokens by address, so that a program that guesses is slowed down.
//!
//! The table is bounded: when it is full, the address that failed longest ago makes room.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::lock::lock;

/// Wrong tokens of one address within a window.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES: usize = 1024;

/// The wrong tokens of the last minute.
#[derive(Debug, Default)]
pub(super) struct FailedAttempts {
    by_address: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl FailedAttempts {
    /// Returns for how many seconds no token of `address` is compared; `None`: it is compared.
    pub(super) fn locked_seconds(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let table = lock(&self.by_address);
        let (begun, number) = table.get(&network(address))?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(*begun))?;
        (*number >= MOST).then(|| left.as_secs().max(1))
    }

    /// Counts a wrong token.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        let mut table = lock(&self.by_address);
        let address = network(address);
        if !table.contains_key(&address) && table.len() >= ADDRESSES {
            let oldest = table.iter().min_by_key(|(_, (begun, _))| *begun);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                table.remove(&oldest);
            }
        }
        let entry = table.entry(address).or_insert((now, 0));
        if now.saturating_duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

/// Returns the address itself, or the /64 network of an IPv6 address: one machine has all of it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_tokens_lock_an_address_for_the_rest_of_the_minute() {
        let attempts = FailedAttempts::default();
        let start = Instant::now();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..9 {
            attempts.count(one, start);
        }
        assert_eq!(attempts.locked_seconds(one, start), None);
        attempts.count(neighbour, start);
        let later = start + Duration::from_secs(20);
        assert_eq!(attempts.locked_seconds(one, later), Some(40));
        assert_eq!(attempts.locked_seconds(other, later), None);
        let after = start + Duration::from_secs(61);
        assert_eq!(attempts.locked_seconds(one, after), None);
        attempts.count(one, after);
        assert_eq!(attempts.locked_seconds(one, after), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let attempts = FailedAttempts::default();
        let start = Instant::now();
        for number in 0..5000_u32 {
            let address = IpAddr::V4(number.into());
            attempts.count(address, start + Duration::from_millis(u64::from(number)));
        }
        assert_eq!(attempts.by_address.lock().unwrap().len(), ADDRESSES);
    }
}
