//! `cargo xtask docs`: the pages of `docs/` as a site in `target/book`, with every link looked at.
//!
//! The pages are written to be read on GitHub too, so they link to files outside of `docs/`. A site does not have these:
//! mdBook gets a copy of the pages in which such links lead to the repository.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use crate::{
    progress::{Failure, root, say, step},
    tools::Tool,
};

const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    features: &["--features", "search"],
};
/// Where files are that the site does not have.
const REPOSITORY: &str = "https://github.com/webhook-operator/webhook-operator/blob/main";

/// Arguments of `docs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Builds the site, then follows every link in it.
pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    let tool = MDBOOK.install()?;
    let (stage, book) = (root().join("target/book-source"), root().join("target/book"));
    for folder in [&stage, &book] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    copy(&root(), &stage)?;
    step(
        "mdbook",
        Command::new(&tool)
            .current_dir(root())
            .arg("build")
            .arg(&stage)
            .arg("--dest-dir")
            .arg(&book),
    )?;
    let links = check(&book)?;
    say(format_args!(
        "{} ({links} links)",
        book.join("index.html").display()
    ))
}

/// Copies `book.toml` and the pages that `SUMMARY.md` names.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let summary = fs::read_to_string(from.join("docs/SUMMARY.md"))?;
    let pages: BTreeSet<PathBuf> = targets(&summary).map(PathBuf::from).collect();
    for page in &pages {
        let text = fs::read_to_string(from.join("docs").join(page))
            .map_err(|error| Failure::new(format!("docs/SUMMARY.md names {}: {error}", page.display())))?;
        let copy = to.join("docs").join(page);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::write(copy, outward(&text, page, &pages))?;
    }
    fs::write(to.join("docs/SUMMARY.md"), summary)?;
    fs::copy(from.join("book.toml"), to.join("book.toml"))?;
    Ok(())
}

/// Targets of the links of a page, without those that lead nowhere on purpose.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.is_empty())
}

/// A page with its links to what is no page of the site leading to the repository.
fn outward(text: &str, page: &Path, pages: &BTreeSet<PathBuf>) -> String {
    let mut parts = text.split("](");
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        changed.push_str("](");
        let target = part.split(')').next().unwrap_or_default();
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = Path::new("docs").join(page.parent().unwrap_or(Path::new("")));
        let file = normal(&folder.join(path));
        let is_page = file
            .strip_prefix("docs")
            .is_ok_and(|inside| pages.contains(inside));
        // Only what is there is a link: "](" stands in regular expressions as well.
        let is_outside = !path.is_empty() && !path.contains("://") && !is_page && root().join(&file).exists();
        if is_outside {
            let mark = if anchor.is_empty() { "" } else { "#" };
            changed.push_str(&format!("{REPOSITORY}/{}{mark}{anchor}", file.display()));
            changed.push_str(part.strip_prefix(target).unwrap_or_default());
        } else {
            changed.push_str(part);
        }
    }
    changed
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Follows the links between the pages of the site, and to places in them; tells how many there are.
fn check(book: &Path) -> Result<usize, Failure> {
    let mut pages = BTreeMap::new();
    read(book, &mut pages)?;
    let (mut links, mut broken) = (0, Vec::new());
    for (page, text) in &pages {
        // mdBook's own page for what is not found, and the one for printing, repeat the others' links.
        if page.ends_with("404.html") || page.ends_with("print.html") {
            continue;
        }
        for link in text
            .split("href=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.contains("://") || path.starts_with("data:") || path.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let target = if path.is_empty() {
                page.clone()
            } else {
                normal(&page.parent().unwrap_or(book).join(path))
            };
            let is_there = match pages.get(&target) {
                Some(text) => anchor.is_empty() || text.contains(&format!("id=\"{anchor}\"")),
                None => target.exists(),
            };
            if !is_there {
                broken.push(format!(
                    "{}: {link}",
                    page.strip_prefix(book).unwrap_or(page).display()
                ));
            }
        }
    }
    if broken.is_empty() {
        return Ok(links);
    }
    Err(Failure::new(format!(
        "links of the site lead nowhere:\n{}",
        broken.join("\n")
    )))
}

/// Reads the pages of a folder and of those in it.
fn read(folder: &Path, pages: &mut BTreeMap<PathBuf, String>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            let text = fs::read_to_string(&path)?;
            pages.insert(path, text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_site_does_not_have_is_in_the_repository() {
        let pages = ["check.md", "providers/thulium.md"]
            .map(PathBuf::from)
            .into_iter()
            .collect();
        let page = Path::new("providers/thulium.md");
        for (written, wanted) in [
            ("[a](../check.md#exit)", "[a](../check.md#exit)"),
            ("[a](#deletion)", "[a](#deletion)"),
            ("[a](https://example.com/x)", "[a](https://example.com/x)"),
            ("`[a](.*)`", "`[a](.*)`"),
        ] {
            assert_eq!(outward(written, page, &pages), wanted);
        }
        let out = format!("[a]({REPOSITORY}/CHANGELOG.md#unreleased), b");
        assert_eq!(
            outward("[a](../../CHANGELOG.md#unreleased), b", page, &pages),
            out
        );
    }

    #[test]
    fn a_broken_link_is_found() {
        let book = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(book.path().join(name), text).unwrap();
        write("a.html", "<h2 id=\"x\"></h2><a href=\"b.html#y\"></a>");
        write(
            "b.html",
            "<h2 id=\"y\"></h2><a href=\"a.html#x\"></a><a href=\"#y\"></a>",
        );
        assert_eq!(check(book.path()).unwrap(), 3);
        write("c.html", "<a href=\"a.html#z\"></a><a href=\"d.html\"></a>");
        let told = check(book.path()).unwrap_err().to_string();
        assert!(
            told.contains("c.html: a.html#z") && told.contains("c.html: d.html"),
            "{told}"
        );
    }
}
