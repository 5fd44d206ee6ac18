//! Anthropic's paths, below `/v1/messages`. Its `/v1/models` is OpenAI's too.

use crate::api::anthropic::MessagesRequest;
use crate::api::anthropic::shapes::{Event, Message, TokenCount};
use crate::server::openapi::COMPUTING;
use crate::server::route::{Table, post};
use crate::server::routes::anthropic;

pub(super) fn table() -> Table {
    let routes = vec![
        post("/v1/messages", anthropic::messages, "Answer a conversation")
            .about("`max_tokens` is required.")
            .takes::<MessagesRequest>()
            .answers::<Message>()
            .events::<Event>()
            .fails(COMPUTING),
        post("/v1/messages/count_tokens", anthropic::count_tokens, "Count the tokens of a conversation")
            .takes::<MessagesRequest>()
            .answers::<TokenCount>()
            .fails(COMPUTING),
    ];
    Table { tag: "Anthropic", about: "What Anthropic's clients ask for. Their base URL is `http://host:port`.", routes }
}
