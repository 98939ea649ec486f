//! What lies between this host and a server: proxies, and certificates that count or do not. All of it is read from the
//! environment by the HTTP client, so the program itself is run.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::{Host, texts};

/// A folder, and a bucket at `endpoint`.
fn host_with_bucket(endpoint: &str) -> Host {
    let host = Host::new();
    fs::write(host.data().join("f"), "x").unwrap();
    let bucket = format!(
        "\n[[target]]\nname = \"bucket\"\nurl = \"s3://bucket/x\"\nendpoint = \"{endpoint}\"\nretry = \"0s\"\ntimeout = \"5s\"\n"
    );
    fs::write(host.path("c.toml"), host.config() + &bucket).unwrap();
    host
}

/// Why the bucket is behind; the folder has its snapshot.
fn why(host: &Host, variables: &[(&str, &str)]) -> String {
    let mut command = host.command(&["backup"]);
    command.envs([
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
    ]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(
        out.contains("published") && !format!("{out}{err}").contains("hunter2"),
        "{out}{err}"
    );
    let line = out.lines().find(|line| line.contains("BEHIND")).unwrap();
    line.to_owned()
}

#[test]
fn a_dead_proxy_is_named_with_its_variable() {
    let host = host_with_bucket("http://storage.invalid:9000");
    let dead = "http://me:hunter2@127.0.0.1:1";
    let said = why(&host, &[("http_proxy", dead)]);
    let words = "the proxy 127.0.0.1:1 (http_proxy) refuses the connection";
    assert!(
        said.contains(words) && said.contains("on the way to storage.invalid:9000"),
        "{said}"
    );
    let said = why(&host, &[("ALL_PROXY", dead)]);
    assert!(
        said.contains("the proxy 127.0.0.1:1 (ALL_PROXY) refuses"),
        "{said}"
    );
    let said = why(
        &host,
        &[("http_proxy", dead), ("NO_PROXY", "storage.invalid")],
    );
    assert!(
        said.contains("the name of storage.invalid:9000 cannot be resolved"),
        "{said}"
    );
    let said = why(&host, &[("HTTP_PROXY", "socks5h://me:hunter2@127.0.0.1:1")]);
    assert!(said.contains("HTTP_PROXY names a socks5h proxy"), "{said}");
}

const SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(403); self.send_header("Content-Length", "0"); self.end_headers()
    do_PUT = do_HEAD = do_GET
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
open(sys.argv[3] + ".part", "w").write(str(server.server_address[1]))
import os; os.rename(sys.argv[3] + ".part", sys.argv[3]); server.serve_forever()
"#;

/// A server that refuses everything, over TLS.
struct TlsServer(Child, u16);

impl TlsServer {
    fn start(dir: &Path, certificate: &str) -> Self {
        let port = dir.join(format!("{certificate}.port"));
        let started = Command::new("python3")
            .args(["-c", SERVER])
            .arg(dir.join(format!("{certificate}.pem")))
            .arg(dir.join(format!("{certificate}.key")))
            .arg(&port)
            .stdin(Stdio::null())
            .spawn();
        let mut server = Self(started.unwrap(), 0);
        let began = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(&port) {
                server.1 = text.parse().unwrap();
                return server;
            }
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority `ca`, a certificate `leaf` that it signed for this machine, and one, `own`, that says it is its own
/// authority. `false`: there is no openssl.
fn certificates(dir: &Path) -> bool {
    let script = "set -e
        key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.pem -days 3 -subj /CN=ca
        openssl req $key -keyout leaf.key -out leaf.csr -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile ext -out leaf.pem
        openssl req -x509 $key -keyout own.key -out own.pem -days 3 -subj /CN=localhost -addext subjectAltName=DNS:localhost";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    match made.status.code() {
        Some(127) => false,
        code => {
            assert_eq!(code, Some(0), "{}", texts(&made).1);
            true
        }
    }
}

#[test]
fn authorities_are_named_as_for_other_tools_and_certificates_explained() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        println!("SKIPPED: no openssl");
        return;
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (ca, own) = (path("ca.pem"), path("own.pem"));
    let server = TlsServer::start(dir.path(), "leaf");
    let host = host_with_bucket(&format!("https://localhost:{}", server.1));
    for variable in ["SSL_CERT_FILE", "AWS_CA_BUNDLE"] {
        let said = why(&host, &[(variable, &ca)]);
        assert!(said.contains("answered 403"), "{variable}: {said}");
        let missing = path("missing.pem");
        let said = why(&host, &[(variable, &missing)]);
        let named = format!("{variable} names {missing}, which cannot be read");
        assert!(said.contains(&named), "{said}");
        let said = why(&host, &[(variable, "/etc/hostname")]);
        assert!(
            said.contains(variable) && said.contains("holds no certificate"),
            "{said}"
        );
    }
    // With a limit the client is another one.
    let limited = host
        .config()
        .replace("retry = \"0s\"", "retry = \"0s\"\nupload = \"1MB\"");
    fs::write(host.path("c.toml"), limited).unwrap();
    let said = why(&host, &[("AWS_CA_BUNDLE", &ca)]);
    assert!(said.contains("answered 403"), "{said}");
    fs::create_dir(host.path(".aws")).unwrap();
    fs::write(
        host.path(".aws/config"),
        format!("[default]\n  ca_bundle = {ca}\n"),
    )
    .unwrap();
    let said = why(&host, &[]);
    assert!(said.contains("answered 403"), "{said}");
    fs::remove_file(host.path(".aws/config")).unwrap();
    let said = why(&host, &[("SSL_CERT_FILE", &own)]);
    assert!(
        said.contains("is signed by an unknown authority") && said.contains("AWS_CA_BUNDLE"),
        "{said}"
    );
    let server = TlsServer::start(dir.path(), "own");
    let host = host_with_bucket(&format!("https://localhost:{}", server.1));
    let said = why(&host, &[("SSL_CERT_FILE", &own)]);
    assert!(
        said.contains("is self-signed") && said.contains("basicConstraints=CA:FALSE"),
        "{said}"
    );
}
