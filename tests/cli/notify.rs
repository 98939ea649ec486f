//! Mail over TLS: the certificates that count are those of the environment, so the program itself is run.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::{Host, texts};

/// A mail server that keeps what it gets in `mail.txt`: TLS from the first byte, or STARTTLS.
const SERVER: &str = r#"
import os, socket, ssl, sys
mode, directory = sys.argv[1], sys.argv[2]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory + "/leaf.pem", directory + "/leaf.key")
listener = socket.create_server(("127.0.0.1", 0))
part = directory + "/" + mode + ".part"
open(part, "w").write(str(listener.getsockname()[1])); os.rename(part, directory + "/" + mode + ".port")
def serve(connection):
    got, data, secure = [], False, mode == "tls"
    if secure: connection = context.wrap_socket(connection, server_side=True)
    stream = connection.makefile("rwb", buffering=0)
    stream.write(b"220 hello\r\n")
    while True:
        line = stream.readline().decode().rstrip("\r\n")
        got.append(line)
        if data:
            if line != ".": continue
            data = False
            open(directory + "/mail.txt", "w").write("\n".join(got))
            stream.write(b"250 queued\r\n"); continue
        verb = line.upper().split(" ")[0]
        if verb == "EHLO":
            stream.write(b"250-hi\r\n250 AUTH PLAIN\r\n" if secure else b"250-hi\r\n250 STARTTLS\r\n")
        elif verb == "STARTTLS":
            stream.write(b"220 go\r\n")
            connection = context.wrap_socket(connection, server_side=True)
            stream, secure = connection.makefile("rwb", buffering=0), True
        elif verb == "AUTH": stream.write(b"235 ok\r\n")
        elif verb == "DATA": data = True; stream.write(b"354 go\r\n")
        elif verb in ("QUIT", ""): return
        else: stream.write(b"250 ok\r\n")
while True:
    connection, _ = listener.accept()
    try: serve(connection)
    except OSError as error: pass
    finally: connection.close()
"#;

struct MailServer(Child, u16);

impl MailServer {
    fn start(mode: &str, dir: &Path) -> Self {
        let started = Command::new("python3")
            .args(["-c", SERVER, mode])
            .arg(dir)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let file = dir.join(format!("{mode}.port"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !file.exists() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        let port = fs::read_to_string(file).unwrap().parse().unwrap();
        Self(started, port)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn mail_goes_over_tls_that_the_authorities_of_the_environment_vouch_for() {
    let dir = tempfile::tempdir().unwrap();
    let script = "set -e
        key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.pem -days 3 -subj /CN=ca
        openssl req $key -keyout leaf.key -out leaf.csr -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile ext -out leaf.pem";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    if made.status.code() == Some(127) {
        println!("SKIPPED: no openssl");
        return;
    }
    assert!(made.status.success(), "{}", texts(&made).1);
    let host = Host::new();
    let plain = host.config();
    fs::write(host.path("password"), "hunter2\n").unwrap();
    for (mode, scheme) in [("tls", "smtps"), ("starttls", "smtp+starttls")] {
        let server = MailServer::start(mode, dir.path());
        let channel = format!(
            "\n[[notify]]\nkind = \"email\"\nsmtp = \"{scheme}://me@localhost:{}\"\npassword_file = \"password\"\n\
             from = \"a@example.org\"\nto = [\"b@example.org\"]\n",
            server.1
        );
        fs::write(host.path("c.toml"), format!("{plain}{channel}")).unwrap();
        let (out, err) = host.exits(&["notify", "test"], 1);
        let said = format!("{out}{err}");
        assert!(said.contains("not sent: no"), "{said}");
        assert!(
            said.contains("ertificate") && !said.contains("hunter2"),
            "{said}"
        );
        assert!(!dir.path().join("mail.txt").exists());
        let mut command = host.command(&["notify", "test"]);
        let command = command.env("SSL_CERT_FILE", dir.path().join("ca.pem"));
        let output = command.output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(
            out.contains("email (email): sent, answer 250 queued"),
            "{out}"
        );
        let mail = fs::read_to_string(dir.path().join("mail.txt")).unwrap();
        assert!(mail.contains("AUTH PLAIN"), "{mail}");
        assert!(mail.contains("Auto-Submitted: auto-generated"), "{mail}");
        fs::remove_file(dir.path().join("mail.txt")).unwrap();
    }
}
