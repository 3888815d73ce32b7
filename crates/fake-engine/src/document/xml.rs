// SPDX-License-Identifier: MIT OR Apache-2.0
//! Documents in XML.

use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};

use super::Element;

/// The names that are written as attributes.
const ATTRIBUTES: [&str; 3] = ["href", "id", "rel"];

/// The depth to which elements may be inside of each other.
const MAX_DEPTH: usize = 32;

pub(super) fn read(body: &[u8]) -> Result<Element, String> {
    let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let mut reader = Reader::from_str(body);
    // The elements that are open, the innermost last; the first holds the document.
    let mut open = vec![Element::default()];
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) if open.len() < MAX_DEPTH => open.push(opened(&start)?),
            Event::Start(_) => return Err("elements are too deep inside of each other".to_owned()),
            Event::Empty(start) => add(&mut open, opened(&start)?),
            Event::End(_) => {
                // The reader has made sure that it ends what was opened.
                if let Some(element) = open.pop() {
                    add(&mut open, element);
                }
            }
            Event::Text(text) => push_text(&mut open, &text.xml10_content()),
            Event::CData(text) => push_text(&mut open, &text.xml10_content()),
            Event::GeneralRef(name) => push_text(&mut open, &resolve(&name)?),
            Event::Eof => break,
            _ => {}
        }
    }
    let document =
        open.pop().filter(|_| open.is_empty()).and_then(|document| document.members.into_iter().next());
    document.ok_or_else(|| "one whole element is expected".to_owned())
}

fn resolve(name: &quick_xml::events::BytesRef<'_>) -> Result<String, String> {
    if let Some(character) = name.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(character.to_string());
    }
    let name = name.xml10_content();
    let resolved = quick_xml::escape::resolve_predefined_entity(&name);
    resolved.map(str::to_owned).ok_or_else(|| format!("unknown entity {name}"))
}

fn opened(start: &BytesStart<'_>) -> Result<Element, String> {
    let mut element = Element::object(start.local_name().as_ref());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        element.members.push(Element::text(attribute.key.as_ref(), value));
    }
    Ok(element)
}

fn add(open: &mut [Element], element: Element) {
    if let Some(parent) = open.last_mut() {
        parent.members.push(element);
    }
}

fn push_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

pub(super) fn write(root: &Element) -> Vec<u8> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 4);
    let declaration = Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), Some("yes")));
    writer
        .write_event(declaration)
        .and_then(|()| write_element(&mut writer, root))
        .expect("a vector takes all that is written");
    writer.into_inner()
}

fn write_element(writer: &mut Writer<Vec<u8>>, element: &Element) -> std::io::Result<()> {
    let is_attribute = |member: &&Element| ATTRIBUTES.contains(&member.name.as_str());
    let attributes = element.members.iter().filter(is_attribute);
    let attributes = attributes.map(|member| (member.name.as_str(), member.text.as_str()));
    let start = BytesStart::new(&element.name).with_attributes(attributes);
    let inner: Vec<_> = element.members.iter().filter(|member| !is_attribute(member)).collect();
    if inner.is_empty() && element.text.is_empty() {
        return writer.write_event(Event::Empty(start));
    }
    writer.write_event(Event::Start(start))?;
    if !element.text.is_empty() {
        writer.write_event(Event::Text(BytesText::new(&element.text)))?;
    }
    inner.into_iter().try_for_each(|member| write_element(writer, member))?;
    writer.write_event(Event::End(BytesEnd::new(&element.name)))
}
