// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comments, and attributes that need one.

use std::fs;

use super::sources;

#[test]
fn no_test_is_ignored_without_a_reason() {
    // In two pieces, so that this line is not one of those.
    let ignored = concat!("#[", "ignore]");
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(ignored), "{}: write #[ignore = \"REASON\"]", file.display());
    }
}
