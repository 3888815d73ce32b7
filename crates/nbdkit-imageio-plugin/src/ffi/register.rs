// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one function that nbdkit looks for.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::sync::OnceLock;

use super::abi::{API_VERSION, NbdkitPlugin, THREAD_MODEL_PARALLEL};
use super::callbacks;
use crate::describe;

static PLUGIN: OnceLock<NbdkitPlugin> = OnceLock::new();
static CONFIG_HELP: OnceLock<CString> = OnceLock::new();
static VERSION: OnceLock<CString> = OnceLock::new();

const MAGIC: &CStr = c"url";

/// Returns the table that nbdkit copies when it has loaded the plugin. Exported, like all that is
/// `no_mangle`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn plugin_init() -> *const NbdkitPlugin {
    registered()
}

pub(crate) fn registered() -> &'static NbdkitPlugin {
    PLUGIN.get_or_init(describe_plugin)
}

fn once(place: &'static OnceLock<CString>, text: impl FnOnce() -> String) -> &'static CStr {
    place.get_or_init(|| CString::new(text()).unwrap_or_default())
}

fn describe_plugin() -> NbdkitPlugin {
    NbdkitPlugin {
        struct_size: size_of::<NbdkitPlugin>() as u64,
        api_version: API_VERSION,
        thread_model_constant: THREAD_MODEL_PARALLEL,
        name: c"imageio".as_ptr(),
        longname: c"nbdkit oVirt imageio plugin".as_ptr(),
        version: once(&VERSION, || describe::VERSION.to_owned()).as_ptr(),
        description: c"Read and write a disk of oVirt through an image transfer.".as_ptr(),
        load: Some(callbacks::load),
        unload: Some(callbacks::unload),
        config: Some(callbacks::config),
        config_complete: Some(callbacks::config_complete),
        config_help: once(&CONFIG_HELP, describe::config_help).as_ptr(),
        open: Some(callbacks::open),
        close: Some(callbacks::close),
        get_size: Some(callbacks::get_size),
        can_write: Some(callbacks::can_write),
        can_flush: Some(callbacks::can_flush),
        is_rotational: Some(callbacks::never),
        can_trim: Some(callbacks::never),
        v1: [None; 5],
        errno_is_preserved: 0,
        dump_plugin: Some(callbacks::dump_plugin),
        can_zero: Some(callbacks::can_zero),
        can_fua: Some(callbacks::can_fua),
        pread: Some(callbacks::pread),
        pwrite: Some(callbacks::pwrite),
        flush: Some(callbacks::flush),
        trim: None,
        zero: Some(callbacks::zero),
        magic_config_key: MAGIC.as_ptr(),
        can_multi_conn: Some(callbacks::can_multi_conn),
        can_extents: Some(callbacks::can_extents),
        extents: Some(callbacks::extents),
        can_cache: Some(callbacks::can_cache),
        cache: None,
        thread_model: Some(callbacks::thread_model),
        can_fast_zero: Some(callbacks::can_fast_zero),
        preconnect: None,
        get_ready: Some(callbacks::get_ready),
        after_fork: Some(callbacks::after_fork),
        list_exports: None,
        default_export: None,
        export_description: None,
        cleanup: Some(callbacks::cleanup),
        block_size: Some(callbacks::block_size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_alone_is_what_the_parser_takes_it_for() {
        assert_eq!(MAGIC.to_str().unwrap(), imageio_config::MAGIC);
    }
}
