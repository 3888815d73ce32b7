// SPDX-License-Identifier: MIT OR Apache-2.0
//! Enumerations of the API. A newer engine may have words that this crate doesn't know: they are
//! kept.

/// Declares an enumeration with the words that the engine has for its values.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident { $( $(#[$doc:meta])* $value:ident = $word:literal ),+ $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
        #[serde(from = "String")]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$doc])* $value, )+
            /// A word that this crate doesn't know.
            Other(String),
        }

        impl $name {
            /// The engine's word for it.
            #[must_use]
            pub fn word(&self) -> &str {
                match self {
                    $( Self::$value => $word, )+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match &*word {
                    $( $word => Self::$value, )+
                    _ => Self::Other(word),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // It may come from whoever answers in the engine's place.
                write!(f, "{}", self.word().escape_debug())
            }
        }
    };
}

words! {
    /// The state of a disk (`DiskStatus` of the API's model).
    DiskStatus {
        /// It can be used.
        Ok = "ok",
        /// It is being made, transferred, copied or removed.
        Locked = "locked",
        /// Its content can't be relied on.
        Illegal = "illegal",
    }
}

words! {
    /// The format in which a disk's data is stored, or transferred (`DiskFormat`).
    DiskFormat {
        /// Byte by byte.
        Raw = "raw",
        /// The disk is stored as qcow2.
        Cow = "cow",
    }
}

words! {
    /// The kind of a disk's content (`DiskContentType`).
    ContentType {
        /// A guest's data.
        Data = "data",
        /// The image of an optical disk.
        Iso = "iso",
    }
}

words! {
    /// The phase of a transfer (`ImageTransferPhase`).
    TransferPhase {
        /// The engine prepares the disk.
        Initializing = "initializing",
        /// Data may flow.
        Transferring = "transferring",
        /// It is being resumed.
        Resuming = "resuming",
        /// The engine has paused it, as nothing was transferred for too long.
        PausedSystem = "paused_system",
        /// Somebody has paused it.
        PausedUser = "paused_user",
        /// The engine has cancelled it.
        CancelledSystem = "cancelled_system",
        /// Somebody has cancelled it.
        CancelledUser = "cancelled_user",
        /// It was cancelled; the word of engines before 4.4.
        Cancelled = "cancelled",
        /// The disk is verified, and will be released.
        FinalizingSuccess = "finalizing_success",
        /// The transfer has failed, and the disk is cleaned up.
        FinalizingFailure = "finalizing_failure",
        /// The transfer was cancelled, and the disk is cleaned up.
        FinalizingCleanup = "finalizing_cleanup",
        /// All went well.
        FinishedSuccess = "finished_success",
        /// It has failed.
        FinishedFailure = "finished_failure",
        /// It was cancelled, and the disk is cleaned up.
        FinishedCleanup = "finished_cleanup",
    }
}

impl TransferPhase {
    /// Returns true if a transfer has ended, well or not, and its disk is released.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::FinishedSuccess | Self::FinishedFailure | Self::FinishedCleanup)
    }

    /// Returns true if it waits until somebody has it go on.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        matches!(self, Self::PausedSystem | Self::PausedUser)
    }
}

words! {
    /// The phase of a backup (`BackupPhase`).
    BackupPhase {
        /// It has been asked for.
        Initializing = "initializing",
        /// The virtual machine's disks are made ready.
        Starting = "starting",
        /// The disks can be transferred.
        Ready = "ready",
        /// It is being ended.
        Finalizing = "finalizing",
        /// It has ended well.
        Succeeded = "succeeded",
        /// It has failed.
        Failed = "failed",
    }
}

words! {
    /// The scope of a disk's part in a backup (`DiskBackupMode`).
    BackupMode {
        /// All of the disk.
        Full = "full",
        /// The parts of the disk that have changed since a checkpoint.
        Incremental = "incremental",
    }
}

words! {
    /// The state of a host (`HostStatus`).
    HostStatus {
        /// It works.
        Up = "up",
        /// It is down.
        Down = "down",
        /// It is kept out of use.
        Maintenance = "maintenance",
    }
}
