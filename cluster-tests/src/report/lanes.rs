//! The faults of a run over time: a lane for each kind, a bar for each fault, under the plot.
//!
//! A solid bar was confirmed; a hollow one was not, and counts for nothing; a heavy edge was not undone.
//! Colour is the kind's group. What exactly was done is the bar's title, and in the table below.

use std::collections::BTreeMap;

use crate::history::{FaultRecord, Micros, Run};

use super::axis::Axis;
use super::groups::Group;
use super::html::{Html, clip, count, duration, moment};

/// From one lane to the next.
const STEP: f64 = 22.0;
/// Of a bar.
const HEIGHT: f64 = 14.0;
/// The least width of a bar, so that what took no time is seen.
const LEAST: f64 = 3.0;
/// Bars that are drawn; a run has dozens.
const BARS_MAX: usize = 1000;
/// Lanes that are drawn; a run has a dozen.
const LANES_MAX: usize = 60;
/// Characters of a lane's name.
const NAME: usize = 24;
/// Characters of a bar's title.
const TITLE: usize = 300;

/// The faults by kind, in the order of their groups.
pub(super) struct Lanes<'a> {
    lanes: BTreeMap<(Group, &'a str), Vec<&'a FaultRecord>>,
    left_out: usize,
}

impl<'a> Lanes<'a> {
    pub(super) fn of(run: &'a Run) -> Self {
        let mut lanes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut left_out = 0;
        for (index, fault) in run.faults.iter().enumerate() {
            let lane = (Group::of(&fault.kind), fault.kind.as_str());
            let room = lanes.contains_key(&lane) || lanes.len() < LANES_MAX;
            if index < BARS_MAX && room {
                lanes.entry(lane).or_default().push(fault);
            } else {
                left_out += 1;
            }
        }
        Lanes { lanes, left_out }
    }

    /// Pixels that all lanes need.
    pub(super) fn height(&self) -> f64 {
        self.lanes.len().max(1) as f64 * STEP
    }

    /// Draws them from a height on.
    pub(super) fn html(&self, axis: Axis, top: f64) -> Html {
        let note = match (self.lanes.is_empty(), self.left_out) {
            (true, _) => "Faults: none".to_owned(),
            (false, 0) => "Faults".to_owned(),
            (false, more) => format!("Faults; {} more in run.json", count(more as u64)),
        };
        let (x, y, note) = (axis.x(0), top - 10.0, Html::text(note));
        let name = Html::raw(format!("<text class=\"name\" x=\"{x}\" y=\"{y}\">{note}</text>\n"));
        let lane = |(index, ((group, kind), faults)): (usize, (&(Group, &str), &Vec<_>))| {
            lane(axis, top + index as f64 * STEP, *group, kind, faults)
        };
        let lanes: Html = self.lanes.iter().enumerate().map(lane).collect();
        [name, lanes].into_iter().collect()
    }
}

fn lane(axis: Axis, y: f64, group: Group, kind: &str, faults: &[&FaultRecord]) -> Html {
    let (x, low, line) = (axis.x(0) - 8.0, y + HEIGHT - 2.0, y + HEIGHT / 2.0);
    let (from, to) = (axis.x(0), axis.x(Micros::MAX));
    let name = Html::text(clip(kind, NAME));
    let bars: Html = faults.iter().map(|fault| bar(axis, y, group, fault)).collect();
    Html::raw(format!(
        "<text class=\"tick\" x=\"{x:.1}\" y=\"{low:.1}\" text-anchor=\"end\">{name}</text>\
         <path class=\"grid\" d=\"M{from:.1} {line:.1}H{to:.1}\"/>{bars}\n"
    ))
}

fn bar(axis: Axis, y: f64, group: Group, fault: &FaultRecord) -> Html {
    let (x, width) = stretch(axis, fault.began, fault.ended);
    let class = group.name();
    let hollow = if fault.confirmed.is_err() { " hollow" } else { "" };
    let stuck = if fault.undo_failed.is_some() { " stuck" } else { "" };
    let title = Html::text(clip(&title(fault), TITLE));
    Html::raw(format!(
        "<rect class=\"bar {class}{hollow}{stuck}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
         height=\"{HEIGHT}\" rx=\"2\"><title>{title}</title></rect>"
    ))
}

fn title(fault: &FaultRecord) -> String {
    let shown = match &fault.confirmed {
        Ok(evidence) => format!("confirmed: {evidence}"),
        Err(why) => format!("not confirmed: {why}"),
    };
    let FaultRecord { kind, what, began, ended, .. } = fault;
    let lasted = duration(ended.saturating_sub(*began));
    format!("{kind}: {what}\nat {} for {lasted}\n{shown}", moment(*began))
}

/// Where something begins, and how wide it is.
fn stretch(axis: Axis, began: Micros, ended: Micros) -> (f64, f64) {
    let x = axis.x(began);
    (x, (axis.x(ended) - x).max(LEAST))
}

/// Translucent bands behind the panels: for each group, the stretches in which a confirmed fault of it
/// was there. Stretches that touch on the screen are one.
pub(super) fn bands(run: &Run, axis: Axis, top: f64, bottom: f64) -> Html {
    let band = |(group, (x, width)): (Group, (f64, f64))| {
        let (class, height) = (group.name(), bottom - top);
        Html::raw(format!(
            "<rect class=\"band {class}\" x=\"{x:.1}\" y=\"{top}\" width=\"{width:.1}\" \
             height=\"{height}\"/>"
        ))
    };
    let of = |group| merged(run, axis, group).into_iter().map(move |stretch| (group, stretch));
    Group::ALL.into_iter().flat_map(of).map(band).collect()
}

fn merged(run: &Run, axis: Axis, group: Group) -> Vec<(f64, f64)> {
    let counts = |fault: &&FaultRecord| fault.confirmed.is_ok() && Group::of(&fault.kind) == group;
    let faults = run.faults.iter().filter(counts);
    let mut stretches: Vec<_> =
        faults.map(|fault| stretch(axis, fault.began, fault.ended)).collect();
    stretches.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (x, width) in stretches {
        match merged.last_mut() {
            Some(last) if x <= last.0 + last.1 + 1.0 => last.1 = last.1.max(x + width - last.0),
            _ => merged.push((x, width)),
        }
    }
    merged
}

/// What the colours are, for the groups that a run has faults of.
pub(super) fn legend<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Html {
    let present: Vec<Group> = kinds.into_iter().map(Group::of).collect();
    let shown = Group::ALL.into_iter().filter(|group| present.contains(group));
    let entry = |group: Group| {
        let name = group.name();
        Html::raw(format!("<span class=\"entry\"><i class=\"swatch {name}\"></i>{name}</span>"))
    };
    Html::tag("p", "legend", shown.map(entry).collect::<Html>())
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn bands_that_touch_are_one() {
        let mut run = example::run();
        let fault = |began, ended| FaultRecord {
            kind: "kill-leader".into(),
            what: "kill 1".into(),
            began,
            ended,
            confirmed: Ok("gone".into()),
            undo_failed: None,
        };
        run.faults = vec![fault(50, 60), fault(10, 30), fault(20, 40), fault(70, 70)];
        run.faults.push(FaultRecord { confirmed: Err("never".into()), ..fault(80, 90) });
        let axis = Axis::new(100);
        let x = |time| axis.x(time);
        assert_eq!(
            merged(&run, axis, Group::Process),
            [(x(10), x(40) - x(10)), (x(50), x(60) - x(50)), (x(70), LEAST)]
        );
        assert!(merged(&run, axis, Group::Disk).is_empty());
    }

    #[test]
    fn a_fault_that_was_not_confirmed_is_hollow_and_has_its_lane() {
        let mut run = example::run();
        run.faults.retain(|fault| fault.confirmed.is_err());
        assert!(!run.faults.is_empty());
        let lanes = Lanes::of(&run);
        let html = lanes.html(Axis::new(run.took), 0.0).to_string();
        assert_eq!(html.matches("hollow").count(), run.faults.len());
    }
}
