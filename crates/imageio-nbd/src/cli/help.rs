// SPDX-License-Identifier: MIT OR Apache-2.0
//! The texts that `--help` has besides the options.

use imageio_config::{EXPORT, Parameter, STATS_JSON, parameters, wrap};

/// Returns the part of the help that comes after the options.
pub(super) fn after_options() -> String {
    list(parameters().chain([&EXPORT])) + EXIT_STATUS
}

/// The parameters that make sense where nothing is served.
pub(super) fn parameters_of_info() -> String {
    list(parameters().filter(|parameter| parameter.name != STATS_JSON.name))
}

fn list<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> String {
    let heading = "Parameters (a hyphen may be an underscore; the last of a name counts):\n".to_owned();
    heading + &parameters.map(parameter).collect::<String>()
}

fn parameter(Parameter { name, value, default, help, .. }: &Parameter) -> String {
    let lines = wrap(&format!("{help} [default: {default}]"), 86);
    let lines: String = lines.iter().map(|line| format!("          {line}\n")).collect();
    format!("  {name}={value}\n{lines}")
}

const EXIT_STATUS: &str = "
Exit status:
  0  all is well: what was written is flushed, and the connections are closed
  1  an error, told in one line; or data may be lost
  2  the command line can't be understood
  With --run: that of the command, if it is not 0; 128 and the number of the signal that ended it.

Examples:
  imageio-nbd upload disk.qcow2 --storage-domain data -c lab
  imageio-nbd download disk copy.qcow2 -c lab
  imageio-nbd backup guest guest-backups -c lab
  imageio-nbd -U - url=+url.txt cafile=ca.pem --run 'nbdcopy --flush disk.img \"$uri\"'
  imageio-nbd -f -U /run/disk.sock url=+url.txt size=10G
  imageio-nbd -f -U /run/vm.sock cafile=ca.pem export=sda url=+sda.txt export=sdb url=+sdb.txt
  imageio-nbd -s url=+url.txt
  nbdcopy --flush -- disk.img [ imageio-nbd --exit-with-parent url=+url.txt cafile=ca.pem ]
  imageio-nbd checksum url=+url.txt cafile=ca.pem --compare disk.img
  imageio-nbd info --json url=+url.txt cafile=ca.pem
  imageio-nbd virt-v2v -i disk guest.img -o rhv-upload …";
