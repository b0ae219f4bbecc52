//! Rows that nobody wrote: each decoder refuses them or makes sense of them, and nothing panics.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::testing::{damage, decodes, fuzz, resealed, sealed};

use super::*;

fn command() -> Command {
    let record = Record {
        version: 3,
        expires_at: Some(9),
        content_type: Some("text/plain".to_owned()),
        value: Bytes::from_static(b"value"),
    };
    let row = Row { table: Table::Key, name: Bytes::from_static(b"k") };
    let value = Some(encoding::encode(&record).unwrap().into());
    let writes = vec![Write { row: Row::expiry(9, &row), value: None }, Write { row, value }];
    let id = CommandId { term: 1, seq: 2 };
    let name = BucketName::parse("b").unwrap();
    let effect = Effect::CreateBucket { name, rows: writes, directory: Vec::new() };
    Command { bucket: BucketId(7), prev: id, id, now: 5, seed: 6, effect }
}

#[test]
fn no_row_harms() {
    fuzz(300, vec(any::<u8>(), 0..120), |body| {
        let bytes = Bytes::from(body);
        for sound in [&bytes[..], &sealed(&bytes)] {
            decodes::<Record>(sound)?;
            decodes::<Script>(sound)?;
            decodes::<Policy>(sound)?;
            decodes::<BucketMeta>(sound)?;
            decodes::<Token>(sound)?;
            decodes::<Answer>(sound)?;
            decodes::<Command>(sound)?;
        }
        if let Ok((bucket, row)) = Row::decode(&bytes) {
            prop_assert_eq!(&row.encode(bucket)[..], &bytes);
        }
        if let Ok((expires_at, row)) = Row::expiring(&bytes) {
            prop_assert_eq!(Row::expiry(expires_at, &row).name, &bytes);
        }
        if let Ok(bucket) = keyspace::meta_bucket(&bytes) {
            prop_assert_eq!(&keyspace::meta_key(bucket)[..], &bytes);
        }
        Ok(())
    });
}

/// Nearly every value that is nearly sound: a length or a variant is another.
#[test]
fn no_damaged_row_harms() {
    let (policy, grant) = (PolicyPatch::default().create().unwrap(), Grant::owner());
    let answer = Answer { headers: vec![("a".into(), "b".into())], ..Answer::text("body") };
    let token = Token {
        prefix: "a".into(),
        permissions: grant.permissions,
        execute: Execute::Only(vec![ScriptName::parse("s").unwrap()].into_iter().collect()),
        expires_at: 7,
        signing_key: 1,
    };
    fuzz(300, damage(4), |damage| {
        decodes::<Command>(&resealed(&command(), &damage))?;
        decodes::<Policy>(&resealed(&policy, &damage))?;
        decodes::<Answer>(&resealed(&answer, &damage))?;
        decodes::<Token>(&resealed(&token, &damage))?;
        Ok(())
    });
}
