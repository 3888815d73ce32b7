// SPDX-License-Identifier: MIT OR Apache-2.0
//! The elements of requests and replies, whether they are written in XML or in JSON (`api-model`,
//! "Representations").

mod json;
mod xml;

/// A named value: a text, an object with members, or a list of objects of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    name: String,
    text: String,
    members: Vec<Element>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Object,
    List,
    Text,
}

/// The encoding of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// XML, which the SDK for Python speaks.
    Xml,
    /// Scalars are strings, and lists are wrapped in an object.
    Json,
}

impl Element {
    /// An object without members.
    pub(crate) fn object(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// A list, such as `disks`.
    pub(crate) fn list(name: &str, items: impl IntoIterator<Item = Self>) -> Self {
        let members = items.into_iter().collect();
        Self { name: name.to_owned(), members, kind: Kind::List, ..Self::default() }
    }

    /// A scalar.
    // Numbers and truth values come by value as well as texts do by reference.
    #[allow(clippy::needless_pass_by_value)]
    pub(crate) fn text(name: &str, text: impl ToString) -> Self {
        Self { name: name.to_owned(), text: text.to_string(), kind: Kind::Text, ..Self::default() }
    }

    /// A resource: an object with its place and its identifier.
    pub(crate) fn resource(name: &str, href: &str, id: &str) -> Self {
        Self::object(name).with("href", href).with("id", id)
    }

    /// Adds a scalar.
    #[must_use]
    pub(crate) fn with(self, name: &str, text: impl ToString) -> Self {
        self.and(Self::text(name, text))
    }

    /// Adds a scalar, if there is one.
    #[must_use]
    pub(crate) fn with_some<T: ToString>(self, name: &str, text: Option<T>) -> Self {
        match text {
            Some(text) => self.with(name, text),
            None => self,
        }
    }

    /// Adds a member.
    #[must_use]
    pub(crate) fn and(mut self, member: Self) -> Self {
        self.members.push(member);
        self
    }

    /// Adds a link to what belongs to a resource.
    #[must_use]
    pub(crate) fn link(self, rel: &str, href: &str) -> Self {
        self.and(Self::object("link").with("href", href).with("rel", rel))
    }

    /// The first member of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The text at the end of a path of names; an empty one counts as none.
    pub(crate) fn find(&self, path: &[&str]) -> Option<&str> {
        let found = path.iter().try_fold(self, |element, name| element.get(name))?;
        Some(found.text.trim()).filter(|text| !text.is_empty())
    }

    /// The items of the list with this name, which are of this kind.
    pub(crate) fn items<'a>(&'a self, list: &str, kind: &'a str) -> impl Iterator<Item = &'a Self> {
        let members = self.get(list).map_or(&[][..], |list| &list.members);
        members.iter().filter(move |member| member.name == kind)
    }

    /// Reads a request's body; what isn't there at all is an object without members.
    pub(crate) fn read(encoding: Encoding, body: &[u8]) -> Result<Self, String> {
        match encoding {
            _ if body.iter().all(u8::is_ascii_whitespace) => Ok(Self::default()),
            Encoding::Xml => xml::read(body),
            Encoding::Json => json::read(body),
        }
    }

    /// The body of a reply.
    pub(crate) fn write(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Xml => xml::write(self),
            Encoding::Json => json::write(self),
        }
    }
}

impl Encoding {
    /// The one that a `Content-Type` or `Accept` names; XML unless it says otherwise, as the engine
    /// has it.
    pub(crate) fn of(media_type: Option<&str>) -> Self {
        match media_type {
            Some(media_type) if media_type.contains("json") => Self::Json,
            _ => Self::Xml,
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Xml => "application/xml;charset=UTF-8",
            Self::Json => "application/json;charset=UTF-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Element {
        Element::resource("disk", "/d/1", "1")
            .with("name", "a <b> & \"c\"")
            .with("sparse", true)
            .link("statistics", "/d/1/statistics")
            .and(Element::list("storage_domains", [Element::object("storage_domain").with("id", "2")]))
    }

    #[test]
    fn a_reply_in_json_has_strings_and_wrapped_lists() {
        let written = disk().write(Encoding::Json);
        let expected = serde_json::json!({
            "href": "/d/1", "id": "1", "name": "a <b> & \"c\"", "sparse": "true",
            "link": [{ "href": "/d/1/statistics", "rel": "statistics" }],
            "storage_domains": { "storage_domain": [{ "id": "2" }] },
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap(), expected);
        assert_eq!(Element::list("disks", []).write(Encoding::Json), b"{}");
        let disks = Element::list("disks", [Element::object("disk").with("id", "1")]);
        assert_eq!(disks.write(Encoding::Json), br#"{"disk":[{"id":"1"}]}"#);
    }

    #[test]
    fn a_reply_in_xml_has_attributes_for_what_identifies() {
        let written = String::from_utf8(disk().write(Encoding::Xml)).unwrap();
        assert!(written.contains(r#"<disk href="/d/1" id="1">"#), "{written}");
        assert!(written.contains("<name>a &lt;b&gt; &amp; &quot;c&quot;</name>"), "{written}");
        assert!(written.contains(r#"<link href="/d/1/statistics" rel="statistics"/>"#), "{written}");
    }

    #[test]
    fn both_encodings_say_the_same() {
        for encoding in [Encoding::Xml, Encoding::Json] {
            let read = Element::read(encoding, &disk().write(encoding)).unwrap();
            assert_eq!(read.find(&["name"]), Some("a <b> & \"c\""));
            assert_eq!(read.find(&["id"]), Some("1"));
            let domains: Vec<_> = read.items("storage_domains", "storage_domain").collect();
            assert_eq!(domains.len(), 1);
            assert_eq!(domains[0].find(&["id"]), Some("2"));
        }
    }

    #[test]
    fn a_request_in_json_may_have_numbers_and_booleans() {
        let read =
            Element::read(Encoding::Json, br#"{"size": 7, "sparse": true, "x": null, "y": ""}"#).unwrap();
        assert_eq!((read.find(&["size"]), read.find(&["sparse"])), (Some("7"), Some("true")));
        assert_eq!((read.find(&["x"]), read.find(&["y"])), (None, None));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (encoding, body) in [
            (Encoding::Xml, &b"<disk>"[..]),
            (Encoding::Xml, b"<disk></disc>"),
            (Encoding::Xml, b"no tags"),
            (Encoding::Json, b"<disk/>"),
            (Encoding::Json, b"[1]"),
            (Encoding::Json, b"{"),
        ] {
            let read = Element::read(encoding, body);
            assert!(read.is_err(), "{read:?}");
        }
        assert!(Element::read(Encoding::Xml, b" ").is_ok());
        let deep = "<a>".repeat(10_000);
        assert!(Element::read(Encoding::Xml, deep.as_bytes()).is_err());
    }
}
