//! What each target holds of this host right now.

use std::collections::{HashMap, HashSet};

use super::{AgentError, NamedTarget};
use crate::ids::{Hash, HostName};
use crate::manifest::ManifestName;
use crate::manifest::chain::{Chain, ChainError, Finding, Snapshot};
use crate::manifest::signature::Trust;
use crate::repository::{HostFolder, RepositoryError};
use crate::target::TargetError;

/// One target's answer.
#[derive(Debug)]
pub struct Survey {
    pub name: String,
    pub folder: HostFolder,
    pub concurrency: usize,
    pub seen: Result<Seen, TargetError>,
}

#[derive(Debug)]
pub struct Seen {
    /// Archives by BLAKE3, and their sizes.
    pub archives: HashMap<Hash, u64>,
    pub manifests: Vec<ManifestName>,
    /// Verified snapshots that the catalog does not know.
    pub foreign: Vec<Snapshot>,
    pub findings: Vec<Finding>,
}

/// Looks at every target at once. A target that does not answer is no error here; one that answers
/// with manifests that cannot be read is.
pub async fn survey(
    host: &HostName,
    targets: &[NamedTarget],
    known: &HashSet<ManifestName>,
    trust: &Trust,
) -> Result<Vec<Survey>, AgentError> {
    let looks = targets.iter().map(|named| async {
        let folder = HostFolder {
            target: named.target.clone(),
            host: host.clone(),
        };
        let seen = match look(&folder, known, trust).await {
            Ok(seen) => Ok(seen),
            Err(RepositoryError::Target(error)) => Err(error),
            Err(source) => {
                return Err(AgentError::Survey {
                    host: host.clone(),
                    target: named.target.label().to_owned(),
                    source: Box::new(source),
                });
            }
        };
        Ok(Survey {
            name: named.name.clone(),
            folder,
            concurrency: named.concurrency,
            seen,
        })
    });
    futures::future::join_all(looks).await.into_iter().collect()
}

async fn look(
    folder: &HostFolder,
    known: &HashSet<ManifestName>,
    trust: &Trust,
) -> Result<Seen, RepositoryError> {
    let (archives, manifests) =
        futures::future::join(folder.archives_present(), folder.manifest_names()).await;
    let (archives, manifests) = (archives?, manifests?);
    let mut seen = Seen {
        archives,
        foreign: Vec::new(),
        findings: Vec::new(),
        manifests,
    };
    if seen.manifests.iter().all(|name| known.contains(name)) {
        return Ok(seen);
    }
    let chain: Chain = match folder.chain(trust).await {
        Ok(chain) => chain,
        // A folder of manifests that are none of ours gives us no past; the report says so.
        Err(RepositoryError::Chain(ChainError::Empty(_))) => return Ok(seen),
        Err(RepositoryError::Chain(ChainError::NothingVerified { .. })) => {
            let strange = seen.manifests.iter().filter(|name| !known.contains(name));
            let refused = |name: &ManifestName| {
                let reason = "it is not signed by this host's signer".to_owned();
                Finding::Refused(name.clone(), reason)
            };
            seen.findings = strange.map(refused).collect();
            return Ok(seen);
        }
        Err(error) => return Err(error),
    };
    let foreign = |snapshot: &Snapshot| !known.contains(&snapshot.manifest.name());
    seen.foreign = chain.snapshots.into_iter().filter(foreign).collect();
    seen.findings = chain.findings;
    Ok(seen)
}
