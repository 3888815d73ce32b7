// SPDX-License-Identifier: MIT OR Apache-2.0
//! The readme beside an installed program, where the sources are not.

use pulldown_cmark::{Event, Options, Parser, Tag};

/// Returns the text without the links to files that are not there: what they call it stays.
pub(crate) fn without_dead_links(text: &str, is_there: impl Fn(&str) -> bool) -> String {
    let (mut shown, mut end) = (String::new(), 0);
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        let Event::Start(Tag::Link { dest_url, .. }) = event else { continue };
        let path = dest_url.split('#').next().unwrap_or_default();
        let is_dead = !dest_url.contains("://") && !path.is_empty() && !is_there(path);
        let label = text[range.clone()].strip_prefix('[').and_then(|link| link.rsplit_once("]("));
        if let Some((label, _)) = label.filter(|_| is_dead) {
            shown.extend([&text[end..range.start], label]);
            end = range.end;
        }
    }
    shown + &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project_root;

    #[test]
    fn a_link_to_what_is_not_there_becomes_its_label() {
        let text = "[a](docs/a.md#x), [`b`](crates/b)\n\n| x |\n|---|\n| [c](C.md) |\n\n[d](https://d) ![e](e.svg)\n";
        let expected = "[a](docs/a.md#x), `b`\n\n| x |\n|---|\n| c |\n\n[d](https://d) ![e](e.svg)\n";
        assert_eq!(without_dead_links(text, |path| path == "docs/a.md"), expected);
    }

    #[test]
    fn the_installed_readme_leads_to_pages_of_the_book_alone() {
        let text = std::fs::read_to_string(project_root().join("README.md")).unwrap();
        let shown = without_dead_links(&text, |path| path.starts_with("docs/"));
        let relative = shown.split("](").skip(1).filter(|rest| !rest.starts_with("http"));
        let links: Vec<_> = relative.collect();
        assert!(links.len() > 5 && links.iter().all(|link| link.starts_with("docs/")), "{links:?}");
        assert!(shown.contains("`conn-pool` | a connection pool"), "{shown}");
    }
}
