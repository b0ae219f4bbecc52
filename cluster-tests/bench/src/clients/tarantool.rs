//! Tarantool: calls of a stored procedure in its binary protocol, MessagePack behind a length.

use kvdb::bench::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Draw, account};

/// Bytes that a server greets with.
const GREETING: usize = 128;
/// Most bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;
/// What an answer ends with that says: done, and one value, which is 1. The body is a map of one, the key is the
/// data, the data is an array of one.
const ONE: [u8; 8] = [0x81, 0x30, 0xdd, 0, 0, 0, 1, 1];

/// A request to call `transfer(from, to, 1)`.
#[must_use]
pub fn transfer(from: &str, to: &str) -> Vec<u8> {
    // The header says that it is a call, and its number; the body holds the name (0x22) and the arguments (0x21).
    let mut request = vec![0xce, 0, 0, 0, 0, 0x82, 0x00, 0x0a, 0x01, 0x00, 0x82, 0x22];
    text(&mut request, "transfer");
    request.extend([0x21, 0x93]);
    text(&mut request, from);
    text(&mut request, to);
    request.push(1);
    // Without the five bytes of the length itself.
    let length = u32::try_from(request.len() - 5).unwrap_or_default();
    if let Some(place) = request.get_mut(1..5) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    request
}

/// A string of less than 32 bytes.
fn text(request: &mut Vec<u8>, text: &str) {
    request.push(0xa0 | (text.len() as u8 & 0x1f));
    request.extend_from_slice(text.as_bytes());
}

/// One caller with its connection.
pub struct Caller {
    stream: BufReader<TcpStream>,
    accounts: u64,
    draw: Draw,
}

impl Caller {
    /// Connects.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn connect(address: &str, accounts: u64, draw: Draw) -> Result<Self, String> {
        let broken = |e: std::io::Error| format!("tarantool: {address}: {e}");
        let stream = TcpStream::connect(address).await.map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        let mut stream = BufReader::new(stream);
        stream.read_exact(&mut [0; GREETING]).await.map_err(broken)?;
        Ok(Caller { stream, accounts, draw })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, std::io::Error> {
        self.stream.get_mut().write_all(request).await?;
        let mark = self.stream.read_u8().await?;
        let length = self.stream.read_u32().await?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if mark != 0xce || length > ANSWER_MAX {
            return Err(std::io::Error::other("no answer"));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

impl Client for Caller {
    async fn call(&mut self, _serial: u64) -> Result<(), String> {
        let (from, to) = self.draw.pair(self.accounts);
        let request = transfer(&account(from), &account(to));
        let answer = self.exchange(&request).await.map_err(|e| format!("tarantool: {e}"))?;
        if answer.ends_with(&ONE) {
            return Ok(());
        }
        Err(format!("tarantool: {}", String::from_utf8_lossy(&answer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_a_call_in_messagepack() {
        let request = transfer("a", "b");
        #[rustfmt::skip]
        let expected = [
            0xce, 0, 0, 0, 22,                  // the length of what follows
            0x82, 0x00, 0x0a, 0x01, 0x00,       // {type: call, number: 0}
            0x82, 0x22, 0xa8, b't', b'r', b'a', b'n', b's', b'f', b'e', b'r', // {function: "transfer",
            0x21, 0x93, 0xa1, b'a', 0xa1, b'b', 1, // arguments: ["a", "b", 1]}
        ];
        assert_eq!(request[5..], expected[5..]);
        assert_eq!(usize::from(request[4]), request.len() - 5);
    }
}
