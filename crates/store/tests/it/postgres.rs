//! A PostgreSQL server for the tests: started by the first that needs it, ended with the process.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_postgres::{Client, NoTls};

/// The user that the server runs as where the tests run as root, which PostgreSQL refuses: `nobody`.
const NOBODY: u32 = 65_534;

/// Makes a cluster in `$1`, serves it on a socket there until standard input ends, and removes it.
const SERVE: &str = r#"
set -e
initdb -D "$1/data" -U muster -A trust -E UTF8 --locale=C --no-sync --no-instructions >"$1/initdb.log" 2>&1 ||
    { cat "$1/initdb.log"; exit 1; }
postgres -D "$1/data" -c listen_addresses= -c unix_socket_directories="$1" -c fsync=off -c max_connections=200 2>&1 &
server=$!
read -r _ || true
kill -INT "$server"
wait "$server" || true
rm -rf "$1"
"#;

struct Server {
    sockets: PathBuf,
    /// When it closes, with this process, the server ends.
    _ends: ChildStdin,
}

/// A fresh database; its address.
pub async fn database() -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let sockets = SERVER.get_or_init(start).sockets.display();
    let name = format!("store_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let address = |database: &str| format!("host={sockets} user=muster dbname={database}");
    beside(&address("postgres"), async |client| {
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
    })
    .await;
    address(&name)
}

/// Does something by a connection of its own.
#[expect(clippy::disallowed_methods, reason = "the task is awaited")]
pub async fn beside<T>(address: &str, work: impl AsyncFnOnce(&Client) -> T) -> T {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
    let connected = tokio::spawn(connection);
    let answer = work(&client).await;
    drop(client);
    connected.await.unwrap().unwrap();
    answer
}

#[expect(clippy::zombie_processes, reason = "the server ends when this process does")]
fn start() -> Server {
    let sockets = tempfile::tempdir().unwrap().keep();
    let mut command = Command::new("sh");
    command.args(["-c", SERVE, "sh"]).arg(&sockets).current_dir("/").env("PATH", search_path());
    if rustix::process::geteuid().is_root() {
        chown(&sockets, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let ends = server.stdin.take().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    while !said.ends_with("ready to accept connections\n") {
        let read = lines.read_line(&mut said).unwrap();
        assert!(read > 0, "PostgreSQL does not start; is it installed? It said:\n{said}");
    }
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Server { sockets, _ends: ends }
}

/// Where programs are looked for: Debian keeps the server's own beside its version.
fn search_path() -> String {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.filter_map(|version| Some(version.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::var("PATH").iter().map(|path| Path::new(path).to_owned()));
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
}
