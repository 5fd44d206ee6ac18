//! Why a model could not be loaded, or a request not served.

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;
use crate::placement::PlacementError;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RunnerError {
    /// The client can mend it.
    #[error("{0}")]
    BadRequest(String),
    #[error(
        "the prompt has {prompt_tokens} tokens and the context holds {context_tokens}; shorten it or raise --ctx-size or --ctx-per-request"
    )]
    PromptTooLong { prompt_tokens: usize, context_tokens: usize },
    /// Try again later.
    #[error("{0}")]
    Overloaded(String),
    /// Nobody waits for the answer any more.
    #[error("the client left before its prompt was ready")]
    Abandoned,
    /// The model or llama.cpp failed.
    #[error("{0}")]
    Failed(String),
}

impl From<EngineError> for RunnerError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::PromptTooLong { prompt_tokens, context_tokens } => {
                Self::PromptTooLong { prompt_tokens, context_tokens }
            }
            EngineError::EmptyPrompt
            | EngineError::Parameter(_)
            | EngineError::ImageTooLarge { .. }
            | EngineError::TooMany { .. } => Self::BadRequest(error.to_string()),
            EngineError::Overloaded { .. } => Self::Overloaded(error.to_string()),
            EngineError::Failed(_) | EngineError::Stopped => Self::Failed(error.to_string()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum LoadError {
    #[error("{0}")]
    Placement(#[from] PlacementError),
    #[error("this binary was built without the feature `{feature}` that this model needs")]
    NotBuilt {
        /// Always one of our own feature names.
        #[serde(skip, default)]
        feature: &'static str,
    },
    #[error("loading was cancelled")]
    Cancelled,
    #[error("{0}")]
    Failed(String),
}

impl LoadError {
    /// Whether it may go well once there is more memory free. llama.cpp has no code of its own for that, only words.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        match self {
            Self::Placement(PlacementError::NothingFits { .. } | PlacementError::TooLittleMemory { .. }) => true,
            Self::Failed(text) => {
                let text = text.to_lowercase();
                ["out of memory", "outofdevicememory", "to allocate"].iter().any(|words| text.contains(words))
            }
            _ => false,
        }
    }
}
