// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of real clients through TLS, and what they are refused.

use std::fs;
use std::path::Path;

use support::TestResult;
use support::image::{SIZE, guest_disk, same};
use support::listening::Server;
use support::pki::Pki;
use support::tools::{NBDCOPY, NBDINFO, NBDSH, QEMU_IMG, Tool};

/// A server's options, and what a client does to its disk.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) tools: &'static [Tool],
    pub(crate) options: &'static [&'static str],
    /// Returns what the disk must hold in the end, if that is not nothing.
    pub(crate) run: fn(&Server, &Pki) -> TestResult<Option<Vec<u8>>>,
}

const REQUIRE: &[&str] = &["--tls=require"];
const VERIFY: &[&str] = &["--tls=require", "--tls-verify-peer"];

pub(crate) const CASES: &[Case] = &[
    Case { name: "nbdinfo", tools: &[NBDINFO], options: REQUIRE, run: nbdinfo },
    Case { name: "nbdcopy_over_four_connections", tools: &[NBDCOPY], options: REQUIRE, run: nbdcopy },
    Case { name: "nbdsh", tools: &[NBDSH], options: VERIFY, run: nbdsh },
    Case { name: "qemu_img_convert", tools: &[QEMU_IMG], options: VERIFY, run: qemu_img },
    Case { name: "tls_1.2", tools: &[QEMU_IMG], options: REQUIRE, run: qemu_img_1_2 },
    Case { name: "on_admits_both", tools: &[NBDINFO], options: &["--tls=on"], run: on },
    Case { name: "certificates_alone_are_on", tools: &[NBDINFO], options: &[], run: on },
    Case { name: "off_refuses_tls", tools: &[NBDINFO, NBDSH, QEMU_IMG], options: &["--tls=off"], run: off },
    Case {
        name: "require_refuses_who_has_no_tls",
        tools: &[NBDINFO, QEMU_IMG],
        options: REQUIRE,
        run: plain,
    },
    Case {
        name: "who_trusts_another_ca_leaves",
        tools: &[NBDINFO, QEMU_IMG],
        options: REQUIRE,
        run: other_ca,
    },
    Case {
        name: "verify_peer_refuses_others",
        tools: &[NBDINFO, QEMU_IMG],
        options: VERIFY,
        run: verify_peer,
    },
];

/// A client that is welcome.
fn welcome(server: &Server, pki: &Pki) -> TestResult {
    let size = server.client(NBDINFO, &["--size", &server.uri(&pki.client())])?;
    if size.trim() != SIZE.to_string() {
        return Err(format!("the size is {size}").into());
    }
    Ok(())
}

/// A client that must fail, and say this.
fn refused(server: &Server, tool: Tool, arguments: &[&str], says: &str) -> TestResult {
    match server.client(tool, arguments) {
        Ok(printed) => Err(format!("{} {arguments:?} was let in: {printed}", tool.name).into()),
        Err(error) if error.to_string().contains(says) => Ok(()),
        Err(error) => Err(format!("{error}\n(expected: {says})").into()),
    }
}

fn nbdinfo(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    let json = server.client(NBDINFO, &["--json", &server.uri(&pki.nobody())])?;
    let info: serde_json::Value = serde_json::from_str(&json)?;
    if info["TLS"] != true || info["exports"][0]["export-size"] != SIZE {
        return Err(format!("nbdinfo: {info}").into());
    }
    server.client(NBDINFO, &["--list", &server.uri(&pki.nobody())])?;
    server.client(NBDINFO, &["--map", &server.uri(&pki.nobody())])?;
    Ok(None)
}

fn nbdcopy(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    let (image, back, disk) = (server.path("guest.img"), server.path("back.img"), guest_disk(3));
    fs::write(&image, &disk)?;
    let uri = server.uri(&pki.client());
    server.client(NBDCOPY, &["--connections=4", "--requests=64", "--flush", &image, &uri])?;
    server.client(NBDCOPY, &["--connections=4", "--requests=64", &uri, &back])?;
    same("what nbdcopy reads back", &fs::read(back)?, &disk)?;
    Ok(Some(disk))
}

fn nbdsh(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    let script = "
assert h.get_tls_negotiated()
cookies = []
for n in range(64):
    data = nbd.Buffer.from_bytearray(bytearray([1 + n]) * 65536)
    cookies.append(h.aio_pwrite(data, n * 65536, flags=nbd.CMD_FLAG_FUA if n % 3 == 0 else 0))
    cookies.append(h.aio_flush())
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
assert h.pread(65536, 65536) == b'\\x02' * 65536
h.zero(65536, 0)
h.flush()
h.shutdown()
";
    let connect = format!("h.set_uri_allow_local_file(True)\nh.connect_uri('{}')", server.uri(&pki.client()));
    server.client(NBDSH, &["-c", &connect, "-c", script])?;
    let mut disk = vec![0; SIZE as usize];
    disk[..64 * 65536].chunks_exact_mut(65536).zip(1..).skip(1).for_each(|(block, byte)| block.fill(byte));
    Ok(Some(disk))
}

fn qemu_img(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    convert(server, pki, "")
}

fn qemu_img_1_2(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    convert(server, pki, ",priority=NORMAL:-VERS-TLS1.3")
}

fn convert(server: &Server, pki: &Pki, priority: &str) -> TestResult<Option<Vec<u8>>> {
    let (image, disk) = (server.path("guest.img"), guest_disk(5));
    fs::write(&image, &disk)?;
    let (credentials, options) = (server.credentials(&pki.client()) + priority, server.image_options());
    let object = ["--object", &credentials];
    let upload = ["convert", "-n", "-W", "-m", "8", "-f", "raw", "--target-image-opts"];
    server.client(QEMU_IMG, &[&upload[..], &object, &[&image, &options]].concat())?;
    // Both sides of a comparison are image options.
    let local = format!("driver=file,filename={image}");
    let compare = ["compare", "--image-opts"];
    server.client(QEMU_IMG, &[&compare[..], &object, &[&local, &options]].concat())?;
    Ok(Some(disk))
}

fn on(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    welcome(server, pki)?;
    server.client(NBDINFO, &["--size", &server.plain_uri()])?;
    Ok(None)
}

fn off(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    refused(server, NBDINFO, &["--size", &server.uri(&pki.client())], "server refused TLS")?;
    let object = server.credentials(&pki.client());
    let info = ["info", "--object", &object, "--image-opts", &server.image_options()];
    refused(server, QEMU_IMG, &info, "Denied by server for option 5")?;
    // A client that can do without TLS goes on.
    let script = format!(
        "h.set_tls(nbd.TLS_ALLOW)\nh.set_tls_certificates('{}')\nh.connect_uri('{}')\nassert not h.get_tls_negotiated()\n\
         h.flush()\nh.shutdown()",
        pki.client().display(),
        server.plain_uri()
    );
    server.client(NBDSH, &["-c", &script])?;
    Ok(None)
}

fn plain(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    refused(server, NBDINFO, &["--size", &server.plain_uri()], "server requires TLS")?;
    refused(server, QEMU_IMG, &["info", &server.plain_uri()], "TLS negotiation required")?;
    welcome(server, pki)?;
    Ok(None)
}

fn other_ca(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    let stranger = pki.client_trusting(&Pki::new()?)?;
    // libnbd looks at certificates where it knows a host.
    if server.has_host() {
        refused(server, NBDINFO, &["--size", &server.uri(&stranger)], "certificate verification")?;
    }
    refused(server, QEMU_IMG, &info(server, &stranger).each_ref().map(String::as_str), "known issuer")?;
    welcome(server, pki)?;
    Ok(None)
}

fn verify_peer(server: &Server, pki: &Pki) -> TestResult<Option<Vec<u8>>> {
    // This client trusts the server, but has its own certificate from elsewhere.
    let other = Pki::new()?;
    for dir in [pki.nobody(), other.client_trusting(pki)?] {
        refused(server, NBDINFO, &["--size", &server.uri(&dir)], "gnutls")?;
    }
    // It is told why: the connection does not just end.
    let says = if server.is_ours() { "fatal alert" } else { "" };
    refused(server, QEMU_IMG, &info(server, &pki.nobody()).each_ref().map(String::as_str), says)?;
    welcome(server, pki)?;
    Ok(None)
}

fn info(server: &Server, dir: &Path) -> [String; 5] {
    let words = ["info", "--object", &server.credentials(dir), "--image-opts", &server.image_options()];
    words.map(str::to_owned)
}
