//! The wrapper without engine or server: `cargo run --release --example generate -- model.gguf "Once upon a time"`.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use shimmy::llama::{Backend, Batch, Context, ContextParams, Model, ModelParams, Pos, Sampler, SamplerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL.gguf [PROMPT]")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());

    let model = Model::load(Backend::init()?, Path::new(&path), &ModelParams::default(), &mut |_| true)?;
    let vocab = model.vocab()?;
    let mut context = Context::new(&model, &ContextParams { n_ctx: 2048, ..ContextParams::default() })?;
    let mut sampler = Sampler::new(&vocab, &SamplerConfig { seed: 1, ..SamplerConfig::default() })?;

    let (seq, mut batch) = (context.seq(0)?, Batch::new(&context));
    let tokens = vocab.tokenize(&prompt, true, true)?;
    for (at, token) in tokens.iter().enumerate() {
        batch.add(*token, Pos::new(at)?, seq, at + 1 == tokens.len())?;
    }
    let mut out = std::io::stdout().lock();
    for at in tokens.len()..context.n_ctx().min(tokens.len() + 64) {
        context.decode(&mut batch)?;
        let token = sampler.sample(context.logits(batch.len() - 1)?)?;
        if vocab.is_end_of_generation(token)? {
            break;
        }
        let mut piece = Vec::new();
        vocab.append_piece(token, false, &mut piece)?;
        out.write_all(&piece)?;
        out.flush()?;
        batch.clear();
        batch.add(token, Pos::new(at)?, seq, true)?;
    }
    Ok(writeln!(out)?)
}
