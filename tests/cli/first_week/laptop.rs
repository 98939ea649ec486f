//! The laptop of the week: the second target, which can go away.

use std::fs;
use std::path::{Path, PathBuf};

use super::week::View;
use crate::support::gate::Gate;
use crate::support::rsync::{RsyncDaemon, SshServer};

/// The second target.
pub enum Laptop {
    /// Both with a gate in front of them.
    Daemon(RsyncDaemon, Gate),
    Ssh(SshServer, Gate),
    Folder(PathBuf),
}

impl Laptop {
    pub fn new(view: View, dir: &Path) -> Self {
        let gate = |port: u16| Gate::new(([127, 0, 0, 1], port).into());
        match view {
            View::Terminal => {
                let daemon = RsyncDaemon::start();
                let gate = gate(daemon.port());
                Self::Daemon(daemon, gate)
            }
            View::TerminalAndSsh => {
                let server = SshServer::start("");
                let gate = gate(server.port());
                Self::Ssh(server, gate)
            }
            View::Pipe => {
                let folder = dir.join("laptop");
                fs::create_dir(&folder).unwrap();
                Self::Folder(folder)
            }
        }
    }

    pub fn files(&self) -> PathBuf {
        match self {
            Self::Daemon(daemon, _) => daemon.files(),
            Self::Ssh(server, _) => server.files(),
            Self::Folder(folder) => folder.clone(),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Daemon(_, gate) => format!("rsync://{}/m/backups", gate.address),
            Self::Ssh(server, gate) => server.url_by("rsync", gate.address.port(), "/backups"),
            Self::Folder(folder) => format!("file://{}/backups", folder.display()),
        }
    }

    /// The command that reaches it, as if the gate were the server.
    pub fn ssh(&self) -> String {
        match self {
            Self::Ssh(server, _) => {
                let alias = format!("[127.0.0.1]:{}", server.port());
                format!("{} -o HostKeyAlias={alias}", server.ssh())
            }
            Self::Daemon(..) | Self::Folder(_) => "ssh".to_owned(),
        }
    }
    /// Takes it away. Returns the words that name the cause then.
    pub fn close(&mut self) -> &'static str {
        match self {
            Self::Daemon(_, gate) | Self::Ssh(_, gate) => {
                gate.close();
                "refused"
            }
            Self::Folder(folder) => {
                fs::rename(&folder, folder.with_extension("away")).unwrap();
                "is the disk mounted?"
            }
        }
    }

    pub fn open(&mut self) {
        match self {
            Self::Daemon(_, gate) | Self::Ssh(_, gate) => gate.open(),
            Self::Folder(folder) => fs::rename(folder.with_extension("away"), &folder).unwrap(),
        }
    }

    /// The options of `init` for it.
    pub fn options(&self) -> &'static str {
        match self {
            Self::Ssh(..) => "--target laptop=$LAPTOP --ssh \"$SSH\"",
            Self::Daemon(..) | Self::Folder(_) => "--target laptop=$LAPTOP",
        }
    }
}
