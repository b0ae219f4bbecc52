//! The time of each piece, by criterion: for whoever changes one, on a quiet machine.
//!
//! A piece that handles a batch is shown per batch, with calls per second beside it. Pieces that wait for
//! other threads are left out: their time is that of a disk.

use std::time::{Duration, Instant};

use bench::pieces::{PIECES, Piece, Running, measured};
use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn road(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("road");
    for piece in PIECES.iter().filter(|piece| !piece.waits) {
        group.throughput(Throughput::Elements(piece.calls));
        group.bench_function(BenchmarkId::from_parameter(piece.name), |bencher| {
            time(piece, bencher)
        });
    }
    group.finish();
}

fn time(piece: &Piece, bencher: &mut Bencher) {
    let Running { prepare, mut run } = piece.start().expect("its input is sound");
    let Some(mut prepare) = prepare else {
        return bencher.iter(|| measured(&mut run));
    };
    bencher.iter_custom(|runs| {
        let mut took = Duration::ZERO;
        for _ in 0..runs {
            prepare();
            let begun = Instant::now();
            measured(&mut run);
            took += begun.elapsed();
        }
        took
    });
}

criterion_group!(benches, road);
criterion_main!(benches);
