// SPDX-License-Identifier: MIT OR Apache-2.0
//! A plot in SVG: bars as multiples of the Python plugin.

use std::fmt::Write;

use super::{Baseline, CLIENT, IMAGEIO_NBD, LIMIT, PLUGIN, Row, Summary};

/// The contenders that are shown, each with its colour.
const BARS: [(&str, &str); 4] =
    [(PLUGIN, "#0072b2"), (IMAGEIO_NBD, "#56b4e9"), (CLIENT, "#e69f00"), (LIMIT, "#999999")];
const BAR: usize = 9;
const GROUP: usize = BAR * BARS.len() + 10;
const NAMES: usize = 190;
const PANEL: usize = 300;
const TOP: usize = 60;
/// Longer bars are cut, so that the others can be told apart: the limit is far above where the
/// server keeps nothing.
const LONGEST: f64 = 3.0;

/// Two panels side by side: throughput, and CPU of the process alone, each relative to the Python
/// plugin. Rows that are compared to something else aren't shown.
#[must_use]
pub fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.baseline == Baseline::PythonPlugin).collect();
    let (width, height) = (NAMES + 2 * (PANEL + 50), TOP + rows.len() * GROUP + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (n, (name, colour)) in BARS.iter().enumerate() {
        let x = NAMES + n * 130;
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"8\" width=\"10\" height=\"10\" fill=\"{colour}\"/>");
        text(&mut svg, x + 15, 17, "start", name);
    }
    for (n, row) in rows.iter().enumerate() {
        text(&mut svg, NAMES - 8, TOP + n * GROUP + GROUP / 2, "end", &row.name);
    }
    panel(&mut svg, &rows, NAMES, "throughput, times the Python plugin's", |summary| summary.to_baseline);
    let title = "CPU of the process alone, times the Python plugin's";
    panel(&mut svg, &rows, NAMES + PANEL + 50, title, |summary| summary.cpu_to_baseline);
    svg + "</svg>\n"
}

fn panel(svg: &mut String, rows: &[&Row], left: usize, title: &str, figure: fn(&Summary) -> Option<f64>) {
    let value = |row: &Row, name: &str| row.summary(name).as_ref().and_then(figure);
    let values = rows.iter().flat_map(|row| BARS.iter().filter_map(move |(name, _)| value(row, name)));
    // The Python plugin's 1 is always in the picture.
    let scale = PANEL as f64 / values.fold(1.0, f64::max).min(LONGEST);
    text(svg, left, TOP - 22, "start", title);
    for (row_n, row) in rows.iter().enumerate() {
        for (bar_n, (name, colour)) in BARS.iter().enumerate() {
            let Some(value) = value(row, name) else { continue };
            let (y, length) = (TOP + row_n * GROUP + bar_n * BAR, value.min(LONGEST) * scale);
            let cut = if value > LONGEST { " (cut)" } else { "" };
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 1
            );
            text(svg, left + length as usize + 3, y + BAR - 1, "start", &format!("{value:.2}{cut}"));
        }
    }
    let (x, bottom) = (left as f64 + scale, TOP + rows.len() * GROUP);
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.1} {}V{bottom}\" stroke=\"#d55e00\" stroke-dasharray=\"4 3\"/>",
        TOP - 6
    );
    text(svg, x as usize, TOP - 9, "middle", "1");
}

fn text(svg: &mut String, x: usize, y: usize, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::tests::{engine_row, row};
    use super::*;

    #[test]
    fn each_figure_has_its_bar_and_its_number() {
        let svg = svg(&[row(), engine_row(1.5, 0.25)]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        // Our plugin's and the limit's, in each panel; imageio-nbd and the client did not run.
        let bars = svg.lines().filter(|line| line.contains(&format!("height=\"{}\"", BAR - 1)));
        assert_eq!(bars.count(), 4);
        assert!(svg.contains(">real/http/nbdcopy-256k</text>"));
        assert!(svg.contains(">0.50</text>") && svg.contains(">2.00</text>"));
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let mut row = row();
        let ours = row.runs.get_mut(PLUGIN).unwrap();
        ours.iter_mut().for_each(|run| run.throughput *= 10.0);
        let svg = svg(&[row]);
        assert!(svg.contains(&format!("width=\"{PANEL}.0\"")) && svg.contains(">20.00 (cut)</text>"));
    }

    #[test]
    fn a_name_can_not_break_the_picture() {
        let mut svg = String::new();
        text(&mut svg, 0, 0, "end", "a<b&c");
        assert!(svg.contains(">a&lt;b&amp;c<"));
    }
}
