//! Small histories, put together by hand.

use super::*;
use crate::history::Micro;

/// A workload's history under construction.
pub(super) struct Story {
    workload: &'static str,
    pub(super) operations: Vec<Operation>,
    pub(super) dumps: Vec<Dump>,
    pub(super) faults: Vec<FaultRecord>,
}

impl Story {
    pub(super) fn of(workload: &'static str) -> Self {
        Story { workload, operations: Vec::new(), dumps: Vec::new(), faults: Vec::new() }
    }

    pub(super) fn with(mut self, began: u64, ended: u64, action: Action, outcome: Outcome) -> Self {
        let id = self.operations.len() as u64 + 1;
        let workload = self.workload.to_owned();
        let (client, node) = (id, id % 3 + 1);
        let operation = Operation { id, workload, client, node, action, began, ended, outcome };
        self.operations.push(operation);
        self
    }

    pub(super) fn done(
        self,
        began: u64,
        ended: u64,
        action: Action,
        answer: Answer,
        revision: u64,
    ) -> Self {
        self.with(began, ended, action, Outcome::Done { answer, revision: Some(revision) })
    }

    pub(super) fn refused(self, began: u64, ended: u64, action: Action) -> Self {
        self.with(began, ended, action, Outcome::Refused { reason: "overloaded".to_owned() })
    }

    pub(super) fn unknown(self, began: u64, ended: u64, action: Action) -> Self {
        let reason = "timeout".to_owned();
        self.with(began, ended, action, Outcome::Unknown { reason, resolution: Resolution::None })
    }

    pub(super) fn resolved(self, began: u64, ended: u64, action: Action, revision: u64) -> Self {
        let (reason, resolution) = ("timeout".to_owned(), Resolution::Applied(revision));
        self.with(began, ended, action, Outcome::Unknown { reason, resolution })
    }

    pub(super) fn dump(mut self, rows: &[(&str, &str)]) -> Self {
        let rows = rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.dumps.push(Dump {
            node: self.dumps.len() as u64 + 1,
            applied_index: 50,
            digest: "d".to_owned(),
            buckets: vec![(self.workload.to_owned(), rows.collect())],
        });
        self
    }

    /// A fault that was there meanwhile.
    pub(super) fn fault(mut self, kind: &str, began: u64, ended: u64) -> Self {
        self.faults.push(FaultRecord {
            kind: kind.to_owned(),
            what: kind.to_owned(),
            began,
            ended,
            confirmed: Ok("seen".to_owned()),
            undo_failed: None,
        });
        self
    }

    pub(super) fn judge(&self) -> Vec<Verdict> {
        judge(&self.operations, &self.dumps, &self.faults)
    }

    /// What a checker says.
    pub(super) fn finding(&self, checker: &str) -> Finding {
        let verdicts = self.judge();
        let verdict = verdicts.iter().find(|verdict| verdict.checker == checker);
        verdict.unwrap_or_else(|| panic!("no checker {checker}: {verdicts:?}")).finding.clone()
    }

    #[track_caller]
    pub(super) fn finds(&self, checker: &str, operations: &[u64]) {
        let verdicts = self.judge();
        let found = violations(&verdicts);
        assert_eq!(found.get(checker), Some(&operations.to_vec()), "{verdicts:#?}");
    }

    #[track_caller]
    pub(super) fn holds(&self, checker: &str) {
        assert_eq!(self.finding(checker), Finding::Holds);
    }
}

pub(super) fn set(key: &str, value: &str) -> Action {
    Action::Set { key: key.to_owned(), value: value.to_owned() }
}

pub(super) fn get(key: &str) -> Action {
    Action::Get { key: key.to_owned() }
}

pub(super) fn cas(key: &str, from: &str, to: &str) -> Action {
    Action::Cas { key: key.to_owned(), from: from.to_owned(), to: to.to_owned() }
}

pub(super) fn delete(key: &str) -> Action {
    Action::Delete { key: key.to_owned() }
}

pub(super) fn add() -> Action {
    Action::Add { key: "c".to_owned(), by: 1 }
}

pub(super) fn is(value: &str, version: u64) -> Answer {
    Answer::Value { value: Some(value.to_owned()), version: Some(version) }
}

pub(super) fn none() -> Answer {
    Answer::Value { value: None, version: None }
}

pub(super) fn txn(steps: &[Micro]) -> Action {
    Action::Append { steps: steps.to_vec() }
}

pub(super) fn lists(lists: &[&[u64]]) -> Answer {
    Answer::Lists(lists.iter().map(|list| list.to_vec()).collect())
}
