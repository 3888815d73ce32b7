// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters beside the options of a command, which has some of them decided already.

use anyhow::{Result, bail};
use imageio_config::{MAGIC, named, shown};

/// A parameter that is not the user's to give, with what decides it.
type Decided = (&'static str, &'static str);

/// The parameters that `upload` decides.
pub(crate) const OF_UPLOAD: &[Decided] = &[
    (MAGIC, "the engine tells it"),
    ("disk", "use --disk"),
    ("new-disk", "use --disk-name"),
    ("snapshot", "a snapshot can't be written"),
    ("storage-domain", "use --storage-domain"),
    ("format", "use --format"),
    ("sparse", "use --preallocated"),
    ("description", "use --description"),
    ("size", "it is that of the image"),
    ("initial-size", "it is that of the image"),
    ("content-type", "it is that of the image"),
    ("backup", "disks that are stored as qcow2 have it"),
    ("direction", "it is an upload"),
];

/// The parameters that `download` decides.
pub(crate) const OF_DOWNLOAD: &[Decided] = &[
    (MAGIC, "the engine tells it"),
    ("disk", "the first argument is the disk"),
    ("new-disk", "the first argument is the disk"),
    ("snapshot", "the first argument is the disk"),
    ("size", "it is that of the disk"),
    ("direction", "it is a download"),
];

/// Fails if one of a user's arguments is no parameter, or one that a command decides.
pub(crate) fn check_parameters<S: AsRef<str>>(
    arguments: impl IntoIterator<Item = S>,
    decided: &[Decided],
) -> Result<()> {
    for argument in arguments {
        let Some((name, _)) = named(argument.as_ref()) else {
            bail!("{}: no more arguments are expected but parameters, NAME=VALUE", shown(argument.as_ref()));
        };
        let name = name.replace('_', "-");
        if let Some((name, decision)) = decided.iter().find(|(decided, _)| *decided == name) {
            bail!("{name}=: {decision}: leave it out");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_or_no_parameter_is_refused() {
        let said = |argument: &str, decided| check_parameters([argument], decided).map_err(|e| e.to_string());
        assert_eq!(said("engine=https://engine", OF_UPLOAD), Ok(()));
        assert_eq!(said("new_disk=x", OF_UPLOAD).unwrap_err(), "new-disk=: use --disk-name: leave it out");
        assert_eq!(said("size=1", OF_UPLOAD).unwrap_err(), "size=: it is that of the image: leave it out");
        assert_eq!(said("size=1", OF_DOWNLOAD).unwrap_err(), "size=: it is that of the disk: leave it out");
        assert!(said("description=x", OF_DOWNLOAD).is_ok());
        let more = said("other.img", OF_UPLOAD).unwrap_err();
        assert_eq!(more, "'other.img': no more arguments are expected but parameters, NAME=VALUE");
        let hidden = said("https://host/images/e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a?a=b", &[]).unwrap_err();
        assert!(hidden.contains("it isn't shown") && !hidden.contains("e0f2f8f4"), "{hidden}");
    }

    #[test]
    fn what_is_decided_are_parameters() {
        let known: Vec<_> = imageio_config::parameters().map(|parameter| parameter.name).collect();
        for (name, _) in OF_UPLOAD.iter().chain(OF_DOWNLOAD) {
            assert!(known.contains(name), "{name}");
        }
    }
}
