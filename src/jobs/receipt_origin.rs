//! What receipts say of the machine that made them, and of the identities that it has.

use crate::base::ids::HostName;
use crate::base::user_dirs;
use crate::restore::open::Identities;
use crate::state::machine::machine_id;

/// Returns those of `sealed_to` whose identities are known to exist once the given `identities`
/// opened what is sealed to them.
///
/// A native or SSH identity is the private key of its recipient, so having it is the proof. A
/// plugin's identity is not: its file names a key that is elsewhere. It counts only if it is the
/// only one that can have opened the snapshot.
pub(crate) fn proven_recipients(identities: &Identities, sealed_to: &[String]) -> Vec<String> {
    let mut proven: Vec<String> = sealed_to
        .iter()
        .filter(|one| identities.own_recipients().contains(one))
        .cloned()
        .collect();
    if proven.is_empty() {
        proven.extend(by_plugin(identities, sealed_to));
    }
    proven
}

/// Returns the recipient of the only plugin's identity.
fn by_plugin(identities: &Identities, sealed_to: &[String]) -> Option<String> {
    let [plugin] = identities.plugins() else {
        return None;
    };
    // A comment in the identity's file may name the recipient.
    let mut named = identities.recipients().iter();
    if let Some(named) = named.find(|one| sealed_to.contains(one)) {
        return Some(named.clone());
    }
    let prefix = format!("age1{plugin}1");
    let mut possible = sealed_to.iter().filter(|one| one.starts_with(&prefix));
    match (possible.next(), possible.next()) {
        (Some(only), None) => Some(only.clone()),
        _ => None,
    }
}

/// Returns the program, as receipts name it.
pub(crate) fn tool() -> String {
    format!("sealift {}", env!("CARGO_PKG_VERSION"))
}

/// Returns the machine as receipts about `host` name it: zeros if it has no id.
pub(crate) fn this_machine(host: &HostName) -> String {
    let dir = user_dirs::sealift_dir().unwrap_or_else(std::env::temp_dir);
    let id = machine_id(host, &dir);
    id.unwrap_or_else(|_| "0".repeat(32))
}
