//! Who set an option: the command line or a variable of the environment.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory};

use super::Cli;
use crate::config::{Origin, Set};

/// The options of the command that runs, those of every command among them.
pub(super) struct Said<'a> {
    matches: &'a ArgMatches,
}

impl<'a> Said<'a> {
    pub fn new(all: &'a ArgMatches) -> Self {
        let mut matches = all;
        while let Some((_, below)) = matches.subcommand() {
            matches = below;
        }
        Self { matches }
    }

    /// A setting from the value of the option `id`, if it has one.
    pub fn set<T>(&self, id: &str, value: Option<T>) -> Option<Set<T>> {
        let origin = match self.matches.value_source(id) {
            Some(ValueSource::EnvVariable) => Origin::Variable(variable(&Cli::command(), id)?),
            _ => Origin::Option(format!("--{}", id.replace('_', "-"))),
        };
        value.map(|value| Set { value, origin })
    }

    /// The same for an option with several values, of which none means that it was not given.
    pub fn list<T>(&self, id: &str, values: Vec<T>) -> Option<Set<Vec<T>>> {
        self.set(id, Some(values).filter(|values| !values.is_empty()))
    }
}

/// The variable of an option, of this command or one below.
fn variable(command: &Command, id: &str) -> Option<String> {
    let own = command.get_arguments().find(|arg| arg.get_id() == id).and_then(|arg| arg.get_env());
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.or_else(|| command.get_subcommands().find_map(|below| variable(below, id)))
}
