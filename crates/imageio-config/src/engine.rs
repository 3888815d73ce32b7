// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parameters of a disk that an engine is asked for.

mod values;

use std::time::Duration;

use engine_transfer::{
    ContentType, Credentials, Direction, DiskFormat, EngineSettings, NewDiskSettings, Target,
};
use imageio_device::Settings;

use crate::parse::{self, path};
use crate::{ConfigError, MAGIC, Parameter, Parser};
use values::{
    content_type, direction, engine, format, inactivity, password, tracks_changes, user, whole_seconds,
};

pub use values::name;

/// The arguments that have been given about the engine and its disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineArguments {
    pub(crate) credentials: Credentials,
    target: Option<(&'static str, String)>,
    direction: Option<Direction>,
    inactivity_timeout: Option<Duration>,
    shallow: bool,
    storage_domain: Option<String>,
    format: Option<DiskFormat>,
    sparse: Option<bool>,
    content_type: Option<ContentType>,
    initial_size: Option<u64>,
    description: Option<String>,
    tracks_changes: bool,
    /// Parameters that make sense for one kind of target only, and its name.
    given_for: Vec<(&'static str, &'static str)>,
}

const DISK: &str = "disk";
const NEW_DISK: &str = "new-disk";
const SNAPSHOT: &str = "snapshot";

/// The parameters, in the order of their use.
pub(crate) const ENGINE_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "engine",
        value: "URL",
        default: "that of config=, or $OVIRT_URL",
        help: "Ask this oVirt engine for the transfer, in place of url=: https://ENGINE/ovirt-engine/api. The \
               transfer is begun before the first client is served, and finalized at the end.",
        set: |parser, value| engine(value).map(|value| parser.engine.credentials.url = Some(value)),
    },
    Parameter {
        name: "user",
        value: "USER@PROFILE",
        default: "that of config=, or $OVIRT_USERNAME",
        help: "Log in as this user of the engine, such as admin@internal, or admin@ovirt@internalsso.",
        set: |parser, value| user(value).map(|value| parser.engine.credentials.user = Some(value)),
    },
    Parameter {
        name: "password",
        value: "+FILE|-",
        default: "that of config=, or $OVIRT_PASSWORD",
        help: "Log in with this password: +FILE reads it from the first line of a file, and - from standard input. It can't be given \
               by itself, as every user of this host could read it with ps.",
        set: |parser, value| password(value).map(|value| parser.engine.credentials.password = Some(value)),
    },
    Parameter {
        name: "engine-cafile",
        value: "FILE",
        default: "that of config=, or $OVIRT_CAFILE, or the system's roots",
        help: "Trust the engine's CA in this PEM file. It has also signed the certificates of the imageio servers, so cafile= is not needed \
               then.",
        set: |parser, value| path(value).map(|value| parser.engine.credentials.cafile = Some(value)),
    },
    Parameter {
        name: "engine-insecure",
        value: "true|false",
        default: "false",
        help: "Don't verify the engine's certificate. Anyone in between gets the password.",
        set: |parser, value| parse::boolean(value).map(|value| parser.engine.credentials.insecure = value),
    },
    Parameter {
        name: "engine-timeout",
        value: "SECONDS",
        default: "300",
        help: "Ask again for so long where the engine can't be reached or doesn't answer, as while it is started again. The value is \
               from 1 to 86400.",
        set: |parser, value| {
            whole_seconds(value, 1).map(|value| parser.engine.credentials.reconnect_timeout = Some(value))
        },
    },
    Parameter {
        name: "config",
        value: "SECTION",
        default: "none",
        help: "Take what isn't given of the engine, the user, the password and the CA from this section of ovirt-img's \
               configuration file, ~/.config/ovirt-img.conf.",
        set: |parser, value| name(value).map(|value| parser.engine.credentials.section = Some(value)),
    },
    Parameter {
        name: DISK,
        value: "NAME|ID",
        default: "none",
        help: "Use this disk of the engine: it is read with -r or direction=download, and else written. What was on it is lost then, as an upload \
               that isn't finished leaves the disk illegal, and the engine may remove it.",
        set: |parser, value| parser.engine.set_target(DISK, value),
    },
    Parameter {
        name: NEW_DISK,
        value: "NAME",
        default: "none",
        help: "Make a disk of this name, of size= bytes in storage-domain=, and write it. If that fails, the disk is removed.",
        set: |parser, value| parser.engine.set_target(NEW_DISK, value),
    },
    Parameter {
        name: SNAPSHOT,
        value: "ID",
        default: "none",
        help: "Read a disk as it was when a snapshot was made: the id is that of the disk's image in the snapshot (image_id in \
               the API).",
        set: |parser, value| parser.engine.set_target(SNAPSHOT, value),
    },
    Parameter {
        name: "shallow",
        value: "true|false",
        default: "false",
        help: "With snapshot=, read what this snapshot has alone, without those below it.",
        set: |parser, value| {
            parser.engine.given_for.push(("shallow", SNAPSHOT));
            parse::boolean(value).map(|value| parser.engine.shallow = value)
        },
    },
    Parameter {
        name: "direction",
        value: "upload|download",
        default: "upload; download with -r",
        help: "With disk=, choose whether the disk is written or read. nbdkit doesn't tell a plugin of -r in time, so there it has \
               to be said.",
        set: |parser, value| {
            parser.engine.given_for.push(("direction", DISK));
            direction(value).map(|value| parser.engine.direction = Some(value))
        },
    },
    Parameter {
        name: "inactivity-timeout",
        value: "SECONDS",
        default: "60",
        help: "The engine pauses a transfer that nobody has used for so long. It is used by keep-alive= while this runs, so this \
               is about the time after a crash or an outage. From 30 to 86400.",
        set: |parser, value| inactivity(value).map(|value| parser.engine.inactivity_timeout = Some(value)),
    },
    Parameter {
        name: "storage-domain",
        value: "NAME|ID",
        default: "required with new-disk",
        help: "With new-disk=, make the disk in this storage domain.",
        set: |parser, value| {
            parser.engine.given_for.push(("storage-domain", NEW_DISK));
            name(value).map(|value| parser.engine.storage_domain = Some(value))
        },
    },
    Parameter {
        name: "format",
        value: "cow|raw",
        default: "raw; cow with backup=incremental",
        help: "With new-disk=, choose how the engine stores the disk. What is read and written here is the same in both cases.",
        set: |parser, value| {
            parser.engine.given_for.push(("format", NEW_DISK));
            format(value).map(|value| parser.engine.format = Some(value))
        },
    },
    Parameter {
        name: "sparse",
        value: "true|false",
        default: "true; false for raw disks on block storage",
        help: "With new-disk=, choose whether storage is allocated as it is needed, or all at once.",
        set: |parser, value| {
            parser.engine.given_for.push(("sparse", NEW_DISK));
            parse::boolean(value).map(|value| parser.engine.sparse = Some(value))
        },
    },
    Parameter {
        name: "content-type",
        value: "data|iso",
        default: "data",
        help: "With new-disk=, choose whether it is a disk, or the image of an optical one.",
        set: |parser, value| {
            parser.engine.given_for.push(("content-type", NEW_DISK));
            content_type(value).map(|value| parser.engine.content_type = Some(value))
        },
    },
    Parameter {
        name: "initial-size",
        value: "BYTES",
        default: "size",
        help: "With new-disk= and format=cow on block storage (iSCSI, FC), allocate so much of the disk from the beginning: what \
               qemu-img measure tells as required.",
        set: |parser, value| {
            parser.engine.given_for.push(("initial-size", NEW_DISK));
            parse::size(value).map(|value| parser.engine.initial_size = Some(value))
        },
    },
    Parameter {
        name: "description",
        value: "TEXT",
        default: "none",
        help: "With new-disk=, describe the disk to the engine's users.",
        set: |parser, value| {
            parser.engine.given_for.push(("description", NEW_DISK));
            name(value).map(|value| parser.engine.description = Some(value))
        },
    },
    Parameter {
        name: "backup",
        value: "incremental|none",
        default: "none",
        help: "With new-disk=, choose whether the engine tracks what changes on the disk, for incremental backups.",
        set: |parser, value| {
            parser.engine.given_for.push(("backup", NEW_DISK));
            tracks_changes(value).map(|value| parser.engine.tracks_changes = value)
        },
    },
];

impl EngineArguments {
    /// Returns true if a disk of the engine is named.
    pub(crate) fn has_target(&self) -> bool {
        self.target.is_some()
    }

    fn set_target(&mut self, kind: &'static str, value: &str) -> Result<(), String> {
        match self.target {
            Some((other, _)) if other != kind => {
                Err(format!("{other}= is given, too: leave out one of them"))
            }
            _ => name(value).map(|value| self.target = Some((kind, value))),
        }
    }

    /// Returns the engine that is to be asked, where somebody else knows for what.
    pub(crate) fn finish_credentials(self) -> Result<Credentials, ConfigError> {
        let given = self.target.map(|(kind, _)| kind).or(self.given_for.first().map(|(name, _)| *name));
        let reason = "this is for a disk that is served: leave it out";
        given.map_or(Ok(self.credentials), |name| Err(wrong(name, reason)))
    }

    /// Returns the settings of the engine and its disk, if the engine is to be asked.
    pub(crate) fn finish(self, size: Option<u64>) -> Result<Option<EngineSettings>, ConfigError> {
        let given = self.target.as_ref().map(|(kind, _)| *kind);
        if let Some((name, kind)) = self.given_for.iter().find(|(_, kind)| Some(*kind) != given) {
            let reason = format!("this is for {kind}=, which isn't given: leave it out, or give that");
            return Err(ConfigError::Value { name, reason });
        }
        let Some((kind, value)) = self.target else {
            return if self.credentials == Credentials::default() {
                Ok(None)
            } else {
                Err(wrong(
                    "disk",
                    "it is missing: disk=NAME, new-disk=NAME or snapshot=ID of the engine is expected",
                ))
            };
        };
        let target = match kind {
            SNAPSHOT => Target::Snapshot { image: value, shallow: self.shallow },
            NEW_DISK => {
                let domain = self.storage_domain;
                let domain = domain.ok_or_else(|| {
                    wrong("storage-domain", "it is missing: name where the new disk is to be")
                })?;
                let size = size
                    .ok_or_else(|| wrong("size", "it is missing: give that of the new disk, such as 10G"))?;
                let mut new = NewDiskSettings::new(value, domain, size);
                new.format = match (self.format, self.tracks_changes) {
                    (Some(DiskFormat::Raw), true) => {
                        return Err(wrong("backup", "changes can be tracked with format=cow only"));
                    }
                    (Some(format), _) => format,
                    (None, true) => DiskFormat::Cow,
                    (None, false) => DiskFormat::Raw,
                };
                new.sparse = self.sparse;
                new.content_type = self.content_type.unwrap_or(ContentType::Data);
                new.initial_size = self.initial_size;
                new.description = self.description.unwrap_or_default();
                new.tracks_changes = self.tracks_changes;
                Target::NewDisk(new)
            }
            _ => Target::Disk(value),
        };
        let mut settings = EngineSettings::new(self.credentials, target);
        settings.direction = self.direction;
        settings.inactivity_timeout = self.inactivity_timeout.unwrap_or(settings.inactivity_timeout);
        Ok(Some(settings))
    }
}

fn wrong(name: &'static str, reason: &str) -> ConfigError {
    ConfigError::Value { name, reason: reason.to_owned() }
}

impl Parser {
    /// Returns the engine that is to be asked for disks that parameters don't name, and their
    /// settings.
    ///
    /// # Errors
    /// [`ConfigError::Value`] where a parameter names a disk.
    pub fn finish_engine(self) -> Result<(Settings, Credentials), ConfigError> {
        let given = self.url.as_ref().map(|_| MAGIC).or(self.settings.size.map(|_| "size"));
        if let Some(name) = given {
            let reason = "this is for a disk that is served: leave it out".to_owned();
            return Err(ConfigError::Value { name, reason });
        }
        let credentials = self.engine.clone().finish_credentials()?;
        let unix_socket_user = self.settings.unix_socket_user.or_else(|| self.default_user());
        Ok((self.settings.with(|settings| settings.unix_socket_user = unix_socket_user), credentials))
    }
}

#[cfg(test)]
mod tests;
