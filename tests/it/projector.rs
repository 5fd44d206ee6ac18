//! Projectors, and the rows that they make, below the server.

use image::{Rgb, RgbImage};
use shimmy::gguf::writer::{Writer, tiny_llama};
use shimmy::llama::{
    Backend, Batch, Context, ContextParams, ImageBatch, ImagePart, LlamaError, Model, ModelParams, Pos, Projector,
    ProjectorParams, Token,
};

use crate::support::tiny::Files;
use crate::support::vision::{self, PATCH};

/// Patches on the side of an image: enough for attention in tiles, and no whole number of them.
const SIDE: u32 = 10;
const CPU: ProjectorParams = ProjectorParams { device: None, threads: 2 };

fn load(files: &Files, name: &str, writer: &Writer) -> Model {
    let path = files.write(name, writer);
    Model::load(Backend::init().unwrap(), &path, &ModelParams::default(), &mut |_| true).unwrap()
}

/// What `projector` makes of an image, in 64-bit floats.
struct Plain<'a> {
    projector: &'a Writer,
    width: usize,
    heads: usize,
}

impl Plain<'_> {
    fn floats(&self, name: &str) -> Vec<f64> {
        self.projector.floats(name).into_iter().map(f64::from).collect()
    }

    /// A layer's product and bias.
    fn apply(&self, name: &str, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (weights, bias) = (self.floats(&format!("{name}.weight")), self.floats(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let dot = |out: usize| -> f64 {
                weights[out * row.len()..(out + 1) * row.len()].iter().zip(row).map(|(w, x)| w * x).sum()
            };
            bias.iter().enumerate().map(|(out, bias)| dot(out) + bias).collect()
        };
        rows.iter().map(one).collect()
    }

    fn norm(&self, name: &str, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (weights, bias) = (self.floats(&format!("{name}.weight")), self.floats(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let deviation = (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-6).sqrt();
            row.iter().zip(weights.iter().zip(&bias)).map(|(x, (w, b))| (x - mean) / deviation * w + b).collect()
        };
        rows.iter().map(one).collect()
    }

    fn attend(&self, q: &[Vec<f64>], k: &[Vec<f64>], v: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let size = self.width / self.heads;
        let head = |row: &Vec<f64>, at: std::ops::Range<usize>| -> Vec<f64> {
            let score =
                |key: &Vec<f64>| -> f64 { at.clone().map(|d| row[d] * key[d]).sum::<f64>() / (size as f64).sqrt() };
            let powers: Vec<f64> = k.iter().map(|key| score(key).exp()).collect();
            let all: f64 = powers.iter().sum();
            at.map(|d| powers.iter().zip(v).map(|(power, value)| power * value[d]).sum::<f64>() / all).collect()
        };
        let heads = |row| (0..self.heads).flat_map(|h| head(row, h * size..(h + 1) * size)).collect();
        q.iter().map(heads).collect()
    }

    fn rows(&self, image: &RgbImage) -> Vec<Vec<f64>> {
        let patches = self.floats("v.patch_embd.weight");
        let area = (PATCH * PATCH) as usize;
        let patch = |at: u32| {
            let pixel = |channel: usize, i: usize| {
                let (x, y) = (at % SIDE * PATCH + i as u32 % PATCH, at / SIDE * PATCH + i as u32 / PATCH);
                f64::from(image.get_pixel(x, y).0[channel]) / 255.0
            };
            let part = |out: usize, channel: usize| -> f64 {
                (0..area).map(|i| patches[(out * 3 + channel) * area + i] * pixel(channel, i)).sum()
            };
            (0..self.width).map(|out| (0..3).map(|channel| part(out, channel)).sum()).collect()
        };
        let add = |a: &mut Vec<Vec<f64>>, b: &[Vec<f64>]| {
            a.iter_mut().flatten().zip(b.iter().flatten()).for_each(|(a, b)| *a += b);
        };
        let mut x: Vec<Vec<f64>> = (0..SIDE * SIDE).map(patch).collect();
        for block in 0..2 {
            let name = |part: &str| format!("v.blk.{block}.{part}");
            let seen = self.norm(&name("ln1"), &x);
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|part| self.apply(&name(part), &seen));
            add(&mut x, &self.apply(&name("attn_out"), &self.attend(&q, &k, &v)));
            let seen = self.norm(&name("ln2"), &x);
            add(&mut x, &self.apply(&name("ffn_down"), &gelu(self.apply(&name("ffn_up"), &seen))));
        }
        let x = self.norm("v.post_ln", &x);
        self.apply("mm.1", &gelu(self.apply("mm.0", &x)))
    }
}

fn gelu(mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    rows.iter_mut().flatten().for_each(|x| *x *= 0.5 * (1.0 + (root * (*x + 0.044_715 * x.powi(3))).tanh()));
    rows
}

/// Heads that fill the registers of all processors, those of 72 that many projectors have, and small ones.
#[test]
fn the_numbers_are_those_of_plain_arithmetic() {
    let files = Files::new();
    let model = load(&files, "model.gguf", &tiny_llama());
    let image =
        RgbImage::from_fn(SIDE * PATCH, SIDE * PATCH, |x, y| Rgb([(x * 6) as u8, (y * 6) as u8, (x * y) as u8]));
    for (width, heads) in [(64, 2), (144, 2), (48, 2), (40, 2)] {
        let writer = vision::of_width(width, heads, SIDE);
        let path = files.write("mmproj.gguf", &writer);
        let (projector, _) = Projector::load(&model, &path, &CPU).unwrap();
        let cut = projector.cut(image.as_raw(), image.width(), image.height()).unwrap();
        let rows = cut.parts().iter().find_map(|part| if let ImagePart::Rows(rows) = part { Some(rows) } else { None });
        let found = cut.encode(rows.unwrap()).unwrap();
        let expected = Plain { projector: &writer, width: width as usize, heads: heads as usize }.rows(&image);
        let largest = expected.iter().flatten().fold(0.0, |most: f64, x| most.max(x.abs()));
        assert_eq!(found.len(), expected.iter().flatten().count());
        let far = expected.iter().flatten().zip(&found).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(far < largest / 100.0, "heads of {}: {far} off, of {largest}", width / heads);
    }
}

/// Rows of an image in a batch of their own: what does not fit is an error, and whether rows see those behind them shows in what
/// follows.
#[test]
fn rows_of_an_image() {
    let files = Files::new();
    let model = load(&files, "model.gguf", &tiny_llama());
    let params = ContextParams { n_ctx: 64, n_batch: 32, n_ubatch: 8, ..ContextParams::default() };
    let mut context = Context::new(&model, &params).unwrap();
    let seq = context.seq(0).unwrap();
    let mut batch = Batch::new(&context);
    let embeddings = tiny_llama().floats("token_embd.weight");
    let row = |token: usize| &embeddings[token * 32..(token + 1) * 32];
    let vectors: Vec<f32> = (260..280).flat_map(row).copied().collect();
    let rows = |n: usize, whole: bool| ImageBatch {
        vectors: &vectors[..n * 32],
        places: &[],
        at: Pos::ZERO,
        seq,
        output: true,
        whole,
    };
    assert!(matches!(
        batch.add_image(&ImageBatch { vectors: &vectors[..40], ..rows(1, false) }),
        Err(LlamaError::ImageShape)
    ));
    let squares = [[0, 0, 0, 0]; 4];
    assert!(matches!(batch.add_image(&ImageBatch { places: &squares, ..rows(4, false) }), Err(LlamaError::ImageShape)));
    batch.add_image(&rows(20, true)).unwrap();
    assert!(matches!(batch.add_image(&rows(1, false)), Err(LlamaError::ImageShape)), "it is not empty");
    let token = Token::new(260).unwrap();
    assert!(matches!(batch.add(token, Pos::ZERO, seq, true), Err(LlamaError::ImageShape)));
    assert!(matches!(context.decode(&mut batch), Err(LlamaError::ExceedsUbatch { tokens: 20, n_ubatch: 8 })));

    let mut next = |fill: &dyn Fn(&mut Batch), n: usize| {
        context.kv().clear().unwrap();
        batch.clear();
        fill(&mut batch);
        context.decode(&mut batch).unwrap();
        context.logits(n - 1).unwrap().as_slice().to_vec()
    };
    let texts = next(
        &|batch| {
            for (at, token) in (260..266).enumerate() {
                batch.add(Token::new(token).unwrap(), Pos::new(at).unwrap(), seq, at == 5).unwrap();
            }
        },
        6,
    );
    let causal = next(&|batch| batch.add_image(&rows(6, false)).unwrap(), 6);
    let whole = next(&|batch| batch.add_image(&rows(6, true)).unwrap(), 6);
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far(&causal, &texts) < 1e-4, "rows are read as the tokens that they are the embeddings of");
    assert!(far(&whole, &texts) > 1e-3, "the first layer's rows have seen those behind them");
    assert!(far(&next(&|batch| batch.add_image(&rows(6, false)).unwrap(), 6), &causal) < 1e-6, "and not for ever");

    let model = load(&files, "squares.gguf", &crate::support::tiny::multi_rope());
    let context = Context::new(&model, &params).unwrap();
    let mut batch = Batch::new(&context);
    let image = ImageBatch { seq: context.seq(0).unwrap(), ..rows(4, false) };
    assert!(matches!(batch.add_image(&image), Err(LlamaError::ImageShape)), "positions of several parts need places");
    batch.add_image(&ImageBatch { places: &squares, ..image }).unwrap();
}
