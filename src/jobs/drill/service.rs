//! Starts the operator's service on the restored data, and stops it whatever happens.
//!
//! `stop` runs if and only if `start` was run, also when it failed, and also when this process is
//! asked to end. If it is killed instead, the next drill does it (`left_service`).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DrillService;
use crate::base::cleanup::CleanupGuard;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::producer::RunHook;

/// The variables that `start`, `stop` and checks by command see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrillEnvironment {
    /// The directory of the restored data.
    pub(super) restored: String,
    pub(super) stamp: String,
    pub(super) base_url: String,
}

impl DrillEnvironment {
    pub(super) fn new(restored: &Path, stamp: Stamp, base_url: Option<&str>) -> Self {
        Self {
            restored: restored.display().to_string(),
            stamp: stamp.to_string(),
            base_url: base_url.unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn pairs(&self) -> [(&str, &str); 3] {
        [
            ("SEALIFT_RESTORED", &self.restored),
            ("SEALIFT_STAMP", &self.stamp),
            ("SEALIFT_BASE_URL", &self.base_url),
        ]
    }
}

/// A service that was started, or that tried to.
pub(super) struct StartedService<'a> {
    service: &'a DrillService,
    environment: DrillEnvironment,
    owed: CleanupGuard,
}

impl<'a> StartedService<'a> {
    /// Runs `start`. The second value is why it failed.
    pub(super) fn start(
        service: &'a DrillService,
        environment: DrillEnvironment,
    ) -> (Self, Option<String>) {
        let (last, seen) = (service.clone(), environment.clone());
        let owed = CleanupGuard::register(move || {
            let stop = RunHook {
                line: &last.stop,
                input: &[],
                environment: &seen.pairs(),
                timeout: last.timeout,
            };
            match stop.run_last() {
                Ok(_) => "stopped the service of the drill".to_owned(),
                Err(error) => format!(
                    "the service of the drill did not stop ({}): stop it",
                    with_causes(&error)
                ),
            }
        });
        let started = Self {
            service,
            environment,
            owed,
        };
        let start = RunHook {
            line: &service.start,
            input: &[],
            environment: &started.environment.pairs(),
            timeout: service.timeout,
        };
        let failure = start.run().err().map(|error| with_causes(&error));
        (started, failure)
    }

    /// Runs `stop`. Returns why it failed.
    pub(super) fn stop(self) -> Result<(), String> {
        // Only once: from here on this process waits for it.
        let stop = RunHook {
            line: &self.service.stop,
            input: &[],
            environment: &self.environment.pairs(),
            timeout: self.service.timeout,
        };
        let stopped = stop.run();
        self.owed.take();
        stopped.map(drop).map_err(|error| with_causes(&error))
    }
}
