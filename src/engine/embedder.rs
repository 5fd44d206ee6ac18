//! Texts to vectors: a context of its own that pools, made when it is first needed. Texts of several requests share a pass.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::llama::{Adapter, Batch, Context, ContextParams, LlamaError, Model, Pos, Token};

use super::error::EngineError;
use super::forward::TokenId;

/// Tokens of the first context; one for longer texts takes its place when such a text comes.
const FIRST_BATCH: u32 = 512;

/// A text to embed, and where its vector goes.
#[derive(Debug)]
struct Text {
    tokens: Vec<TokenId>,
    number: usize,
    reply: SyncSender<(usize, Result<Vec<f32>, String>)>,
}

/// See the module. Dropping it ends its thread.
#[derive(Debug)]
pub struct Embedder {
    model: Model,
    adapters: Vec<(Adapter, f32)>,
    params: ContextParams,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    texts: Option<Sender<Text>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.texts = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Embedder {
    /// `params` tell the longest text (`n_batch`) and how many share a pass (`n_seq_max`).
    #[must_use]
    pub fn new(model: &Model, adapters: Vec<(Adapter, f32)>, params: ContextParams) -> Self {
        Self { model: model.clone(), adapters, params, running: Mutex::new(None) }
    }

    /// Components of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.model.n_embd_out()
    }

    /// Most tokens of one text.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.params.n_batch as usize
    }

    /// One vector a text, as the model gives it. Blocks until all are done.
    ///
    /// # Errors
    /// A text that is empty or too long, or what the model failed with.
    pub fn embed(&self, texts: Vec<Vec<TokenId>>) -> Result<Vec<Vec<f32>>, EngineError> {
        for tokens in &texts {
            if tokens.is_empty() {
                return Err(EngineError::EmptyPrompt);
            }
            if tokens.len() > self.longest() {
                let context_tokens = self.longest();
                return Err(EngineError::PromptTooLong { prompt_tokens: tokens.len(), context_tokens });
            }
        }
        let mut vectors = vec![Vec::new(); texts.len()];
        let (reply, replies) = sync_channel(texts.len());
        let sender = self.sender()?;
        for (number, tokens) in texts.into_iter().enumerate() {
            let text = Text { tokens, number, reply: reply.clone() };
            sender.send(text).map_err(|_| EngineError::Stopped)?;
        }
        drop(reply);
        for _ in 0..vectors.len() {
            let (number, vector) = replies.recv().map_err(|_| EngineError::Stopped)?;
            vectors[number] = vector.map_err(EngineError::Failed)?;
        }
        Ok(vectors)
    }

    fn sender(&self) -> Result<Sender<Text>, EngineError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Running { texts: Some(texts), .. }) = running.as_ref() {
            return Ok(texts.clone());
        }
        let (sender, texts) = channel();
        let (model, adapters, params) = (self.model.clone(), self.adapters.clone(), self.params.clone());
        let thread = std::thread::Builder::new()
            .name("embed".into())
            .spawn(move || serve(&model, &adapters, &params, &texts))
            .map_err(|error| EngineError::Failed(format!("no thread for embeddings: {error}")))?;
        *running = Some(Running { texts: Some(sender.clone()), thread: Some(thread) });
        Ok(sender)
    }
}

/// Takes texts as they come; those that have come meanwhile go together.
fn serve(model: &Model, adapters: &[(Adapter, f32)], params: &ContextParams, texts: &Receiver<Text>) {
    let mut context: Option<Context> = None;
    let mut waiting: VecDeque<Text> = VecDeque::new();
    while let Some(first) = waiting.pop_front().or_else(|| texts.recv().ok()) {
        waiting.extend(texts.try_iter());
        if context.as_ref().is_none_or(|context| context.n_batch() < first.tokens.len()) {
            // Two at a time would take the memory of both.
            context = None;
            match create(model, adapters, params, first.tokens.len()) {
                Ok(made) => context = Some(made),
                Err(error) => {
                    let _ = first.reply.send((first.number, Err(error.to_string())));
                    continue;
                }
            }
        }
        let Some(context) = &mut context else { continue };
        let mut together = vec![first];
        let mut room = context.n_batch() - together[0].tokens.len();
        while together.len() < context.n_seq_max() as usize
            && let Some(next) = waiting.front()
            && next.tokens.len() <= room
            && let Some(next) = waiting.pop_front()
        {
            room -= next.tokens.len();
            together.push(next);
        }
        let vectors = pass(context, &together).map_err(|error| error.to_string());
        for (index, text) in together.into_iter().enumerate() {
            let vector = vectors.as_ref().map(|vectors| vectors[index].clone()).map_err(String::clone);
            // Whoever asked may have left.
            let _ = text.reply.send((text.number, vector));
        }
    }
}

fn create(
    model: &Model,
    adapters: &[(Adapter, f32)],
    params: &ContextParams,
    tokens: usize,
) -> Result<Context, LlamaError> {
    let needed = u32::try_from(tokens).unwrap_or(u32::MAX).checked_next_power_of_two().unwrap_or(u32::MAX);
    let n_batch = needed.max(FIRST_BATCH).min(params.n_batch);
    let mut context =
        Context::new(model, &ContextParams { n_batch, n_ubatch: n_batch, n_ctx: n_batch, ..params.clone() })?;
    context.set_adapters(adapters)?;
    Ok(context)
}

fn pass(context: &mut Context, texts: &[Text]) -> Result<Vec<Vec<f32>>, LlamaError> {
    let seqs = (0u32..).take(texts.len()).map(|id| context.seq(id)).collect::<Result<Vec<_>, _>>()?;
    let mut batch = Batch::new(context);
    for (text, seq) in texts.iter().zip(&seqs) {
        for (at, id) in text.tokens.iter().enumerate() {
            let token = Token::new(*id).ok_or(LlamaError::NoVocabulary)?;
            batch.add(token, Pos::new(at)?, *seq, true)?;
        }
    }
    let decoded = context.decode(&mut batch);
    let vectors = decoded.and_then(|()| {
        let vector = |seq| context.embedding(seq).map(<[f32]>::to_vec);
        seqs.iter().map(|seq| vector(*seq)).collect::<Result<Vec<_>, _>>()
    });
    // It is refused only where there is nothing to clear: encoders keep no cache.
    let _ = context.kv().clear();
    vectors
}
