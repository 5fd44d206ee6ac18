//! Where models are looked for: what shimmy is told, its own folder, and where other programs keep theirs.
//!
//! A pure function of system, environment and two small files, so that each system's paths are tested on any.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A place to look in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    pub dir: PathBuf,
    /// What told us to look there, e.g. `--model-dirs` or `HF_HOME`.
    pub because: &'static str,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files, this many folders deep. A folder that is a store of Ollama's is read as one.
    Files { depth: usize },
    /// Manifests and blobs.
    Ollama,
    /// shimmy's own: manifests and blobs, which may be yet to come, and files beside them.
    Own,
}

/// Deep enough for a hub's cache, shallow enough for a home directory by mistake.
const DEPTH: usize = 8;
const DEEP: Kind = Kind::Files { depth: DEPTH };

impl Kind {
    /// How many folders deep files may lie, where they may.
    pub(super) fn depth(self) -> Option<usize> {
        match self {
            Self::Files { depth } => Some(depth),
            Self::Own => Some(DEPTH),
            Self::Ollama => None,
        }
    }
}

/// Systems whose folders differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    Linux,
    MacOs,
    Windows,
}

/// What the places depend on.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    pub os: Os,
    /// A variable of the environment.
    pub var: &'a dyn Fn(&str) -> Option<OsString>,
    /// The text of a small file.
    pub text: &'a dyn Fn(&Path) -> Option<String>,
}

/// Where to look on this machine, in order: what the command line names, then the environment, then the usual places.
#[must_use]
pub fn search_paths(model_dirs: &[PathBuf]) -> Vec<SearchPath> {
    here().search_paths(model_dirs)
}

/// The folder that belongs to shimmy alone, where fetched models are kept. `None` without a home directory.
#[must_use]
pub fn own_folder() -> Option<PathBuf> {
    here().own_folder()
}

/// Where the hub's own tools keep what is not a model, e.g. the token. `None` without a home directory.
pub(super) fn hub_home() -> Option<PathBuf> {
    here().hub_home()
}

fn here() -> Machine<'static> {
    let os = match env::consts::OS {
        "windows" => Os::Windows,
        "macos" => Os::MacOs,
        _ => Os::Linux,
    };
    Machine { os, var: &|key| env::var_os(key), text: &|path| std::fs::read_to_string(path).ok() }
}

impl Machine<'_> {
    /// See [`search_paths`].
    #[must_use]
    pub fn search_paths(&self, model_dirs: &[PathBuf]) -> Vec<SearchPath> {
        let files = |dir: PathBuf, because| SearchPath { dir, because, kind: DEEP };
        let ollama = |dir: PathBuf, because| SearchPath { dir, because, kind: Kind::Ollama };
        let mut paths: Vec<SearchPath> = model_dirs.iter().map(|dir| files(dir.clone(), "--model-dirs")).collect();
        if let Some(list) = self.var("SHIMMY_MODEL_PATHS") {
            paths.extend(split_list(&list.to_string_lossy()).into_iter().map(|dir| files(dir, "SHIMMY_MODEL_PATHS")));
        }
        paths.extend(self.base_folder());
        // Each program looks in the place that its variable names and in no other, and so do we.
        let ollama_told = self.var("OLLAMA_MODELS");
        paths.extend(ollama_told.clone().map(|dir| ollama(dir.into(), "OLLAMA_MODELS")));
        let hub_told = self.hub_told();
        paths.extend(hub_told.clone().map(|(dir, because)| files(dir, because)));
        paths.push(files("models".into(), "./models"));
        let own = |dir| SearchPath { dir, because: "shimmy's own folder", kind: Kind::Own };
        paths.extend(self.own_folder().map(own));
        if hub_told.is_none() {
            paths.extend(self.hub_home().map(|dir| files(self.join(dir.into(), &["hub"]), "Hugging Face")));
        }
        paths.extend(self.lm_studio().into_iter().map(|dir| files(dir, "LM Studio")));
        if ollama_told.is_none() {
            paths.extend(self.ollama().into_iter().map(|dir| ollama(dir, "Ollama")));
        }
        let mut seen = HashSet::new();
        paths.retain(|place| seen.insert(place.dir.clone()));
        paths
    }

    /// See [`own_folder`].
    #[must_use]
    pub fn own_folder(&self) -> Option<PathBuf> {
        let local = || match self.os {
            Os::Windows => self.var("LOCALAPPDATA"),
            Os::Linux | Os::MacOs => None,
        };
        let cache = self.var("XDG_CACHE_HOME").or_else(local).or_else(|| self.cache_home())?;
        Some(self.join(cache, &["shimmy", "models"]))
    }

    /// See [`hub_home`].
    fn hub_home(&self) -> Option<PathBuf> {
        let told = self.var("HF_HOME").map(PathBuf::from);
        told.or_else(|| Some(self.join(self.cache_home()?, &["huggingface"])))
    }

    /// The base model's neighbours, but not what lies in folders beside it.
    fn base_folder(&self) -> Option<SearchPath> {
        let base = PathBuf::from(self.var("SHIMMY_BASE_GGUF")?);
        let dir = base.parent()?;
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        Some(SearchPath { dir: dir.into(), because: "SHIMMY_BASE_GGUF", kind: Kind::Files { depth: 1 } })
    }

    /// Hugging Face's variables, in the order in which its own library asks for them.
    fn hub_told(&self) -> Option<(PathBuf, &'static str)> {
        let whole = |key| self.var(key).map(|dir| (dir.into(), key));
        let home = || self.var("HF_HOME").map(|dir| (self.join(dir, &["hub"]), "HF_HOME"));
        whole("HF_HUB_CACHE").or_else(|| whole("HUGGINGFACE_HUB_CACHE")).or_else(home)
    }

    /// LM Studio says in two files where its folder is and where models go. Older versions had another place.
    fn lm_studio(&self) -> Vec<PathBuf> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Settings {
            downloads_folder: Option<PathBuf>,
        }
        let Some(user) = self.home() else { return Vec::new() };
        let pointer = self.join(user.clone(), &[".lmstudio-home-pointer"]);
        let told = (self.text)(&pointer).map(|text| OsString::from(text.trim())).filter(|dir| !dir.is_empty());
        let home = told.unwrap_or_else(|| self.join(user.clone(), &[".lmstudio"]).into());
        let settings = (self.text)(&self.join(home.clone(), &["settings.json"]));
        let chosen = settings.and_then(|text| serde_json::from_str::<Settings>(&text).ok()?.downloads_folder);
        let usual = self.join(home, &["models"]);
        let older = self.join(user, &[".cache", "lm-studio", "models"]);
        chosen.into_iter().chain([usual, older]).collect()
    }

    fn ollama(&self) -> Vec<PathBuf> {
        let mine = self.home().map(|home| self.join(home, &[".ollama", "models"]));
        // Where its service runs as a user of its own.
        let service = (self.os == Os::Linux).then(|| PathBuf::from("/usr/share/ollama/.ollama/models"));
        mine.into_iter().chain(service).collect()
    }

    fn cache_home(&self) -> Option<OsString> {
        self.var("XDG_CACHE_HOME").or_else(|| Some(self.join(self.home()?, &[".cache"]).into()))
    }

    fn home(&self) -> Option<OsString> {
        self.var(if self.os == Os::Windows { "USERPROFILE" } else { "HOME" })
    }

    fn var(&self, key: &str) -> Option<OsString> {
        (self.var)(key).filter(|value| !value.is_empty())
    }

    fn join(&self, mut dir: OsString, parts: &[&str]) -> PathBuf {
        let (separator, ends): (_, &[u8]) = if self.os == Os::Windows { ("\\", b"\\/") } else { ("/", b"/") };
        for part in parts {
            if !dir.as_encoded_bytes().last().is_some_and(|last| ends.contains(last)) {
                dir.push(separator);
            }
            dir.push(part);
        }
        dir.into()
    }
}

/// Splits `A;B`, and `A:B` where that is the system's own way.
pub(crate) fn split_list(list: &str) -> Vec<PathBuf> {
    list.split(';')
        .flat_map(|part| env::split_paths(part).collect::<Vec<_>>())
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use super::{Machine, Os, split_list};

    /// All places, as `because: dir`.
    fn places(os: Os, vars: &[(&str, &str)], files: &[(&str, &str)]) -> Vec<String> {
        let find = |table: &[(&str, &str)], wanted: &str| {
            table.iter().find(|(key, _)| *key == wanted).map(|(_, value)| (*value).to_owned())
        };
        let machine = Machine {
            os,
            var: &|key| find(vars, key).map(OsString::from),
            text: &|path: &Path| find(files, path.to_str()?),
        };
        let found = machine.search_paths(&[PathBuf::from("told")]);
        found.iter().map(|place| format!("{}: {}", place.because, place.dir.display())).collect()
    }

    #[test]
    fn linux() {
        assert_eq!(
            places(Os::Linux, &[("HOME", "/home/me")], &[]),
            [
                "--model-dirs: told",
                "./models: models",
                "shimmy's own folder: /home/me/.cache/shimmy/models",
                "Hugging Face: /home/me/.cache/huggingface/hub",
                "LM Studio: /home/me/.lmstudio/models",
                "LM Studio: /home/me/.cache/lm-studio/models",
                "Ollama: /home/me/.ollama/models",
                "Ollama: /usr/share/ollama/.ollama/models",
            ]
        );
    }

    #[test]
    fn macos() {
        assert_eq!(
            places(Os::MacOs, &[("HOME", "/Users/me")], &[])[2..],
            [
                "shimmy's own folder: /Users/me/.cache/shimmy/models",
                "Hugging Face: /Users/me/.cache/huggingface/hub",
                "LM Studio: /Users/me/.lmstudio/models",
                "LM Studio: /Users/me/.cache/lm-studio/models",
                "Ollama: /Users/me/.ollama/models",
            ]
        );
    }

    #[test]
    fn windows() {
        let vars = [("USERPROFILE", r"C:\Users\me"), ("LOCALAPPDATA", r"C:\Users\me\AppData\Local")];
        assert_eq!(
            places(Os::Windows, &vars, &[])[2..],
            [
                r"shimmy's own folder: C:\Users\me\AppData\Local\shimmy\models",
                r"Hugging Face: C:\Users\me\.cache\huggingface\hub",
                r"LM Studio: C:\Users\me\.lmstudio\models",
                r"LM Studio: C:\Users\me\.cache\lm-studio\models",
                r"Ollama: C:\Users\me\.ollama\models",
            ]
        );
    }

    #[test]
    fn variables_take_the_place_of_what_they_replace() {
        let vars = [
            ("HOME", "/home/me"),
            ("SHIMMY_MODEL_PATHS", "/a;/b"),
            ("SHIMMY_BASE_GGUF", "/base/model.gguf"),
            ("OLLAMA_MODELS", "/ollama"),
            ("HF_HOME", "/hf/"),
            ("XDG_CACHE_HOME", "/cache"),
        ];
        let expected = [
            "--model-dirs: told",
            "SHIMMY_MODEL_PATHS: /a",
            "SHIMMY_MODEL_PATHS: /b",
            "SHIMMY_BASE_GGUF: /base",
            "OLLAMA_MODELS: /ollama",
            "HF_HOME: /hf/hub",
            "./models: models",
            "shimmy's own folder: /cache/shimmy/models",
            "LM Studio: /home/me/.lmstudio/models",
            "LM Studio: /home/me/.cache/lm-studio/models",
        ];
        assert_eq!(places(Os::Linux, &vars, &[]), expected);
        let hub = [&vars[..], &[("HF_HUB_CACHE", "/hub")]].concat();
        assert!(places(Os::Linux, &hub, &[]).contains(&"HF_HUB_CACHE: /hub".to_owned()));
        assert!(!places(Os::Linux, &hub, &[]).contains(&"HF_HOME: /hf/hub".to_owned()));
    }

    #[test]
    fn the_hubs_tools_keep_their_token_below_the_cache() {
        for (vars, expected) in [
            (vec![("HOME", "/home/me")], "/home/me/.cache/huggingface"),
            (vec![("HOME", "/home/me"), ("XDG_CACHE_HOME", "/cache")], "/cache/huggingface"),
            (vec![("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/cache")], "/hf"),
        ] {
            let find = |wanted: &str| vars.iter().find(|(key, _)| *key == wanted).map(|(_, value)| (*value).into());
            let machine = Machine { os: Os::Linux, var: &find, text: &|_| None };
            assert_eq!(machine.hub_home(), Some(expected.into()));
        }
    }

    #[test]
    fn an_empty_variable_is_none_and_no_home_is_no_error() {
        let vars = [("HF_HOME", ""), ("SHIMMY_BASE_GGUF", "model.gguf")];
        let expected = [
            "--model-dirs: told",
            "SHIMMY_BASE_GGUF: .",
            "./models: models",
            "Ollama: /usr/share/ollama/.ollama/models",
        ];
        assert_eq!(places(Os::Linux, &vars, &[]), expected);
    }

    #[test]
    fn lm_studio_says_where_its_models_are() {
        let files = [
            ("/home/me/.lmstudio-home-pointer", "/big/lmstudio\n"),
            ("/big/lmstudio/settings.json", r#"{"language":"en","downloadsFolder":"/big/models"}"#),
        ];
        let found = places(Os::Linux, &[("HOME", "/home/me")], &files);
        let ours: Vec<_> = found.iter().filter(|place| place.starts_with("LM Studio")).collect();
        assert_eq!(
            ours,
            [
                "LM Studio: /big/models",
                "LM Studio: /big/lmstudio/models",
                "LM Studio: /home/me/.cache/lm-studio/models"
            ]
        );
        let broken = [("/home/me/.lmstudio/settings.json", "{")];
        assert_eq!(places(Os::Linux, &[("HOME", "/home/me")], &broken).len(), 8, "a damaged file changes nothing");
    }

    #[test]
    fn lists_split_at_semicolons_and_at_the_systems_separator() {
        let expected: Vec<PathBuf> = ["/a", "/b", "/c"].map(PathBuf::from).to_vec();
        assert_eq!(split_list("/a;/b;/c"), expected);
        #[cfg(unix)]
        assert_eq!(split_list("/a:/b;;/c"), expected);
    }
}
