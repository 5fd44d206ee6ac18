//! Deleting and copying models of shimmy's own folder.

use std::sync::Arc;

use crate::api::ollama::{CreateRequest, model_not_found};
use crate::api::{BadRequest, ErrorKind};
use crate::library::pull::{Made, ModelName, NotAName, Recipe, make};
use crate::library::{Found, untagged};
use crate::registry::{ModelStatus, RegistryError};
use crate::server::error::ApiError;

use super::{Models, lock};

impl Models {
    /// Takes a name away that somebody gave to a model, or removes a model with what no other one needs of it. Blocks. Whoever
    /// uses it goes on to the end: what a model has mapped stays until it leaves.
    ///
    /// # Errors
    /// A name that is not known, or a model that is not ours.
    pub fn delete(&self, asked: &str) -> Result<(), ApiError> {
        if self.registry.remove_alias(asked) {
            return Ok(());
        }
        let owned = match self.status(asked)? {
            Some(status) => {
                let name = self.owned(&status)?;
                // Other names may mean another model tomorrow.
                self.found(&status)?.is_called(asked).then_some((name, status.name))
            }
            None => None,
        };
        let owned = match owned {
            Some((name, listed)) => {
                // Its memory is free by then, and on Windows its files can be removed.
                self.registry.unload(&listed)?;
                name.full()
            }
            // One that lost some of its files is not listed.
            None => {
                let found = self.store().ok().and_then(|store| store.find(asked).ok());
                found.ok_or_else(|| self.not_found(asked))?.0.full()
            }
        };
        let removed = self.store()?.remove(&owned).map_err(|error| ApiError::from(&error));
        self.look_again_now();
        let removed = removed?;
        tracing::info!(model = removed.name, bytes = removed.freed_bytes, "removed");
        Ok(())
    }

    /// Gives a model another name: for good where it is one of ours, else until the server ends. Blocks.
    ///
    /// # Errors
    /// A name that is not known, or one that is taken.
    pub fn copy(&self, source: &str, destination: &str) -> Result<(), ApiError> {
        let status = self.status(source)?.ok_or_else(|| self.not_found(source))?;
        let Ok(name) = self.owned(&status) else {
            destination.parse::<ModelName>().map_err(|error| BadRequest(error.to_string()))?;
            // An alias goes first where a name is looked up, so the model of this name would be out of reach.
            if self.registry.has_model(destination) || destination.eq_ignore_ascii_case("default") {
                return Err(taken(destination));
            }
            self.registry.add_alias(destination, &status.name);
            return Ok(());
        };
        let to = self.free_name(destination)?;
        self.store()?.copy(&name.full(), &to).map_err(|error| ApiError::from(&error))?;
        self.registry.remove_alias(destination);
        self.look_again_now();
        Ok(())
    }

    /// A name for a model of ours. It may be that of another one of ours, whose place it then takes.
    ///
    /// # Errors
    /// What is no name, or a model's that is not ours.
    pub fn free_name(&self, asked: &str) -> Result<ModelName, ApiError> {
        let name: ModelName = asked.parse().map_err(|error: NotAName| BadRequest(error.to_string()))?;
        self.store()?;
        // As it will be listed: what was asked for may be a longer spelling.
        let listed = name.to_string();
        match self.status(&listed)? {
            Some(status) if self.registry.has_model(&listed) && self.owned(&status).is_err() => Err(taken(&listed)),
            _ => Ok(name),
        }
    }

    /// The name under which our own folder has a model.
    ///
    /// # Errors
    /// One that is not ours.
    pub fn owned(&self, status: &ModelStatus) -> Result<ModelName, ApiError> {
        let found = self.found(status)?;
        self.store()?.owned(&found).map_err(|error| ApiError::from(&error))
    }

    /// What a model is to be made of; `None` for a name that nobody has.
    ///
    /// # Errors
    /// A model without a file.
    pub fn base(&self, from: &str) -> Result<Option<Arc<Found>>, ApiError> {
        self.status(from)?.map(|status| self.found(&status)).transpose()
    }

    /// Makes a model, and makes it known. Blocks.
    ///
    /// # Errors
    /// What is wrong with the request, or a blob that was not sent.
    pub fn make(
        &self,
        name: &ModelName,
        request: CreateRequest,
        base: Option<Arc<Found>>,
        tell: &mut dyn FnMut(Made),
    ) -> Result<(), ApiError> {
        let recipe = Recipe { base, ..request.recipe };
        let made = make(self.store()?, name, &recipe, tell).map_err(|error| ApiError::from(&error));
        self.look_again_now();
        made
    }

    /// `None` for a name that nobody has.
    pub fn status(&self, asked: &str) -> Result<Option<ModelStatus>, ApiError> {
        match self.registry.status(asked) {
            Err(RegistryError::NotFound { .. }) => Ok(None),
            status => Ok(Some(status?)),
        }
    }

    /// In Ollama's words, which clients look for, with the names that may be meant.
    pub fn not_found(&self, asked: &str) -> ApiError {
        let near = match self.registry.status(asked) {
            Ok(status) => vec![status.name],
            Err(RegistryError::NotFound { near, .. }) => near,
            Err(_) => Vec::new(),
        };
        ApiError::new(ErrorKind::ModelNotFound, model_not_found(asked, &near))
    }

    /// Whether it is a source of the config file that was not fetched yet.
    pub fn is_absent(&self, status: &ModelStatus) -> bool {
        self.registry.is_absent(&status.name)
    }

    /// Whether the name means this model whatever else there is, and not as the only one of its family.
    pub fn is_called(&self, status: &ModelStatus, asked: &str) -> bool {
        let bare = untagged(asked);
        self.only.is_some()
            || bare == untagged(&status.name)
            || self.registry.aliases().iter().any(|(alias, _)| *alias == bare)
            || lock(&self.live).found(&status.name).is_some_and(|found| found.is_called(asked))
    }

    /// What the disk has of a model.
    ///
    /// # Errors
    /// Where it is of the config file, or has no file.
    pub fn found(&self, status: &ModelStatus) -> Result<Arc<Found>, ApiError> {
        let found = lock(&self.live).found(&status.name);
        found.ok_or_else(|| {
            let message = match &status.path {
                Some(path) => format!("'{}' is a name in the server's settings, for {path}", status.name),
                None => format!("'{}' has no file", status.name),
            };
            ApiError::new(ErrorKind::Forbidden, message)
        })
    }
}

fn taken(name: &str) -> ApiError {
    BadRequest(format!("'{name}' is a model of its own; choose a name that is free")).into()
}
