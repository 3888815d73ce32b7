// SPDX-License-Identifier: MIT OR Apache-2.0
//! The zeroes, holes and dirty parts of a disk: the answer to `GET …/extents`.

use serde::Deserialize;

/// The question that is asked about each part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentsContext {
    /// The server tells which parts read as zeroes.
    Zero,
    /// The server tells which parts changed since the last backup; only tickets of incremental
    /// backups know.
    Dirty,
}

impl ExtentsContext {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Dirty => "dirty",
        }
    }
}

/// A part of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The extent's start, in bytes.
    pub start: u64,
    /// The extent's length, in bytes.
    pub length: u64,
    /// It reads as zeroes.
    pub zero: bool,
    /// It is not allocated in this image, so that a backing image shows through.
    pub hole: bool,
    /// It changed since the last backup.
    pub dirty: bool,
}

/// An extent as the server tells it. What it leaves out, or leaves open by `null` as old ones do,
/// is false.
#[derive(Deserialize)]
struct Told {
    start: u64,
    length: u64,
    zero: Option<bool>,
    hole: Option<bool>,
    dirty: Option<bool>,
}

/// The greatest length of one extent's JSON, in bytes: the server sends a hundred.
const LONGEST_ELEMENT: usize = 4 << 10;

/// Reads the answer while it comes: extents in order, without gaps, from the start of the disk.
/// Only the one that is just being read is held in memory.
pub(crate) struct Reader<F> {
    context: ExtentsContext,
    visit: F,
    at: At,
    /// The object that is being read.
    element: Vec<u8>,
    /// The number of its braces and brackets that are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// The end of the last extent, in bytes.
    end: u64,
}

/// The place in the array at which the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The array has not begun.
    Start,
    /// The array may end, or have its first element.
    First,
    /// An element has to come.
    Element,
    /// Inside of an element.
    Inside,
    /// An element has ended.
    Behind,
    /// The array has ended.
    End,
}

impl<F: FnMut(Extent) -> Result<(), String>> Reader<F> {
    /// For the answer to `context`. `visit` is given each extent, and may refuse it.
    pub(crate) fn new(context: ExtentsContext, visit: F) -> Self {
        Self {
            context,
            visit,
            at: At::Start,
            element: Vec::new(),
            depth: 0,
            in_string: false,
            is_escaped: false,
            end: 0,
        }
    }

    /// The next bytes of the answer.
    ///
    /// # Errors
    /// The text says what is wrong with the extents.
    pub(crate) fn read(&mut self, data: &[u8]) -> Result<(), String> {
        for &byte in data {
            self.at = match (self.at, byte) {
                (At::Inside, _) => self.inside(byte)?,
                (at, b' ' | b'\t' | b'\r' | b'\n') => at,
                (At::Start, b'[') => At::First,
                (At::First | At::Element, b'{') => self.inside(byte)?,
                (At::Behind, b',') => At::Element,
                (At::First | At::Behind, b']') => At::End,
                (at, _) => {
                    return Err(format!("it has {:?} where {} was expected", byte as char, at.wants()));
                }
            };
        }
        Ok(())
    }

    /// The answer has ended. Returns where the last extent does, in bytes.
    ///
    /// # Errors
    /// It is not whole.
    pub(crate) fn finish(self) -> Result<u64, String> {
        match self.at {
            At::End => Ok(self.end),
            at => Err(format!("it ends where {} was expected", at.wants())),
        }
    }

    /// A byte of an element.
    fn inside(&mut self, byte: u8) -> Result<At, String> {
        if self.element.len() == LONGEST_ELEMENT {
            return Err(format!("an extent is longer than {LONGEST_ELEMENT} bytes"));
        }
        self.element.push(byte);
        if self.in_string {
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return Ok(At::Inside);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        if self.depth > 0 {
            return Ok(At::Inside);
        }
        self.take()?;
        Ok(At::Behind)
    }

    /// Hands on the element, which is whole.
    fn take(&mut self) -> Result<(), String> {
        let told: Told = serde_json::from_slice(&self.element).map_err(|error| error.to_string())?;
        self.element.clear();
        let extent = told.extent(self.context)?;
        if extent.start != self.end {
            return Err(format!("an extent starts at {} where {} was expected", extent.start, self.end));
        }
        self.end = self.end.checked_add(extent.length).ok_or("an extent ends beyond 2^64")?;
        (self.visit)(extent)
    }
}

impl Told {
    /// # Errors
    /// It doesn't tell what was asked, and a backup would miss what is dirty.
    fn extent(self, context: ExtentsContext) -> Result<Extent, String> {
        let Self { start, length, zero, hole, dirty } = self;
        if context == ExtentsContext::Dirty && dirty.is_none() {
            return Err(format!("the extent at {start} doesn't tell whether it is dirty"));
        }
        let [zero, hole, dirty] = [zero, hole, dirty].map(|told| told.unwrap_or(false));
        Ok(Extent { start, length, zero, hole, dirty })
    }
}

impl At {
    fn wants(self) -> &'static str {
        match self {
            Self::Start => "a list of extents",
            Self::First => "an extent or the end of the list",
            Self::Element => "an extent",
            Self::Inside => "more of an extent",
            Self::Behind => "a comma or the end of the list",
            Self::End => "nothing more",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an answer that comes in pieces of `piece` bytes.
    fn read(json: &[u8], piece: usize) -> Result<(Vec<Extent>, u64), String> {
        read_about(ExtentsContext::Zero, json, piece)
    }

    fn read_about(context: ExtentsContext, json: &[u8], piece: usize) -> Result<(Vec<Extent>, u64), String> {
        let mut extents = Vec::new();
        let mut reader = Reader::new(context, |extent| {
            extents.push(extent);
            Ok(())
        });
        json.chunks(piece).try_for_each(|piece| reader.read(piece))?;
        let end = reader.finish()?;
        Ok((extents, end))
    }

    #[test]
    fn extents_are_read_from_pieces_of_any_size() {
        let json = br#" [ {"start":0,"length":5,"zero":true,"hole":false} ,
            {"start":5,"length":1,"zero":false,"note":"}\"]{[","more":[{"a":[]}]}]
            "#;
        for piece in [1, 2, 7, 1000] {
            let (extents, end) = read(json, piece).unwrap();
            let seen: Vec<_> = extents.iter().map(|e| (e.start, e.length, e.zero, e.hole)).collect();
            assert_eq!((seen, end), (vec![(0, 5, true, false), (5, 1, false, false)], 6));
        }
        assert_eq!(read(b"[]", 1).unwrap(), (vec![], 0));
    }

    #[test]
    fn what_is_left_open_is_false_but_not_whether_it_is_dirty() {
        let read = |json: &str| {
            let (extents, _) = read_about(ExtentsContext::Dirty, json.as_bytes(), 7)?;
            Ok::<_, String>(extents.iter().map(|e| (e.dirty, e.zero, e.hole)).collect::<Vec<_>>())
        };
        assert_eq!(
            read(r#"[{"start":0,"length":5,"dirty":true,"hole":null}]"#),
            Ok(vec![(true, false, false)])
        );
        assert_eq!(
            read(r#"[{"start":0,"length":5,"dirty":false,"zero":true}]"#),
            Ok(vec![(false, true, false)])
        );
        for open in [r#"[{"start":0,"length":5,"zero":true}]"#, r#"[{"start":0,"length":5,"dirty":null}]"#] {
            assert_eq!(read(open), Err("the extent at 0 doesn't tell whether it is dirty".to_owned()));
        }
    }

    #[test]
    fn extents_must_follow_one_another() {
        for bad in [
            &br#"[{"start":1,"length":5}]"#[..],
            br#"[{"start":0,"length":5},{"start":6,"length":1}]"#,
            br#"[{"start":0,"length":5},{"start":4,"length":1}]"#,
            br#"[{"start":0,"length":18446744073709551615},{"start":18446744073709551615,"length":1}]"#,
        ] {
            assert!(read(bad, 9).is_err());
        }
    }

    #[test]
    fn what_is_no_whole_list_of_extents_is_an_error() {
        let one = r#"{"start":0,"length":5}"#;
        let bad = [
            String::new(),
            one.to_owned(),
            "[".to_owned(),
            format!("[{one}"),
            format!("[{one},"),
            format!("[{one},]"),
            format!("[{one}]x"),
            format!("[{one}{one}]"),
            "[[0,5,true,false,false]]".to_owned(),
            "[1]".to_owned(),
            r#"[{"start":0,"length":-5}]"#.to_owned(),
            r#"[{"start":0]]"#.to_owned(),
            r#"[{"start":0,"length":5,"note":"}]"#.to_owned(),
            format!(r#"[{{"start":0,"length":5,"note":"{}"}}]"#, "x".repeat(LONGEST_ELEMENT)),
        ];
        for bad in bad {
            let error = read(bad.as_bytes(), 3).unwrap_err();
            assert!(!error.is_empty(), "{bad}");
        }
    }

    #[test]
    fn whoever_is_given_them_may_have_enough() {
        let mut reader = Reader::new(ExtentsContext::Zero, |_| Err("enough".to_owned()));
        assert_eq!(reader.read(br#"[{"start":0,"length":5}"#), Err("enough".to_owned()));
    }
}
