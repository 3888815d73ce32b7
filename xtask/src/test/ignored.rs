// SPDX-License-Identifier: MIT OR Apache-2.0
//! No test is ignored in CI, but for those that are named here with a reason.

use anyhow::{Result, ensure};

use crate::at_once::Ended;

const PACKAGES: &str = "the step \"packages\" runs it with the packages that it has made";
const NAMESPACES: &str = "it needs a namespace of its own, which not every machine of a CI gives to root";
const LOOP_DEVICES: &str = "it needs a loop device, which not every machine of a CI has";

/// The tests, and why each of them may be ignored.
const MAY_BE_IGNORED: &[(&str, &str)] = &[
    ("the_archive_works_where_it_is_unpacked", PACKAGES),
    ("the_debs_say_what_they_are", PACKAGES),
    ("the_debs_are_installed_work_and_leave_nothing", PACKAGES),
    ("the_rpms_are_installed_where_glibc_is_that_of_el_8_and_leave_nothing", PACKAGES),
    ("the_job_uploads_a_disk_by_the_image_as_nobody_on_a_read_only_root", PACKAGES),
    ("a_network_that_loses_packets", NAMESPACES),
    ("a_network_that_is_away_for_a_while", NAMESPACES),
    ("a_server_whose_disk_is_full", NAMESPACES),
    ("the_unix_socket_of_this_host_is_used", NAMESPACES),
    ("the_real_server_on_a_block_device_keeps_all_neighbours", LOOP_DEVICES),
    ("a_block_device_gets_the_disk_in_both_formats", LOOP_DEVICES),
    ("a_block_device_that_loses_what_was_written_is_an_error", LOOP_DEVICES),
];

/// Tells which tests were ignored, and why.
///
/// # Errors
/// It names a test that may not be ignored.
pub(super) fn check(programs: &[Ended]) -> Result<()> {
    let mut forbidden = Vec::new();
    for program in programs {
        for test in ignored(&program.printed) {
            match MAY_BE_IGNORED.iter().find(|(name, _)| *name == test) {
                Some((_, reason)) => eprintln!("ignored: {test}: {reason}"),
                None => forbidden.push(format!("{test} of {}", program.name)),
            }
        }
    }
    ensure!(
        forbidden.is_empty(),
        "no test may be ignored where CI is set: install what these need, or name them with a reason in \
         xtask/src/test/ignored.rs: {}",
        forbidden.join(", ")
    );
    Ok(())
}

/// The names of the tests that a program has ignored, without the door and the note that some have
/// around them.
fn ignored(printed: &str) -> impl Iterator<Item = &str> {
    let results = printed.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    // A note of `#[ignore = "…"]` follows the word.
    let ignored = results.filter(|(_, result)| result.starts_with("ignored"));
    ignored.map(|(name, _)| {
        let name = name.split(" (").next().unwrap_or(name).trim();
        name.rsplit('/').next().unwrap_or(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
running 5 tests
test imageio-nbd/a_server_whose_disk_is_full                    ... ignored
test the_debs_say_what_they_are (IMAGEIO_NBD_PACKAGES is not set) ... ignored
test pool::tests::it_is_slow ... ignored, it takes an hour
test a_client_that_prints ... ok
test nbdkit/ignored_clients ... FAILED

test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn ignored_tests_are_found_in_what_is_printed() {
        let found: Vec<_> = ignored(PRINTED).collect();
        assert_eq!(
            found,
            ["a_server_whose_disk_is_full", "the_debs_say_what_they_are", "pool::tests::it_is_slow"]
        );
    }

    #[test]
    fn what_is_ignored_without_a_reason_is_named() {
        let program = |printed: &str| Ended::well("tests/upload", printed);
        let error = check(&[program(PRINTED)]).unwrap_err().to_string();
        assert!(error.ends_with(": pool::tests::it_is_slow of tests/upload"), "{error}");
        check(&[program(&PRINTED.replace("... ignored,", "... ok"))]).unwrap();
    }

    #[test]
    fn each_name_is_that_of_a_test() {
        let mut sources = String::new();
        for file in crate::tidy::sources() {
            if !file.ends_with("test/ignored.rs") {
                sources += &std::fs::read_to_string(file).unwrap();
            }
        }
        for (name, _) in MAY_BE_IGNORED {
            assert!(sources.contains(&format!("{name}\"")), "there is no test {name}");
        }
    }
}
