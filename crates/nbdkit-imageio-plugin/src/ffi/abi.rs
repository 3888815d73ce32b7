// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nbdkit-plugin.h`, API version 2, as of nbdkit 1.32.
//!
//! The structure only ever grows at its end. An older nbdkit ignores the fields past those it
//! knows, a newer one takes the missing ones as null: both by `struct_size`.

use std::ffi::{c_char, c_int, c_void};

pub(crate) const API_VERSION: c_int = 2;
pub(crate) const THREAD_MODEL_PARALLEL: c_int = 3;

pub(crate) const FLAG_MAY_TRIM: u32 = 1 << 0;
pub(crate) const FLAG_FUA: u32 = 1 << 1;
pub(crate) const FLAG_REQ_ONE: u32 = 1 << 2;
pub(crate) const FLAG_FAST_ZERO: u32 = 1 << 3;

pub(crate) const EXTENT_HOLE: u32 = 1 << 0;
pub(crate) const EXTENT_ZERO: u32 = 1 << 1;

pub(crate) const FUA_NONE: c_int = 0;
/// 1, a mere 'true', would be emulation: a flush of everything after each write.
pub(crate) const FUA_NATIVE: c_int = 2;
pub(crate) const CACHE_NONE: c_int = 0;

/// The handle of a client, which `open` returns, and which nbdkit gives back with each request of
/// this client.
pub(crate) type Handle = *mut c_void;
/// `struct nbdkit_extents`, of which only nbdkit knows what is in it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct NbdkitExtents {
    _opaque: [u8; 0],
}

/// A callback that takes no arguments.
pub(crate) type Step = Option<extern "C" fn() -> c_int>;
/// A callback that is only told.
pub(crate) type Notice = Option<extern "C" fn()>;
/// A question about a client's connection.
pub(crate) type Question = Option<unsafe extern "C" fn(Handle) -> c_int>;
/// `flags` comes last.
pub(crate) type RangeRequest = Option<unsafe extern "C" fn(Handle, u32, u64, u32) -> c_int>;
/// A field that isn't used here; any function pointer has its size.
pub(crate) type Unused = Option<extern "C" fn()>;

/// `struct nbdkit_plugin`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct NbdkitPlugin {
    pub(crate) struct_size: u64,
    pub(crate) api_version: c_int,
    pub(crate) thread_model_constant: c_int,
    pub(crate) name: *const c_char,
    pub(crate) longname: *const c_char,
    pub(crate) version: *const c_char,
    pub(crate) description: *const c_char,
    pub(crate) load: Notice,
    pub(crate) unload: Notice,
    pub(crate) config: Option<unsafe extern "C" fn(*const c_char, *const c_char) -> c_int>,
    pub(crate) config_complete: Step,
    pub(crate) config_help: *const c_char,
    pub(crate) open: Option<extern "C" fn(c_int) -> Handle>,
    pub(crate) close: Option<unsafe extern "C" fn(Handle)>,
    pub(crate) get_size: Option<unsafe extern "C" fn(Handle) -> i64>,
    pub(crate) can_write: Question,
    pub(crate) can_flush: Question,
    pub(crate) is_rotational: Question,
    pub(crate) can_trim: Question,
    /// The requests of API version 1.
    pub(crate) v1: [Unused; 5],
    pub(crate) errno_is_preserved: c_int,
    pub(crate) dump_plugin: Notice,
    pub(crate) can_zero: Question,
    pub(crate) can_fua: Question,
    pub(crate) pread: Option<unsafe extern "C" fn(Handle, *mut c_void, u32, u64, u32) -> c_int>,
    pub(crate) pwrite: Option<unsafe extern "C" fn(Handle, *const c_void, u32, u64, u32) -> c_int>,
    pub(crate) flush: Option<unsafe extern "C" fn(Handle, u32) -> c_int>,
    pub(crate) trim: RangeRequest,
    pub(crate) zero: RangeRequest,
    pub(crate) magic_config_key: *const c_char,
    pub(crate) can_multi_conn: Question,
    pub(crate) can_extents: Question,
    pub(crate) extents: Option<unsafe extern "C" fn(Handle, u32, u64, u32, *mut NbdkitExtents) -> c_int>,
    pub(crate) can_cache: Question,
    pub(crate) cache: RangeRequest,
    pub(crate) thread_model: Step,
    pub(crate) can_fast_zero: Question,
    pub(crate) preconnect: Unused,
    pub(crate) get_ready: Step,
    pub(crate) after_fork: Step,
    pub(crate) list_exports: Unused,
    pub(crate) default_export: Unused,
    pub(crate) export_description: Unused,
    /// From nbdkit 1.26 on.
    pub(crate) cleanup: Notice,
    /// From nbdkit 1.30 on.
    pub(crate) block_size: Option<unsafe extern "C" fn(Handle, *mut u32, *mut u32, *mut u32) -> c_int>,
}

// SAFETY: it is never changed once it is made, and its pointers are to strings that live as long as
// the process.
unsafe impl Sync for NbdkitPlugin {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for NbdkitPlugin {}

// All of these are in every nbdkit since 1.24, and long before: a plugin with a symbol that its
// server doesn't have isn't loaded at all.
#[cfg(not(test))]
unsafe extern "C" {
    pub(crate) fn nbdkit_error(format: *const c_char, ...);
    pub(crate) fn nbdkit_debug(format: *const c_char, ...);
    pub(crate) fn nbdkit_set_error(errno: c_int);
    pub(crate) fn nbdkit_nanosleep(sec: u32, nsec: u32) -> c_int;
    pub(crate) fn nbdkit_add_extent(
        extents: *mut NbdkitExtents,
        offset: u64,
        length: u64,
        extent_type: u32,
    ) -> c_int;
}

// The C library's.
unsafe extern "C" {
    pub(crate) fn atexit(function: extern "C" fn()) -> c_int;
    pub(crate) fn fflush(stream: *mut c_void) -> c_int;
    pub(crate) fn puts(line: *const c_char) -> c_int;
    pub(crate) fn _exit(status: c_int) -> !;
    #[cfg(target_env = "gnu")]
    pub(crate) fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// `malloc.h`.
#[cfg(target_env = "gnu")]
pub(crate) const M_TRIM_THRESHOLD: c_int = -1;

#[cfg(test)]
#[path = "abi_tests.rs"]
mod tests;
