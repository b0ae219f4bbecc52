//! Redis's protocol, RESP 2: commands as arrays of bulk strings, and the replies to them.

use std::io::{BufRead, Error, ErrorKind};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Most bytes of a bulk string that is read.
const BULK_MAX: usize = 16 << 20;

/// A reply. Arrays are not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `:1`
    Integer(i64),
    /// `$5 hello`; none for `$-1`
    Bulk(Option<Vec<u8>>),
    /// `-ERR …`
    Error(String),
}

/// Adds a command to what is to be sent.
pub fn command(output: &mut Vec<u8>, words: &[&str]) {
    output.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        output.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        output.extend_from_slice(word.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
}

/// What the first line of a reply says: the reply, or how many bytes follow.
fn first_line(line: &str) -> Result<Result<Reply, usize>, Error> {
    let wrong = || Error::new(ErrorKind::InvalidData, format!("no reply: {line}"));
    let line = line.trim_end_matches(['\r', '\n']);
    let (kind, rest) = line.split_at_checked(1).ok_or_else(wrong)?;
    let number = || rest.parse::<i64>().map_err(|_| wrong());
    Ok(Ok(match kind {
        "+" => Reply::Simple(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(number()?),
        "$" => match usize::try_from(number()?) {
            Ok(bytes) if bytes <= BULK_MAX => return Ok(Err(bytes)),
            Ok(_) => return Err(wrong()),
            Err(_) => Reply::Bulk(None),
        },
        _ => return Err(wrong()),
    }))
}

fn bulk(mut bytes: Vec<u8>) -> Reply {
    bytes.truncate(bytes.len().saturating_sub(2));
    Reply::Bulk(Some(bytes))
}

/// Reads one reply.
///
/// # Errors
/// When the connection ends, or what comes is none.
pub async fn read(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Reply, Error> {
    let mut line = String::new();
    input.read_line(&mut line).await?;
    match first_line(&line)? {
        Ok(reply) => Ok(reply),
        Err(length) => {
            let mut bytes = vec![0; length + 2];
            input.read_exact(&mut bytes).await?;
            Ok(bulk(bytes))
        }
    }
}

/// Reads one reply on a thread that may wait.
///
/// # Errors
/// When the connection ends, or what comes is none.
pub fn read_blocking(input: &mut impl BufRead) -> Result<Reply, Error> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    match first_line(&line)? {
        Ok(reply) => Ok(reply),
        Err(length) => {
            let mut bytes = vec![0; length + 2];
            input.read_exact(&mut bytes)?;
            Ok(bulk(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut output = Vec::new();
        command(&mut output, &["SET", "k", "hello"]);
        command(&mut output, &["WAIT", "1", "0"]);
        let expected = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }

    #[test]
    fn replies_are_read_one_after_the_other() {
        let mut input: &[u8] = b"+OK\r\n:1\r\n$5\r\nhe\r\nl\r\n$-1\r\n-ERR no\r\n";
        let mut next = || read_blocking(&mut input).unwrap();
        assert_eq!(next(), Reply::Simple("OK".into()));
        assert_eq!(next(), Reply::Integer(1));
        assert_eq!(next(), Reply::Bulk(Some(b"he\r\nl".into())));
        assert_eq!(next(), Reply::Bulk(None));
        assert_eq!(next(), Reply::Error("ERR no".into()));
        assert!(read_blocking(&mut input).is_err(), "the connection has ended");
    }

    #[test]
    fn nonsense_is_no_reply() {
        for text in ["\r\n", "*1\r\n", ":x\r\n", "$99999999999\r\n"] {
            assert!(read_blocking(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
