// SPDX-License-Identifier: MIT OR Apache-2.0
//! Documents lead their readers to what is there: no link is dead, no anchor is missing, and the
//! book has every page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::project_root;

/// The anchors that a document offers to links, and the targets of its own links.
#[derive(Debug, Default, PartialEq, Eq)]
struct Document {
    anchors: BTreeSet<String>,
    links: Vec<String>,
    /// The first lines of code blocks whose language is not named: no test finds the commands in
    /// them.
    unnamed_blocks: Vec<String>,
}

impl Document {
    fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let (mut heading, mut is_unnamed) = (None::<String>, false);
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.add_anchor(&heading.take().unwrap_or_default());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    is_unnamed = match kind {
                        CodeBlockKind::Indented => true,
                        CodeBlockKind::Fenced(language) => language.is_empty(),
                    };
                }
                Event::Text(text) if is_unnamed => {
                    document.unnamed_blocks.push(text.lines().next().unwrap_or_default().to_owned());
                    is_unnamed = false;
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        document
    }

    /// Makes the anchor of a heading as GitHub and mdBook do. A heading of the same text gets a
    /// number.
    fn add_anchor(&mut self, heading: &str) {
        let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String = heading.trim().to_lowercase().chars().filter(is_kept).collect();
        let anchor = anchor.replace(' ', "-");
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }
}

/// All documents of the project, by their paths from its root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    find_documents(&project_root(), Path::new(""), &mut found);
    assert!(found.len() > 30, "the documents are found");
    found
}

fn find_documents(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap()) {
        let path = dir.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if path != Path::new("target") && path != Path::new(".git") {
                find_documents(root, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn parse(path: &Path) -> Document {
    Document::parse(&fs::read_to_string(project_root().join(path)).unwrap())
}

/// The path and the anchor that a link leads to, seen from the root; nothing for links to other
/// sites.
fn target(document: &Path, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let mut path = if file.is_empty() { document.to_owned() } else { document.parent()?.to_owned() };
    for component in Path::new(file).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            component => path.push(component),
        }
    }
    Some((path, anchor.map(ToOwned::to_owned)))
}

/// Returns the fault of a link, if it has one.
fn fault(document: &Path, link: &str) -> Option<&'static str> {
    let (path, anchor) = target(document, link)?;
    if !project_root().join(&path).exists() {
        return Some("there is no such file");
    }
    let is_page = |path: &Path| path.starts_with("docs");
    if is_page(document) && !is_page(&path) {
        return Some("it leaves the book, in which it would be dead: name the file in backticks");
    }
    // The summary alone is read by mdBook, which makes that page index.html.
    if is_page(document) && path.ends_with("README.md") && !document.ends_with("SUMMARY.md") {
        return Some("it is dead in the book, whose page of this name is index.html: call the page index.md");
    }
    let anchor = anchor?;
    (!parse(&path).anchors.contains(&anchor)).then_some("there is no such heading")
}

#[test]
fn links_lead_to_what_is_there() {
    let faults: Vec<_> = documents()
        .iter()
        .flat_map(|document| {
            let links = parse(document).links.into_iter();
            links.filter_map(move |link| {
                fault(document, &link).map(|fault| format!("{}: {link}: {fault}", document.display()))
            })
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_book_has_every_page() {
    let summary = Path::new("docs/SUMMARY.md");
    let links = parse(summary).links;
    let listed: BTreeSet<_> = links.iter().filter_map(|link| target(summary, link)).map(|to| to.0).collect();
    let pages = documents().into_iter().filter(|path| path.starts_with("docs") && path != summary);
    assert_eq!(listed, pages.collect());
}

#[test]
fn the_blocks_of_user_documents_name_their_language() {
    let is_for_users = |path: &PathBuf| path.starts_with("docs") || path == Path::new("README.md");
    for path in documents().into_iter().filter(is_for_users) {
        assert_eq!(parse(&path).unnamed_blocks, [""; 0], "{}: use ```sh or ```text", path.display());
    }
}

/// The paths that a text names in backticks, such as `conn-pool/src/line.rs`, `packaging/`.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|name| {
        name.contains('/') && name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    })
}

#[test]
fn the_map_leads_to_files_that_are_there() {
    let text = fs::read_to_string(project_root().join("ARCHITECTURE.md")).unwrap();
    let mut found = 0;
    for path in named_paths(&text) {
        found += 1;
        let is_there = ["crates", ""].iter().any(|dir| project_root().join(dir).join(path).exists());
        assert!(is_there, "ARCHITECTURE.md names {path}, which is not there");
    }
    assert!(found > 50, "the paths are found");
}

#[test]
fn dead_links_are_found() {
    let page = Path::new("docs/recipes.md");
    assert_eq!(fault(page, "backup.md"), None);
    assert_eq!(fault(page, "#upload"), None);
    assert_eq!(fault(page, "https://example.com/nothing"), None);
    assert_eq!(fault(page, "nothing.md"), Some("there is no such file"));
    assert_eq!(fault(page, "#nothing"), Some("there is no such heading"));
    assert!(fault(page, "README.md").is_some(), "mdBook makes it index.html");
    assert!(fault(page, "../README.md").is_some());
    assert_eq!(fault(Path::new("README.md"), "docs/recipes.md#verify"), None);
}

#[test]
fn a_document_is_understood() {
    let document = Document::parse("# A `b` c?\n[x](y.md)\n\n## A b c\n\n    sh\n\n```sh\nls\n```\n");
    assert_eq!(document.anchors, ["a-b-c", "a-b-c-1"].map(str::to_owned).into());
    assert_eq!(document.links, ["y.md"]);
    assert_eq!(document.unnamed_blocks, ["sh"]);
}
