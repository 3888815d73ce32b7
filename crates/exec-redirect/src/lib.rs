// SPDX-License-Identifier: MIT OR Apache-2.0
//! Functions of C's library, by which a process executes one program in the place of others.
//!
//! The dynamic linker puts a library of `LD_PRELOAD` before the others, so these functions are
//! called instead of those that they are named after. Each calls the latter, with the name of the
//! other program if the one that it was given is in a list.
//!
//! | variable | value |
//! |---|---|
//! | `EXEC_REDIRECT_FROM` | the programs that are not to be executed: full paths, as they are written by whoever executes them, with a colon between two |
//! | `EXEC_REDIRECT_TO` | the full path of the program that is executed instead |
//!
//! Without both, nothing is changed. A program that executes one of the list after all does it
//! without these variables: it is its own environment that counts, not the one that it gives.
//!
//! All this happens between `fork` and `exec`, where another thread may have held any lock: so
//! nothing here allocates, locks or panics, and the functions that come next are looked up when the
//! library is loaded.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_void, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

const FROM: &CStr = c"EXEC_REDIRECT_FROM";
const TO: &CStr = c"EXEC_REDIRECT_TO";

type Strings = *const *const c_char;
type Exec = unsafe extern "C" fn(*const c_char, Strings) -> c_int;
type ExecWithEnvironment = unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int;
type Spawn = unsafe extern "C" fn(
    *mut pid_t,
    *const c_char,
    *const posix_spawn_file_actions_t,
    *const posix_spawnattr_t,
    Strings,
    Strings,
) -> c_int;

/// A function of the library that comes next, usually C's.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

static EXECV: Next = Next::new(c"execv");
static EXECVE: Next = Next::new(c"execve");
static EXECVP: Next = Next::new(c"execvp");
static EXECVPE: Next = Next::new(c"execvpe");
static POSIX_SPAWN: Next = Next::new(c"posix_spawn");
static POSIX_SPAWNP: Next = Next::new(c"posix_spawnp");

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn look_up(&self) -> *mut c_void {
        // SAFETY: the name ends with a zero.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(address, Ordering::Relaxed);
        address
    }

    /// Its address. Null only if there is no such function. What other libraries execute while they
    /// are loaded may come before this one looks up its functions.
    fn address(&self) -> *mut c_void {
        let address = self.address.load(Ordering::Relaxed);
        if address.is_null() { self.look_up() } else { address }
    }
}

/// The function that the dynamic linker calls when it has loaded this library.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    for next in [&EXECV, &EXECVE, &EXECVP, &EXECVPE, &POSIX_SPAWN, &POSIX_SPAWNP] {
        next.look_up();
    }
}

/// Fails as the functions of the exec family do, which tell the reason by `errno`.
fn is_missing() -> c_int {
    // SAFETY: it points to this thread's `errno`.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// Calls the next function with the name of the program that is to be executed.
macro_rules! call {
    ($next:ident as $kind:ty, $missing:expr, $program:ident => $($argument:expr),+) => {{
        let address = $next.address();
        if address.is_null() {
            return $missing;
        }
        // SAFETY: `address` is that of the function of this name, whose type is `$kind` (`exec(3)`,
        // `posix_spawn(3)`).
        let next = unsafe { std::mem::transmute::<*mut c_void, $kind>(address) };
        // SAFETY: the caller gave a string that ends with a zero.
        let $program = unsafe { redirected($program) };
        // SAFETY: the caller keeps to what is asked of these arguments; `$program` is a string that
        // ends with a zero.
        unsafe { next($($argument),+) }
    }};
}

/// `execve(2)`.
///
/// # Safety
/// As of the function of C's library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(program: *const c_char, argv: Strings, envp: Strings) -> c_int {
    call!(EXECVE as ExecWithEnvironment, is_missing(), program => program, argv, envp)
}

/// `execv(3)`.
///
/// # Safety
/// As of the function of C's library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(program: *const c_char, argv: Strings) -> c_int {
    call!(EXECV as Exec, is_missing(), program => program, argv)
}

/// `execvp(3)`.
///
/// # Safety
/// As of the function of C's library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(program: *const c_char, argv: Strings) -> c_int {
    call!(EXECVP as Exec, is_missing(), program => program, argv)
}

/// `execvpe(3)`.
///
/// # Safety
/// As of the function of C's library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(program: *const c_char, argv: Strings, envp: Strings) -> c_int {
    call!(EXECVPE as ExecWithEnvironment, is_missing(), program => program, argv, envp)
}

/// `posix_spawn(3)`.
///
/// # Safety
/// As of the function of C's library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawn(
    pid: *mut pid_t,
    program: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    argv: Strings,
    envp: Strings,
) -> c_int {
    call!(POSIX_SPAWN as Spawn, libc::ENOSYS, program => pid, program, actions, attributes, argv, envp)
}

/// `posix_spawnp(3)`.
///
/// # Safety
/// As of the function of C's library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawnp(
    pid: *mut pid_t,
    program: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    argv: Strings,
    envp: Strings,
) -> c_int {
    call!(POSIX_SPAWNP as Spawn, libc::ENOSYS, program => pid, program, actions, attributes, argv, envp)
}

/// The program that is to be executed where this one is asked for.
///
/// # Safety
/// `program` is null or a string that ends with a zero. What is returned is such a string as long
/// as the environment stays.
unsafe fn redirected(program: *const c_char) -> *const c_char {
    let (Some(from), Some(to)) = (variable(FROM), variable(TO)) else { return program };
    if program.is_null() {
        return program;
    }
    // SAFETY: it ends with a zero.
    let name = unsafe { CStr::from_ptr(program) }.to_bytes();
    let is_listed = from.to_bytes().split(|byte| *byte == b':').any(|listed| listed == name);
    if is_listed && name.starts_with(b"/") { to.as_ptr() } else { program }
}

/// The value of a variable in the environment of this process.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the name ends with a zero. No lock is taken: this may come after `fork`.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: it ends with a zero. It stays until this process changes its environment, which it
    // does not before it has executed what it is about to execute.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}
