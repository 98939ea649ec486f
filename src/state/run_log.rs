//! The log of a run: what it printed, in `logs/<id>.log` of the state directory. The agent writes
//! one for each of its children.

use std::path::{Path, PathBuf};

use crate::base::ids::is_ulid;

/// The directory of the logs in the state directory.
const LOGS: &str = "logs";

/// Returns the directory of the logs in the state directory `dir`.
pub fn logs_dir(dir: &Path) -> PathBuf {
    dir.join(LOGS)
}

/// Returns the path of the log of the run `id`. `None`: that is not the id of a run, and names no
/// file.
pub fn log_path(dir: &Path, id: &str) -> Option<PathBuf> {
    is_ulid(id).then(|| logs_dir(dir).join(format!("{id}.log")))
}

/// Returns the id of the run whose log has this file name.
pub fn run_of_log(name: &str) -> Option<&str> {
    name.strip_suffix(".log").filter(|id| is_ulid(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_a_run_names_a_log() {
        let dir = Path::new("/state");
        let id = "01ARYZ6S410000000000000000";
        let path = log_path(dir, id).unwrap();
        assert_eq!(
            path,
            Path::new("/state/logs/01ARYZ6S410000000000000000.log")
        );
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(run_of_log(name), Some(id));
        assert_eq!(log_path(dir, "../../etc/passwd"), None);
        assert_eq!(run_of_log("notes.log"), None);
    }
}
