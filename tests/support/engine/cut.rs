// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections to the imageio server that are cut again and again: our commands get through, and
//! `ovirt-img` fails at the same cuts.

use std::fs;

use fake_engine::{DiskStatus, Phase, Transfer};
use fault_proxy::{Fault, Point, Proxy, Way};
use support::TestResult;
use support::image::noise;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};
use support::process::PATIENCE;
use support::run::Ended;

use crate::Test;
use crate::commands::run_with;
use crate::serving::assert_all_well;

pub(crate) const TESTS: &[Test] = &[
    ("an_upload_gets_through_by_http", || upload(false)),
    ("an_upload_gets_through_by_https", || upload(true)),
    ("a_download_gets_through_by_http", || download(false)),
    ("a_download_gets_through_by_https", || download(true)),
    ("ovirt_img_gives_an_upload_up_by_http", || upload_by_ovirt_img(false)),
    ("ovirt_img_gives_an_upload_up_by_https", || upload_by_ovirt_img(true)),
    ("ovirt_img_gives_a_download_up_by_http", || download_by_ovirt_img(false)),
    ("ovirt_img_gives_a_download_up_by_https", || download_by_ovirt_img(true)),
];

/// Bytes of the image, all of which are data.
const SIZE: usize = 24 << 20;

/// Bytes after which the connection that carries them is cut, counted on all connections together.
/// More than a request has, and no multiple of one, so that it happens at other places each time.
const EACH: u64 = (3 << 20) + 70_007;

/// The number of times that a copy is cut at least: what was under way is carried once more.
const CUTS: u64 = SIZE as u64 / EACH;

/// The faults by which either side sees a cut: the end of the connection, or an error.
const FAULTS: [Fault; 2] = [Fault::Kill, Fault::Reset];

/// An image in `disk.img`, and an engine whose transfers lead through a proxy.
fn site(tls: bool) -> TestResult<(Installation, Proxy)> {
    let (site, proxy) = Installation::behind_proxy(tls)?;
    fs::write(site.path("disk.img"), noise(SIZE, 5))?;
    Ok((site, proxy))
}

fn upload_by_us(site: &Installation) -> TestResult<Ended> {
    run_with(site, &["upload", "disk.img", "--storage-domain", STORAGE_DOMAIN], &[])
}

fn upload(tls: bool) -> TestResult {
    for fault in FAULTS {
        let (site, proxy) = site(tls)?;
        proxy.fault_again(Point::Byte(Way::ToServer, EACH), fault);
        succeed(upload_by_us(&site)?)?;
        assert!(proxy.faults() >= CUTS, "{fault:?}: {}", proxy.faults());
        site.assert_same("disk.img", "raw", &site.disk()?)?;
        assert_all_well(&site);
    }
    Ok(())
}

fn download(tls: bool) -> TestResult {
    let (site, proxy) = site(tls)?;
    succeed(upload_by_us(&site)?)?;
    for (fault, format) in FAULTS.into_iter().zip(["raw", "qcow2"]) {
        let before = proxy.faults();
        proxy.fault_again(Point::Byte(Way::ToClient, EACH), fault);
        succeed(run_with(&site, &["download", "disk", "copy", "--format", format], &[])?)?;
        assert!(proxy.faults() - before >= CUTS, "{fault:?}: {}", proxy.faults() - before);
        site.assert_same("copy", format, &site.disk()?)?;
    }
    assert_all_well(&site);
    Ok(())
}

/// The one transfer that isn't the first `known` ones, once it is over.
fn ended_transfer(site: &Installation, known: usize) -> TestResult<Transfer> {
    let is_over = |transfer: &Transfer| transfer.phase.is_finished();
    let are_over = site.engine.wait_for(PATIENCE, |engine| engine.transfers().iter().all(is_over));
    match &site.engine.transfers()[known..] {
        [transfer] if are_over => Ok(transfer.clone()),
        transfers => Err(format!("one that is over is expected: {transfers:?}").into()),
    }
}

fn upload_by_ovirt_img(tls: bool) -> TestResult {
    for fault in FAULTS {
        let (site, proxy) = site(tls)?;
        proxy.fault_again(Point::Byte(Way::ToServer, EACH), fault);
        let what = ["upload-disk", "--storage-domain", STORAGE_DOMAIN, "disk.img"];
        let ended = site.ovirt_img(&what)?;
        assert_eq!(ended.code, 1, "{fault:?}: {ended:?}");
        assert!((1..CUTS).contains(&proxy.faults()), "{fault:?}: {} cuts", proxy.faults());
        // It cancels the transfer, and the engine takes the disk along.
        assert_eq!(ended_transfer(&site, 0)?.phase, Phase::FinishedFailure);
        assert!(site.engine.disks().is_empty(), "{:?}", site.engine.disks());
        assert_eq!(site.engine.sessions(), 0);
    }
    Ok(())
}

fn download_by_ovirt_img(tls: bool) -> TestResult {
    let (site, proxy) = site(tls)?;
    succeed(upload_by_us(&site)?)?;
    for (known, fault) in FAULTS.into_iter().enumerate() {
        let before = proxy.faults();
        proxy.fault_again(Point::Byte(Way::ToClient, EACH), fault);
        let ended = site.ovirt_img(&["download-disk", "--format", "raw", &site.disk()?.id, "copy"])?;
        assert_eq!(ended.code, 1, "{fault:?}: {ended:?}");
        assert!((1..CUTS).contains(&(proxy.faults() - before)), "{fault:?}: {} cuts", proxy.faults());
        // It finalizes the transfer, which tells of success, and leaves a part of the file.
        assert_eq!(ended_transfer(&site, known + 1)?.phase, Phase::FinishedSuccess);
        assert!(
            fs::read(site.path("copy"))? != fs::read(site.path("disk.img"))?,
            "{fault:?}: it is complete"
        );
        assert_eq!((site.disk()?.status, site.engine.sessions()), (DiskStatus::Ok, 0));
    }
    Ok(())
}
