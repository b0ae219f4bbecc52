//! Scripts as rows: each upload is a version that never changes, and one of them is what is run.
//!
//! A version is the bucket's revision of its upload. The newest versions are kept, so that a bad one can be
//! taken back (`rollback`); the row that calls read holds the whole script, so that a call reads one.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::keyspace::{Row, Script, ScriptMode, Table, script_versions_start};
use super::limits::{SCRIPT_SOURCE_BYTES_MAX, SCRIPT_VERSIONS_MAX, SCRIPTS_BYTES_MAX, SCRIPTS_MAX};
use super::name::ScriptName;
use super::operation::Answer;
use super::transaction::Transaction;
use crate::encoding;
use crate::error::{Error, Missing, Result};

/// Uploads a script as its newest version, which becomes the one that is run.
pub(super) fn put(
    txn: &mut Transaction,
    name: &ScriptName,
    source: &str,
    mode: ScriptMode,
) -> Result<Answer> {
    if source.len() > SCRIPT_SOURCE_BYTES_MAX {
        return Err(Error::TooLarge { limit: "a script", max: SCRIPT_SOURCE_BYTES_MAX as u64 });
    }
    let version = txn.revision();
    let sha256 = Sha256::digest(source.as_bytes()).into();
    let script = Script { version, sha256, source: source.to_owned(), mode };
    let bytes: Bytes = encoding::encode(&script)?.into();
    make_current(txn, name, Some((mode, bytes.clone())))?;
    txn.put_row(Row::script_version(name, version), Some(bytes))?;
    let kept = txn.rows(Table::ScriptVersion, &script_versions_start(name))?;
    let surplus = kept.len().saturating_sub(SCRIPT_VERSIONS_MAX);
    for (row, _) in kept.into_iter().take(surplus) {
        txn.put_row(Row { table: Table::ScriptVersion, name: row }, None)?;
    }
    let counts = txn.counts();
    if counts.scripts > SCRIPTS_MAX {
        return Err(Error::Quota { what: "scripts", max: SCRIPTS_MAX });
    }
    if counts.scripts_bytes > SCRIPTS_BYTES_MAX {
        return Err(Error::Quota { what: "bytes of scripts", max: SCRIPTS_BYTES_MAX });
    }
    Ok(answer(version))
}

/// Makes an earlier version the one that is run.
pub(super) fn roll_back(txn: &mut Transaction, name: &ScriptName, version: u64) -> Result<Answer> {
    if txn.script(name)?.is_none() {
        return Err(Error::not_found(Missing::Script, name.as_str()));
    }
    let Some(bytes) = txn.row(&Row::script_version(name, version))? else {
        return Err(Error::not_found(Missing::ScriptVersion, format!("{version} of `{name}`")));
    };
    let Script { mode, .. } = encoding::decode("script", &bytes)?;
    make_current(txn, name, Some((mode, bytes)))?;
    Ok(answer(version))
}

/// Sets which version is run, or that none is.
fn make_current(
    txn: &mut Transaction,
    name: &ScriptName,
    script: Option<(ScriptMode, Bytes)>,
) -> Result<()> {
    let row = Row::readonly(name);
    let readonly = script.as_ref().is_some_and(|(mode, _)| mode.readonly);
    if readonly != txn.row(&row)?.is_some() {
        txn.put_row(row, readonly.then(Bytes::new))?;
    }
    txn.put_row(Row::script(name), script.map(|(_, bytes)| bytes))
}

fn answer(version: u64) -> Answer {
    Answer { version: Some(version), ..Answer::text(version.to_string()) }
}

/// Removes a script with all its versions.
pub(super) fn delete(txn: &mut Transaction, name: &ScriptName) -> Result<Answer> {
    if txn.script(name)?.is_none() {
        return Err(Error::not_found(Missing::Script, name.as_str()));
    }
    make_current(txn, name, None)?;
    for (row, _) in txn.rows(Table::ScriptVersion, &script_versions_start(name))? {
        txn.put_row(Row { table: Table::ScriptVersion, name: row }, None)?;
    }
    Ok(Answer::text(""))
}

/// The versions of a script that are kept, oldest first.
pub fn versions(txn: &mut Transaction, name: &ScriptName) -> Result<Vec<Script>> {
    if txn.script(name)?.is_none() {
        return Err(Error::not_found(Missing::Script, name.as_str()));
    }
    let rows = txn.rows(Table::ScriptVersion, &script_versions_start(name))?;
    rows.into_iter().map(|(_, value)| encoding::decode("script", &value)).collect()
}
