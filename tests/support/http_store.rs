//! An object store over HTTP, for tests: a server on the loopback that holds objects in memory, and its client. The
//! client of the crate `object_store` needs its feature `http`, which would build all of DataFusion a second time.
//!
//! `GET`, `HEAD`, `PUT` and `DELETE` do what they say; `GET /prefix/` lists, a line an object: size, ETag and path.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

type Objects = Mutex<BTreeMap<String, (u64, Vec<u8>)>>;

/// The server.
#[derive(Debug, Default)]
pub struct Server {
    objects: Objects,
    /// Versions given so far.
    versions: AtomicUsize,
    requests: AtomicUsize,
    /// The status that answers every request, if not 0.
    failing: AtomicU16,
}

impl Server {
    /// Starts a server, which runs until the process ends.
    pub fn start() -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self::default());
        let shared = Arc::clone(&server);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let server = Arc::clone(&shared);
                std::thread::spawn(move || server.answer(connection.unwrap()));
            }
        });
        (server, address)
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers everything with a status from now on; 0 ends that.
    pub fn fail(&self, status: u16) {
        self.failing.store(status, Ordering::Relaxed);
    }

    /// The paths of the objects.
    pub fn paths(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn answer(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection);
        let mut request = String::new();
        reader.read_line(&mut request).unwrap();
        let mut words = request.split_whitespace();
        let method = words.next().unwrap().to_owned();
        let path = words.next().unwrap().to_owned();
        let length = headers(&mut reader).into_iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (status, version, body) = match self.failing.load(Ordering::Relaxed) {
            0 => self.serve(&method, &path, body),
            status => (status, 0, Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nETag: \"{version}\"\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut connection = reader.into_inner();
        connection.write_all(head.as_bytes()).unwrap();
        if method != "HEAD" {
            connection.write_all(&body).unwrap();
        }
    }

    fn serve(&self, method: &str, path: &str, body: Vec<u8>) -> (u16, u64, Vec<u8>) {
        let mut objects = self.objects.lock().unwrap();
        match (method, objects.get(path)) {
            ("PUT", _) => {
                let version = self.versions.fetch_add(1, Ordering::Relaxed) as u64 + 1;
                objects.insert(path.to_owned(), (version, body));
                (200, version, Vec::new())
            }
            ("GET", None) if path.ends_with('/') => {
                let listed = objects.iter().filter(|(name, _)| name.starts_with(path));
                let lines = listed.map(|(name, (version, bytes))| format!("{} \"{version}\" {name}\n", bytes.len()));
                (200, 0, lines.collect::<String>().into_bytes())
            }
            ("DELETE", Some(_)) => {
                objects.remove(path);
                (204, 0, Vec::new())
            }
            ("GET" | "HEAD", Some((version, bytes))) => (200, *version, bytes.clone()),
            _ => (404, 0, Vec::new()),
        }
    }
}

fn headers(reader: &mut impl BufRead) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return headers,
        }
    }
}

/// The client.
#[derive(Debug)]
pub struct HttpStore(pub SocketAddr);

impl fmt::Display for HttpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpStore(http://{})", self.0)
    }
}

impl HttpStore {
    /// The object's metadata and the body of the answer.
    async fn request(&self, method: &'static str, path: String, body: Vec<u8>) -> Result<(ObjectMeta, Vec<u8>)> {
        let address = self.0;
        let url = format!("http://{}/{path}", self.0);
        let request = move || -> std::io::Result<(u16, String, u64, Vec<u8>)> {
            let mut connection = TcpStream::connect(address)?;
            connection.set_read_timeout(Some(Duration::from_secs(600)))?;
            let head =
                format!("{method} /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
            connection.write_all(head.as_bytes())?;
            connection.write_all(&body)?;
            let mut reader = BufReader::new(connection);
            let mut status = String::new();
            reader.read_line(&mut status)?;
            let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
            let headers: BTreeMap<_, _> = headers(&mut reader).into_iter().collect();
            let length: u64 = headers["content-length"].parse().unwrap();
            let mut body = vec![0; if method == "HEAD" { 0 } else { length as usize }];
            reader.read_exact(&mut body)?;
            Ok((status, headers["etag"].clone(), length, body))
        };
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: "HTTP", source };
        let answer = tokio::task::spawn_blocking(request).await.map_err(|e| failed(e.into()))?;
        let (status, e_tag, size, body) = answer.map_err(|e| failed(format!("{method} {url}: {e}").into()))?;
        let location = Path::from_url_path(url.splitn(4, '/').nth(3).unwrap())?;
        match status {
            200..=299 => {}
            404 => {
                return Err(Error::NotFound {
                    path: location.to_string(),
                    source: format!("{method} {url}: 404").into(),
                });
            }
            _ => return Err(failed(format!("{method} {url}: status {status}").into())),
        }
        // The server says no time: the ETag alone tells versions apart.
        let last_modified = SystemTime::UNIX_EPOCH.into();
        Ok((ObjectMeta { location, last_modified, size, e_tag: Some(e_tag), version: None }, body))
    }
}

#[async_trait]
impl ObjectStore for HttpStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        let body = payload.iter().flat_map(|bytes| bytes.to_vec()).collect();
        let (meta, _) = self.request("PUT", path.to_string(), body).await?;
        Ok(PutResult { e_tag: meta.e_tag, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".to_owned(), implementer: self.to_string() })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let method = if options.head { "HEAD" } else { "GET" };
        let (meta, body) = self.request(method, path.to_string(), Vec::new()).await?;
        let payload = GetResultPayload::Stream(stream::once(async { Ok(body.into()) }).boxed());
        Ok(GetResult { payload, range: 0..meta.size, meta, attributes: Default::default() })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let address = self.0;
        let delete = move |path: Result<Path>| async move {
            let path = path?;
            Self(address).request("DELETE", path.to_string(), Vec::new()).await?;
            Ok(path)
        };
        paths.then(delete).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let operation = "list".to_owned();
        stream::once(async { Err(Error::NotImplemented { operation, implementer: "HttpStore".to_owned() }) }).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.map(|p| format!("{p}/")).unwrap_or_default();
        let (meta, body) = self.request("GET", prefix, Vec::new()).await?;
        let object = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            let size = words[0].parse().unwrap();
            let e_tag = Some(words[1].to_owned());
            Ok(ObjectMeta { location: Path::from_url_path(words[2])?, size, e_tag, ..meta.clone() })
        };
        let objects = String::from_utf8(body).unwrap().lines().map(object).collect::<Result<_>>()?;
        Ok(ListResult { common_prefixes: Vec::new(), objects })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        let (_, body) = self.request("GET", from.to_string(), Vec::new()).await?;
        self.request("PUT", to.to_string(), body).await.map(drop)
    }
}
