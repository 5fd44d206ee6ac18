//! Fetching through a proxy and over TLS, with the real program and hosts that no name server knows.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use super::model;
use super::server::Fake;
use crate::support::{shimmy, stderr, stdout};

/// Leads every connection to the fake, whatever host it is for.
struct Proxy {
    address: String,
    /// First lines of what connections asked for.
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// With `tls`, what comes through a tunnel is taken for a client of the host in the test's certificate.
    fn start(fake: &Fake, tls: Option<TlsAcceptor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (to, told) = (fake.address.trim_start_matches("http://").to_owned(), Arc::clone(&asked));
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, to.clone(), tls.clone(), Arc::clone(&told)));
            }
        });
        Self { address, asked, _runtime: runtime }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn lead(
    mut client: TcpStream,
    to: String,
    tls: Option<TlsAcceptor>,
    told: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let tunnel = first.starts_with("CONNECT ");
    told.lock().unwrap().push(first);
    let mut server = TcpStream::connect(to).await?;
    if !tunnel {
        server.write_all(&head).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    if let Some(tls) = tls {
        copy_bidirectional(&mut tls.accept(client).await?, &mut server).await?;
    }
    Ok(())
}

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pull/tls/ca.pem");

/// Signed by [`CA`] for `hub.test`, for a hundred years.
fn acceptor() -> TlsAcceptor {
    let certificates =
        CertificateDer::pem_slice_iter(include_bytes!("tls/server.pem")).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn pull(cache: &Path, endpoint: &str, more: &[(&str, &str)]) -> Output {
    let mut command: Command = shimmy();
    for key in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(key).env_remove(key.to_lowercase());
    }
    command.env("XDG_CACHE_HOME", cache).env("HF_ENDPOINT", endpoint).envs(more.iter().copied());
    command.args(["pull", "hf:Org/M-GGUF"]).output().unwrap()
}

fn repository(fake: &Fake) {
    fake.repository("Org/M-GGUF", &[("M-Q4_0.gguf", &model(1, 1))]);
}

#[test]
fn a_proxy_is_asked_for_what_lies_behind_it() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    repository(&fake);
    let proxy = Proxy::start(&fake, None);
    let output = pull(cache.path(), "http://hub.test", &[("HTTP_PROXY", &proxy.address)]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "org/m-gguf:q4_0\n");
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.starts_with("GET http://hub.test/")), "{asked:?}");
    assert!(!fake.asked().is_empty());
}

#[test]
fn a_hub_over_tls_is_believed_with_the_authority_that_signed_it_and_not_without() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    repository(&fake);
    let proxy = Proxy::start(&fake, Some(acceptor()));
    let through = ("HTTPS_PROXY", proxy.address.as_str());
    let refused = pull(cache.path(), "https://hub.test", &[through]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("certificate"), "{}", stderr(&refused));
    assert_eq!(proxy.asked(), ["CONNECT hub.test:443 HTTP/1.1"], "trying again would not change it");
    assert!(fake.asked().is_empty());
    let output = pull(cache.path(), "https://hub.test", &[through, ("SSL_CERT_FILE", CA)]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "org/m-gguf:q4_0\n");
    // It is not the host that the certificate is for.
    let other = pull(cache.path(), "https://other.test", &[through, ("SSL_CERT_FILE", CA)]);
    assert!(!other.status.success() && stderr(&other).contains("certificate"), "{}", stderr(&other));
}
