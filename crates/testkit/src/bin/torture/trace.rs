//! Reads what `strace -ff -yy` wrote: which thread changed which file, synced what, and wrote to which socket, and when.
//!
//! Only what was finished is an event: a call that the kill cut off promised nothing, but for a write to a socket, whose
//! bytes may have left. A call on the data folder that is
//! not understood is an error, never passed over, since it might have changed something. Start at [`read`].

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use crate::journal::Ends;
use crate::trouble::{During as _, Result, Trouble};

#[cfg(test)]
mod tests;

/// How a line ends whose call was not over when the process was killed, or when `strace` let go of it.
const CUT_OFF: [&str; 3] = [" = ?", "<detached ...>", "<unfinished ...>"];

/// What stands for the result where the process was killed just as the call ended: an error by a number that no error has.
const NO_RESULT: &str = ") = -1 (errno ";

/// A finished system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it began, in nanoseconds since the epoch.
    pub began_at: u64,
    /// When it was over.
    pub ended_at: u64,
    /// What it did.
    pub call: Call,
}

/// What a system call did. Paths are absolute; descriptors belong to the traced process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A file was opened, and made if it was not there and `create` says so.
    Open { path: String, descriptor: u32, flags: OpenFlags },
    /// The position in a file was set.
    Seek { descriptor: u32, position: u64 },
    /// Bytes were written, at `offset` or where the descriptor stands.
    Write { path: String, descriptor: u32, offset: Option<u64>, bytes: Vec<u8> },
    /// A file got another length.
    Truncate { path: String, length: u64 },
    /// A file's content, or a folder's entries, were taken to the disk.
    Sync { path: String },
    /// An entry got another name.
    Rename { from: String, to: String },
    /// A file or an empty folder lost its name.
    Remove { path: String },
    /// A folder was made.
    MakeFolder { path: String },
    /// Something was written to a connection.
    Send { connection: Ends },
}

/// How a file was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// `O_CREAT`.
    pub create: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_APPEND`.
    pub append: bool,
}

/// Reads every file whose name begins with `prefix`, and returns the events that concern `folder`, the syncs of the folder
/// that it lies in, and connections, in the order in which they ended.
pub fn read(prefix: &Path, folder: &Path) -> Result<Vec<Event>> {
    let parent = prefix.parent().ok_or_else(|| Trouble::new("the trace has no folder"))?;
    let name = prefix.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let folder = folder.to_str().ok_or_else(|| Trouble::new("the data folder's path is not UTF-8"))?;
    let mut events = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(name));
        if is_ours {
            for line in BufReader::new(fs::File::open(&path)?).lines() {
                let line = line?;
                events.extend(parse(&line, folder).during(excerpt(&line))?);
            }
        }
    }
    events.sort_by_key(|event| event.ended_at);
    Ok(events)
}

/// The beginning of a line that may be very long.
fn excerpt(line: &str) -> &str {
    /// Enough to recognise a call.
    const BYTES: usize = 200;
    line.get(..BYTES).unwrap_or(line)
}

/// What one line tells, if it is of interest: `SECONDS CALL(ARGUMENTS) = RESULT <DURATION>`.
fn parse(line: &str, folder: &str) -> Result<Option<Event>> {
    let Some((time, rest)) = line.split_once(' ') else { return Ok(None) };
    let Some((name, rest)) = rest.split_once('(') else { return Ok(None) };
    let began_at = nanoseconds(time)?;
    if CUT_OFF.iter().any(|end| rest.trim_end().ends_with(end)) || rest.contains(NO_RESULT) {
        let call = Arguments(rest).sent(name)?;
        return Ok(call.map(|call| Event { began_at, ended_at: began_at, call }));
    }
    let Some((head, duration)) = rest.rsplit_once(" <") else { return Ok(None) };
    // Failed calls changed nothing.
    let result = head.rsplit_once(") ").and_then(|(_, result)| result.trim_start().strip_prefix("= "));
    let digits = result.and_then(|result| result.split(['<', ' ']).next()).unwrap_or_default();
    let Ok(result) = digits.parse::<u64>() else { return Ok(None) };
    let Some(call) = Arguments(rest).call(name, result, folder)? else { return Ok(None) };
    let took = nanoseconds(duration.trim_end_matches('>'))?;
    Ok(Some(Event { began_at, ended_at: began_at + took, call }))
}

fn nanoseconds(text: &str) -> Result<u64> {
    let (seconds, fraction) = text.split_once('.').ok_or_else(|| Trouble::new(format!("{text:?} is no time")))?;
    if fraction.len() != 9 {
        return Err(Trouble::new(format!("{text:?} is not in nanoseconds")));
    }
    Ok(seconds.parse::<u64>()? * 1_000_000_000 + fraction.parse::<u64>()?)
}

/// The rest of a line behind the opening parenthesis.
struct Arguments<'a>(&'a str);

/// What a descriptor stands for, as `-yy` tells.
struct Descriptor<'a> {
    number: u32,
    /// A path, or `TCP:[from->to]`.
    what: &'a str,
}

impl<'a> Arguments<'a> {
    fn call(&mut self, name: &str, result: u64, folder: &str) -> Result<Option<Call>> {
        let is_inside =
            |path: &str| path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let call = match name {
            "openat" => {
                self.descriptor()?;
                self.comma()?;
                self.open(result)?
            }
            "open" => self.open(result)?,
            "rename" => Call::Rename { from: self.text()?, to: self.next_text()? },
            "unlink" | "rmdir" => Call::Remove { path: self.text()? },
            "unlinkat" => {
                self.descriptor()?;
                Call::Remove { path: self.next_text()? }
            }
            "mkdir" => Call::MakeFolder { path: self.text()? },
            "mkdirat" => {
                self.descriptor()?;
                Call::MakeFolder { path: self.next_text()? }
            }
            "close" => return Ok(None),
            "pwrite64" | "write" | "writev" | "sendto" | "sendmsg" | "fsync" | "fdatasync" | "ftruncate" | "lseek" => {
                let descriptor = self.descriptor()?;
                match connection(descriptor.what) {
                    Some(connection) if name.starts_with("send") || name.starts_with("write") => {
                        Call::Send { connection }
                    }
                    _ if is_inside(descriptor.what) || (name == "fsync" && descriptor.what == parent(folder)) => {
                        self.on_file(name, &descriptor, result)?
                    }
                    _ => return Ok(None),
                }
            }
            other if self.0.contains(folder) => return Err(Trouble::new(format!("{other} is not understood"))),
            _ => return Ok(None),
        };
        let path = match &call {
            Call::Open { path, .. } | Call::Remove { path } | Call::MakeFolder { path } => path,
            Call::Rename { from, .. } => from,
            _ => return Ok(Some(call)),
        };
        Ok(is_inside(path).then_some(call))
    }

    /// A write to a connection, whatever became of it.
    fn sent(&mut self, name: &str) -> Result<Option<Call>> {
        if !["write", "writev", "sendto", "sendmsg"].contains(&name) {
            return Ok(None);
        }
        Ok(connection(self.descriptor()?.what).map(|connection| Call::Send { connection }))
    }

    fn open(&mut self, result: u64) -> Result<Call> {
        let path = self.text()?;
        self.comma()?;
        let flags = self.0.split([',', ')']).next().unwrap_or_default();
        let has = |flag: &str| flags.split('|').any(|word| word == flag);
        let flags = OpenFlags { create: has("O_CREAT"), truncate: has("O_TRUNC"), append: has("O_APPEND") };
        Ok(Call::Open { path, descriptor: u32::try_from(result)?, flags })
    }

    fn on_file(&mut self, name: &str, descriptor: &Descriptor<'_>, result: u64) -> Result<Call> {
        let (path, number) = (descriptor.what.to_owned(), descriptor.number);
        Ok(match name {
            "fsync" | "fdatasync" => Call::Sync { path },
            "lseek" => Call::Seek { descriptor: number, position: result },
            "ftruncate" => {
                self.comma()?;
                Call::Truncate { path, length: self.number()? }
            }
            "write" | "pwrite64" => {
                self.comma()?;
                let mut bytes = self.bytes()?;
                bytes.truncate(usize::try_from(result)?);
                if bytes.len() as u64 != result {
                    return Err(Trouble::new("strace did not print everything that was written"));
                }
                self.comma()?;
                self.number()?;
                let offset = if name == "write" {
                    None
                } else {
                    self.comma()?;
                    Some(self.number()?)
                };
                Call::Write { path, descriptor: number, offset, bytes }
            }
            other => return Err(Trouble::new(format!("{other} on a file is not understood"))),
        })
    }

    /// `7<…>`, or `AT_FDCWD<…>`. What is between may hold `>`, but not before a comma or the end.
    fn descriptor(&mut self) -> Result<Descriptor<'a>> {
        let missing = || Trouble::new("a descriptor is missing");
        let (number, rest) = self.0.split_once('<').ok_or_else(missing)?;
        let end = [">,", ">)", ">("].iter().filter_map(|end| rest.find(end)).min().ok_or_else(missing)?;
        let (what, rest) = rest.split_at_checked(end).ok_or_else(missing)?;
        self.0 = rest.strip_prefix('>').unwrap_or(rest);
        let what = match self.0.strip_prefix("(deleted)") {
            None => what,
            // What is written to a file without a name is missed by nobody.
            Some(rest) => {
                self.0 = rest;
                ""
            }
        };
        // `AT_FDCWD` stands for no descriptor of which anything else is told.
        Ok(Descriptor { number: number.parse().unwrap_or(u32::MAX), what })
    }

    fn comma(&mut self) -> Result<()> {
        self.0 = self.0.strip_prefix(", ").ok_or_else(|| Trouble::new("an argument is missing"))?;
        Ok(())
    }

    fn number(&mut self) -> Result<u64> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end).ok_or_else(|| Trouble::new("a number is missing"))?;
        self.0 = rest;
        Ok(digits.parse()?)
    }

    fn next_text(&mut self) -> Result<String> {
        self.comma()?;
        self.text()
    }

    fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8(self.bytes()?)?)
    }

    /// A string in quotes, with the escapes of C.
    fn bytes(&mut self) -> Result<Vec<u8>> {
        let broken = || Trouble::new("a string is broken");
        let mut rest = self.0.strip_prefix('"').ok_or_else(broken)?.as_bytes();
        let mut bytes = Vec::new();
        loop {
            let (byte, after) = rest.split_first().ok_or_else(broken)?;
            rest = after;
            match byte {
                b'"' => break,
                b'\\' => bytes.push(escaped(&mut rest).ok_or_else(broken)?),
                other => bytes.push(*other),
            }
        }
        let end = self.0.len() - rest.len();
        self.0 = self.0.get(end..).ok_or_else(broken)?;
        Ok(bytes)
    }
}

/// The byte that an escape stands for, of which the backslash has been read.
fn escaped(rest: &mut &[u8]) -> Option<u8> {
    /// Most digits of an octal escape.
    const DIGITS_MAX: usize = 3;
    let octal = rest.iter().take(DIGITS_MAX).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let (taken, after) = rest.split_at_checked(octal.max(1))?;
    *rest = after;
    match taken {
        b"n" => Some(b'\n'),
        b"t" => Some(b'\t'),
        b"r" => Some(b'\r'),
        b"v" => Some(0x0b),
        b"f" => Some(0x0c),
        digits if octal > 0 => u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok(),
        other => other.first().copied(),
    }
}

/// The folder that something lies in.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The connection that a descriptor of the server stands for: `TCP:[127.0.0.1:8883->127.0.0.1:40000]`.
fn connection(what: &str) -> Option<Ends> {
    let ends = what.strip_prefix("TCP:[").or_else(|| what.strip_prefix("TCPv6:["))?;
    let (server, client) = ends.strip_suffix(']')?.split_once("->")?;
    Some(Ends { server: server.parse().ok()?, client: client.parse().ok()? })
}
