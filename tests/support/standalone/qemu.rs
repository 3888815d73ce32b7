// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu's tools.

use serde_json::Value;
use support::TestResult;
use support::image::SIZE;
use support::tools::{QEMU_IMG, QEMU_IO};

use crate::Case;
use crate::client::{Client, DIRTY, Extent, Way, check_map, disk};

pub(crate) const CASES: &[Case] = &[
    Case::new("qemu_img_converts_and_compares", &[QEMU_IMG], convert),
    Case::new("qemu_img_uploads", &[QEMU_IMG], upload),
    Case::new("qemu_img_maps_and_measures", &[QEMU_IMG], map),
    Case::new("qemu_img_maps_a_dirty_bitmap", &[QEMU_IMG], dirty_bitmap),
    // It takes no object, and that is where credentials are.
    Case { ways: &[Way::Unix, Way::Tcp], ..Case::new("qemu_img_bench", &[QEMU_IMG], bench) },
    Case::new("qemu_io", &[QEMU_IO], qemu_io),
];

impl Client {
    /// Runs a command of qemu-img whose image is ours.
    fn qemu_img(&self, command: &[&str], image: &str, rest: &[&str]) -> TestResult<String> {
        let object = self.object();
        let object: Vec<_> = object.iter().map(String::as_str).collect();
        self.run(QEMU_IMG, &[command, &object, &["--image-opts", image], rest].concat())
    }

    /// Returns the extents of `qemu-img map`, with what `is` tells of each.
    fn qemu_map(&self, image: &str, is: fn(&Value) -> bool) -> TestResult<Vec<Extent>> {
        let extents: Vec<Value> =
            serde_json::from_str(&self.qemu_img(&["map", "--output=json"], image, &[])?)?;
        let number = |extent: &Value, name| extent[name].as_u64().ok_or("no number");
        let read = |extent: &Value| -> TestResult<Extent> {
            Ok((number(extent, "start")?, number(extent, "length")?, is(extent)))
        };
        extents.iter().map(read).collect()
    }
}

fn convert(client: &Client) -> TestResult<Vec<u8>> {
    let (image, ours) = (client.image()?, client.image_options());
    for format in ["raw", "qcow2"] {
        let back = client.server.path(format);
        client.qemu_img(&["convert", "-W", "-O", format], &ours, &[&back])?;
        client.run(QEMU_IMG, &["compare", "-f", "raw", "-F", format, &image, &back])?;
    }
    client.qemu_img(&["compare"], &ours, &[&format!("driver=file,filename={image}")])?;
    Ok(disk())
}

/// Over what is there, half of which is other data.
fn upload(client: &Client) -> TestResult<Vec<u8>> {
    let mut disk = disk();
    disk.rotate_right(3 << 20);
    let image = client.server.path("other.img");
    std::fs::write(&image, &disk)?;
    let (object, ours) = (client.object(), client.image_options());
    let object: Vec<_> = object.iter().map(String::as_str).collect();
    let convert = ["convert", "-n", "-W", "-m", "8", "-f", "raw", "--target-image-opts"];
    client.run(QEMU_IMG, &[&convert[..], &object, &[&image, &ours]].concat())?;
    Ok(disk)
}

fn map(client: &Client) -> TestResult<Vec<u8>> {
    let ours = client.image_options();
    check_map(&client.qemu_map(&ours, |extent| extent["zero"] == true)?, &disk())?;
    let measured = client.qemu_img(&["measure", "--output=json", "-O", "qcow2"], &ours, &[])?;
    let measured: Value = serde_json::from_str(&measured)?;
    let required = measured["required"].as_u64().ok_or("nothing is required")?;
    // It counts what is data, and has to know what is zero for that.
    if !(8 << 20..SIZE).contains(&required) {
        return Err(format!("measured: {measured}").into());
    }
    Ok(disk())
}

/// qemu takes the bit that tells of dirty blocks for that of holes.
fn dirty_bitmap(client: &Client) -> TestResult<Vec<u8>> {
    let ours = format!("{},x-dirty-bitmap=qemu:dirty-bitmap:sda", client.image_options());
    let extents = client.qemu_map(&ours, |extent| extent["data"] == false)?;
    let dirty: Vec<_> =
        extents.iter().filter(|extent| extent.2).map(|extent| extent.0..extent.0 + extent.1).collect();
    if dirty != DIRTY {
        return Err(format!("dirty is {dirty:?}, not {DIRTY:?}").into());
    }
    Ok(disk())
}

fn bench(client: &Client) -> TestResult<Vec<u8>> {
    let ours = client.image_options();
    let common = ["bench", "-c", "128", "-d", "16", "-s", "65536", "-o", "4096"];
    client.qemu_img(&common, &ours, &[])?;
    client.qemu_img(&[&common[..], &["-w", "--pattern=165", "--flush-interval=32"]].concat(), &ours, &[])?;
    let mut disk = disk();
    disk[4096..4096 + 128 * 65536].fill(165);
    Ok(disk)
}

fn qemu_io(client: &Client) -> TestResult<Vec<u8>> {
    let commands = [
        "aio_write -P 0x77 8M 1M",
        "aio_write -P 0x78 9M 1M",
        "aio_write -z 12M 64k",
        "aio_flush",
        "write -f -P 0x11 511 1025",
        "write -z -u 3M 1M",
        "writev -P 0x22 5M 512 4096 512",
        "flush",
        "read -P 0x77 8M 1M",
        "read -P 0x11 511 1025",
        "readv -P 0 3M 512k 512k",
    ];
    let object = client.object();
    let mut arguments: Vec<_> = object.iter().map(String::as_str).collect();
    let image = client.image_options();
    arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
    arguments.extend(["--image-opts", &image]);
    let printed = client.run(QEMU_IO, &arguments)?;
    if printed.contains("failed") {
        return Err(printed.into());
    }
    // It has no such address, says so, and goes on.
    let past = format!("write {SIZE} 512");
    let refused =
        client.run(QEMU_IO, &[&arguments[..object.len()], &["-c", &past, "--image-opts", &image]].concat());
    if refused.is_ok() {
        return Err(format!("{refused:?}").into());
    }
    let mut disk = disk();
    disk[8 << 20..9 << 20].fill(0x77);
    disk[9 << 20..10 << 20].fill(0x78);
    disk[12 << 20..(12 << 20) + (64 << 10)].fill(0);
    disk[511..1536].fill(0x11);
    disk[3 << 20..4 << 20].fill(0);
    disk[5 << 20..(5 << 20) + 5120].fill(0x22);
    Ok(disk)
}
