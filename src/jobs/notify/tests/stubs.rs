//! Servers that keep what they get.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// A request of HTTP, or a mail.
#[derive(Debug, Clone, Default)]
pub(super) struct Got {
    /// The path and the query; empty for a mail.
    pub(super) path: String,
    /// Header lines, in lower case for HTTP.
    pub(super) head: String,
    pub(super) body: String,
}

impl Got {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone)]
pub(super) struct Stub {
    pub(super) port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    /// What is answered.
    status: Arc<AtomicU16>,
}

impl Stub {
    /// A server of HTTP that answers 200.
    pub(super) fn http() -> Self {
        Self::start(200, serve_http)
    }

    /// A mail server that accepts mail by 250. It offers no STARTTLS.
    pub(super) fn smtp() -> Self {
        Self::start(250, serve_smtp)
    }

    fn start(status: u16, serve: fn(&Stub, TcpStream) -> std::io::Result<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self {
            port: listener.local_addr().unwrap().port(),
            got: Arc::default(),
            status: Arc::new(AtomicU16::new(status)),
        };
        let own = stub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || serve(&own, stream));
            }
        });
        stub
    }

    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What was accepted since the last call.
    pub(super) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().unwrap())
    }

    /// Keeps `got` if it is accepted, and returns the status.
    fn receive(&self, got: Got) -> u16 {
        let status = self.status.load(Ordering::SeqCst);
        if (200..300).contains(&status) {
            self.got.lock().unwrap().push(got);
        }
        status
    }
}

fn serve_http(stub: &Stub, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut got = Got {
        path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
        ..Got::default()
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let line = line.trim_end();
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let name = name.to_lowercase();
        if name == "content-length" {
            length = value.parse().unwrap_or(0);
        }
        got.head.push_str(&format!("{name}: {value}\n"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    got.body = String::from_utf8_lossy(&body).into_owned();
    let echo = got.path.clone();
    let status = stub.receive(got);
    let body = match status {
        200 => "{\"id\":\"abc\"}".to_owned(),
        _ => format!("no {echo} here"),
    };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn serve_smtp(stub: &Stub, mut stream: TcpStream) -> std::io::Result<()> {
    let reader = BufReader::new(stream.try_clone()?);
    let mut lines = reader.lines();
    let mut head = String::new();
    stream.write_all(b"220 stub ESMTP\r\n")?;
    while let Some(line) = lines.next() {
        let line = line?;
        head.push_str(&format!("{line}\n"));
        let verb = line.split(' ').next().unwrap_or_default().to_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-stub\r\n250 AUTH PLAIN LOGIN".to_owned(),
            "AUTH" => "235 ok".to_owned(),
            "MAIL" | "RCPT" => "250 ok".to_owned(),
            "QUIT" => {
                stream.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let mut body = String::new();
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    body.push_str(&format!("{line}\n"));
                }
                let got = Got {
                    head: head.clone(),
                    body,
                    ..Got::default()
                };
                match stub.receive(got) {
                    250 => "250 queued as 4711".to_owned(),
                    status => format!("{status} not now"),
                }
            }
            _ => "502 what".to_owned(),
        };
        write!(stream, "{answer}\r\n")?;
    }
    Ok(())
}

/// A channel of each kind that has a server, and the servers.
pub(super) struct Servers {
    pub(super) webhook: Stub,
    pub(super) ntfy: Stub,
    pub(super) email: Stub,
    pub(super) healthchecks: Stub,
}

impl Servers {
    pub(super) fn start() -> Self {
        Self {
            webhook: Stub::http(),
            ntfy: Stub::http(),
            email: Stub::smtp(),
            healthchecks: Stub::http(),
        }
    }

    /// The tables of the configuration.
    pub(super) fn channels(&self) -> String {
        format!(
            "[[notify]]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/hook\"\n\
             [[notify]]\nkind = \"ntfy\"\nurl = \"http://127.0.0.1:{}/topic\"\n\
             [[notify]]\nkind = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"sealift@example.org\"\n\
             to = [\"Me <me@example.org>\"]\n\
             [[notify]]\nkind = \"healthchecks\"\nurl = \"http://127.0.0.1:{}/uuid/\"\n",
            self.webhook.port, self.ntfy.port, self.email.port, self.healthchecks.port
        )
    }

    pub(super) fn all(&self) -> [&Stub; 4] {
        [&self.webhook, &self.ntfy, &self.email, &self.healthchecks]
    }

    /// Makes all of them refuse, or accept again.
    pub(super) fn set_down(&self, is_down: bool) {
        for stub in [&self.webhook, &self.ntfy, &self.healthchecks] {
            stub.answer(if is_down { 503 } else { 200 });
        }
        self.email.answer(if is_down { 451 } else { 250 });
    }

    /// The titles of the messages that each channel got since the last call, and the pings.
    pub(super) fn titles(&self) -> [Vec<String>; 4] {
        let webhook = self.webhook.take();
        let events = webhook
            .iter()
            .map(|got| got.json()["event"].as_str().unwrap().to_owned());
        let lines = |stub: &Stub, name: &str, of_body: bool| {
            let got = stub.take();
            let texts = got
                .iter()
                .map(|got| if of_body { &got.body } else { &got.head });
            let lines = texts.filter_map(|text| {
                let line = text.lines().find(|line| line.starts_with(name))?;
                Some(line[name.len()..].trim().to_owned())
            });
            lines.collect::<Vec<_>>()
        };
        let pings = self.healthchecks.take();
        let pings = pings.iter().map(|got| {
            let path = got.path.split('?').next().unwrap_or_default();
            path.trim_start_matches("/uuid").to_owned()
        });
        [
            events.collect(),
            lines(&self.ntfy, "title: sealift dalidou:", false),
            lines(&self.email, "Subject: sealift dalidou:", true),
            pings.collect(),
        ]
    }
}
