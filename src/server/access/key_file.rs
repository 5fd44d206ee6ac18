//! The file of keys: a name and a SHA-256 hash per line. Empty lines and those that begin with `#` are kept as they are.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::key::{KeyHash, PREFIX};

/// Larger files are something else.
const MAX_BYTES: u64 = 1 << 20;
const MAX_NAME: usize = 64;

/// 1 to 64 letters, digits, `.`, `_`, `-` or `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(String);

impl FromStr for KeyName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
        // Whoever mistakes the key for the name must not see it in the file or in a log.
        if text.starts_with(PREFIX) {
            Err("a name that looks like a key; choose a name for who will use it")
        } else if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err("a name is 1 to 64 letters, digits, `.`, `_`, `-` or `@`")
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub struct NamedKey {
    pub name: KeyName,
    pub hash: KeyHash,
}

#[derive(Clone, Debug)]
enum Line {
    Key(NamedKey),
    /// Empty, or a comment.
    Other(String),
}

#[derive(Clone, Debug, Default)]
pub struct KeyFile {
    lines: Vec<Line>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file {}: {source}; --api-key-file PATH names another one", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the key file {}: there is no such file; `shimmy key new NAME --api-key-file {}` makes it", .0.display(), .0.display())]
    Missing(PathBuf),
    #[error("the key file {} has more than {MAX_BYTES} bytes; it is none", .0.display())]
    TooLarge(PathBuf),
    #[error("the key file {}, line {}: {}", .path.display(), .broken.line, .broken.reason)]
    Broken { path: PathBuf, broken: BrokenLine },
    #[error("{} has a key named {name} already; choose another name, or remove it with `shimmy key rm {name}`", .path.display())]
    Taken { path: PathBuf, name: KeyName },
    #[error("{} has no key named {name}; {known}", .path.display())]
    Unknown { path: PathBuf, name: KeyName, known: String },
}

/// `line` counts from 1. What stands there is told to nobody: it may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenLine {
    pub line: usize,
    pub reason: &'static str,
}

impl KeyFile {
    fn parse(bytes: &[u8]) -> Result<Self, BrokenLine> {
        let mut file = Self::default();
        for (index, line) in bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|&byte| byte == b'\n').enumerate() {
            if bytes.is_empty() {
                break;
            }
            let broken = |reason| BrokenLine { line: index + 1, reason };
            let line = std::str::from_utf8(line).map_err(|_| broken("it is not UTF-8"))?;
            let read = parse_line(line).map_err(broken)?;
            if let Line::Key(key) = &read
                && file.keys().any(|other| other.name == key.name)
            {
                return Err(broken("this name is there already; remove one of the two lines"));
            }
            file.lines.push(read);
        }
        Ok(file)
    }

    pub fn keys(&self) -> impl Iterator<Item = &NamedKey> {
        self.lines.iter().filter_map(|line| match line {
            Line::Key(key) => Some(key),
            Line::Other(_) => None,
        })
    }

    /// # Errors
    /// Where there is none, it cannot be read, or a line of it is broken.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let io = |source: io::Error| match source.kind() {
            // A user without a home has one that is no directory.
            ErrorKind::NotFound | ErrorKind::NotADirectory => KeyFileError::Missing(path.to_owned()),
            _ => KeyFileError::Io { path: path.to_owned(), source },
        };
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(KeyFileError::TooLarge(path.to_owned()));
        }
        Self::parse(&bytes).map_err(|broken| KeyFileError::Broken { path: path.to_owned(), broken })
    }

    /// Adds a key to the file, which is made where there is none, for its owner alone to read.
    ///
    /// # Errors
    /// Where the name is taken, the file is broken, or cannot be written.
    pub fn add(path: &Path, key: NamedKey) -> Result<(), KeyFileError> {
        edit(path, |file| {
            if file.keys().any(|other| other.name == key.name) {
                return Err(KeyFileError::Taken { path: path.to_owned(), name: key.name });
            }
            file.lines.push(Line::Key(key));
            Ok(())
        })
    }

    /// # Errors
    /// Where there is no such key, the file is broken, or cannot be written.
    pub fn remove(path: &Path, name: &KeyName) -> Result<(), KeyFileError> {
        Self::read(path)?;
        edit(path, |file| {
            let before = file.lines.len();
            file.lines.retain(|line| !matches!(line, Line::Key(key) if key.name == *name));
            if file.lines.len() < before {
                return Ok(());
            }
            let names: Vec<String> = file.keys().map(|key| key.name.to_string()).collect();
            let known = if names.is_empty() { "it has none".into() } else { format!("it has {}", names.join(", ")) };
            Err(KeyFileError::Unknown { path: path.to_owned(), name: name.clone(), known })
        })
    }
}

fn parse_line(line: &str) -> Result<Line, &'static str> {
    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(Line::Other(line.trim_end().to_owned()));
    }
    let mut fields = text.split_ascii_whitespace();
    match (fields.next(), fields.next(), fields.next()) {
        (Some(name), Some(hash), None) => {
            let name = name.parse()?;
            if hash.starts_with(PREFIX) {
                return Err("this is a key itself, which nobody but its user should have; the file holds hashes");
            }
            let hash = KeyHash::parse(hash).ok_or("the hash is not 64 hexadecimal digits")?;
            Ok(Line::Key(NamedKey { name, hash }))
        }
        _ => Err("not a name and a hash with a space between them"),
    }
}

impl fmt::Display for KeyFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Key(key) => writeln!(out, "{} {}", key.name, key.hash)?,
                Line::Other(text) => writeln!(out, "{text}")?,
            }
        }
        Ok(())
    }
}

/// One change at a time, whoever makes it; readers see the old file or the new one.
fn edit(path: &Path, change: impl FnOnce(&mut KeyFile) -> Result<(), KeyFileError>) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    // A link stays one.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let dir = real.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(dir).map_err(io)?;
    let mut lock_path = real.clone().into_os_string();
    lock_path.push(".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(lock_path).map_err(io)?;
    lock.lock().map_err(io)?;
    let mut file = match KeyFile::read(&real) {
        Err(KeyFileError::Missing(_)) => KeyFile::default(),
        read => read?,
    };
    change(&mut file)?;
    write(dir, &real, &file.to_string()).map_err(io)
}

/// tempfile makes files with mode 0600.
fn write(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{BrokenLine, KeyFile, KeyFileError, KeyHash, KeyName, NamedKey};

    fn key(name: &str) -> NamedKey {
        NamedKey { name: name.parse().unwrap(), hash: KeyHash::of(name.as_bytes()) }
    }

    fn names(file: &KeyFile) -> Vec<String> {
        file.keys().map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn broken_lines_are_named_by_number_and_never_shown() {
        let hash = KeyHash::of(b"x").to_string();
        for (text, line, reason) in [
            (format!("a {hash}\nb"), 2, "not a name and a hash"),
            (format!("# c\n\na {hash} more"), 3, "not a name and a hash"),
            (format!("a {}", &hash[..63]), 1, "64 hexadecimal digits"),
            (format!("a {}", hash.replace('1', "x")), 1, "64 hexadecimal digits"),
            (format!("ä {hash}"), 1, "a name is"),
            (format!("{} {hash}", "a".repeat(65)), 1, "a name is"),
            (format!("a {hash}\r\nb {hash}\r\na {hash}\r\n"), 3, "there already"),
            ("a sk-shimmy-secret".to_owned(), 1, "a key itself"),
            ("sk-shimmy-secret a".to_owned(), 1, "looks like a key"),
        ] {
            let BrokenLine { line: found, reason: why } = KeyFile::parse(text.as_bytes()).unwrap_err();
            assert!(found == line && why.contains(reason), "{text}: {found} {why}");
            assert!(!why.contains("secret"));
        }
        assert_eq!(KeyFile::parse(b"# a\n\xff\n").unwrap_err().line, 2);
    }

    #[test]
    fn comments_survive_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/keys");
        KeyFile::add(&path, key("a")).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# of the team\n\n{first}")).unwrap();
        KeyFile::add(&path, key("b")).unwrap();
        assert_eq!(names(&KeyFile::read(&path).unwrap()), ["a", "b"]);
        KeyFile::remove(&path, &"a".parse().unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# of the team\n\nb {}\n", KeyHash::of(b"b")));
    }

    #[test]
    fn what_cannot_be_changed_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let rm = |name: &str| KeyFile::remove(&path, &name.parse().unwrap()).unwrap_err().to_string();
        assert!(rm("a").contains("no such file"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made for a removal");
        KeyFile::add(&path, key("a")).unwrap();
        assert!(matches!(KeyFile::add(&path, key("a")), Err(KeyFileError::Taken { .. })));
        assert!(rm("b").ends_with("has no key named b; it has a"), "{}", rm("b"));
        std::fs::write(&path, "broken").unwrap();
        assert!(matches!(KeyFile::add(&path, key("b")), Err(KeyFileError::Broken { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "broken");
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(matches!(KeyFile::read(&path), Err(KeyFileError::TooLarge(_))));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_it_and_a_link_stays_one() {
        use std::os::unix::fs::{MetadataExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("d/keys"), dir.path().join("link"));
        KeyFile::add(&path, key("a")).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        symlink(&path, &link).unwrap();
        KeyFile::add(&link, key("b")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(names(&KeyFile::read(&path).unwrap()), ["a", "b"]);
    }

    #[test]
    fn changes_at_the_same_time_all_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || KeyFile::add(path, key(&format!("k{number}"))).unwrap());
            }
        });
        assert_eq!(KeyFile::read(&path).unwrap().keys().count(), 8);
    }

    fn line() -> impl Strategy<Value = String> {
        let hash = any::<[u8; 4]>().prop_map(|seed| KeyHash::of(&seed).to_string());
        let case = prop_oneof![Just(false), Just(true)];
        let entry = ("[A-Za-z0-9._@-]{1,64}", "[ \t]{1,3}", hash, case, "[ \t\r]{0,2}").prop_map(
            |(name, gap, hash, upper, end)| {
                let hash = if upper { hash.to_uppercase() } else { hash };
                format!("{name}{gap}{hash}{end}")
            },
        );
        prop_oneof![entry, "#[^\n]{0,20}", "[ \t]{0,3}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_printed_is_read_again(lines in prop::collection::vec(line(), 0..12)) {
            // Two equal names are an error, which is shown above.
            if let Ok(file) = KeyFile::parse(lines.join("\n").as_bytes()) {
                let printed = file.to_string();
                let again = KeyFile::parse(printed.as_bytes()).unwrap();
                prop_assert_eq!(names(&again), names(&file));
                for (one, other) in again.keys().zip(file.keys()) {
                    prop_assert_eq!(one.hash.to_string(), other.hash.to_string());
                }
                prop_assert_eq!(again.to_string(), printed);
            }
        }

        #[test]
        fn any_bytes_are_a_file_or_an_error_at_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(broken) = KeyFile::parse(&bytes) {
                assert!((1..=bytes.len() + 1).contains(&broken.line));
            }
        }

        #[test]
        fn a_name_is_itself_again(name in "[A-Za-z0-9._@-]{1,64}") {
            if let Ok(read) = name.parse::<KeyName>() {
                prop_assert_eq!(read.to_string(), name);
            }
        }
    }
}
