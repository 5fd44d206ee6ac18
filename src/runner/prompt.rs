//! From a request to what the engine needs: tokens, stop strings, what the text must look like, and who reads it.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::Waits;
use super::delta::OutputParser;
use super::error::RunnerError;
use super::forms;
use super::infill::{self, Marks};
use super::output::{CallParser, EitherCallParser, PlainCallParser, TemplateParser};
use super::rank;
use super::sight::Sight;
use super::spec::{GenerateSpec, Input, Prompt};
use crate::chat::{
    ChatOptions, Ending, Message, Part, Rendered, Shield, TemplateChoice, Tool, ToolChoice, forced, tools_json,
};
use crate::constrain::{Compiler, Constraint, TokenFilter, Words};
use crate::engine::{ImageRows, TokenId};
use crate::llama::{AnswerParser, LlamaError, Token, Vocab};

/// What stands for an image in a prompt that is only shown.
const IMAGE_SHOWN: &str = "[image]";

/// A model's template and vocabulary.
#[derive(Debug)]
pub(super) struct Prompts {
    vocab: Vocab,
    template: TemplateChoice,
    knows_tools: bool,
    /// What looks at images, or why nothing does.
    pub(super) sight: Result<Sight, String>,
    /// Tokens that one sequence can hold.
    pub(super) context: usize,
    /// Rows of one pass, at most.
    pub(super) pass: usize,
    /// Made for the first conversation: it looks at each entry of the vocabulary.
    shield: OnceLock<Shield>,
    /// Made for the first request that asks for a form.
    compiler: OnceLock<Result<Compiler, String>>,
}

/// What the engine needs of a request.
pub(super) struct Prepared {
    pub tokens: Vec<TokenId>,
    /// Of which it has rows.
    pub images: Vec<Arc<ImageRows>>,
    /// Those that count: of the request, and of the template.
    pub stops: Vec<String>,
    pub parser: Option<Box<dyn OutputParser>>,
    /// What the answer must look like; each has a filter of its own.
    pub form: Option<Constraint>,
    /// Control tokens that the parser must see.
    pub shown: Vec<TokenId>,
}

/// A prompt and how its answer is read.
struct Text {
    prompt: String,
    stops: Vec<String>,
    parser: Option<Box<dyn OutputParser>>,
    constraint: Option<Constraint>,
    shown: Vec<TokenId>,
}

impl Prompts {
    pub fn new(
        vocab: Vocab,
        template: TemplateChoice,
        sight: Result<Sight, String>,
        [context, pass]: [usize; 2],
    ) -> Self {
        let knows_tools = template.knows_tools();
        Self { vocab, template, knows_tools, sight, context, pass, shield: OnceLock::new(), compiler: OnceLock::new() }
    }

    pub fn prepare(&self, spec: &GenerateSpec, waits: Waits<'_>) -> Result<Prepared, RunnerError> {
        let plain = |tokens| {
            let form = spec.constraint.clone();
            let images = Vec::new();
            Ok(Prepared { tokens, images, stops: spec.stop.clone(), parser: None, form, shown: Vec::new() })
        };
        match &spec.input {
            Input::Raw(text) => plain(self.begun(self.tokenize(text, false, true)?)),
            Input::Tokens(tokens) => {
                self.check_tokens(tokens.iter().copied())?;
                plain(tokens.clone())
            }
            Input::Infill(gap) => {
                let tokenise = |text: &str| self.tokenize(text, false, false);
                let begin = self.vocab.begin().map(Token::index);
                plain(infill::tokens(spec, gap, self.marks(), begin, self.context, &tokenise)?)
            }
            Input::Messages(messages) => {
                let looks = self.look(messages, waits, |sight, cut| sight.compute(cut, waits))?;
                let Text { prompt, mut stops, parser, constraint, shown } = self.conversation(messages, spec)?;
                if !spec.chat.must_call() {
                    // The arguments of a call are no text that could be cut off.
                    stops.extend(spec.stop.iter().cloned());
                }
                let (tokens, images) = self.put_together(&prompt, &looks)?;
                Ok(Prepared { tokens, images, stops, parser, form: constraint, shown })
            }
        }
    }

    /// What [`Prompts::prepare`] makes of a request, to be looked at.
    pub fn show(&self, spec: &GenerateSpec) -> Result<Prompt, RunnerError> {
        let Input::Messages(messages) = &spec.input else {
            let Prepared { tokens, .. } = self.prepare(spec, &|| true)?;
            let text = String::from_utf8_lossy(&self.pieces(&tokens)?.concat()).into_owned();
            return Ok(Prompt { text, tokens });
        };
        let looks = self.look(messages, &|| true, Sight::outline)?;
        let prompt = self.conversation(messages, spec)?.prompt;
        let (tokens, _) = self.put_together(&prompt, &looks)?;
        let text = |part| match part {
            Part::Template(text) | Part::Shielded(text) => text,
            Part::Image(_) => IMAGE_SHOWN,
        };
        let text = self.shield().parts(&prompt).into_iter().map(text).collect();
        Ok(Prompt { text, tokens })
    }

    fn marks(&self) -> Option<Marks> {
        let found = self.vocab.infill_tokens()?;
        Some(Marks {
            before: found.before.index(),
            behind: found.behind.index(),
            middle: found.middle.index(),
            repository: found.repository.map(Token::index),
            file: found.file.map(Token::index),
        })
    }

    pub(super) fn shield(&self) -> &Shield {
        self.shield.get_or_init(|| Shield::new(&self.vocab.control_names()))
    }

    fn conversation(&self, messages: &[Message], spec: &GenerateSpec) -> Result<Text, RunnerError> {
        let shield = self.shield();
        let messages = shield.messages(messages);
        let mut options = spec.chat.clone();
        for tool in options.tools.iter_mut().filter(|tool| tool.parameters.is_null()) {
            // Templates look into it.
            tool.parameters = json!({ "type": "object", "properties": {} });
        }
        let plain = std::mem::take(&mut options.tools);
        options.tools = shield.tools(&plain).into_owned();
        if spec.chat.must_call() {
            return self.call(&messages, &options, &plain);
        }
        let mut messages = messages.into_owned();
        let untold = !options.tools.is_empty() && !self.knows_tools;
        if untold {
            messages = forced::with_tools_told(&messages, &tools_json(&options.tools));
        }
        if let Some(constraint) = &spec.constraint {
            return self.answer_in_form(&messages, &options, constraint);
        }
        let Rendered { text: prompt, stops, parser, without_calls } =
            self.render(&messages, &options, Ending::Answer)?;
        let shown = parser.as_ref().map(|parser| self.control_tokens(parser)).transpose()?.unwrap_or_default();
        let plain = (untold && options.parse && options.may_call()).then(|| PlainCallParser::new(&options.tools));
        let template = parser.map(|parser| TemplateParser::new(parser, without_calls, options.may_call()));
        let parser: Option<Box<dyn OutputParser>> = match (template, plain) {
            (Some(template), Some(plain)) => Some(Box::new(EitherCallParser::new(template, plain))),
            (Some(template), None) => Some(Box::new(template)),
            (None, Some(plain)) => Some(Box::new(plain)),
            (None, None) => None,
        };
        Ok(Text { prompt, stops, parser, constraint: None, shown })
    }

    /// An answer whose text has a form begins where its text does.
    fn answer_in_form(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        constraint: &Constraint,
    ) -> Result<Text, RunnerError> {
        let options = ChatOptions { thinking: Some(false), parse: false, ..options.clone() };
        let open = self.render(messages, &options, Ending::Answer)?;
        let prompt = self.before_text(messages, &options, &open.text)?;
        Ok(Text { prompt, stops: open.stops, parser: None, constraint: Some(constraint.clone()), shown: Vec::new() })
    }

    /// Where the template puts the text of an answer that `open` opens without thoughts: behind what opens it, and behind
    /// thoughts that are not there.
    fn before_text(&self, messages: &[Message], options: &ChatOptions, open: &str) -> Result<String, RunnerError> {
        let with_answer = [messages, &[forced::probe_content()]].concat();
        let answered = self.render(&with_answer, options, Ending::Nothing).ok();
        let before = answered.as_ref().and_then(|answered| forced::before_content(&answered.text));
        let closed = self.render(messages, options, Ending::Nothing)?.text;
        // A template that drops or moves earlier turns is left alone.
        let Some(before) = before.filter(|before| before.starts_with(closed.trim_end())) else {
            return Ok(open.to_owned());
        };
        let Some(more) = open.strip_prefix(before).filter(|more| !more.is_empty()) else {
            return Ok(before.to_owned());
        };
        // It opens a thought, whatever was asked; or it closes one because none was asked for.
        let thinking = ChatOptions { thinking: Some(true), ..options.clone() };
        let always = self.render(messages, &thinking, Ending::Answer)?.text.ends_with(more);
        Ok(if always { before } else { open }.to_owned())
    }

    /// A call that must happen begins where the template puts the arguments of a call, or the name of the tool where
    /// there are several. Its form is that of JSON where the template has none that can be found out.
    /// `plain` are the tools without the marks that keep their texts from being control tokens.
    fn call(&self, messages: &[Message], options: &ChatOptions, plain: &[Tool]) -> Result<Text, RunnerError> {
        let tools: Vec<&Tool> = match &options.tool_choice {
            ToolChoice::Named(name) => plain.iter().filter(|tool| tool.name == *name).collect(),
            _ => plain.iter().collect(),
        };
        if tools.is_empty() {
            return Err(RunnerError::BadRequest("tool_choice names a tool that is not among `tools`".into()));
        }
        let untold = (!self.knows_tools).then(|| forced::with_tools_told(messages, &tools_json(&options.tools)));
        let messages = untold.as_deref().unwrap_or(messages);
        let options = ChatOptions { thinking: Some(false), parse: false, ..options.clone() };
        let open = self.render(messages, &options, Ending::Answer)?;
        let closed = self.render(messages, &options, Ending::Nothing)?.text;
        let native = |tool: &&Tool| {
            let with_call = [messages, &[forced::probe_call(tool)]].concat();
            let rendered = self.render(&with_call, &options, Ending::Nothing).ok()?;
            let before = forced::before_arguments(&rendered.text).filter(|text| text.starts_with(closed.trim_end()));
            before.map(str::to_owned)
        };
        let natives: Option<Vec<String>> = if self.knows_tools { tools.iter().map(native).collect() } else { None };
        let begun = match natives {
            Some(natives) => natives,
            None => {
                let before = self.before_text(messages, &options, &open.text)?;
                tools.iter().map(|tool| format!("{before}{}", forced::plain_call(tool))).collect()
            }
        };
        let prompt = forced::common(&begun.iter().map(String::as_str).collect::<Vec<_>>()).to_owned();
        let rests: Vec<&str> = begun.iter().map(|text| &text[prompt.len()..]).collect();
        let constraint = match (tools.as_slice(), rests.as_slice()) {
            ([tool], _) => Constraint::JsonSchema(parameters(tool)),
            (tools, rests) => self.one_of(tools, rests)?,
        };
        let calls = tools.iter().zip(&rests).map(|(tool, rest)| Ok((tool.name.clone(), self.visible(rest)?)));
        let parser: Box<dyn OutputParser> = Box::new(CallParser::new(calls.collect::<Result<_, RunnerError>>()?));
        let (parser, constraint) = (Some(parser), Some(constraint));
        Ok(Text { prompt, stops: open.stops, parser, constraint, shown: Vec::new() })
    }

    /// A grammar of calls, one a tool: what tells it, and its arguments.
    fn one_of(&self, tools: &[&Tool], rests: &[&str]) -> Result<Constraint, RunnerError> {
        let names: Vec<String> = (0..tools.len()).map(|n| format!("call_{n}")).collect();
        let mut lark = format!("start: {}\n", names.join(" | "));
        for (n, (tool, rest)) in tools.iter().zip(rests).enumerate() {
            let before: Vec<String> = self.tokens_of(rest)?.into_iter().map(|(_, written)| written).collect();
            let schema = crate::constrain::with_options(parameters(tool));
            lark.push_str(&format!("call_{n}: {} arguments_{n}\narguments_{n}: %json {schema}\n", before.join(" ")));
        }
        Ok(Constraint::Lark(lark))
    }

    /// The text that generating `text` shows: control tokens show none.
    fn visible(&self, text: &str) -> Result<String, RunnerError> {
        Ok(self.tokens_of(text)?.into_iter().map(|(shown, _)| shown).collect())
    }

    /// Stretches of text and control tokens: what each shows, and how a grammar writes it.
    fn tokens_of(&self, text: &str) -> Result<Vec<(String, String)>, RunnerError> {
        let mut found = Vec::new();
        let shown = |text: &str| (!text.is_empty()).then(|| (text.to_owned(), Value::from(text).to_string()));
        let mut rest = text;
        for id in self.tokenize(text, false, true)? {
            let name = Token::new(id).and_then(|token| self.vocab.control_name(token));
            let name = name.and_then(|name| String::from_utf8(name).ok());
            // The text comes from between the names: the tokens of some vocabularies have a space more.
            let Some((before, after)) = name.as_ref().and_then(|name| rest.split_once(name)) else { continue };
            found.extend(shown(before));
            found.push((String::new(), format!("<[{id}]>")));
            rest = after;
        }
        found.extend(shown(rest));
        Ok(found)
    }

    /// Those among what tells the parts of an answer apart. Most families write calls between control tokens.
    fn control_tokens(&self, parser: &AnswerParser) -> Result<Vec<TokenId>, RunnerError> {
        let marks = parser.marks().map_err(|e| RunnerError::Failed(e.to_string()))?;
        let mut found = Vec::new();
        for mark in serde_json::from_str::<Vec<String>>(&marks).unwrap_or_default() {
            let tokens = self.vocab.tokenize(&mark, false, true).map_err(|e| RunnerError::Failed(e.to_string()))?;
            found
                .extend(tokens.into_iter().filter(|token| self.vocab.control_name(*token).is_some()).map(Token::index));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn render(&self, messages: &[Message], options: &ChatOptions, ending: Ending) -> Result<Rendered, RunnerError> {
        self.template.render(messages, options, ending).map_err(|e| RunnerError::BadRequest(e.to_string()))
    }

    /// What a model that ranks is given: its own template, filled, or the two texts with the vocabulary's ends behind them.
    ///
    /// # Errors
    /// The first pair of more than `longest` tokens.
    pub fn pairs(
        &self,
        query: &str,
        documents: &[String],
        template: Option<&str>,
        longest: usize,
    ) -> Result<Vec<Vec<TokenId>>, RunnerError> {
        let marks = self.vocab.pair_marks();
        let mut front: Vec<TokenId> = marks.begin.map(Token::index).into_iter().collect();
        if template.is_none() {
            front.extend(self.tokenize(query, false, false)?);
            front.extend(marks.between.into_iter().flatten().map(Token::index));
        }
        let template = template.map(|template| (template, self.shield().text(query)));
        let pair = |document: &String| {
            let tokens = if let Some((template, query)) = &template {
                self.tokenize_parts(&rank::fill(template, query, &self.shield().text(document)))?
            } else {
                let document = self.tokenize(document, false, false)?;
                front.iter().copied().chain(document).chain(marks.behind.map(Token::index)).collect()
            };
            if tokens.len() > longest {
                return Err(RunnerError::PromptTooLong { prompt_tokens: tokens.len(), context_tokens: longest });
            }
            Ok(tokens)
        };
        documents.iter().map(pair).collect()
    }

    /// Looks up what a client sent.
    ///
    /// # Errors
    /// The first token that the vocabulary does not have.
    pub fn check_tokens(&self, tokens: impl IntoIterator<Item = TokenId>) -> Result<(), RunnerError> {
        let n_tokens = self.vocab.n_tokens();
        match tokens.into_iter().find(|token| *token >= n_tokens) {
            None => Ok(()),
            Some(token) => {
                let why = format!("there is no token {token}: the model's vocabulary has {n_tokens}");
                Err(RunnerError::BadRequest(why))
            }
        }
    }

    /// Cuts a text off, but for what its vocabulary puts behind each: some models read the whole text there.
    pub fn truncate(&self, tokens: &mut Vec<TokenId>, longest: usize) {
        let end =
            tokens.last().copied().filter(|id| Token::new(*id).is_some_and(|t| self.vocab.control_name(t).is_some()));
        if tokens.len() > longest {
            tokens.truncate(longest);
            if let (Some(end), Some(last)) = (end, tokens.last_mut()) {
                *last = end;
            }
        }
    }

    /// With what stands in front of any text. What a vocabulary puts behind a text would end it here.
    pub(super) fn begun(&self, tokens: Vec<TokenId>) -> Vec<TokenId> {
        self.vocab.begin().map(Token::index).into_iter().chain(tokens).collect()
    }

    /// `begin` puts in front what a prompt begins with; `control` reads the names of control tokens as those tokens.
    pub fn tokenize(&self, text: &str, begin: bool, control: bool) -> Result<Vec<TokenId>, RunnerError> {
        let tokens = self.vocab.tokenize(text, begin, control).map_err(|e| match e {
            LlamaError::TextTooLong { .. } => RunnerError::BadRequest(e.to_string()),
            e => RunnerError::Failed(e.to_string()),
        })?;
        Ok(tokens.into_iter().map(Token::index).collect())
    }

    pub fn pieces(&self, tokens: &[TokenId]) -> Result<Vec<Vec<u8>>, RunnerError> {
        let piece = |id: &TokenId| {
            let mut bytes = Vec::new();
            let token = Token::new(*id).ok_or(LlamaError::NoVocabulary);
            let appended = token.and_then(|token| self.vocab.append_piece(token, true, &mut bytes));
            appended.map(|()| bytes).map_err(|e| RunnerError::BadRequest(format!("token {id}: {e}")))
        };
        tokens.iter().map(piece).collect()
    }

    /// What the answer must look like, ready to be followed.
    ///
    /// # Errors
    /// What of the form cannot be kept to.
    pub fn filter(&self, constraint: &Constraint) -> Result<Box<dyn TokenFilter>, RunnerError> {
        let compiler = self.compiler.get_or_init(|| words(&self.vocab).and_then(Compiler::new));
        forms::filter(compiler, constraint)
    }
}

/// Arguments are an object, also where the schema does not say so.
fn parameters(tool: &Tool) -> Value {
    match &tool.parameters {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields = fields.clone();
            fields.entry("type").or_insert_with(|| "object".into());
            Value::Object(fields)
        }
        _ => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
    }
}

/// The vocabulary as a grammar sees it: control tokens have no text there.
fn words(vocab: &Vocab) -> Result<Words, String> {
    let mut words = Vec::with_capacity(vocab.n_tokens() as usize);
    for token in (0..vocab.n_tokens()).filter_map(Token::new) {
        let mut bytes = Vec::new();
        vocab.append_piece(token, false, &mut bytes).map_err(|e| e.to_string())?;
        words.push(bytes);
    }
    let ends = vocab.end_tokens().iter().map(|token| token.index()).collect();
    Ok(Words { words, ends })
}
