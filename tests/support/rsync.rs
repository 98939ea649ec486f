//! A real `sshd` and a real rsync daemon on 127.0.0.1, each an ordinary process with its own configuration in
//! a temporary directory; gone when dropped.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealift::storage::TargetSpec;

use super::free_port;

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// A server process that accepts connections, on a port that it was given.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Another test may take the port first: then the next is tried.
    fn start(dir: &Path, mut command: impl FnMut(u16) -> Command) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let log = fs::File::create(dir.join("log")).unwrap();
            let mut child = command(port)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let until = Instant::now() + STARTS_WITHIN;
            while Instant::now() < until && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    // Not another program's.
                    std::thread::sleep(Duration::from_millis(50));
                    if child.try_wait().unwrap().is_none() {
                        return Self { child, port };
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("the server does not start: {log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sessions belong to `sshd`'s children: they end when their client does.
pub struct SshServer {
    server: Server,
    dir: tempfile::TempDir,
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

fn public_key(path: &Path) -> String {
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

impl SshServer {
    /// With one authorized key; `restriction` stands before it in `authorized_keys`. It has sftp.
    pub fn start(restriction: &str) -> Self {
        Self::configured(restriction, "Subsystem sftp internal-sftp\n")
    }

    /// With further lines of its configuration.
    pub fn configured(restriction: &str, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        keygen(&path("host_key"));
        keygen(&path("user_key"));
        let authorized = format!("{restriction}{}", public_key(&path("user_key")));
        fs::write(path("authorized_keys"), authorized).unwrap();
        // As root it wants this directory for its unprivileged part.
        let _ = fs::create_dir_all("/run/sshd");
        let server = Server::start(dir.path(), |port| {
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/authorized_keys\n\
                 PidFile none\nUsePAM no\nPasswordAuthentication no\nStrictModes no\nMaxStartups 100\n\
                 PermitRootLogin prohibit-password\n{lines}",
                dir.path().display()
            );
            fs::write(dir.path().join("sshd_config"), config).unwrap();
            let mut command = Command::new("/usr/sbin/sshd");
            command
                .args(["-D", "-e", "-f"])
                .arg(dir.path().join("sshd_config"));
            command
        });
        let known = format!(
            "[127.0.0.1]:{} {}",
            server.port,
            public_key(&path("host_key"))
        );
        fs::write(path("known_hosts"), known).unwrap();
        fs::create_dir(path("files")).unwrap();
        Self { server, dir }
    }

    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The user and the machine, as ssh takes them.
    pub fn login(&self) -> String {
        format!("{}@127.0.0.1", user())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The command that reaches it: with its key, and knowing its host key.
    pub fn ssh(&self) -> String {
        self.ssh_with("user_key", "known_hosts")
    }

    pub fn ssh_with(&self, key: &str, known_hosts: &str) -> String {
        let dir = self.dir.path().display();
        format!("ssh -F none -i {dir}/{key} -o UserKnownHostsFile={dir}/{known_hosts}")
    }

    /// A key that it does not know.
    pub fn stranger(&self) -> &'static str {
        keygen(&self.dir.path().join("stranger_key"));
        "stranger_key"
    }

    pub fn url(&self, below: &str) -> String {
        self.url_by("rsync", self.port(), below)
    }

    pub fn sftp_url(&self, below: &str) -> String {
        self.url_by("sftp", self.port(), below)
    }

    pub fn url_by(&self, scheme: &str, port: u16, below: &str) -> String {
        let (user, files) = (user(), self.files());
        format!(
            "{scheme}://{user}@127.0.0.1:{port}{}{below}",
            files.display()
        )
    }

    pub fn spec(&self, below: &str) -> TargetSpec {
        TargetSpec {
            ssh: Some(self.ssh()),
            ..TargetSpec::from_url(&self.url(below))
        }
    }

    pub fn sftp_spec(&self, below: &str) -> TargetSpec {
        TargetSpec {
            ssh: Some(self.ssh()),
            ..TargetSpec::from_url(&self.sftp_url(below))
        }
    }
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub struct RsyncDaemon {
    server: Server,
    dir: tempfile::TempDir,
    secrets: Option<tempfile::NamedTempFile>,
}

impl RsyncDaemon {
    /// With the module `m`.
    pub fn start() -> Self {
        Self::configured("")
    }

    /// For one user of its own.
    pub fn with_user(name: &str, password: &str) -> Self {
        let secrets = tempfile::NamedTempFile::new().unwrap();
        fs::write(secrets.path(), format!("{name}:{password}\n")).unwrap();
        let lines = format!(
            "auth users = {name}\nsecrets file = {}\n",
            secrets.path().display()
        );
        Self {
            secrets: Some(secrets),
            ..Self::configured(&lines)
        }
    }

    fn configured(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let files = dir.path().join("files");
        fs::create_dir(&files).unwrap();
        let ids = match user().as_str() {
            "root" => "uid = root\ngid = root\n",
            _ => "",
        };
        let config = format!(
            "{ids}use chroot = no\n[m]\npath = {}\nread only = no\n{lines}",
            files.display()
        );
        fs::write(dir.path().join("rsyncd.conf"), config).unwrap();
        let server = Server::start(dir.path(), |port| {
            let mut command = Command::new("rsync");
            command
                .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--config={}/rsyncd.conf", dir.path().display()));
            command
        });
        Self {
            server,
            dir,
            secrets: None,
        }
    }

    pub fn spec(&self, below: &str) -> TargetSpec {
        TargetSpec::from_url(&format!("rsync://127.0.0.1:{}/m{below}", self.server.port))
    }
}
