//! Finds the training images and their labels in a directory, by the names of its files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The files with names that agree up to the word `images` or `labels`.
#[derive(Debug, Default)]
struct Found {
    images: Vec<PathBuf>,
    labels: Vec<PathBuf>,
}

/// Why a directory has no training data that can be told apart.
#[derive(Debug)]
pub enum FindError {
    /// The directory cannot be read.
    Directory { path: PathBuf, error: std::io::Error },
    /// No file has a fitting name.
    None { directory: PathBuf, names: Vec<String> },
    /// Several pairs could be meant.
    Unclear { directory: PathBuf, names: Vec<String> },
    /// `path` has no partner, which would have the name `expected`.
    Partner { path: PathBuf, expected: String, names: Vec<String> },
    /// The file has to be unpacked.
    Compressed { path: PathBuf },
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, error } => {
                write!(f, "{}: expected a directory with images and labels: {error}", path.display())
            }
            Self::None { directory, names } => write!(
                f,
                "{}: expected files with names such as train-images-idx3-ubyte and train-labels-idx1-ubyte, found {}",
                directory.display(),
                list(names)
            ),
            Self::Unclear { directory, names } => write!(
                f,
                "{}: expected one pair of images and labels, or one whose name has the word train, found {}; move one \
                 pair to a directory of its own",
                directory.display(),
                list(names)
            ),
            Self::Partner { path, expected, names } => {
                write!(f, "{}: expected {expected} beside it, found {}", path.display(), list(names))
            }
            Self::Compressed { path } => {
                let program = match path.extension().and_then(|it| it.to_str()).map(str::to_ascii_lowercase).as_deref()
                {
                    Some("zip") => "unzip",
                    Some("xz") => "unxz",
                    Some("bz2") => "bunzip2",
                    Some("zst") => "unzstd",
                    _ => "gunzip",
                };
                write!(f, "{} is compressed: {program} it", path.display())
            }
        }
    }
}

/// The first names of a list, and the number of the rest.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names {
        [] => "no file".to_string(),
        names if names.len() <= SHOWN => names.join(", "),
        names => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
    }
}

/// The images and the labels for training.
///
/// Images and labels belong together if their names agree up to these words. The pair with the word `train` in its name
/// is taken, else the only pair. Only names of files count, and no names of directories.
pub(super) fn find(directory: &Path) -> Result<(PathBuf, PathBuf), FindError> {
    let failed = |error| FindError::Directory { path: directory.to_path_buf(), error };
    let entries = std::fs::read_dir(directory).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.sort();
    let (mut pairs, mut names) = (BTreeMap::<String, Found>::new(), Vec::new());
    for path in &paths {
        let name = name_of(path);
        if path.is_dir() {
            names.push(format!("{name}/"));
            continue;
        }
        if let Some((prefix, kind)) = parse(&name) {
            let found = pairs.entry(prefix).or_default();
            let files = if kind == Kind::Images { &mut found.images } else { &mut found.labels };
            files.push(path.clone());
        }
        names.push(name);
    }
    let fitting: Vec<String> =
        pairs.values().flat_map(|it| it.images.iter().chain(&it.labels)).map(|it| name_of(it)).collect();
    let directory = || directory.to_path_buf();
    let is_train = |prefix: &String| prefix.split('-').any(|word| word.starts_with("train"));
    let trains: Vec<_> = pairs.iter().filter(|(prefix, _)| is_train(prefix)).collect();
    let candidates = if trains.is_empty() { pairs.iter().collect() } else { trains };
    let found = match candidates[..] {
        [] => return Err(FindError::None { directory: directory(), names }),
        [(_, found)] => found,
        // Images here and labels there: the names of a pair differ.
        [(_, one), (_, other)]
            if one.images.is_empty() != other.images.is_empty() && one.labels.is_empty() != other.labels.is_empty() =>
        {
            let images = one.images.iter().chain(&other.images).next();
            let Some(path) = images.cloned() else { return Err(FindError::None { directory: directory(), names }) };
            let expected = partner(&name_of(&path));
            return Err(FindError::Partner { path, expected, names: fitting });
        }
        _ => return Err(FindError::Unclear { directory: directory(), names: fitting }),
    };
    match (&unpacked(&found.images)[..], &unpacked(&found.labels)[..]) {
        ([images], [labels]) => match [images, labels].into_iter().find(|path| is_compressed(path)) {
            Some(path) => Err(FindError::Compressed { path: path.to_path_buf() }),
            None => Ok((images.to_path_buf(), labels.to_path_buf())),
        },
        ([path], []) | ([], [path]) => {
            Err(FindError::Partner { path: path.to_path_buf(), expected: partner(&name_of(path)), names: fitting })
        }
        _ => Err(FindError::Unclear { directory: directory(), names: fitting }),
    }
}

/// The files that are not compressed; if all files are compressed, all of them.
fn unpacked(paths: &[PathBuf]) -> Vec<&Path> {
    let plain: Vec<&Path> = paths.iter().map(PathBuf::as_path).filter(|path| !is_compressed(path)).collect();
    if plain.is_empty() { paths.iter().map(PathBuf::as_path).collect() } else { plain }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Images,
    Labels,
}

/// The part of a file's name before `images` or `labels`, and the kind of data in it. Dots, dashes and underscores are
/// equal, as are capital and small letters, and a file may be compressed.
fn parse(name: &str) -> Option<(String, Kind)> {
    let name: String =
        name.chars().map(|c| if matches!(c, '.' | '_') { '-' } else { c.to_ascii_lowercase() }).collect();
    let name = COMPRESSED.iter().find_map(|end| name.strip_suffix(&format!("-{end}"))).unwrap_or(&name);
    let name = name.strip_suffix("-ubyte").unwrap_or(name);
    for (kind, word, end) in [(Kind::Images, "images", "idx3"), (Kind::Labels, "labels", "idx1")] {
        let rest = [end, "idx"].into_iter().find_map(|end| name.strip_suffix(end));
        if let Some(prefix) = rest.and_then(|rest| rest.trim_end_matches('-').strip_suffix(word)) {
            return Some((prefix.trim_end_matches('-').to_string(), kind));
        }
    }
    None
}

/// The name of the labels for images of this name, or the other way round.
fn partner(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let plain = COMPRESSED.iter().find_map(|end| lower.strip_suffix(&format!(".{end}"))).unwrap_or(&lower);
    match plain.contains("images") {
        true => plain.replace("images", "labels").replace("idx3", "idx1"),
        false => plain.replace("labels", "images").replace("idx1", "idx3"),
    }
}

/// Ends of the names of compressed files.
const COMPRESSED: [&str; 5] = ["gz", "zip", "xz", "bz2", "zst"];

/// True if the name of a file says that it is compressed.
fn is_compressed(path: &Path) -> bool {
    let name = name_of(path).to_ascii_lowercase();
    COMPRESSED.iter().any(|end| name.ends_with(&format!(".{end}")))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// The images and labels that are found in a directory with these files; names that end with a slash are
    /// directories. The directory itself has `train` in its path.
    fn found(test: &str, names: &[&str]) -> Result<(String, String), String> {
        let directory = std::env::temp_dir().join(format!("gradwire-train-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        for name in names {
            let path = directory.join(name);
            if name.ends_with('/') {
                std::fs::create_dir(path).unwrap();
            } else {
                std::fs::write(path, "").unwrap();
            }
        }
        let found = find(&directory);
        std::fs::remove_dir_all(&directory).unwrap();
        let place = format!("{}/", directory.display());
        found
            .map(|(images, labels)| (name_of(&images), name_of(&labels)))
            .map_err(|error| error.to_string().replace(&place, "").replace(place.trim_end_matches('/'), "DIR"))
    }

    #[track_caller]
    fn taken(test: &str, names: &[&str], images: &str, labels: &str) {
        assert_eq!(found(test, names), Ok((images.to_string(), labels.to_string())));
    }

    #[test]
    fn the_training_pair_is_taken() {
        let mnist = [
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "README.md",
        ];
        taken("mnist", &mnist, mnist[2], mnist[3]);
        // The only pair, under any name.
        taken("only", &["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"], mnist[0], mnist[1]);
        taken("bare", &["images-idx3-ubyte", "labels-idx1-ubyte"], "images-idx3-ubyte", "labels-idx1-ubyte");
        let dots =
            ["train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"];
        taken("dots", &dots, dots[0], dots[1]);
        let other = ["EMNIST_Letters_Train_Images.IDX3", "emnist-letters-train-labels-idx1-ubyte"];
        taken("mixed", &other, other[0], other[1]);
        // A directory is no file, and a compressed copy beside the file does no harm.
        let beside = [
            "train-images-idx3-ubyte/",
            "train-images.idx3-ubyte",
            "train-labels.idx1-ubyte",
            "train-images-idx3-ubyte.gz",
        ];
        taken("beside", &beside, beside[1], beside[2]);
    }

    /// Images and labels of different sets are no pair.
    #[test]
    fn pairs_have_the_same_prefix() {
        let names = ["letters-train-images-idx3-ubyte", "digits-train-labels-idx1-ubyte"];
        let error = "letters-train-images-idx3-ubyte: expected letters-train-labels-idx1-ubyte beside it, found \
                     digits-train-labels-idx1-ubyte, letters-train-images-idx3-ubyte";
        assert_eq!(found("cross", &names), Err(error.to_string()));
        let error = "train-labels-idx1-ubyte: expected train-images-idx3-ubyte beside it, found";
        // The pair for tests does not stand in for a training pair that is not whole.
        let names = ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
        assert!(found("half", &names).unwrap_err().starts_with(error));
    }

    #[test]
    fn what_is_unclear_is_listed() {
        let two = ["a-images-idx3-ubyte", "a-labels-idx1-ubyte", "b-images-idx3-ubyte", "b-labels-idx1-ubyte"];
        let error = found("two", &two).unwrap_err();
        assert!(error.starts_with("DIR: expected one pair of images and labels, or one whose name has the word train"));
        assert!(two.iter().all(|name| error.contains(name)), "{error}");
        let twice = ["train-images-idx3-ubyte", "train-images.idx3-ubyte", "train-labels-idx1-ubyte"];
        assert!(found("twice", &twice).unwrap_err().contains("train-images-idx3-ubyte, train-images.idx3-ubyte"));
        let none = found("none", &["MNIST/", "notes.txt"]).unwrap_err();
        assert!(none.ends_with("train-labels-idx1-ubyte, found MNIST/, notes.txt"), "{none}");
        assert!(found("empty", &[]).unwrap_err().ends_with("found no file"));
        let many: Vec<String> = (10..30).map(|i| format!("f{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(found("many", &many).unwrap_err().ends_with("f20, f21 and 8 more"));
    }

    /// A file that has to be unpacked is named, and another pair does not stand in for it.
    #[test]
    fn compressed_files_are_named() {
        let names = [
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
        ];
        assert_eq!(found("gz", &names), Err("train-images-idx3-ubyte.gz is compressed: gunzip it".to_string()));
        let names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"];
        assert_eq!(found("labels", &names), Err("train-labels-idx1-ubyte.gz is compressed: gunzip it".to_string()));
        let names = ["train-images.idx3-ubyte.ZIP", "train-labels.idx1-ubyte.zip"];
        assert_eq!(found("zip", &names), Err("train-images.idx3-ubyte.ZIP is compressed: unzip it".to_string()));
    }
}
