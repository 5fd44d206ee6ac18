//! llama.cpp's paths: what a model makes of a text.

use crate::api::infill::{Chunk, InfillRequest, Infilled};
use crate::api::ollama::shapes::ErrorBody;
use crate::api::openai::ChatRequest;
use crate::api::utility::{Content, DetokenizeRequest, PromptText, TokenizeRequest, Tokens};
use crate::server::openapi::{COMPUTING, Either};
use crate::server::route::{Table, post};
use crate::server::routes::utility;

pub(super) fn table() -> Table {
    let routes = vec![
        post("/tokenize", utility::tokenize, "Turn a text into tokens")
            .takes::<TokenizeRequest>()
            .answers::<Tokens>()
            .fails(COMPUTING),
        post("/detokenize", utility::detokenize, "Turn tokens into a text")
            .takes::<DetokenizeRequest>()
            .answers::<Content>()
            .fails(COMPUTING),
        post("/apply-template", utility::apply_template, "Show the prompt that a conversation becomes")
            .about("The body is that of `POST /v1/chat/completions`, but that `model` may be absent.")
            .takes::<ChatRequest>()
            .answers::<PromptText>()
            .fails(COMPUTING),
        post("/infill", utility::infill, "Fill a gap in a text")
            .about("For models with tokens that mark a gap. Of `input_extra` the last files that fit the context are told.")
            .takes::<InfillRequest>()
            .answers::<Infilled<'static>>()
            .events::<Either<Either<Chunk<'static>, Infilled<'static>>, ErrorBody>>()
            .fails(COMPUTING),
    ];
    Table { tag: "llama.cpp", about: "In the shapes of llama.cpp's server.", routes }
}
