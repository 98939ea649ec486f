//! A real S3 protocol server inside the test: `s3s` over a scratch folder, on 127.0.0.1.
//!
//! Include it with `#[path = "support/s3.rs"] mod s3;`. The server lives until it is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use sealift::storage::{Environment, TargetSpec};
use tokio::sync::oneshot;

use super::host::texts;

pub const BUCKET: &str = "backups";

/// What comes before the server: an answer of its own to some requests, or `None`.
pub type Hook =
    Arc<dyn Fn(&http::Request<Incoming>) -> Option<http::Response<String>> + Send + Sync>;

/// What comes after the server: an answer's body to replace its own, or `None`. It sees the request's URI.
pub type Rewrite = Arc<dyn Fn(&http::Uri, &str) -> Option<String> + Send + Sync>;

/// An answer with an S3 error's body.
pub fn error_answer(status: u16, code: &str) -> http::Response<String> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    http::Response::builder().status(status).body(body).unwrap()
}

pub struct S3Server {
    pub address: SocketAddr,
    pub access_key: String,
    pub secret_key: String,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn random_text() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).unwrap();
    sealift::base::ids::hex(&bytes)
}

impl S3Server {
    /// Starts a server with an empty bucket, [`BUCKET`], and credentials of its own.
    pub fn start() -> Self {
        Self::start_with(Arc::new(|_| None))
    }

    /// The same behind `hook`.
    pub fn start_with(hook: Hook) -> Self {
        Self::start_between(hook, Arc::new(|_, _| None))
    }

    /// The same with `rewrite` behind it; answers that are not small text are left alone.
    pub fn start_between(hook: Hook, rewrite: Rewrite) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let (access_key, secret_key) = (random_text(), random_text());
        let mut service = S3ServiceBuilder::new(FileSystem::new(dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(&access_key, secret_key.as_str()));
        let service = service.build();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let server = Builder::new(TokioExecutor::new());
                loop {
                    let accept = std::pin::pin!(listener.accept());
                    let socket = match futures::future::select(accept, &mut stopped).await {
                        futures::future::Either::Left((Ok((socket, _)), _)) => socket,
                        futures::future::Either::Left((Err(_), _)) => continue,
                        futures::future::Either::Right(_) => return,
                    };
                    let (service, hook) = (service.clone(), hook.clone());
                    let rewrite = rewrite.clone();
                    let hooked = service_fn(move |request: http::Request<Incoming>| {
                        let (service, answer) = (service.clone(), hook(&request));
                        let (rewrite, uri) = (rewrite.clone(), request.uri().clone());
                        async move {
                            match answer {
                                Some(answer) => Ok(answer.map(s3s::Body::from)),
                                None => {
                                    let request = request.map(s3s::Body::from);
                                    let answer = service.call(request).await?;
                                    Ok::<_, s3s::HttpError>(rewritten(answer, &uri, &rewrite).await)
                                }
                            }
                        }
                    });
                    let connection = server.serve_connection(TokioIo::new(socket), hooked);
                    let connection = connection.into_owned();
                    tokio::spawn(async move {
                        let _ = connection.await;
                    });
                }
            });
        });
        Self {
            address,
            access_key,
            secret_key,
            dir,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn spec(&self, prefix: &str) -> TargetSpec {
        TargetSpec {
            endpoint: Some(self.endpoint()),
            timeout_seconds: Some(60),
            retry_seconds: Some(5),
            ..TargetSpec::from_url(&format!("s3://{BUCKET}/{prefix}"))
        }
    }

    /// The variables that let a process (or [`sealift::storage::open_with`]) in.
    pub fn variables(&self) -> Vec<(&str, &str)> {
        vec![
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
        ]
    }

    /// Runs `command` with the variables that let it in.
    pub fn output_of(&self, command: &mut Command) -> Output {
        command.envs(self.variables()).output().unwrap()
    }

    /// The same for a command that must succeed.
    pub fn ok(&self, command: &mut Command) {
        let output = self.output_of(command);
        assert!(output.status.success(), "{}", texts(&output).1);
    }

    pub fn environment(&self) -> Environment {
        Environment::from_pairs(self.variables())
    }

    /// Where the bucket's objects lie as files.
    pub fn bucket_dir(&self) -> PathBuf {
        self.dir.path().join(BUCKET)
    }
}

/// Listings are XML; objects are nothing of the kind.
async fn rewritten(
    answer: http::Response<s3s::Body>,
    uri: &http::Uri,
    rewrite: &Rewrite,
) -> http::Response<s3s::Body> {
    let kind = answer.headers().get(http::header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().ends_with(b"/xml")) {
        return answer;
    }
    let (mut parts, mut body) = answer.into_parts();
    let bytes = body.store_all_limited(16 << 20).await.unwrap();
    match rewrite(uri, &String::from_utf8_lossy(&bytes)) {
        Some(text) => {
            parts.headers.remove(http::header::CONTENT_LENGTH);
            http::Response::from_parts(parts, s3s::Body::from(text))
        }
        None => http::Response::from_parts(parts, s3s::Body::from(bytes)),
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
