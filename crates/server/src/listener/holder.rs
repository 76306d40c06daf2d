//! Who holds a port, as far as this machine tells: the kernel's socket table, then the processes that hold the socket.
//!
//! Only for error messages: what cannot be read is left out, and nothing here may fail. Linux only; elsewhere nothing is
//! found. Start reading at [`find_holder`].

use std::fmt;
use std::fs;
use std::path::Path;

/// The state of a listening socket in the kernel's table.
const LISTENING: &str = "0A";

/// A process, or at least a user, that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process this user may look at.
    Process { pid: u32, name: String },
    /// A process of another user.
    User { uid: u32 },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{name} (process {pid})"),
            Self::User { uid } => write!(f, "a process of user {uid}"),
        }
    }
}

/// One listening socket of the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ListeningSocket {
    uid: u32,
    inode: u64,
}

/// Finds who listens on TCP port `port`, on any address.
pub fn find_holder(port: u16) -> Option<Holder> {
    let sockets: Vec<ListeningSocket> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_on(&table, port))
        .collect();
    let uid = sockets.first()?.uid;
    Some(process_with(&sockets).unwrap_or(Holder::User { uid }))
}

/// Reads the lines of a table that listen on `port` (Linux, `Documentation/networking/proc_net_tcp.rst`).
fn listening_on(table: &str, port: u16) -> Vec<ListeningSocket> {
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port_text) = fields.get(1)?.rsplit_once(':')?;
        let listens = *fields.get(3)? == LISTENING && u16::from_str_radix(port_text, 16).ok()? == port;
        let socket = ListeningSocket { uid: fields.get(7)?.parse().ok()?, inode: fields.get(9)?.parse().ok()? };
        listens.then_some(socket)
    };
    table.lines().filter_map(read).collect()
}

fn process_with(sockets: &[ListeningSocket]) -> Option<Holder> {
    let links: Vec<String> = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .find(|(_, process)| holds_any(process, &links))
        .map(|(pid, process)| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Holder::Process { pid, name: name.trim().to_owned() }
        })
}

fn holds_any(process: &Path, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| links.iter().any(|link| link == target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_for_listening_sockets_of_the_port() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 0000 100 0 0 10 0
   1: 0100007F:01BB 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000 20 4 30 10 -1
   2: 00000000:22B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000 100 0 0 10 0
   3: short line";
        assert_eq!(listening_on(table, 443), [ListeningSocket { uid: 33, inode: 4711 }]);
        assert_eq!(listening_on(table, 8883), [ListeningSocket { uid: 0, inode: 4713 }]);
        assert_eq!(listening_on(table, 5671), []);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_by_the_port_it_listens_on() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        match find_holder(port) {
            Some(Holder::Process { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
    }
}
