//! The fuzz targets of `fuzz/`, on mutations of their seeds that are the same each time.
//!
//! `scripts/test_fuzz.sh` finds more, but has all compiled once more; this is what every test run can afford.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;

const MUTATIONS: u64 = 3000;

#[test]
fn no_mutation_of_a_seed_upsets_its_target() {
    for target in targets::TARGETS {
        let seeds = (target.seeds)();
        seeds.iter().for_each(|seed| (target.run)(seed));
        for number in 0..MUTATIONS {
            let mut rng = Rng::with_seed(number);
            let mut bytes = seeds[rng.usize(..seeds.len())].clone();
            for _ in 0..rng.usize(1..6) {
                mutate(&mut bytes, &seeds, &mut rng);
            }
            let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes)));
            assert!(ran.is_ok(), "{} fails on mutation {number}", target.name);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    if bytes.is_empty() {
        bytes.push(rng.u8(..));
    }
    // The front has the counts that the rest depends on.
    let len = if rng.bool() { bytes.len().min(512) } else { bytes.len() };
    let at = rng.usize(..len);
    match rng.u8(..7) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[at] = rng.u8(..),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.u8(..)),
        4 => {
            bytes.drain(at..(at + rng.usize(1..9)).min(bytes.len()));
        }
        5 => {
            let extreme = rng.choice([0, 1, 0x7fff_ffff, 1 << 31, u64::MAX, u64::MAX >> 1, 1 << 40]).unwrap_or(0);
            let value = extreme.to_le_bytes();
            let width = [1, 2, 4, 8][rng.usize(..4)];
            bytes.iter_mut().skip(at).zip(&value[..width]).for_each(|(byte, new)| *byte = *new);
        }
        _ => {
            let other = &seeds[rng.usize(..seeds.len())];
            let from = rng.usize(..other.len());
            let to = (from + rng.usize(1..64)).min(other.len());
            let piece = other[from..to].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}
