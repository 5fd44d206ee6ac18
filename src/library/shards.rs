//! Files that are one model together: `name-00001-of-00003.gguf` and so on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::found::Shards;
use super::walk::File;

/// A model's files in their order. A model in one file is a group of one.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub files: Vec<File>,
    /// Where the names say that there are several.
    pub shards: Option<Shards>,
    /// Whether the first of the files that there should be is here.
    pub has_first: bool,
}

impl Group {
    pub fn first(&self) -> &File {
        &self.files[0]
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub fn is_whole(&self) -> bool {
        self.shards.as_ref().is_none_or(|shards| shards.present == shards.total)
    }

    pub fn of_one(file: File) -> Self {
        Self { files: vec![file], shards: None, has_first: true }
    }
}

/// What a file's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardName<'a> {
    /// The name without number and ending.
    pub front: &'a str,
    /// From 1 on.
    pub number: u32,
    pub total: u32,
}

impl<'a> ShardName<'a> {
    /// Of a name without its ending, e.g. `name-00002-of-00004`.
    pub fn parse(stem: &'a str) -> Option<Self> {
        let digits = |text: &str| {
            let fits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            fits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let (before, total) = split_ignoring_case(stem, "-of-")?;
        let (front, number) = before.rsplit_once('-')?;
        let (number, total) = (digits(number)?, digits(total)?);
        (1..=total).contains(&number).then_some(Self { front, number, total })
    }

    pub fn file(&self, number: u32, extension: &str) -> String {
        format!("{}-{number:05}-of-{:05}.{extension}", self.front, self.total)
    }
}

fn split_ignoring_case<'a>(text: &'a str, by: &str) -> Option<(&'a str, &'a str)> {
    // Lower case of ASCII letters has the same length, so that what is found there is here, too.
    let at = text.to_ascii_lowercase().rfind(by)?;
    Some((&text[..at], &text[at + by.len()..]))
}

/// Puts together what belongs together, sorted by path.
pub(super) fn group(files: Vec<File>) -> Vec<Group> {
    // Those of one model share folder, front, total and the ending's spelling.
    let mut split: BTreeMap<(PathBuf, u32), Vec<(u32, File)>> = BTreeMap::new();
    let mut groups = Vec::new();
    for file in files {
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match ShardName::parse(&stem).filter(|name| name.total > 1) {
            Some(name) => {
                let folder = file.path.parent().unwrap_or(Path::new(""));
                let key = (folder.join(name.front), name.total);
                split.entry(key).or_default().push((name.number, file));
            }
            None => groups.push(Group::of_one(file)),
        }
    }
    groups.extend(split.into_iter().map(|((_, total), members)| whole(total, members)));
    groups.sort_by(|a, b| a.first().path.cmp(&b.first().path));
    groups
}

fn whole(total: u32, mut members: Vec<(u32, File)>) -> Group {
    members.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
    members.dedup_by_key(|(number, _)| *number);
    let path = &members[0].1.path;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let mut missing = Vec::new();
    if let Some(name) = ShardName::parse(&stem) {
        let mut present = members.iter().map(|(number, _)| *number).peekable();
        for number in 1..=total {
            if present.next_if_eq(&number).is_none() {
                missing.push(name.file(number, &extension));
                if missing.len() == Shards::NAMED {
                    break;
                }
            }
        }
    }
    let present = u32::try_from(members.len()).unwrap_or(total);
    Group {
        has_first: members[0].0 == 1,
        files: members.into_iter().map(|(_, file)| file).collect(),
        shards: Some(Shards { total, present, missing }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ShardName, group};
    use crate::library::walk::File;

    fn files(dir: &std::path::Path, names: &[&str]) -> Vec<File> {
        let file = |name: &&str| {
            std::fs::write(dir.join(name), "12").expect("written");
            File::at(dir.join(name)).expect("a file")
        };
        names.iter().map(file).collect()
    }

    #[test]
    fn parts_are_one_model_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let names =
            ["b-00003-of-00003.gguf", "b-00001-of-00003.gguf", "a.gguf", "c-00002-of-00002.gguf", "B-of-b.gguf"];
        let groups = group(files(dir.path(), &names));
        let told = |n: usize| groups[n].shards.as_ref().and_then(super::Shards::lack);
        let firsts: Vec<_> = groups.iter().map(|group| group.first().path.file_name().expect("a name")).collect();
        assert_eq!(firsts, ["B-of-b.gguf", "a.gguf", "b-00001-of-00003.gguf", "c-00002-of-00002.gguf"]);
        assert_eq!(told(2).as_deref(), Some("1 of 3 files missing: b-00002-of-00003.gguf"));
        assert_eq!((groups[2].bytes(), groups[2].has_first, groups[2].is_whole()), (4, true, false));
        assert_eq!(told(3).as_deref(), Some("1 of 2 files missing: c-00001-of-00002.gguf"));
        assert!(!groups[3].has_first && groups[0].is_whole());
    }

    #[test]
    fn a_name_that_claims_many_parts_costs_little() {
        let dir = tempfile::tempdir().expect("a directory");
        let groups = group(files(dir.path(), &["x-00002-of-99999.gguf"]));
        let lack = groups[0].shards.as_ref().and_then(super::Shards::lack).expect("parts are missing");
        assert!(lack.starts_with("99998 of 99999 files missing: x-00001-of-99999.gguf"), "{lack}");
        assert!(lack.ends_with(" and 99990 more"), "{lack}");
    }

    #[test]
    fn only_names_of_the_right_form_are_parts() {
        for stem in ["a-1-of-2", "a-00000-of-00002", "a-00003-of-00002", "00001-of-00002", "a-00001-of-0000२", "-of-"]
        {
            assert_eq!(ShardName::parse(stem), None, "{stem}");
        }
        let found = ShardName::parse("É-00001-OF-00002").expect("a part");
        assert_eq!((found.front, found.number, found.total), ("É", 1, 2));
    }

    proptest! {
        #[test]
        fn parsing_takes_any_name(stem in "\\PC*") {
            let _ = ShardName::parse(&stem);
        }

        #[test]
        fn what_is_written_is_read(front in "[a-zA-Z0-9._-]{1,20}", total in 1u32..=99_999, number in 1u32..=99_999) {
            prop_assume!(number <= total);
            let stem = format!("{front}-{number:05}-of-{total:05}");
            prop_assert_eq!(ShardName::parse(&stem), Some(ShardName { front: &front, number, total }));
        }
    }
}
