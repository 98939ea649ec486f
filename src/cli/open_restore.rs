//! Refuses commands while a restore in place is open: the data may be between two states.

use super::failure::Failure;
use super::{Command, Context};
use crate::config::Config;
use crate::state::restores;

/// Fails if this machine has a configuration whose restore in place is open, unless the `command`
/// changes nothing or is about that restore.
pub(super) fn require_none(context: &Context, command: &Command) -> Result<(), Failure> {
    let is_exempt = match command {
        Command::Status(_) | Command::Config(_) | Command::Runs(_) | Command::Unit(_) => true,
        Command::Incident(_) | Command::Pause(_) | Command::Resume => true,
        // The agent begins nothing itself; the commands that it runs are refused.
        Command::Serve(_) | Command::Notify(_) => true,
        // It has a message of its own where another one is open.
        Command::Restore(args) => args.is_resume(),
        Command::Rollback(args) => !args.is_clean(),
        other => other.describes_itself(),
    };
    if is_exempt {
        return Ok(());
    }
    // A configuration that is missing or wrong is another command's business.
    let Ok(found) = Config::find(context.config.as_deref()) else {
        return Ok(());
    };
    let state = &found.config.state;
    let waits = match command {
        Command::Backup(args) => args.waits(),
        Command::Push(args) => args.waits(),
        _ => false,
    };
    // That restore holds the lock, for which these commands wait.
    if restores::is_running(state) && !waits {
        return Err(Failure::from_error(
            "a restore in place is running; wait for it to end",
        ));
    }
    match restores::open_restore(state) {
        Ok(None) => Ok(()),
        Ok(Some(_)) if waits && restores::is_running(state) => Ok(()),
        Ok(Some(open)) => Err(Failure::from_error(open.to_string())),
        // This user may not read the state directory, so he did not restore either.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(Failure::from_error(format!(
            "cannot see whether a restore in place is open: {error}"
        ))
        .hint(format!(
            "look at {}",
            state.join(restores::RESTORES).display()
        ))),
    }
}
