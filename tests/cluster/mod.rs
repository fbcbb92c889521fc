//! A scheduler and executors as processes on the loopback interface.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// After this time, processes that have not found each other hang: far longer than a loaded machine takes.
const START: Duration = Duration::from_secs(600);

/// The paths of the binaries.
#[derive(Clone)]
pub struct Binaries {
    pub scheduler: PathBuf,
    pub executor: PathBuf,
}

/// A process with its log.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(command: &mut Command, folder: &Path, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let command = command.current_dir(folder).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A cluster; its processes end with it. The logs are in its folder.
pub struct Cluster {
    pub folder: PathBuf,
    /// Environment variables of executors that are started from now on.
    pub environment: Vec<(&'static str, String)>,
    port: u16,
    binaries: Binaries,
    scheduler: Process,
    executors: Vec<Process>,
}

impl Cluster {
    /// A scheduler, whose relative paths begin at `at`, and which takes executors for dead after so many seconds
    /// without a sign of life. They send one a second, so that few seconds are for who kills one: a loaded machine
    /// holds up those that live.
    pub fn start(binaries: &Binaries, folder: &Path, at: &Path, executor_timeout: u32) -> Self {
        fs::create_dir_all(folder).unwrap();
        let port = free_port();
        let arguments =
            ["--port", &port.to_string(), "--executor-timeout", &executor_timeout.to_string()].map(str::to_owned);
        let log = folder.join("scheduler.log");
        let scheduler = Process::start(Command::new(&binaries.scheduler).args(arguments), at, log);
        let folder = folder.to_owned();
        let binaries = binaries.clone();
        let mut cluster = Self { folder, environment: Vec::new(), port, binaries, scheduler, executors: Vec::new() };
        cluster.wait("the scheduler", |this| http(this.port, "/healthz").is_some_and(|answer| answer.contains("200")));
        cluster
    }

    /// Starts an executor of `tasks` tasks at a time, whose relative paths begin at `at`, and waits until it is ready.
    pub fn add_executor(&mut self, tasks: usize, at: &Path) {
        let number = self.executors.len();
        let name = format!("executor-{number}");
        let arguments = [
            ("--scheduler-port", self.port.to_string()),
            ("--port", free_port().to_string()),
            ("--grpc-port", free_port().to_string()),
            ("--tasks", tasks.to_string()),
            ("--heartbeat", "1".to_owned()),
        ];
        let arguments: Vec<_> = arguments.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect();
        let log = self.folder.join(format!("{name}.log"));
        let mut command = Command::new(&self.binaries.executor);
        command.args(arguments).envs(self.environment.iter().map(|(key, value)| (key, value)));
        self.executors.push(Process::start(&mut command, at, log));
        let ready = format!("ready: {} executors", number + 1);
        self.wait(&name, |this| http(this.port, "/readyz").is_some_and(|answer| answer.contains(&ready)));
    }

    fn wait(&mut self, what: &str, ready: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !ready(self) {
            let all = self.executors.iter_mut().chain([&mut self.scheduler]);
            for process in all {
                if let Some(status) = process.child.try_wait().unwrap() {
                    panic!("{what}: a process ended with {status}: {}", process.log());
                }
            }
            assert!(start.elapsed() < START, "{what} did not start; logs in {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("df://127.0.0.1:{}", self.port)
    }

    /// The number of times that an executor's log has a text.
    pub fn logged(&self, executor: usize, text: &str) -> usize {
        self.executors[executor].log().matches(text).count()
    }

    /// Stops an executor for a while.
    pub fn pause(&self, executor: usize) {
        self.signal(executor, "-STOP");
    }

    /// Lets a paused executor go on.
    pub fn resume(&self, executor: usize) {
        self.signal(executor, "-CONT");
    }

    fn signal(&self, executor: usize, signal: &str) {
        let pid = self.executors[executor].child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends an executor as a crash does.
    pub fn kill(&mut self, executor: usize) {
        let process = &mut self.executors[executor];
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.executors.iter_mut().chain([&mut self.scheduler]) {
            // It may have ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the logs of scheduler and executors are in {}", self.folder.display());
        }
    }
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer to a GET; `None` if nobody answers.
fn http(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
