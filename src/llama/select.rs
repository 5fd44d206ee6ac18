//! The largest of many logits, without sorting or copying them all.

use super::error::LlamaError;

/// Logits looked at together: few enough to be skipped often, enough for the widest vector instructions.
const BLOCK: usize = 64;
const LANES: usize = 16;

/// Fills `top` with the `k` largest logits and their indices, the largest first; of equal ones the first counts.
///
/// # Errors
/// [`LlamaError::NanLogits`] where one is NaN or infinitely large, or none is larger than minus infinity.
pub(super) fn select_top(logits: &[f32], k: usize, top: &mut Vec<(f32, i32)>) -> Result<(), LlamaError> {
    top.clear();
    // The smallest of a full heap; nothing below it can come in.
    let mut floor = f32::NEG_INFINITY;
    for (number, block) in logits.chunks(BLOCK).enumerate() {
        if max_of_block(block)? <= floor {
            continue;
        }
        for (offset, logit) in block.iter().enumerate() {
            if *logit > floor {
                let index = i32::try_from(number * BLOCK + offset).map_err(|_| LlamaError::NanLogits)?;
                push(top, (*logit, index), k);
                if top.len() == k {
                    floor = top[0].0;
                }
            }
        }
    }
    if top.is_empty() {
        return Err(LlamaError::NanLogits);
    }
    top.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(())
}

/// The natural logarithm of the sum of all exponentials.
#[allow(clippy::cast_possible_truncation)] // A logarithm of this size has digits to spare.
pub(super) fn log_sum(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    max + sum.ln() as f32
}

/// The block's largest value. Split in lanes, so that the compiler can use vector instructions.
fn max_of_block(block: &[f32]) -> Result<f32, LlamaError> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut broken = [false; LANES];
    let mut chunks = block.chunks_exact(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            broken[i] |= chunk[i].is_nan() | (chunk[i] == f32::INFINITY);
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    for (i, value) in chunks.remainder().iter().enumerate() {
        broken[i] |= value.is_nan() | (*value == f32::INFINITY);
        lanes[i] = if *value > lanes[i] { *value } else { lanes[i] };
    }
    if broken.contains(&true) {
        return Err(LlamaError::NanLogits);
    }
    Ok(lanes.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// Puts an item into a heap of at most `k` whose smallest is on top; the smallest makes room. Of equal logits the
/// later index counts as smaller.
fn push(heap: &mut Vec<(f32, i32)>, item: (f32, i32), k: usize) {
    let less = |a: &(f32, i32), b: &(f32, i32)| a.0 < b.0 || (a.0 == b.0 && a.1 > b.1);
    if heap.len() < k {
        heap.push(item);
        let mut at = heap.len() - 1;
        while at > 0 && less(&heap[at], &heap[(at - 1) / 2]) {
            heap.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        return;
    }
    heap[0] = item;
    let mut at = 0;
    loop {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let mut least = at;
        if left < heap.len() && less(&heap[left], &heap[least]) {
            least = left;
        }
        if right < heap.len() && less(&heap[right], &heap[least]) {
            least = right;
        }
        if least == at {
            return;
        }
        heap.swap(at, least);
        at = least;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{log_sum, select_top};

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0f32, 3.0, -2.0, f32::NEG_INFINITY];
        let all = log_sum(&logits);
        let sum: f32 = logits.iter().map(|logit| (logit - all).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    proptest! {
        #[test]
        fn agrees_with_a_sort(logits in prop::collection::vec(-4i8..4, 1..700), k in 1usize..60) {
            // Small integers, so that there are many equal ones.
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut all: Vec<(f32, i32)> = logits.iter().copied().zip(0..).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(k);
            let mut top = Vec::new();
            select_top(&logits, k, &mut top).expect("finite");
            prop_assert_eq!(top, all);
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let mut top = Vec::new();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut logits = vec![0.0; 200];
            logits[170] = bad;
            assert!(select_top(&logits, 3, &mut top).is_err());
        }
        assert!(select_top(&[f32::NEG_INFINITY; 9], 3, &mut top).is_err());
        select_top(&[f32::NEG_INFINITY, 1.0], 2, &mut top).expect("one is possible");
        assert_eq!(top, [(1.0, 1)]);
    }
}
