// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that documents print for users: all blocks of `sh` and `console`, and those that
//! are not run here.

use std::fs;
use std::path::Path;

use support::TestResult;

/// A block of commands in a document.
#[derive(Debug)]
pub(crate) struct Block {
    /// The document's path from the root, such as `docs/recipes.md`.
    pub(crate) document: String,
    pub(crate) heading: String,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// Blocks that are not run here: the document, the block's first line, and the reason.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("README.md", "dnf install ./imageio-nbd-VERSION-1.x86_64.rpm", PACKAGE),
    ("README.md", "cargo install --path crates/imageio-nbd", BUILD),
    ("docs/install.md", "dnf install ./imageio-nbd-VERSION-1.x86_64.rpm", PACKAGE),
    (
        "docs/install.md",
        "python3 -m venv target/zig && target/zig/bin/pip install cargo-zigbuild==0.24.0 ziglang==0.15.2",
        BUILD,
    ),
    ("docs/install.md", "cargo xtask build", BUILD),
    ("docs/install.md", "cargo install --path crates/imageio-nbd", BUILD),
    (
        "docs/recipes.md",
        "# imageio-nbd -r -P pid -U /run/disk.sock url=+ticket cafile=ca.pem",
        "it begins what needs the kernel's module nbd, or an appliance with a kernel",
    ),
    (
        "docs/recipes.md",
        "# qemu-nbd --read-only --format=raw --connect=/dev/nbd0 'nbd+unix:///?socket=/run/disk.sock'",
        "it needs the kernel's module nbd",
    ),
    (
        "docs/recipes.md",
        "# guestfish --ro --format=raw -a 'nbd://?socket=/run/disk.sock' -i",
        "it needs an appliance with a kernel",
    ),
    ("docs/recipes.md", "# kill \"$(cat pid)\"", "it ends what the blocks before it have begun"),
    (
        "docs/serving.md",
        "$ imageio-nbd -p 10809 -i any --tls=require --tls-certificates server --tls-verify-peer url=+transfer.url cafile=ca.pem",
        "it needs a second host: tests/tls.rs does the same on one",
    ),
    (
        "docs/serving.md",
        "nbdkit -U - imageio url=+transfer.url cafile=ca.pem --run 'nbdcopy --flush disk.img \"$uri\"'",
        "the plugin has to be installed: tests/package.rs does that, and tests/interop.rs runs it by its file",
    ),
    (
        "docs/backup-directory.md",
        "qemu-img convert -f qcow2 -O raw 20261204T020000Z/6f1c8ab2-41d5-4f0e-9a37-d0c1f3b5a6e2.qcow2 disk.img",
        BACKUP_DIRECTORY,
    ),
    (
        "docs/backup-directory.md",
        "qemu-img rebase -f qcow2 -b '' 20261204T020000Z/6f1c8ab2-41d5-4f0e-9a37-d0c1f3b5a6e2.qcow2",
        BACKUP_DIRECTORY,
    ),
    (
        "docs/backup-directory.md",
        "qemu-img rebase -f qcow2 -F qcow2 -b ../20261204T020000Z/6f1c8ab2-41d5-4f0e-9a37-d0c1f3b5a6e2.qcow2 \\",
        BACKUP_DIRECTORY,
    ),
    (
        "docs/backup-directory.md",
        "jq 'del(.backups[-1])' manifest.json > .replacing-manifest",
        BACKUP_DIRECTORY,
    ),
    (
        "docs/engine.md",
        "curl --cacert ca.pem --user admin@internal -H 'Accept: application/json' https://ENGINE/ovirt-engine/api/imagetransfers",
        "tests/engine.rs runs it after SIGKILL",
    ),
    (
        "docs/engine.md",
        "curl --cacert ca.pem --user admin@internal -H 'Content-Type: application/json' -d '{}' \\",
        "tests/engine.rs runs it after SIGKILL",
    ),
    (
        "docs/engine.md",
        "curl --cacert ca.pem --user admin@internal -X DELETE https://ENGINE/ovirt-engine/api/disks/ID",
        "tests/engine.rs runs it after SIGKILL",
    ),
    ("docs/containers.md", "cargo xtask dist", CONTAINERS),
    (
        "docs/containers.md",
        "podman run --rm --read-only --tmpfs /tmp --cap-drop=all -v ./images:/images:ro -v ./engine:/engine:ro imageio-nbd \\",
        CONTAINERS,
    ),
    (
        "docs/containers.md",
        "kubectl create secret generic ovirt-engine --from-file=password",
        "it needs a cluster: tests/package.rs runs the Job's arguments",
    ),
    ("docs/virt-v2v.md", "imageio-nbd virt-v2v -i libvirtxml guest.xml -o rhv-upload …", VIRT_V2V),
    (
        "docs/virt-v2v.md",
        "imageio-nbd virt-v2v --door=nbdkit -i libvirtxml guest.xml -o rhv-upload …",
        VIRT_V2V,
    ),
    ("docs/virt-v2v.md", "rm -rf /var/tmp/.guestfs-$(id -u)", VIRT_V2V),
];

const PACKAGE: &str =
    "it changes the system: tests/package.rs installs packages in root directories of their own";
const BUILD: &str = "it builds for minutes: cargo xtask test makes the same programs and packages";
const BACKUP_DIRECTORY: &str = "tests/backup_directory.rs runs it";
const CONTAINERS: &str = "it needs a container runtime: tests/package.rs runs what the image would have";
const VIRT_V2V: &str = "it needs a guest and an appliance: tests/virt_v2v.rs runs a stand-in for virt-v2v";

/// All blocks of commands in the README and in the pages of the book.
pub(crate) fn blocks() -> TestResult<Vec<Block>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the tests are in the project")?;
    let mut blocks = blocks_of("README.md", &fs::read_to_string(root.join("README.md"))?);
    for dir in ["docs", "docs/decisions"] {
        for file in fs::read_dir(root.join(dir))?.collect::<Result<Vec<_>, _>>()? {
            let name = file.file_name().into_string().map_err(|name| format!("{name:?}"))?;
            if name.ends_with(".md") {
                blocks.extend(blocks_of(&format!("{dir}/{name}"), &fs::read_to_string(file.path())?));
            }
        }
    }
    Ok(blocks)
}

/// The texts of the blocks that are run under a heading.
pub(crate) fn to_run(document: &str, heading: &str) -> TestResult<Vec<String>> {
    let is_wanted =
        |block: &Block| is_to_run(block) && (&*block.document, &*block.heading) == (document, heading);
    let texts: Vec<_> = blocks()?.into_iter().filter(is_wanted).map(|block| block.text).collect();
    if texts.is_empty() {
        Err(format!("{document}: no block has the heading {heading}").into())
    } else {
        Ok(texts)
    }
}

/// Fails if a block is neither run nor has a reason, or if a reason is for no block.
pub(crate) fn check_all(is_run: impl Fn(&Block) -> bool) -> TestResult {
    let blocks = blocks()?;
    if let Some(block) = blocks.iter().find(|block| is_to_run(block) && !is_run(block)) {
        return Err(format!("no test runs this block, and ELSEWHERE has no reason for it: {block:?}").into());
    }
    for (document, first_line, _) in ELSEWHERE {
        if !blocks.iter().any(|block| is_named(block, document, first_line)) {
            return Err(format!("ELSEWHERE has a reason for what is not in {document}: {first_line}").into());
        }
    }
    Ok(())
}

fn is_to_run(block: &Block) -> bool {
    !ELSEWHERE.iter().any(|(document, first_line, _)| is_named(block, document, first_line))
}

fn is_named(block: &Block, document: &str, first_line: &str) -> bool {
    block.document == document && block.text.lines().next() == Some(first_line)
}

fn blocks_of(document: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut heading, mut open) = (Vec::new(), "", None::<Block>);
    for line in text.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block {
                    document: document.to_owned(),
                    heading: heading.to_owned(),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, None) if line.starts_with('#') => heading = line.trim_start_matches('#').trim(),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
        }
    }
    blocks.retain(|block| ["sh", "console"].contains(&&*block.language));
    blocks
}
