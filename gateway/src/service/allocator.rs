//! What was freed goes back to the system. The C library keeps free pages between others for what may come; after a reload of
//! long lists that is several times what is in use.

/// Gives back what is free. For a thread that may wait.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate has this call of the C library's")]
pub(super) fn give_back() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: it takes a number, touches only memory that nobody has, and may be called from any thread (malloc_trim(3)).
    unsafe {
        malloc_trim(0);
    }
}

/// Other C libraries see to that themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}
