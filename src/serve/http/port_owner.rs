//! Which program listens on a port of this machine, as far as /proc shows it.

use std::net::SocketAddr;

/// Returns the program that listens on the port, such as `sealift (pid 812)`. `None`: not known.
pub(super) fn of(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&std::fs::read_to_string(table).ok()?, address.port()))?;
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Those of other users cannot be read.
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let mut links = files.flatten().map(|file| std::fs::read_link(file.path()));
        if links.any(|link| link.is_ok_and(|link| link.as_os_str() == wanted.as_str())) {
            let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// Returns the inode of the socket that listens on `port`, by the text of `/proc/net/tcp`.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTENING: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTENING;
        is_it.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let owner = of(address).unwrap();
        let pid = std::process::id();
        assert!(owner.ends_with(&format!(" (pid {pid})")), "{owner}");
        drop(listener);
        assert_eq!(of(address), None);
    }
}
