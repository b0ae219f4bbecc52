//! The same requests as bytes on a connection, damaged anywhere.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::ask::ask;
use super::*;
use crate::testing::{damage, damaged};

/// How long more is waited for, where it is not the server that ends the connection.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a server says to bytes, and after so long to the end of them.
async fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    let whole = async {
        // What is refused early is not read to its end.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    if tokio::time::timeout(patience, whole).await.is_err() {
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The first answer's status, and the rest.
fn status(answer: &str) -> Option<(u16, &str)> {
    let (status, rest) = answer.strip_prefix("HTTP/1.1 ")?.split_at_checked(3)?;
    Some((status.parse().ok()?, rest))
}

#[test]
fn no_bytes_harm() {
    let runtime = runtime();
    let (prey, address, stop) = runtime.block_on(async {
        let prey = Prey::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(prey.edge.service.clone().serve(listener, async {
            let _ = stopped.await;
        }));
        (prey, address, stop)
    });
    fuzz(60, (ask(), damage(3)), |(ask, damage)| {
        let bytes = damaged(ask.bytes(&prey.names), &damage);
        runtime.block_on(async {
            let answer = exchange(address, &bytes, PATIENCE);
            // A watch goes on until the client is seen to be gone.
            let Ok(answer) = tokio::time::timeout(2 * ANSWER_TIME, answer).await else {
                return Err(TestCaseError::fail("the connection did not end"));
            };
            if let Some((status, rest)) = status(&answer) {
                judge(status, ask.uri.contains("scripts"), rest)?;
            }
            prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0, "something panicked");
            Ok(())
        })
    });
    let good = exchange(
        address,
        b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        ANSWER_TIME,
    );
    let good = runtime.block_on(good);
    assert_eq!(status(&good).unwrap().0, 200, "{good}");
    drop(stop);
}
