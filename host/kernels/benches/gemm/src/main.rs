//! Microseconds and GFLOP/s of matrix products by the crate `gemm`, one thread, row-major.

use std::time::Instant;

fn main() {
    let products = [
        [1024, 1024, 1024],
        [256, 2048, 2048],
        [256, 512, 256],
        [128, 256, 128],
        [128, 30, 256],
        [1, 256, 128],
    ];
    for [m, k, n] in products {
        let (left, right) = (vec![0.5_f32; m * k], vec![0.25_f32; k * n]);
        let mut target = vec![0.0_f32; m * n];
        let calls = (20_000_000 / (m * k * n)).max(3);
        let mut rounds: Vec<f64> = (0..50)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..calls {
                    product([m, k, n], &left, &right, &mut target);
                    std::hint::black_box(&target);
                }
                started.elapsed().as_secs_f64() / calls as f64
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        let median = rounds[rounds.len() / 2];
        let rate = 2.0 * (m * k * n) as f64 / median / 1e9;
        println!("[{m}, {k}] x [{k}, {n}]: {:.2} µs, {rate:.0} GFLOP/s", median * 1e6);
    }
}

fn product([m, k, n]: [usize; 3], left: &[f32], right: &[f32], target: &mut [f32]) {
    let stride = |extent: usize| extent as isize;
    // SAFETY: the slices have the sizes and the strides of the product.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.as_mut_ptr(),
            1,
            stride(n),
            false,
            left.as_ptr(),
            1,
            stride(k),
            right.as_ptr(),
            1,
            stride(n),
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
