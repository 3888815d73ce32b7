// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults in words, for command lines.

use std::str::FromStr;

use crate::fault::{Done, Fault, Op, What, When};

impl FromStr for Fault {
    type Err = String;

    /// `OP:N:WHAT`: what happens to the N-th request of a kind, or from the N-th on with `N+`.
    ///
    /// OP is `any`, `options`, `get`, `put`, `zero` or `flush`. WHAT is `lose-answer`, `close`,
    /// `lose-way=STATUS`, or a status, which may be followed by `,done` or `,part=BYTES` (it has
    /// been carried out so far; else not at all), and by `,close`.
    fn from_str(words: &str) -> Result<Self, String> {
        let mut words = words.splitn(3, ':');
        let mut next = |what: &str| words.next().ok_or_else(|| format!("there is no {what} (OP:N:WHAT)"));
        let when = of(next("OP")?)?;
        let nth = next("N")?;
        let when = match nth.strip_suffix('+') {
            Some(nth) => when.nth(number(nth)?).every(),
            None => when.nth(number(nth)?),
        };
        Ok(when.then(what(next("WHAT")?)?))
    }
}

fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number, or too large"))
}

fn of(op: &str) -> Result<When, String> {
    Ok(match op {
        "any" => Fault::any(),
        "options" => Fault::on(Op::Options),
        "get" => Fault::on(Op::Get),
        "put" => Fault::on(Op::Put),
        "zero" => Fault::on(Op::Zero),
        "flush" => Fault::on(Op::Flush),
        _ => return Err(format!("{op:?} is no kind of request: any, options, get, put, zero, flush")),
    })
}

fn what(words: &str) -> Result<What, String> {
    if let Some(status) = words.strip_prefix("lose-way=") {
        return Ok(What::LoseWay { status: valid_status(status)?, all: true, done: Done::Not });
    }
    match words {
        "lose-answer" => return Ok(What::LoseAnswer),
        "close" => return Ok(What::CloseAfterAnswer),
        _ => {}
    }
    let mut words = words.split(',');
    let status = valid_status(words.next().unwrap_or_default())?;
    let (mut done, mut close) = (Done::Not, false);
    for word in words {
        match word.split_once('=') {
            None if word == "done" => done = Done::Yes,
            None if word == "close" => close = true,
            Some(("part", bytes)) => done = Done::Part(number(bytes)?),
            _ => return Err(format!("{word:?} is none of done, part=BYTES, close")),
        }
    }
    Ok(What::Answer { status, text: "for a reason".to_owned(), done, close })
}

/// One that ends a request, so that no client waits for ever.
fn valid_status(word: &str) -> Result<u16, String> {
    match number(word)? {
        status @ 200..=599 => Ok(status),
        other => Err(format!("{other} is no status of an answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_what_the_words_say() {
        let fault = |words: &str| format!("{:?}", words.parse::<Fault>().unwrap());
        let same = |words: &str, expected: Fault| assert_eq!(fault(words), format!("{expected:?}"));
        let text = || "for a reason".to_owned();
        same("put:3:500", Fault::on(Op::Put).nth(3).then(What::answer(500, Done::Not)));
        let done = What::Answer { status: 403, text: text(), done: Done::Yes, close: true };
        same("flush:1:403,done,close", Fault::on(Op::Flush).nth(1).then(done));
        same(
            "zero:2+:400,part=512",
            Fault::on(Op::Zero).nth(2).every().then(What::answer(400, Done::Part(512))),
        );
        same(
            "any:9:lose-way=502",
            Fault::any().nth(9).then(What::LoseWay { status: 502, all: true, done: Done::Not }),
        );
        same("get:1+:lose-answer", Fault::on(Op::Get).every().then(What::LoseAnswer));
    }

    #[test]
    fn other_words_are_refused() {
        for words in ["", "put", "put:1", "put:x:500", "eat:1:500", "put:1:99", "put:1:500,late", "put:1:"] {
            assert!(words.parse::<Fault>().is_err(), "{words:?}");
        }
    }
}
