//! A few operations of a history, drawn: a lane for each client, a bar for each call.
//!
//! What matters in a violation is which call was over before which began. So time is not to scale: each
//! moment at which a call begins or ends has its own place, in order, as far from the one before as the
//! labels need. A bar whose outcome is unknown is dashed from where its client gave up to the right
//! edge: it may take effect at any later time.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Micros, Operation, Run};

use super::html::{Html, Table, clip, count, duration};
use super::stats::{self, Class};
use super::words;

/// Operations that are drawn.
const DRAWN_MAX: usize = 60;
/// Operations that are in the table.
const LISTED_MAX: usize = 400;
/// Characters of a label.
const LABEL: usize = 48;
/// Pixels of a character of a label.
const CHARACTER: f64 = 7.3;
/// Between two moments, at least.
const GAP: f64 = 34.0;
/// Between a label and what follows it in its lane.
const AFTER_LABEL: f64 = 16.0;
/// Where the lanes begin, from the left and from the top.
const LEFT: f64 = 92.0;
const TOP: f64 = 34.0;
/// From one lane to the next.
const STEP: f64 = 62.0;
/// Of a bar.
const HEIGHT: f64 = 14.0;
/// The least width of a drawing.
const WIDTH_MIN: f64 = 900.0;
/// Between the labels of two moments, at least.
const TICK: f64 = 84.0;

/// Draws the operations with these ids, and lists them.
pub(super) fn html(run: &Run, ids: &[u64]) -> Html {
    let named: BTreeSet<u64> = ids.iter().copied().collect();
    if named.is_empty() {
        return Html::text_in("p", "quiet", "The verdict names no operation.");
    }
    let mut operations: Vec<&Operation> =
        run.operations.iter().filter(|operation| named.contains(&operation.id)).collect();
    operations.sort_by_key(|operation| (operation.began, operation.ended, operation.id));
    let drawn = operations.get(..DRAWN_MAX).unwrap_or(&operations);
    [drawing(drawn), cut_note(operations.len()), listing(&operations), missing(&operations, named)]
        .into_iter()
        .collect()
}

fn drawing(operations: &[&Operation]) -> Html {
    if operations.is_empty() {
        return Html::default();
    }
    let layout = Layout::of(operations);
    let bars: Html = operations.iter().map(|operation| layout.bar(operation)).collect();
    let parts: Html = [layout.moments(), layout.names(), bars].into_iter().collect();
    let (width, height) = (layout.width, layout.height());
    Html::raw(format!(
        "<div class=\"scroll\"><svg class=\"fragment\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"the operations, a lane for each client\">{parts}</svg></div>\n"
    ))
}

/// Where everything is.
struct Layout {
    /// The clients in the order in which they come in, each with its lane.
    lanes: BTreeMap<u64, usize>,
    /// The place of each moment.
    places: BTreeMap<Micros, f64>,
    width: f64,
}

impl Layout {
    fn of(operations: &[&Operation]) -> Self {
        let mut lanes = BTreeMap::new();
        let mut moments = BTreeSet::new();
        for operation in operations {
            let next = lanes.len();
            lanes.entry(operation.client).or_insert(next);
            moments.extend([operation.began, operation.ended]);
        }
        let (places, right) = places(operations, &moments);
        let stretch = ((WIDTH_MIN - LEFT) / (right - LEFT)).max(1.0);
        let places = places.into_iter().map(|(time, x)| (time, LEFT + (x - LEFT) * stretch));
        Layout { lanes, places: places.collect(), width: LEFT + (right - LEFT) * stretch }
    }

    fn height(&self) -> f64 {
        TOP + self.lanes.len() as f64 * STEP + 6.0
    }

    fn x(&self, time: Micros) -> f64 {
        self.places.get(&time).copied().unwrap_or(LEFT)
    }

    /// The top of a client's bars.
    fn y(&self, client: u64) -> f64 {
        let lane = self.lanes.get(&client).copied().unwrap_or(0);
        TOP + lane as f64 * STEP + 24.0
    }

    /// A hairline at each moment, and its time where there is room.
    fn moments(&self) -> Html {
        let (top, bottom) = (TOP - 6.0, self.height());
        let mut free = 0.0;
        let line = |(time, x): (&Micros, &f64)| {
            let mut label = Html::default();
            if *x >= free {
                free = x + TICK;
                label = Html::raw(format!(
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"16\">{}</text>",
                    precise(*time)
                ));
            }
            Html::raw(format!("<path class=\"grid\" d=\"M{x:.1} {top}V{bottom:.1}\"/>{label}\n"))
        };
        self.places.iter().map(line).collect()
    }

    fn names(&self) -> Html {
        let name = |client: &u64| {
            let y = self.y(*client) + HEIGHT - 3.0;
            let x = LEFT - 14.0;
            Html::raw(format!(
                "<text class=\"name\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">\
                 client {client}</text>\n"
            ))
        };
        self.lanes.keys().map(name).collect()
    }

    fn bar(&self, operation: &Operation) -> Html {
        let (x, to, y) =
            (self.x(operation.began), self.x(operation.ended), self.y(operation.client));
        let width = (to - x).max(4.0);
        let (above, below) = labels(operation);
        let (over, under, class) = (y - 6.0, y + HEIGHT + 13.0, class(operation));
        let title = Html::text(clip(&title(operation), 600));
        let open = self.open_end(operation, x + width, y);
        let (above, below) = (Html::text(above), Html::text(below));
        Html::raw(format!(
            "<g><title>{title}</title><rect class=\"call {class}\" x=\"{x:.1}\" y=\"{y:.1}\" \
             width=\"{width:.1}\" height=\"{HEIGHT}\" rx=\"2\"/>{open}\
             <text class=\"label\" x=\"{x:.1}\" y=\"{over:.1}\">{above}</text>\
             <text class=\"label\" x=\"{x:.1}\" y=\"{under:.1}\">{below}</text></g>\n"
        ))
    }

    /// The rest of a call that may take effect later.
    fn open_end(&self, operation: &Operation, from: f64, y: f64) -> Html {
        if Class::of(operation) != Class::Unknown {
            return Html::default();
        }
        let (low, edge) = (y + HEIGHT, self.width);
        Html::raw(format!(
            "<path class=\"call open\" d=\"M{from:.1} {y:.1}H{edge:.1}M{from:.1} {low:.1}H{edge:.1}\"/>"
        ))
    }
}

/// A place for each moment, in order, such that no label in a lane meets the next; and where they end.
fn places(operations: &[&Operation], moments: &BTreeSet<Micros>) -> (BTreeMap<Micros, f64>, f64) {
    let mut places = BTreeMap::new();
    // Where the last label of each client ends.
    let mut free: BTreeMap<u64, f64> = BTreeMap::new();
    let mut next = LEFT;
    for time in moments {
        let begin = || operations.iter().filter(|operation| operation.began == *time);
        let x = begin().filter_map(|it| free.get(&it.client)).fold(next, |x, free| x.max(*free));
        for operation in begin() {
            free.insert(operation.client, x + label_width(operation) + AFTER_LABEL);
        }
        places.insert(*time, x);
        next = x + GAP;
    }
    (places, free.into_values().fold(next, f64::max))
}

/// What stands over a bar, and under it.
fn labels(operation: &Operation) -> (String, String) {
    let below = format!("→ {}", words::outcome(&operation.outcome));
    (clip(&words::action(&operation.action), LABEL), clip(&below, LABEL))
}

fn label_width(operation: &Operation) -> f64 {
    let (above, below) = labels(operation);
    above.chars().count().max(below.chars().count()) as f64 * CHARACTER
}

fn class(operation: &Operation) -> &'static str {
    match Class::of(operation) {
        Class::Done if operation.writes() => "write",
        Class::Done => "read",
        Class::Denied => "denied",
        Class::Refused => "refused",
        Class::Unknown => "unknown",
    }
}

fn title(operation: &Operation) -> String {
    let Operation { id, client, node, began, .. } = operation;
    format!(
        "operation {id}: client {client}, node {node}, at {} for {}\n{}\n→ {}",
        precise(*began),
        duration(stats::latency(operation)),
        words::action(&operation.action),
        words::outcome(&operation.outcome)
    )
}

/// A moment to the microsecond: what came first is told by the last digits.
fn precise(time: Micros) -> String {
    format!("{}.{:06} s", time / 1_000_000, time % 1_000_000)
}

fn cut_note(operations: usize) -> Html {
    if operations <= DRAWN_MAX {
        return Html::default();
    }
    let note = format!("The first {DRAWN_MAX} of {} are drawn.", count(operations as u64));
    Html::text_in("p", "quiet", note)
}

fn listing(operations: &[&Operation]) -> Html {
    let heads = ["#id", "#client", "#node", "asked", "came of it", "#began", "#ended", "#took"];
    let mut table = Table::new(&heads);
    for operation in operations.iter().take(LISTED_MAX) {
        let took = duration(stats::latency(operation));
        table.row([
            Html::text(operation.id),
            Html::text(operation.client),
            Html::text(operation.node),
            Html::text_in("code", "", words::action(&operation.action)),
            Html::text_in("code", "", words::outcome(&operation.outcome)),
            Html::text(precise(operation.began)),
            Html::text(precise(operation.ended)),
            Html::text(took),
        ]);
    }
    let more = operations.len().saturating_sub(LISTED_MAX);
    let note = match more {
        0 => Html::default(),
        more => Html::text_in("p", "quiet", format!("{more} more are in history.jsonl.")),
    };
    [table.html("None of them is in the history."), note].into_iter().collect()
}

fn missing(operations: &[&Operation], mut named: BTreeSet<u64>) -> Html {
    for operation in operations {
        named.remove(&operation.id);
    }
    if named.is_empty() {
        return Html::default();
    }
    let ids: Vec<String> = named.iter().take(LISTED_MAX).map(u64::to_string).collect();
    let note = format!("Named by the verdict, but not in the history: {}.", ids.join(", "));
    Html::text_in("p", "bad", note)
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;
    use crate::history::{Action, Answer, Outcome, Resolution};

    fn operation(id: u64, client: u64, began: Micros, ended: Micros) -> Operation {
        let action = Action::Set { key: "k".into(), value: id.to_string() };
        let outcome = Outcome::Done { answer: Answer::Written, revision: Some(id) };
        let workload = "register".into();
        Operation { id, workload, client, node: 1, action, began, ended, outcome }
    }

    fn lost(id: u64, client: u64, began: Micros, ended: Micros) -> Operation {
        let outcome = Outcome::Unknown { reason: "reset".into(), resolution: Resolution::None };
        Operation { outcome, ..operation(id, client, began, ended) }
    }

    #[test]
    fn order_is_kept_and_labels_of_a_lane_do_not_meet() {
        let all = [operation(1, 5, 10, 30), operation(2, 3, 20, 40), operation(3, 5, 31, 32)];
        let operations: Vec<_> = all.iter().collect();
        let layout = Layout::of(&operations);
        let places: Vec<f64> = [10, 20, 30, 31, 32, 40].map(|time| layout.x(time)).into();
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        let [first, _, third] = &all;
        assert!(layout.x(third.began) - layout.x(first.began) >= label_width(first));
        assert!(layout.width >= WIDTH_MIN);
        assert!(layout.width >= layout.x(third.began) + label_width(third));
    }

    #[test]
    fn each_client_has_a_lane_and_each_operation_a_bar() {
        let mut run = example::run();
        run.operations = vec![operation(1, 5, 10, 30), lost(2, 3, 20, 40), operation(3, 5, 31, 32)];
        run.operations.push(operation(4, 9, 1, 2));
        let html = html(&run, &[1, 2, 3, 3]).to_string();
        assert_eq!(html.matches("class=\"name\"").count(), 2, "lanes of clients 3 and 5");
        assert_eq!(html.matches("<rect class=\"call ").count(), 3);
        assert_eq!(html.matches("class=\"call open\"").count(), 1, "the unknown one is open");
        assert!(html.contains("set k = 1") && html.contains("→ written @1"), "{html}");
        assert!(!html.contains("client 9"), "only what the verdict names");
    }

    #[test]
    fn what_the_history_lacks_is_said() {
        let run = example::run();
        let html = html(&run, &[999_999_999]).to_string();
        assert!(html.contains("not in the history: 999999999."), "{html}");
    }

    #[test]
    fn a_long_fragment_is_cut_and_says_so() {
        let mut run = example::run();
        run.operations = (0..500).map(|n| operation(n, n % 7, n * 10, n * 10 + 5)).collect();
        let ids: Vec<u64> = (0..500).collect();
        let html = html(&run, &ids).to_string();
        assert_eq!(html.matches("<rect class=\"call ").count(), DRAWN_MAX);
        assert!(html.contains("The first 60 of 500 are drawn."));
        assert!(html.contains("100 more are in history.jsonl."));
    }
}
