//! Why the engine could not serve a request.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum EngineError {
    #[error("{running} requests run and {waiting} wait, which is all that the queue holds; try again soon")]
    Overloaded { running: usize, waiting: usize },
    #[error(
        "{asked} answers are asked for and {most} is all that runs and waits at a time; ask for fewer, or raise --queue"
    )]
    TooMany { asked: usize, most: usize },
    #[error(
        "the prompt has {prompt_tokens} tokens and the context holds {context_tokens}; shorten it or raise --ctx-size or --ctx-per-request"
    )]
    PromptTooLong { prompt_tokens: usize, context_tokens: usize },
    #[error("an image has {rows} tokens and the model reads each as a whole, {most} at most; make it smaller")]
    ImageTooLarge { rows: usize, most: usize },
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A sampling value out of range.
    #[error("{0}")]
    Parameter(String),
    /// The model or llama.cpp failed.
    #[error("{0}")]
    Failed(String),
    #[error("the model was unloaded")]
    Stopped,
}
