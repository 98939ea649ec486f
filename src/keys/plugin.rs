//! Identities in hardware or elsewhere, used through `age-plugin-*` programs.
//!
//! A plugin runs once per archive. Two rules make that practical and safe:
//! - only one plugin runs at a time, since a token serves one session;
//! - a secret is remembered for the next archive, but never passed twice to the same run, since a
//!   token locks itself after a few wrong PINs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use age::secrecy::SecretString;
use age::{Callbacks, DecryptError, plugin};
use age_core::format::{FileKey, Stanza};

use super::prompt::Prompt;

/// Answers that worked, by question.
type Answers = HashMap<String, SecretString>;

/// An identity that a plugin holds.
pub(crate) struct PluginIdentity {
    identity: plugin::Identity,
    prompt: Arc<dyn Prompt>,
    answers: Mutex<Answers>,
}

impl PluginIdentity {
    pub(crate) fn new(identity: plugin::Identity, prompt: Arc<dyn Prompt>) -> Self {
        Self {
            identity,
            prompt,
            answers: Mutex::default(),
        }
    }
}

impl age::Identity for PluginIdentity {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let mut remembered = lock(&self.answers);
        let dialogue = Dialogue {
            prompt: Arc::clone(&self.prompt),
            known: Arc::new(remembered.clone()),
            run: Arc::default(),
        };
        let name = self.identity.plugin();
        let identities = std::slice::from_ref(&self.identity);
        let plugin = match plugin::IdentityPluginV1::new(name, identities, dialogue.clone()) {
            Ok(plugin) => plugin,
            Err(error) => return Some(Err(DecryptError::PluginResolve(error))),
        };
        let unwrapped = plugin.unwrap_stanzas(stanzas);
        *remembered = match &unwrapped {
            Some(Ok(_)) => std::mem::take(&mut lock(&dialogue.run).given),
            _ => Answers::new(),
        };
        unwrapped
    }
}

/// The dialogue of one run with the key holder.
#[derive(Clone)]
struct Dialogue {
    prompt: Arc<dyn Prompt>,
    /// Answers of the last run, if it succeeded.
    known: Arc<Answers>,
    run: Arc<Mutex<PluginRun>>,
}

#[derive(Default)]
struct PluginRun {
    /// Questions of this run so far.
    asked: HashSet<String>,
    /// Answers that this run got.
    given: Answers,
}

impl Callbacks for Dialogue {
    fn display_message(&self, message: &str) {
        self.prompt.message(message);
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        self.prompt.confirm(message, yes, no)
    }

    fn request_public_string(&self, _description: &str) -> Option<String> {
        None
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        let first_time = lock(&self.run).asked.insert(description.to_owned());
        let known = self.known.get(description).filter(|_| first_time);
        let answer = match known {
            Some(answer) => answer.clone(),
            None => self.prompt.passphrase(description)?,
        };
        let given = &mut lock(&self.run).given;
        given.insert(description.to_owned(), answer.clone());
        Some(answer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
