//! Root's rights, piece by piece. Who is no root has none, and where root becomes `user` they go
//! with it; a child that stays root (`user = "root"`) drops them here, so that to it a file of
//! somebody else is one.

use nix::errno::Errno;
use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, twice: 64 capabilities.
#[repr(C)]
#[derive(Default)]
struct Sets([u32; 6]);

/// Gives all of them up: those in force, those that could be taken, those that a program could
/// gain.
///
/// # Errors
/// What the system said.
pub(super) fn drop_all() -> io::Result<()> {
    owner::bound_none()?;
    let header = Header { version: VERSION, pid: 0 };
    let none = Sets::default();
    // SAFETY: both are what the call reads, and live as long as it takes.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) };
    Errno::result(done)?;
    Ok(())
}
