// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of the C library's allocator.

#[cfg(target_env = "gnu")]
use super::abi;

/// Makes it keep up to this much free memory, in bytes, in each of its arenas.
///
/// glibc gives memory back when 128 KiB at the end of an arena are free. A TLS connection takes and
/// frees twice that with each request, which costs page faults and, as other threads use the same
/// address space, interrupts of other cores: a fifth of the processor time of an upload.
#[cfg(target_env = "gnu")]
const KEPT: std::ffi::c_int = 1 << 20;

#[cfg(target_env = "gnu")]
pub(super) fn keep_some_memory() {
    // SAFETY: mallopt(3) takes two integers, and may be called at any time.
    unsafe { abi::mallopt(abi::M_TRIM_THRESHOLD, KEPT) };
}

/// Other C libraries have no such parameter.
#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_some_memory() {}
