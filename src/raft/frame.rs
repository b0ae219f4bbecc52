//! Frames: encoded values one after another in an HTTP body, each behind its length.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::encoding;
use crate::error::{Error, Result};

const LENGTH_BYTES: usize = 4;

/// A value as a frame.
pub(super) fn frame<T: Serialize>(value: &T) -> Result<Bytes> {
    let body = encoding::encode(value)?;
    let length = u32::try_from(body.len())
        .map_err(|_| Error::TooLarge { limit: "a frame", max: u64::from(u32::MAX) })?;
    Ok([&length.to_le_bytes()[..], &body].concat().into())
}

/// Takes a body apart into the values that its frames hold. Ends with an error where the body ends
/// within a frame, breaks off, or holds something else.
pub(super) struct Frames<B, T> {
    body: B,
    buffer: BytesMut,
    what: &'static str,
    done: bool,
    value: std::marker::PhantomData<fn() -> T>,
}

impl<B, T> Frames<B, T> {
    pub(super) fn new(what: &'static str, body: B) -> Self {
        let (buffer, value) = (BytesMut::new(), std::marker::PhantomData);
        Frames { body, buffer, what, done: false, value }
    }

    /// The next whole frame in the buffer.
    fn take_frame(&mut self) -> Result<Option<Bytes>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > encoding::MAX_BYTES {
            return Err(Error::corrupt(self.what, format!("a frame of {length} bytes")));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

impl<B, E, T> Stream for Frames<B, T>
where
    B: Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
    T: DeserializeOwned,
{
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.done {
            match self.take_frame() {
                Ok(Some(body)) => {
                    return Poll::Ready(Some(encoding::decode(self.what, &body)));
                }
                Ok(None) => {}
                Err(error) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(Error::Io(error.to_string()))));
                }
                None => {
                    self.done = true;
                    if !self.buffer.is_empty() {
                        let torn = Error::corrupt(self.what, "ends within a frame");
                        return Poll::Ready(Some(Err(torn)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::executor::block_on;
    use futures::stream;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{damage, damaged, fuzz};

    fn read(chunks: Vec<Bytes>) -> Vec<Result<String>> {
        let body = stream::iter(chunks.into_iter().map(Ok::<_, Error>));
        block_on(Frames::<_, String>::new("test", body).collect())
    }

    #[test]
    fn frames_do_not_care_how_a_body_is_cut() {
        let body = [frame(&"one").unwrap(), frame(&"two").unwrap()].concat();
        for size in 1..=body.len() {
            let chunks = body.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(read(chunks), [Ok("one".to_owned()), Ok("two".to_owned())], "{size}");
        }
    }

    #[test]
    fn a_torn_or_hostile_body_ends_with_an_error() {
        let body = frame(&"one").unwrap();
        let torn = read(vec![body.slice(..body.len() - 1)]);
        assert!(matches!(torn.as_slice(), [Err(Error::Corrupt { .. })]));
        let huge = read(vec![Bytes::from_static(&[0xff; 8])]);
        assert!(matches!(huge.as_slice(), [Err(Error::Corrupt { .. })]));
    }

    #[test]
    fn no_body_harms() {
        let bodies = (vec(any::<String>(), 0..4), damage(4), 1usize..50);
        fuzz(200, bodies, |(values, damage, size)| {
            let body: Vec<Bytes> = values.iter().map(|value| frame(value).unwrap()).collect();
            let harmed = damaged(body.concat(), &damage);
            let chunks = harmed.chunks(size).map(Bytes::copy_from_slice).collect();
            let ended = read(chunks);
            prop_assert!(ended.len() <= harmed.len() / LENGTH_BYTES + 1);
            if harmed == body.concat() {
                prop_assert_eq!(ended.into_iter().collect::<Result<Vec<_>>>(), Ok(values));
            }
            Ok(())
        });
    }
}
