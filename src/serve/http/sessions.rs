//! The sessions of browsers that logged in, in memory: a restart of the agent ends them all.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::access::AccessLevel;
use crate::base::ids::{Hash, hex};
use crate::base::lock::lock;

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Sessions that are remembered; one more ends the oldest.
const MOST: usize = 256;

/// The open sessions, by the hash of their ids.
#[derive(Debug)]
pub(super) struct Sessions {
    open: Mutex<HashMap<Hash, (Instant, AccessLevel)>>,
    /// The key of the form tokens.
    key: [u8; 32],
}

/// The hash of one session's id.
fn name(id: &str) -> Hash {
    Hash::sha256(id.as_bytes())
}

impl Sessions {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            open: Mutex::default(),
            key: random()?,
        })
    }

    /// Opens a session, and returns its id.
    pub(super) fn open(
        &self,
        level: AccessLevel,
        now: Instant,
    ) -> Result<String, getrandom::Error> {
        let id = hex(&random()?);
        let mut open = lock(&self.open);
        open.retain(|_, (begun, _)| now.saturating_duration_since(*begun) < LIFETIME);
        if open.len() >= MOST {
            let oldest = open.iter().min_by_key(|(_, (begun, _))| *begun);
            if let Some(oldest) = oldest.map(|(name, _)| *name) {
                open.remove(&oldest);
            }
        }
        open.insert(name(&id), (now, level));
        Ok(id)
    }

    /// Returns what the session `id` may do; `None`: there is no such session, or it is over.
    pub(super) fn level(&self, id: &str, now: Instant) -> Option<AccessLevel> {
        let open = lock(&self.open);
        let (begun, level) = open.get(&name(id))?;
        (now.saturating_duration_since(*begun) < LIFETIME).then_some(*level)
    }

    /// Ends the session `id`.
    pub(super) fn close(&self, id: &str) {
        lock(&self.open).remove(&name(id));
    }

    /// Ends all sessions: the tokens have changed.
    pub(super) fn close_all(&self) {
        lock(&self.open).clear();
    }

    /// Returns the token that the forms of a session carry; `None`: the caller has no session. A
    /// page of another site cannot read it.
    pub(super) fn form_token(&self, session: Option<&str>) -> String {
        let hash = blake3::keyed_hash(&self.key, session.unwrap_or_default().as_bytes());
        hash.to_hex().to_string()
    }
}

fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_after_twelve_hours() {
        let sessions = Sessions::new().unwrap();
        let start = Instant::now();
        let id = sessions.open(AccessLevel::Read, start).unwrap();
        assert_eq!(sessions.level(&id, start), Some(AccessLevel::Read));
        assert_eq!(sessions.level("other", start), None);
        assert_eq!(sessions.level(&id, start + LIFETIME), None);
        let other = sessions.open(AccessLevel::Write, start).unwrap();
        assert_ne!(
            sessions.form_token(Some(&id)),
            sessions.form_token(Some(&other))
        );
        sessions.close(&id);
        assert_eq!(sessions.level(&id, start), None);
        assert_eq!(sessions.level(&other, start), Some(AccessLevel::Write));
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let sessions = Sessions::new().unwrap();
        let start = Instant::now();
        let first = sessions.open(AccessLevel::Read, start).unwrap();
        for number in 1..=MOST as u64 {
            let later = start + Duration::from_secs(number);
            sessions.open(AccessLevel::Read, later).unwrap();
        }
        assert_eq!(sessions.level(&first, start), None);
        assert_eq!(sessions.open.lock().unwrap().len(), MOST);
    }
}
