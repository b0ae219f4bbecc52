//! Real time: what had already ended when something began.

/// Something that took time, with a measure that real time must not contradict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<M> {
    pub(super) id: u64,
    pub(super) began: u64,
    /// `None` where nobody knows: then nothing is known to come after it.
    pub(super) ended: Option<u64>,
    pub(super) measure: M,
}

/// For each span, the one with the greatest measure among those that ended before it began. In n log n.
pub(super) fn floors<M: Ord + Copy>(spans: &[Span<M>]) -> Vec<Option<Span<M>>> {
    let mut by_begin: Vec<(usize, &Span<M>)> = spans.iter().enumerate().collect();
    by_begin.sort_by_key(|(_, span)| span.began);
    let mut by_end: Vec<(u64, &Span<M>)> =
        spans.iter().filter_map(|span| Some((span.ended?, span))).collect();
    by_end.sort_by_key(|(ended, _)| *ended);

    let mut ended = by_end.into_iter().peekable();
    let mut greatest: Option<Span<M>> = None;
    let mut floors = vec![None; spans.len()];
    for (at, span) in by_begin {
        while let Some((_, before)) = ended.next_if(|(end, _)| *end < span.began) {
            if greatest.is_none_or(|greatest| before.measure > greatest.measure) {
                greatest = Some(*before);
            }
        }
        if let Some(floor) = floors.get_mut(at) {
            *floor = greatest;
        }
    }
    floors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_of_what_ended_strictly_before() {
        let span = |id, began, ended, measure| Span { id, began, ended, measure };
        let spans = [
            span(1, 0, Some(10), 5),
            span(2, 3, Some(4), 9),
            span(3, 10, Some(12), 1),
            span(4, 11, None, 2),
            span(5, 20, Some(21), 3),
        ];
        let ids: Vec<_> = floors(&spans).iter().map(|floor| floor.map(|span| span.id)).collect();
        assert_eq!(ids, [None, None, Some(2), Some(2), Some(2)]);
        let late = [span(1, 0, None, 5), span(2, 8, Some(9), 1)];
        assert!(floors(&late).iter().all(Option::is_none), "the unknown never ends");
    }
}
