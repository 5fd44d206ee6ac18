//! Tiny projectors, and images for them.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use shimmy::gguf::writer::{TINY_EMBD, Writer, tiny_llama};

use super::tiny::multi_rope;

/// Pixels on the side of a patch.
pub const PATCH: u32 = 4;
/// Patches on the side of an image.
pub const SIDE: u32 = 4;
/// Tokens of [`tiny_llama`] that a red, a green and a blue patch are read as.
pub const COLOURS: [u32; 3] = [260, 261, 262];

/// A template that puts the messages behind each other as they are.
pub fn plain(mut model: Writer) -> Writer {
    model.string("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}");
    model
}

fn clip(kind: &str, image_size: u32, patch: u32, blocks: u32) -> Writer {
    let mut w = Writer::new();
    w.string("general.architecture", "clip")
        .string("general.type", "mmproj")
        .string("clip.projector_type", kind)
        .bool("clip.has_vision_encoder", true)
        .bool("clip.use_gelu", true)
        .u32("clip.vision.image_size", image_size)
        .u32("clip.vision.patch_size", patch)
        .u32("clip.vision.embedding_length", 32)
        .u32("clip.vision.feed_forward_length", 64)
        .u32("clip.vision.block_count", blocks)
        .u32("clip.vision.attention.head_count", 2)
        .u32("clip.vision.projection_dim", 32)
        .f32("clip.vision.attention.layer_norm_epsilon", 1e-6)
        .f32s("clip.vision.image_mean", &[0.0; 3])
        .f32s("clip.vision.image_std", &[1.0; 3]);
    w
}

/// For each output, how much of each input it is.
fn matrix(w: &mut Writer, name: &str, [inputs, outputs]: [usize; 2], of: impl Fn(usize, usize) -> f32) {
    let values: Vec<f32> =
        (0..outputs).flat_map(|out| (0..inputs).map(move |inp| (out, inp))).map(|(o, i)| of(o, i)).collect();
    w.values(name, &[inputs as u64, outputs as u64], &values);
}

/// Component `at` of the embedding that a colour is to become.
fn embedding(model: &Writer) -> impl Fn(usize, usize) -> f32 {
    let all = model.floats("token_embd.weight");
    move |colour, at| all[COLOURS[colour] as usize * TINY_EMBD as usize + at]
}

/// The first three components of a patch are its shares of red, green and blue.
fn colour_patches(w: &mut Writer) {
    let area = PATCH * PATCH;
    let values: Vec<f32> = (0..32)
        .flat_map(|out| (0..3).map(move |channel| (out, channel)))
        .flat_map(|(out, channel)| (0..area).map(move |_| if out == channel { 1.0 / area as f32 } else { 0.0 }))
        .collect();
    w.values("v.patch_embd.weight", &[PATCH.into(), PATCH.into(), 3, 32], &values);
}

/// Reads each patch of one colour as the embedding of a token: an image of them is exactly a text of those tokens.
pub fn colours(model: &Writer) -> Writer {
    let mut w = clip("janus_pro", SIDE * PATCH, PATCH, 0);
    colour_patches(&mut w);
    let embedding = embedding(model);
    // What is not there is far below zero, where nothing of it passes.
    matrix(&mut w, "mm.0.weight", [32, 32], |out, inp| if out == inp { 40.0 } else { 0.0 });
    w.values("mm.0.bias", &[32], &[-20.0; 32]);
    matrix(&mut w, "mm.1.weight", [32, 32], |out, inp| if inp < 3 { embedding(inp, out) / 20.0 } else { 0.0 });
    w.values("mm.1.bias", &[32], &[0.0; 32]);
    w
}

/// The same with tiles: four patches together are read as the first of them.
pub fn tiles(model: &Writer) -> Writer {
    let mut w = clip("idefics3", SIDE * PATCH, PATCH, 0);
    w.u32("clip.vision.projector.scale_factor", 2).u32("clip.vision.preproc_image_size", 2 * SIDE * PATCH);
    colour_patches(&mut w);
    let embedding = embedding(model);
    matrix(&mut w, "mm.model.fc.weight", [128, 32], |out, inp| if inp < 3 { embedding(inp, out) } else { 0.0 });
    w
}

/// A model whose vocabulary has what stands around tiles.
pub fn tiled_model() -> Writer {
    let mut w = tiny_llama();
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend("▁abcdefghijklmnopqrstuvw".chars().map(String::from));
    tokens.extend(["<fake_token_around_image>", "<global-img>", "\n\n"].map(String::from));
    let n = tokens.len();
    let kind = |id: usize| match id {
        0 => 2,
        1 | 2 => 3,
        3..=258 => 6,
        _ if id >= n - 3 => 4,
        _ => 1,
    };
    w.strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &(0..n).map(kind).collect::<Vec<_>>());
    w
}

fn transformer(w: &mut Writer, blocks: u32) {
    for block in 0..blocks {
        for (part, dims) in [
            ("attn_q", [32, 32]),
            ("attn_k", [32, 32]),
            ("attn_v", [32, 32]),
            ("attn_out", [32, 32]),
            ("ffn_up", [32, 64]),
            ("ffn_down", [64, 32]),
        ] {
            w.random(&format!("v.blk.{block}.{part}.weight"), &dims, 0.0);
            w.random(&format!("v.blk.{block}.{part}.bias"), &dims[1..], 0.0);
        }
        for norm in ["ln1", "ln2"] {
            w.random(&format!("v.blk.{block}.{norm}.weight"), &[32], 1.0);
            w.random(&format!("v.blk.{block}.{norm}.bias"), &[32], 0.0);
        }
    }
    w.random("v.post_ln.weight", &[32], 1.0).random("v.post_ln.bias", &[32], 0.0);
}

/// Rows that see those behind them, of random weights.
pub fn whole() -> Writer {
    let mut w = clip("gemma3", SIDE * PATCH, PATCH, 2);
    w.u32("clip.vision.projector.scale_factor", 2);
    transformer(&mut w, 2);
    w.random("v.patch_embd.weight", &[PATCH.into(), PATCH.into(), 3, 32], 0.0)
        .random("v.patch_embd.bias", &[32], 0.0)
        .random("v.position_embd.weight", &[32, u64::from(SIDE * SIDE)], 0.0)
        .random("mm.input_projection.weight", &[32, 32], 0.0)
        .random("mm.soft_emb_norm.weight", &[32], 1.0);
    w
}

/// An image is a square among the positions of [`multi_rope`], with random weights.
pub fn square() -> (Writer, Writer) {
    let mut w = clip("qwen2vl_merger", 56, 14, 2);
    transformer(&mut w, 2);
    w.random("v.patch_embd.weight", &[14, 14, 3, 32], 0.0)
        .random("v.patch_embd.weight.1", &[14, 14, 3, 32], 0.0)
        .random("mm.0.weight", &[128, 128], 0.0)
        .random("mm.0.bias", &[128], 0.0)
        .random("mm.2.weight", &[128, 32], 0.0)
        .random("mm.2.bias", &[32], 0.0);
    (multi_rope(), w)
}

/// Of another width than the model's, with so many heads, for images of `side` patches on a side.
pub fn of_width(width: u32, heads: u32, side: u32) -> Writer {
    let mut w = clip("janus_pro", side * PATCH, PATCH, 2);
    w.u32("clip.vision.embedding_length", width)
        .u32("clip.vision.feed_forward_length", 64)
        .u32("clip.vision.attention.head_count", heads);
    let width = u64::from(width);
    // Large enough for a softmax that is far from even.
    let mut layer = |name: String, inputs: u64, outputs: u64| {
        let weight = format!("{name}.weight");
        let small = w.random(&weight, &[inputs, outputs], 0.0).floats(&weight);
        w.values(&weight, &[inputs, outputs], &small.into_iter().map(|value| 8.0 * value).collect::<Vec<_>>());
        w.random(&format!("{name}.bias"), &[outputs], 0.0);
    };
    for block in 0..2 {
        for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
            layer(format!("v.blk.{block}.{part}"), width, width);
        }
        layer(format!("v.blk.{block}.ffn_up"), width, 64);
        layer(format!("v.blk.{block}.ffn_down"), 64, width);
    }
    layer("mm.0".into(), width, 32);
    layer("mm.1".into(), 32, 32);
    w.random("v.patch_embd.weight", &[PATCH.into(), PATCH.into(), 3, width], 0.0);
    for norm in ["v.blk.0.ln1", "v.blk.0.ln2", "v.blk.1.ln1", "v.blk.1.ln2", "v.post_ln"] {
        w.random(&format!("{norm}.weight"), &[width], 1.0).random(&format!("{norm}.bias"), &[width], 0.0);
    }
    w
}

/// A picture of patches, row by row: `r`, `g` and `b`.
pub fn picture(width: u32, patches: &str) -> Vec<u8> {
    let patches: Vec<char> = patches.chars().collect();
    let height = patches.len() as u32 / width;
    let mut image = RgbImage::new(width * PATCH, height * PATCH);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        *pixel = match patches[(y / PATCH * width + x / PATCH) as usize] {
            'r' => Rgb([255, 0, 0]),
            'g' => Rgb([0, 255, 0]),
            _ => Rgb([0, 0, 255]),
        };
    }
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// The tokens that [`colours`] makes of patches.
pub fn tokens(patches: &str) -> impl Iterator<Item = u32> {
    patches.chars().map(|patch| COLOURS["rgb".find(patch).unwrap()])
}
