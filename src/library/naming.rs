//! Gives each model a name of its own, whatever order they were found in, and says what a mistyped name meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::name::Wishes;

/// A model that needs a name.
#[derive(Clone, Debug)]
pub(super) struct Nameless<'a> {
    /// Number of the place where it was found: earlier places go first.
    pub place: usize,
    pub path: &'a Path,
    pub wishes: &'a Wishes,
}

/// A name and the aliases that lead to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub name: String,
    pub aliases: Vec<String>,
    /// So many of them, from the first on, do not go to another model that comes.
    pub lasting: usize,
}

/// The tag that a name without one has for Ollama and its clients.
const LATEST: &str = ":latest";

/// A name without the tag that goes without saying.
#[must_use]
pub fn untagged(name: &str) -> String {
    let lower = name.to_lowercase();
    lower.strip_suffix(LATEST).map_or(lower.clone(), str::to_owned)
}

/// Names for all, in the order of `models`. The first by place and path gets the name that it wishes for; another one of
/// that name is told apart by its publisher or folder, and then by its path.
pub(super) fn assign(models: &[Nameless]) -> Vec<Named> {
    let mut order: Vec<usize> = (0..models.len()).collect();
    let key = |model: &Nameless| (model.place, model.path.to_owned(), model.wishes.name.clone());
    order.sort_by_cached_key(|at| key(&models[*at]));

    let mut taken = BTreeSet::new();
    let mut named = vec![Named::default(); models.len()];
    for &at in &order {
        let name = candidates(&models[at]).find(|name| !taken.contains(&untagged(name))).unwrap_or_default();
        taken.insert(untagged(&name));
        named[at].name = name;
    }
    give_aliases(models, &order, &mut taken, &mut named);
    named
}

fn candidates<'a>(model: &'a Nameless) -> impl Iterator<Item = String> + 'a {
    let name = &model.wishes.name;
    let qualified = model.wishes.qualifier.iter().map(move |qualifier| format!("{qualifier}/{name}"));
    let separator = if name.contains(':') { '-' } else { ':' };
    let hash = crc32fast::hash(model.path.as_os_str().as_encoded_bytes());
    let hashed = (0..).map(move |n: u32| format!("{name}{separator}{:08x}", hash.wrapping_add(n)));
    std::iter::once(name.clone()).chain(qualified).chain(hashed)
}

fn give_aliases(models: &[Nameless], order: &[usize], taken: &mut BTreeSet<String>, named: &mut [Named]) {
    let mut give = |named: &mut Named, alias: &str| {
        let alias = untagged(alias);
        if !alias.is_empty() && taken.insert(alias.clone()) {
            named.aliases.push(alias);
        }
    };
    for &at in order {
        models[at].wishes.exact.iter().for_each(|alias| give(&mut named[at], alias));
        named[at].lasting = named[at].aliases.len();
    }
    for &at in order {
        models[at].wishes.old.iter().for_each(|alias| give(&mut named[at], alias));
    }
    let mut wanted: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for &at in order {
        for alias in &models[at].wishes.short {
            wanted.entry(untagged(alias)).or_default().insert(at);
        }
    }
    for (alias, by) in wanted {
        if let (Some(&at), 1) = (by.first(), by.len()) {
            give(&mut named[at], &alias);
        }
    }
}

/// `; did you mean "NAME"?`, where one of the known names is near.
#[must_use]
pub fn did_you_mean<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(asked, known).first().map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

/// The names that `asked` may have meant, best first, at most three: those that differ in a few letters, go on from it, or
/// have its parts.
#[must_use]
pub fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const SHOWN: usize = 3;
    const LONGEST: usize = 200;
    let asked = untagged(asked);
    if asked.is_empty() || asked.len() > LONGEST {
        return Vec::new();
    }
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (likeness(&asked, &untagged(name)), name))
        .filter(|(score, _)| *score >= 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by_key(|(_, name)| *name);
    scored.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

/// 1 for the same.
fn likeness(asked: &str, name: &str) -> f64 {
    let letters = strsim::normalized_damerau_levenshtein(asked, name);
    let words = |text| str::split(text, [':', '-', '_', '/', '.']).filter(|word| !word.is_empty());
    let all = words(asked).next().is_some() && words(asked).all(|word| words(name).any(|other| other == word));
    let starts = asked.len() >= 3 && name.starts_with(asked);
    // Longer names that only begin alike come after those that differ in a letter.
    if all || starts { letters.max(0.6) } else { letters }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::{Named, Nameless, assign, nearest};
    use crate::library::name::{Wishes, of_file};

    fn names(files: &[(usize, PathBuf)]) -> Vec<Named> {
        let wishes: Vec<Wishes> = files.iter().map(|(_, path)| of_file(path, Path::new("/root"))).collect();
        let models: Vec<_> =
            files.iter().zip(&wishes).map(|((place, path), wishes)| Nameless { place: *place, path, wishes }).collect();
        assign(&models)
    }

    fn named(paths: &[&str]) -> Vec<Named> {
        names(&paths.iter().map(|path| (0, PathBuf::from(path))).collect::<Vec<_>>())
    }

    #[test]
    fn a_second_model_of_a_name_is_told_apart_by_where_it_lies() {
        let found = named(&["/root/b/foo-7b-q4_0.gguf", "/root/a/foo-7b-q4_0.gguf", "/root/a/x/foo-7b-q4_0.gguf"]);
        assert_eq!(found[1].name, "foo:7b-q4_0");
        assert_eq!(found[0].name, "b/foo:7b-q4_0");
        assert_eq!(found[2].name, "a/foo:7b-q4_0");
        let same_folder = named(&["/root/a/foo.gguf", "/root/a/x/foo.gguf", "/root/a/y/foo.gguf"]);
        assert_eq!((same_folder[0].name.as_str(), same_folder[1].name.as_str()), ("foo", "a/foo"));
        assert!(same_folder[2].name.starts_with("foo:") && same_folder[2].name.len() == 12, "{same_folder:?}");
    }

    #[test]
    fn an_old_name_means_the_first_and_a_short_one_the_only() {
        let found = named(&["/root/foo-7b-q4_0.gguf", "/root/foo-7b-q8_0.gguf", "/root/bar-1b-q8_0.gguf"]);
        assert_eq!(found[0].aliases, ["foo-7b-q4_0", "foo-7b"]);
        assert_eq!(found[1].aliases, ["foo-7b-q8_0"]);
        assert_eq!(found[2].aliases, ["bar-1b-q8_0", "bar-1b", "bar", "bar:1b"]);
    }

    #[test]
    fn the_name_of_a_file_goes_before_another_ones_old_name() {
        let found = named(&["/root/foo-q4_0.gguf", "/root/foo.gguf"]);
        assert_eq!((found[0].name.as_str(), found[0].aliases.as_slice()), ("foo:q4_0", &["foo-q4_0".to_owned()][..]));
        assert_eq!(found[1].name, "foo");
    }

    #[test]
    fn a_near_miss_is_understood() {
        let known = ["smollm2:135m-instruct-q4_1", "smollm2-135m-instruct", "gemma3:270m-q4_k_m", "llama3:latest"];
        let near = |asked| nearest(asked, known);
        assert_eq!(near("smolm2-135m-instruct")[0], "smollm2-135m-instruct");
        assert_eq!(near("gema3:270m-q4_k_m"), ["gemma3:270m-q4_k_m"]);
        assert_eq!(near("gemma3"), ["gemma3:270m-q4_k_m"]);
        assert_eq!(near("LLAMA3:8b"), ["llama3:latest"]);
        assert!(near("nothing").is_empty() && near("").is_empty());
    }

    fn path() -> impl Strategy<Value = (usize, PathBuf)> {
        let file =
            "(foo|bar|models--me--x/snapshots/r/model|a/foo|b/foo|a/b/foo)(-7b|-1b|)(-q4_0|-q8_0|\\.f16|:latest|)";
        (0usize..3, file).prop_map(|(place, file)| (place, PathBuf::from(format!("/root/{file}.gguf"))))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn names_are_unique_and_do_not_depend_on_the_order(
            files in prop::collection::btree_set(path(), 0..24).prop_map(|set| set.into_iter().collect::<Vec<_>>()),
            seed in any::<u64>(),
        ) {
            let by_path = |files: &[(usize, PathBuf)]| -> HashMap<(usize, PathBuf), Named> {
                files.iter().cloned().zip(names(files)).collect()
            };
            let first = by_path(&files);
            let mut shuffled = files.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert_eq!(&first, &by_path(&shuffled));

            let mut seen = std::collections::HashSet::new();
            for named in first.values() {
                for spelling in std::iter::once(&named.name).chain(&named.aliases) {
                    prop_assert!(seen.insert(super::untagged(spelling)), "{} twice", spelling);
                    prop_assert_eq!(&spelling.to_lowercase(), spelling);
                }
            }
        }

        #[test]
        fn suggesting_takes_any_name(asked in "\\PC{0,60}", known in "\\PC{0,60}") {
            prop_assert!(nearest(&asked, [known.as_str()]).len() <= 1);
        }
    }
}
