//! Finds URLs such as `usb:/backups` in which the word before `:/` may be no machine.
//!
//! ssh reads that as a folder of the machine `usb`. If neither ssh's configuration nor the name
//! service knows such a machine, the operator most likely meant something else, and learns it at
//! once instead of after minutes of retries.

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::foreign_url;
use super::ssh;

/// How long to wait for the name service. If it does not answer, ssh will find out.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns what to ask the operator about `url`, if its machine is unknown.
pub(super) fn doubt(url: &str, ssh: Option<&str>) -> Option<String> {
    let (word, path) = url.split_once(':')?;
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if word.is_empty() || !word.chars().all(is_bare) || path.starts_with("//") {
        return None;
    }
    let other = foreign_url::perhaps(url);
    let path = match (path.strip_prefix('/'), &other) {
        (Some(path), _) => path,
        (None, Some(_)) => path,
        (None, None) => return None,
    };
    let words = ssh::words(ssh.unwrap_or("ssh"))?;
    let is_ssh = |command: &String| Path::new(command).file_name() == Some("ssh".as_ref());
    if !words.first().is_some_and(is_ssh) {
        return None;
    }
    let (answer, answered) = mpsc::channel();
    let name = word.to_owned();
    let look = move || {
        let _ = answer.send(is_in_configuration(&words, &name) || is_in_name_service(&name));
    };
    let thread = std::thread::Builder::new().name("look up".to_owned());
    thread.spawn(look).ok()?;
    match answered.recv_timeout(LOOKUP_TIMEOUT) {
        Ok(false) => {
            let unknown = format!(
                "means the machine {word:?}, which neither the name service (DNS) nor ssh's configuration knows"
            );
            Some(match other {
                Some(other) => format!("{unknown}; or {other}"),
                None => format!(
                    "{unknown}; for a folder here write /{path} or ./{word}:/{path}, for another machine \
                     USER@HOST:/{path} with a known host name"
                ),
            })
        }
        _ => None,
    }
}

/// Whether ssh's configuration maps this name to another host or a proxy. True if ssh does not
/// answer.
fn is_in_configuration(words: &[String], name: &str) -> bool {
    let Some((program, options)) = words.split_first() else {
        return true;
    };
    let mut command = Command::new(program);
    let command = command.args(options).arg("-G").arg(name);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return true;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().any(|line| match line.split_once(' ') {
        Some(("hostname", host)) => !host.eq_ignore_ascii_case(name),
        Some(("proxycommand" | "proxyjump", way)) => way != "none",
        _ => false,
    })
}

fn is_in_name_service(name: &str) -> bool {
    (name, 22).to_socket_addrs().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_names_are_questioned() {
        let text = doubt("usb-disk-of-nobody:/backups", None).unwrap();
        assert!(
            text.contains("write /backups or ./usb-disk-of-nobody:/backups"),
            "{text}"
        );
        for url in [
            "localhost:/backups",
            "me@usb-disk-of-nobody:/backups",
            "usb-disk-of-nobody.example:/backups",
            "usb-disk-of-nobody:backups",
            "/usb:/x",
            "s3://bucket",
        ] {
            assert_eq!(doubt(url, None), None, "{url}");
        }
        let text = doubt("gdrive:backups", None).unwrap();
        assert!(text.contains("rclone serve"), "{text}");
        assert_eq!(doubt("usb-disk-of-nobody:/x", Some("my-ssh -x")), None);
        let configured = "ssh -o HostName=127.0.0.1";
        assert_eq!(doubt("usb-disk-of-nobody:/x", Some(configured)), None);
    }
}
