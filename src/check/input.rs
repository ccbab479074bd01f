//! Manifests from files, folders and standard input, and the line of each field.
//!
//! Values come from the project's YAML reader; a second reader is asked only where fields stand, which the first
//! does not tell.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use saphyr_parser::{Event, Parser, Span};
use serde_json::Value;

use crate::yaml;

/// Most that is read of one file: rendered charts are far below it.
const MAX_BYTES: u64 = 32 << 20;

/// One object of a file.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The file as it was named, `-` for standard input.
    pub file: String,
    /// The object.
    pub value: Value,
    /// Line of each field by its path; the empty path is the object itself.
    lines: BTreeMap<String, usize>,
}

/// Why an input cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, io::Error),
    /// It is longer than what is read.
    #[error("{0}: longer than 32 MiB; split it")]
    TooLong(String),
    /// It is not YAML.
    #[error("{file}: {error}{hint}")]
    NotYaml {
        /// The file.
        file: String,
        /// What is wrong, with line and column.
        error: yaml::Error,
        /// What to do about it, where that can be guessed.
        hint: &'static str,
    },
    /// A folder without manifests.
    #[error("{0}: no file ends in .yaml, .yml or .json; name another folder or a file")]
    Empty(String),
}

impl Document {
    /// The line of a field, or of the nearest field around it.
    #[must_use]
    pub fn line(&self, field: &str) -> usize {
        let mut path = field;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None if path.is_empty() => return 1,
                None => path = "",
            }
        }
    }
}

/// Reads what was named: files, folders (all files below them that end in .yaml, .yml or .json, hidden ones left
/// out), `-`. What can be read is returned beside what cannot.
#[must_use]
pub fn read(names: &[PathBuf], stdin: impl Read) -> (Vec<Document>, Vec<InputError>) {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    let mut stdin = Some(stdin);
    for name in names {
        if name == Path::new("-") {
            if let Some(stdin) = stdin.take() {
                take(
                    bounded("-", stdin).and_then(|text| parse("-", &text)),
                    &mut documents,
                    &mut errors,
                );
            }
            continue;
        }
        match files(name) {
            Ok(files) => {
                for file in files {
                    take(read_file(&file), &mut documents, &mut errors);
                }
            }
            Err(error) => errors.push(error),
        }
    }
    (documents, errors)
}

fn take(
    read: Result<Vec<Document>, InputError>,
    documents: &mut Vec<Document>,
    errors: &mut Vec<InputError>,
) {
    match read {
        Ok(read) => documents.extend(read),
        Err(error) => errors.push(error),
    }
}

/// The manifests below a folder in order, or the file itself.
fn files(name: &Path) -> Result<Vec<PathBuf>, InputError> {
    let shown = || name.display().to_string();
    let kind = fs::metadata(name).map_err(|error| InputError::Unreadable(shown(), error))?;
    if !kind.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![name.to_owned()];
    while let Some(folder) = folders.pop() {
        let unreadable = |error| InputError::Unreadable(folder.display().to_string(), error);
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            // A link to a folder could lead round in a circle; a link to a file cannot.
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(InputError::Empty(shown()));
    }
    Ok(found)
}

fn read_file(path: &Path) -> Result<Vec<Document>, InputError> {
    let name = path.display().to_string();
    let file = fs::File::open(path).map_err(|error| InputError::Unreadable(name.clone(), error))?;
    parse(&name, &bounded(&name, file)?)
}

fn bounded(name: &str, from: impl Read) -> Result<String, InputError> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| InputError::Unreadable(name.to_owned(), error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(InputError::TooLong(name.to_owned()));
    }
    Ok(text)
}

/// The objects of a text; the items of a `List` each on their own.
///
/// # Errors
///
/// The text is not YAML.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, InputError> {
    let values = yaml::parse_all_with_empty::<Value>(text).map_err(|error| InputError::NotYaml {
        file: file.to_owned(),
        error,
        hint: if text.contains("{{") {
            "; it looks like a template of a chart: check what comes out of it (helm template ... | webhook-operator check -)"
        } else {
            ""
        },
    })?;
    let lines = lines(text);
    // Readers that disagree about the number of documents cannot be put together: then no line is better than a
    // wrong one.
    let aligned = lines.len() == values.len();
    let mut documents = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let lines = lines.get(index).filter(|_| aligned).cloned().unwrap_or_default();
        let document = Document {
            file: file.to_owned(),
            value,
            lines,
        };
        if document.value.get("kind").is_some_and(|kind| kind == "List") {
            documents.extend(items(&document));
        } else if document.value.is_object() {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// The objects of a `List`, with their lines.
fn items(list: &Document) -> Vec<Document> {
    let items = list
        .value
        .get("items")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let prefix = format!("items[{index}]");
            let own = |(path, line): (&String, &usize)| {
                let rest = path.strip_prefix(&prefix)?;
                Some((rest.strip_prefix('.').unwrap_or(rest).to_owned(), *line))
            };
            Document {
                file: list.file.clone(),
                value: value.clone(),
                lines: list.lines.iter().filter_map(own).collect(),
            }
        })
        .collect()
}

/// Where a reader of events stands: in a map (waiting for a key, or for the value of one) or in a list.
enum Level {
    Map { path: String, key: Option<String> },
    List { path: String, next: usize },
}

/// Lines by path, for each document. Stops at the first error: the other reader names it.
fn lines(text: &str) -> Vec<BTreeMap<String, usize>> {
    let mut documents: Vec<BTreeMap<String, usize>> = Vec::new();
    let mut levels: Vec<Level> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        match event {
            Event::DocumentStart(_) => {
                documents.push(BTreeMap::new());
                levels.clear();
            }
            Event::MappingStart(..) => {
                let path = enter(&mut levels, &mut documents, span, None);
                levels.push(Level::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = enter(&mut levels, &mut documents, span, None);
                levels.push(Level::List { path, next: 0 });
            }
            Event::Scalar(value, ..) => {
                enter(&mut levels, &mut documents, span, Some(&value));
            }
            Event::Alias(_) => {
                enter(&mut levels, &mut documents, span, None);
            }
            Event::MappingEnd | Event::SequenceEnd => {
                levels.pop();
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    documents
}

/// A node begins: returns its path and notes its line. A key of a map is noted at the line of the key.
fn enter(
    levels: &mut [Level],
    documents: &mut [BTreeMap<String, usize>],
    span: Span,
    scalar: Option<&str>,
) -> String {
    let path = match levels.last_mut() {
        None => String::new(),
        Some(Level::List { path, next }) => {
            let path = format!("{path}[{next}]");
            *next += 1;
            path
        }
        Some(Level::Map { path, key }) => match key.take() {
            Some(key) => return join(path, &key),
            None => {
                *key = Some(scalar.unwrap_or_default().to_owned());
                join(path, scalar.unwrap_or_default())
            }
        },
    };
    if let Some(document) = documents.last_mut() {
        document.entry(path.clone()).or_insert(span.start.line());
    }
    path
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_line_of_each_field_in_each_document() {
        let text = "# a comment\nkind: A\nspec:\n  headers:\n    - name: x\n      value: y\n    - {name: z}\n---\n---\nkind: B\nspec: {url: u}\n";
        let documents = parse("f", text).unwrap();
        assert_eq!(documents.len(), 2);
        let first = &documents[0];
        assert_eq!(first.line("spec.headers[0].value"), 6);
        assert_eq!(first.line("spec.headers[1].name"), 7);
        // What is missing is missing at the field around it.
        assert_eq!(first.line("spec.headers[1].value"), 7);
        assert_eq!(first.line("spec.secretRef.name"), 3);
        assert_eq!(documents[1].line("spec.url"), 11);
        assert_eq!(documents[1].line(""), 10);
    }

    #[test]
    fn takes_lists_apart() {
        let text = "kind: List\nitems:\n- kind: A\n  spec:\n    url: u\n- kind: B\n";
        let documents = parse("f", text).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].line("spec.url"), 5);
        assert_eq!(documents[1].line("kind"), 6);
    }

    #[test]
    fn says_what_cannot_be_read_and_reads_the_rest() {
        let names = [PathBuf::from("/nowhere/at/all.yaml"), PathBuf::from("-")];
        let (documents, errors) = read(&names, &b"kind: A\n"[..]);
        assert_eq!((documents.len(), errors.len()), (1, 1));
        assert!(
            errors[0].to_string().starts_with("/nowhere/at/all.yaml: "),
            "{}",
            errors[0]
        );
    }

    #[test]
    fn guesses_that_a_template_is_one() {
        let error = parse("f", "kind: {{ .Values.kind }}\n").unwrap_err().to_string();
        assert!(error.contains("helm template"), "{error}");
    }
}
