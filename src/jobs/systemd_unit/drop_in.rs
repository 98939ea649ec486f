//! The text of a drop-in: each setting with its reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::needs::{HomeAccess, SandboxNeeds};
use super::word::unit_word;

/// The lines of a drop-in.
struct DropInLines(Vec<String>);

impl DropInLines {
    /// Adds settings and why they are there.
    fn add(&mut self, reason: &str, settings: impl IntoIterator<Item = impl Into<String>>) {
        self.0.push(String::new());
        self.0.push(comment(reason));
        self.0.extend(settings.into_iter().map(Into::into));
    }
}

/// Returns the comment `text`, in one line whatever the names in it are.
fn comment(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    format!("# {line}")
}

/// Returns the drop-in that opens what `needs` names, which are those of the configuration `file`.
pub(super) fn text(file: &Path, needs: &SandboxNeeds) -> String {
    let mut lines = DropInLines(vec![
        comment(&format!(
            "Computed by `sealift unit` from {}. Print it again after each change there.",
            file.display()
        )),
        "[Service]".to_owned(),
    ]);
    if let Some(user) = &needs.user {
        let settings = [format!("User={user}"), "CapabilityBoundingSet=".to_owned()];
        lines.add("To whom the state directory belongs.", settings);
    }
    system(&mut lines, needs);
    places(&mut lines, needs);
    programs(&mut lines, needs);
    let mut text = lines.0.join("\n");
    text.push('\n');
    text
}

/// What of the system is read-only.
fn system(lines: &mut DropInLines, needs: &SandboxNeeds) {
    if needs.commands.is_empty() {
        let reason = "The configuration has no commands, so it is known what is written.";
        return lines.add(reason, ["ProtectSystem=strict"]);
    }
    let names = needs.commands.join(", ");
    let reason = format!("Commands may write anywhere but in /usr, /boot and /etc: {names}.");
    lines.add(&reason, ["ProtectSystem=full"]);
}

/// The paths that the configuration names.
fn places(lines: &mut DropInLines, needs: &SandboxNeeds) {
    if !needs.writes.is_empty() {
        lines.add(
            needs.written,
            path_settings("ReadWritePaths", &needs.writes),
        );
    }
    if !needs.only_read.is_empty() {
        let settings = path_settings("ReadOnlyPaths", &needs.only_read);
        lines.add("Trees that no command needs.", settings);
    }
    match &needs.home {
        HomeAccess::None => lines.add(
            "Nothing in home directories is needed.",
            ["ProtectHome=yes"],
        ),
        HomeAccess::Read(why) => {
            let reason = format!("Needed in home directories: {why}.");
            lines.add(&reason, ["ProtectHome=read-only"]);
        }
    }
    if needs.uses_tmp {
        let reason = "A path of the configuration is in the /tmp that all share.";
        lines.add(reason, ["PrivateTmp=no"]);
    }
}

/// A path that is missing must not keep the unit from starting: so the prefix `-`.
fn path_settings(key: &str, paths: &BTreeSet<PathBuf>) -> Vec<String> {
    let paths = paths.iter().map(|path| unit_word(path));
    paths.map(|path| format!("{key}=-{path}")).collect()
}

/// What the programs that the commands call need.
fn programs(lines: &mut DropInLines, needs: &SandboxNeeds) {
    if let Some(name) = &needs.containers {
        let reason = format!("A command uses containers: {name}.");
        lines.add(&reason, ["InaccessiblePaths="]);
    }
    if let Some(name) = &needs.other_users {
        let reason = format!("A command runs as another user: {name}.");
        let settings = [
            "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_AUDIT_WRITE",
            "NoNewPrivileges=no",
        ];
        lines.add(&reason, settings);
    }
    if let Some(name) = &needs.mounts {
        let reason = format!(
            "A command mounts, or makes a snapshot of a file system: {name}. With this right it could mount the \
             read-only paths again."
        );
        let settings = [
            "CapabilityBoundingSet=CAP_SYS_ADMIN",
            "PrivateDevices=no",
            "DevicePolicy=auto",
            "SystemCallFilter=@mount",
        ];
        lines.add(&reason, settings);
    }
}
