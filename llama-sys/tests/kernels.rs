//! Our own CPU kernels against plain arithmetic in 64-bit floats.

use llama_sys::{SHIM_OK, SHIM_REFUSED, shim_kernel_attention, shim_kernel_gemm};

/// Numbers from -1 to 1 that follow from a seed.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn next(&mut self) -> f32 {
        self.bits() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// A 16-bit float that is exact: an integer from -31 to 31, divided by 16.
fn half(sixteenths: i32) -> u16 {
    if sixteenths == 0 {
        return 0;
    }
    let magnitude = sixteenths.unsigned_abs();
    let exponent = 31 - magnitude.leading_zeros();
    let mantissa = (magnitude << (10 - exponent)) & 0x3ff;
    (u16::from(sixteenths < 0) << 15) | (((exponent + 11) << 10) | mantissa) as u16
}

#[test]
fn halves_are_what_they_should_be() {
    assert_eq!([half(16), half(8), half(-24), half(1)], [0x3c00, 0x3800, 0xbe00, 0x2c00]);
}

#[test]
fn products_are_those_of_the_unpacked_weights() {
    let mut noise = Noise(1);
    for (n_rows, length, n_columns, parts) in
        [(16, 32, 1, 1), (48, 576, 1, 2), (32, 1536, 1, 3), (48, 576, 7, 2), (32, 1536, 13, 3), (16, 2080, 70, 2)]
    {
        let (mut weights, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..n_rows * length / 32 {
            let (scale, minimum) = (1 + (noise.bits() % 20) as i32, (noise.bits() % 40) as i32 - 20);
            weights.extend(half(scale).to_le_bytes());
            weights.extend(half(minimum).to_le_bytes());
            let bytes: Vec<u8> = (0..16).map(|_| noise.bits() as u8).collect();
            let value = |quant: u8| f64::from(scale) / 16.0 * f64::from(quant) + f64::from(minimum) / 16.0;
            plain.extend(bytes.iter().map(|byte| value(byte & 15)));
            plain.extend(bytes.iter().map(|byte| value(byte >> 4)));
            weights.extend(bytes);
        }
        let columns: Vec<f32> = (0..n_columns * length).map(|_| noise.next()).collect();
        let mut out = vec![0.0f32; n_rows * n_columns];
        // SAFETY: all buffers have the sizes that the numbers say.
        let status = unsafe {
            shim_kernel_gemm(
                weights.as_ptr(),
                n_rows as i64,
                length as i64,
                columns.as_ptr(),
                n_columns as i64,
                parts,
                out.as_mut_ptr(),
            )
        };
        if status.unsigned_abs() == SHIM_REFUSED {
            eprintln!("not checked: this processor has no AVX-512 VNNI");
            return;
        }
        assert_eq!(status.unsigned_abs(), SHIM_OK);
        for column in 0..n_columns {
            for row in 0..n_rows {
                let pairs = plain[row * length..][..length].iter().zip(&columns[column * length..][..length]);
                let (mut exact, mut size) = (0.0, 0.0);
                for (weight, activation) in pairs {
                    exact += weight * f64::from(*activation);
                    size += (weight * f64::from(*activation)).powi(2);
                }
                // Activations are rounded to 1/127 of their block's largest, each one half a step off at most.
                let bound = 0.05 * f64::sqrt(size) + 1e-3;
                let got = f64::from(out[column * n_rows + row]);
                assert!((got - exact).abs() < bound, "row {row}, column {column}: {got}, not {exact} ± {bound}");
            }
        }
    }
}

#[test]
fn attention_sees_what_the_mask_shows() {
    const HIDDEN: u16 = 0xfc00;
    let mut noise = Noise(2);
    for (head_size, n_rows, n_heads, n_kv_heads, n_cells, parts) in [
        (64, 3, 9, 3, 96, 2),
        (64, 1, 9, 3, 2048, 3),
        (128, 9, 8, 8, 256, 2),
        (80, 5, 4, 2, 32, 1),
        (256, 2, 4, 1, 64, 2),
    ] {
        let queries: Vec<f32> = (0..n_rows * n_heads * head_size).map(|_| noise.next()).collect();
        let mut cells = || -> (Vec<u16>, Vec<f64>) {
            let integers: Vec<i32> =
                (0..n_cells * n_kv_heads * head_size).map(|_| (noise.bits() % 63) as i32 - 31).collect();
            (integers.iter().map(|i| half(*i)).collect(), integers.iter().map(|i| f64::from(*i) / 16.0).collect())
        };
        let ((keys, plain_keys), (values, plain_values)) = (cells(), cells());
        let mut mask: Vec<u16> =
            (0..n_rows * n_cells).map(|_| if noise.bits().is_multiple_of(3) { 0 } else { HIDDEN }).collect();
        (0..n_rows).for_each(|row| mask[row * n_cells + row] = 0);
        let scale = 1.0 / (head_size as f32).sqrt();
        let mut out = vec![0.0f32; queries.len()];
        // SAFETY: all buffers have the sizes that the numbers say.
        let status = unsafe {
            shim_kernel_attention(
                queries.as_ptr(),
                keys.as_ptr(),
                values.as_ptr(),
                mask.as_ptr(),
                head_size as i64,
                n_rows as i64,
                n_heads as i64,
                n_kv_heads as i64,
                n_cells as i64,
                scale,
                parts,
                out.as_mut_ptr(),
            )
        };
        if status.unsigned_abs() == SHIM_REFUSED {
            eprintln!("not checked: this processor has no AVX-512");
            return;
        }
        for (row, head) in (0..n_rows).flat_map(|row| (0..n_heads).map(move |head| (row, head))) {
            let query = &queries[(row * n_heads + head) * head_size..][..head_size];
            let at = |cell: usize| (cell * n_kv_heads + head / (n_heads / n_kv_heads)) * head_size;
            let seen: Vec<usize> = (0..n_cells).filter(|cell| mask[row * n_cells + cell] == 0).collect();
            let score = |cell: &usize| {
                let key = &plain_keys[at(*cell)..][..head_size];
                f64::from(scale) * query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum::<f64>()
            };
            let largest = seen.iter().map(score).fold(f64::MIN, f64::max);
            let weights: Vec<f64> = seen.iter().map(|cell| (score(cell) - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head_size {
                let exact: f64 =
                    seen.iter().zip(&weights).map(|(cell, weight)| weight / total * plain_values[at(*cell) + d]).sum();
                let got = f64::from(out[(row * n_heads + head) * head_size + d]);
                assert!((got - exact).abs() < 1e-4, "row {row}, head {head}, {d}: {got}, not {exact}");
            }
        }
    }
}

/// A model whose numbers went wrong must not seem to be well.
#[test]
fn a_product_with_what_is_no_number_is_none() {
    const LENGTH: usize = 64;
    let weights = vec![0x11u8; 16 * LENGTH / 32 * 20];
    for (n_columns, wrong) in [(1, f32::NAN), (1, f32::INFINITY), (3, f32::NAN)] {
        let mut columns = vec![1.0f32; n_columns * LENGTH];
        columns[7] = wrong;
        let mut out = vec![0.0f32; 16 * n_columns];
        // SAFETY: all buffers have the sizes that the numbers say.
        let status = unsafe {
            shim_kernel_gemm(
                weights.as_ptr(),
                16,
                LENGTH as i64,
                columns.as_ptr(),
                n_columns as i64,
                1,
                out.as_mut_ptr(),
            )
        };
        if status.unsigned_abs() == SHIM_REFUSED {
            eprintln!("not checked: this processor has no AVX-512 VNNI");
            return;
        }
        assert!(out[..16].iter().all(|value| value.is_nan()), "{wrong}: {:?}", &out[..16]);
        assert!(out[16..].iter().all(|value| value.is_finite()), "a column of its own: {:?}", &out[16..]);
    }
}

#[test]
fn attention_to_what_is_no_number_is_none() {
    const CELLS: usize = 96;
    for (n_rows, parts) in [(1, 3), (9, 1)] {
        let mut queries = vec![0.5f32; n_rows * 64];
        queries[3] = f32::NAN;
        let (cells, mask) = (vec![half(8); CELLS * 64], vec![0u16; n_rows * CELLS]);
        let mut out = vec![0.0f32; n_rows * 64];
        // SAFETY: all buffers have the sizes that the numbers say.
        let status = unsafe {
            shim_kernel_attention(
                queries.as_ptr(),
                cells.as_ptr(),
                cells.as_ptr(),
                mask.as_ptr(),
                64,
                n_rows as i64,
                1,
                1,
                CELLS as i64,
                0.125,
                parts,
                out.as_mut_ptr(),
            )
        };
        if status.unsigned_abs() == SHIM_REFUSED {
            eprintln!("not checked: this processor has no AVX-512");
            return;
        }
        assert!(out[..64].iter().all(|value| value.is_nan()), "{:?}", &out[..64]);
        assert!(out[64..].iter().all(|value| (value - 0.5).abs() < 1e-3), "{:?}", &out[64..]);
    }
}
