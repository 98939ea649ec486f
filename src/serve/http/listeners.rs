//! The sockets on which the agent listens.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, sockopt};
use tokio::net::{TcpListener, UnixListener};

use super::access::AccessTokens;
use super::port_owner;
use crate::config::ListenAddress;

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) enum HttpListener {
    Tcp(TcpListener),
    /// A socket in the file system; it is removed at the end if this agent made it.
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "dropping it removes the socket")] Option<SocketFile>,
    ),
}

impl HttpListener {
    /// Returns the address that it listens on, such as for a message; `None`: it is a socket in the
    /// file system.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// The file of a socket, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone, there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why the agent does not listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Other machines reach the address, and there is no token.
    #[error(
        "cannot listen on {0} without a token: anyone who reaches this address could start backups"
    )]
    WithoutToken(String),
    /// Another program listens there.
    #[error("cannot listen on {address}: {owner} is there already")]
    Taken { address: String, owner: String },
    /// The system refuses.
    #[error("cannot listen on {address}")]
    System {
        address: String,
        #[source]
        source: io::Error,
    },
    /// What systemd passed cannot be used.
    #[error("cannot use socket {number} of systemd: {what}")]
    Passed { number: RawFd, what: String },
}

impl ListenError {
    /// Returns the next step for the operator; `None`: the error says it.
    pub(crate) fn next(&self) -> Option<&'static str> {
        match self {
            Self::WithoutToken(_) => Some("token_file in [serve], or listen on 127.0.0.1"),
            Self::Taken { .. } => Some("end it, or choose another port with listen in [serve]"),
            Self::System { .. } => Some("listen in [serve] names the address"),
            Self::Passed { .. } => Some("sealift.socket needs a stream socket that listens"),
        }
    }
}

/// Listens on `addresses`; on those that other machines reach only if a token is required. Call it
/// within a runtime.
pub(crate) fn bind(
    addresses: &[ListenAddress],
    tokens: &AccessTokens,
) -> Result<Vec<HttpListener>, ListenError> {
    let addresses = addresses.iter();
    addresses.map(|address| bind_one(address, tokens)).collect()
}

fn bind_one(address: &ListenAddress, tokens: &AccessTokens) -> Result<HttpListener, ListenError> {
    if !address.is_local() && !tokens.is_required() {
        return Err(ListenError::WithoutToken(address.to_string()));
    }
    let failed = |source: io::Error| {
        let owner = match address {
            ListenAddress::Tcp(address) => port_owner::of(*address),
            ListenAddress::Unix(_) => None,
        };
        let (is_taken, address) = (
            source.kind() == io::ErrorKind::AddrInUse,
            address.to_string(),
        );
        match is_taken {
            true => ListenError::Taken {
                owner: owner.unwrap_or_else(|| "another program".to_owned()),
                address,
            },
            false => ListenError::System { address, source },
        }
    };
    match address {
        ListenAddress::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = TcpListener::from_std(listener);
            listener.map(HttpListener::Tcp).map_err(failed)
        }
        ListenAddress::Unix(path) => {
            remove_abandoned(path);
            let listener = UnixListener::bind(path).map_err(failed)?;
            let file = SocketFile(path.clone());
            // Who may use it is decided by its directory and its group.
            let mode = std::fs::Permissions::from_mode(0o660);
            std::fs::set_permissions(path, mode).map_err(failed)?;
            Ok(HttpListener::Unix(listener, Some(file)))
        }
    }
}

/// Removes the file of a socket on which no program listens any more.
fn remove_abandoned(path: &Path) {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if StdUnixStream::connect(path).is_err_and(|error| refused(&error)) {
        // If that fails, the bind reports it.
        let _ = std::fs::remove_file(path);
    }
}

/// Returns the sockets that systemd passed to this process; none if it passed none. Call it once,
/// within a runtime.
pub(crate) fn from_systemd(tokens: &AccessTokens) -> Result<Vec<HttpListener>, ListenError> {
    let passed = sd_notify::listen_fds().map_err(|error| ListenError::Passed {
        number: 3,
        what: error.to_string(),
    })?;
    passed.map(|number| from_number(number, tokens)).collect()
}

/// Takes one of them.
pub(super) fn from_number(
    number: RawFd,
    tokens: &AccessTokens,
) -> Result<HttpListener, ListenError> {
    let failed = |what: String| ListenError::Passed { number, what };
    let socket = adopt(number);
    let accepts = sockopt::socket_acceptconn(&socket);
    if !accepts.map_err(|error| failed(error.to_string()))? {
        return Err(failed("it does not listen".to_owned()));
    }
    let family = rustix::net::getsockname(&socket).map(|address| address.address_family());
    let failed_by = |error: io::Error| failed(error.to_string());
    match family.map_err(|error| failed(error.to_string()))? {
        AddressFamily::UNIX => {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true).map_err(failed_by)?;
            let listener = UnixListener::from_std(listener).map_err(failed_by)?;
            Ok(HttpListener::Unix(listener, None))
        }
        _ => {
            let listener = std::net::TcpListener::from(socket);
            let address = ListenAddress::Tcp(listener.local_addr().map_err(failed_by)?);
            if !address.is_local() && !tokens.is_required() {
                return Err(ListenError::WithoutToken(address.to_string()));
            }
            listener.set_nonblocking(true).map_err(failed_by)?;
            let listener = TcpListener::from_std(listener).map_err(failed_by)?;
            Ok(HttpListener::Tcp(listener))
        }
    }
}

#[allow(unsafe_code, reason = "systemd passes sockets as numbers")]
fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: systemd opened it for this process (`LISTEN_PID`), and nothing else here uses it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
