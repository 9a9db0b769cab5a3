//! seccomp: the system calls that are left to a link child.
//!
//! A list of what it may ask, since what it may not is longer and grows with each kernel. What is
//! not on it fails with `EPERM` and the process goes on; a call that is newer than this list fails
//! with `ENOSYS`, so that a C library which tries it first does what it does on an older kernel.
//! Calls of which some forms are needed are looked at by their arguments: see [`conditional`].

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

/// Calls with this number and those above were not there when the list was made (Linux 6.18). All
/// architectures have had the same numbers since 424.
const UNKNOWN: u32 = 470;

/// Which child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// It takes connections of local programs, and descriptors that are passed to it; it makes no
    /// socket and connects to nothing.
    Accepts,
    /// It connects to handlers' Unix sockets.
    ConnectsToHandlers,
}

/// What any child asks, in whatever form.
const PLAIN: &[i64] = &[
    // Bytes.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Files: which ones is Landlock's affair.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_readlinkat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_getcwd,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    // Itself.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // To be confined further: what these take away is all that they do.
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// The same by the older names that one architecture still has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// The bits of `socket`'s second argument that say which kind it is to be.
const KIND_OF_SOCKET: u64 = 0xf;
/// `prctl` for a name that an allocation has in `/proc`; some C libraries' allocators set it.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// `TIOCOUTQ`, by which a handler that has read its request is told from one that has not;
/// `FIONREAD`, `FIOCLEX`. Not `FIONBIO`, by which others would come to wait: at the peer's local
/// socket, at standard error. Their type differs from C library to C library.
const IOCTL: &[u64] = &[0x5411, 0x541b, 0x5451];

/// What is done with a descriptor of a child's own, and not with the standard three, which are its
/// supervisor's too: a copy has another number.
const OF_ITS_OWN: &[i64] = &[
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_shutdown,
    libc::SYS_ftruncate,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
];

/// `fcntl` without those of its commands that have signals sent to other processes, and without the
/// one that takes the flags off a file which others have open too, such as the log.
const FCNTL: &[i32] = &[
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
];

/// Whether this kernel looks at calls for a process.
pub(super) fn can_be_filtered() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one number, which is there.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    done == 0
}

/// Leaves these calls to this thread, and to what it makes.
///
/// # Errors
/// The system refused; all calls are left then.
pub(super) fn leave(calls: Calls) -> io::Result<()> {
    let pid = std::process::id();
    let program = match PREPARED.get() {
        Some((these, program)) if *these == calls => made_out_to(program, pid),
        Some(_) | None => program(calls, pid).map_err(io::Error::other)?,
    };
    apply_filter(&program).map_err(io::Error::other)
}

/// The program that children will want, made out to [`NOBODY`].
static PREPARED: OnceLock<(Calls, BpfProgram)> = OnceLock::new();

/// In the place of a child's own number: more than any process has.
const NOBODY: u32 = 0x7fff_fff5;

/// Makes the program once for all children that are forked later, which would each use memory and
/// time for it. Where it cannot be made, each child tries, and says so.
pub(super) fn prepare(calls: Calls) {
    if let Ok(program) = program(calls, NOBODY) {
        // A second time it is there.
        let _ = PREPARED.set((calls, program));
    }
}

/// The same program, for the process with this number.
fn made_out_to(program: &BpfProgram, pid: u32) -> BpfProgram {
    let its = |statement: &sock_filter| sock_filter {
        k: if statement.k == NOBODY { pid } else { statement.k },
        ..statement.clone()
    };
    program.iter().map(its).collect()
}

/// What a process that looks names up is refused. The C library's modules ask what they like, so
/// that a list of what is left cannot be had.
const NOT_FOR_NAMES: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
];

/// Refuses this thread, and what it makes, what nobody needs to look a name up.
///
/// # Errors
/// The system refused; all calls are left then.
pub(super) fn leave_look_up() -> io::Result<()> {
    let program = look_up_program().map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

fn look_up_program() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        NOT_FOR_NAMES.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    BpfProgram::try_from(SeccompFilter::new(rules, SeccompAction::Allow, refused, target)?)
}

fn program(calls: Calls, pid: u32) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = conditional(calls, pid)?;
    rules.extend(PLAIN.iter().chain(OLDER).map(|call| (*call, Vec::new())));
    match calls {
        Calls::Accepts => {
            // What is handed over to the next child goes through a nameless file.
            rules.insert(libc::SYS_memfd_create, Vec::new());
            rules.insert(libc::SYS_recvmsg, Vec::new());
            rules.insert(libc::SYS_accept4, Vec::new())
        }
        Calls::ConnectsToHandlers => rules.insert(libc::SYS_connect, Vec::new()),
    };
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, target)?;
    let mut program: BpfProgram = unknown_first();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// Calls of which some forms are left.
fn conditional(calls: Calls, pid: u32) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, Gt, MaskedEq, Ne};
    let mut rules = BTreeMap::new();
    let mut allow = |call: i64, conditions: &[(u8, SeccompCmpOp, u64)]| {
        let conditions = conditions.iter().map(|(argument, op, value)| {
            // What the kernel takes of these arguments is 32 bits wide.
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, op.clone(), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        rules.entry(call).or_insert_with(Vec::new).push(rule);
        Ok::<(), seccompiler::BackendError>(())
    };
    let bits = |flags: i32| u64::from(flags.unsigned_abs());
    // A signal for itself alone: how a C library aborts.
    allow(libc::SYS_tgkill, &[(0, Eq, u64::from(pid))])?;
    // Memory that is written to is never executed, and none becomes so.
    allow(libc::SYS_mmap, &[(2, MaskedEq(bits(libc::PROT_EXEC)), 0)])?;
    allow(libc::SYS_mprotect, &[(2, MaskedEq(bits(libc::PROT_EXEC)), 0)])?;
    // TCP can be told to connect by sending.
    allow(libc::SYS_sendto, &[(3, MaskedEq(bits(libc::MSG_FASTOPEN)), 0)])?;
    // How much may lie in a socket is for its maker to say: of descriptors, too.
    allow(libc::SYS_setsockopt, &[(1, Ne, bits(libc::SOL_SOCKET))])?;
    allow(libc::SYS_setsockopt, &[(2, Ne, bits(libc::SO_SNDBUF)), (2, Ne, bits(libc::SO_SNDBUFFORCE))])?;
    // Room for a file's next bytes, and none of what zeroes or cuts out those that are there, of
    // the log, say. What is made is its owner's alone.
    allow(libc::SYS_fallocate, &[(1, Eq, bits(libc::FALLOC_FL_KEEP_SIZE))])?;
    allow(libc::SYS_fchmod, &[(1, MaskedEq(!0o700 & 0xffff_ffff), 0)])?;
    for command in FCNTL {
        allow(libc::SYS_fcntl, &[(1, Eq, bits(*command))])?;
    }
    for command in [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC] {
        allow(libc::SYS_fcntl, &[(1, Eq, bits(command)), (0, Gt, bits(libc::STDERR_FILENO))])?;
    }
    for call in OF_ITS_OWN {
        allow(*call, &[(0, Gt, bits(libc::STDERR_FILENO))])?;
    }
    for request in IOCTL {
        allow(libc::SYS_ioctl, &[(1, Eq, *request)])?;
    }
    for option in [bits(libc::PR_SET_NAME), bits(libc::PR_GET_NAME), PR_SET_VMA] {
        allow(libc::SYS_prctl, &[(0, Eq, option)])?;
    }
    // Asked, not set.
    allow(libc::SYS_prlimit64, &[(0, Eq, 0), (2, Eq, 0)])?;
    match calls {
        // With descriptors: no other child has anybody to send them to.
        Calls::Accepts => allow(libc::SYS_sendmsg, &[(2, MaskedEq(bits(libc::MSG_FASTOPEN)), 0)])?,
        Calls::ConnectsToHandlers => {
            let stream = (1, MaskedEq(KIND_OF_SOCKET), bits(libc::SOCK_STREAM));
            allow(libc::SYS_socket, &[(0, Eq, bits(libc::AF_UNIX)), stream])?;
        }
    }
    Ok(rules)
}

/// The part of the program that answers calls which are newer than the list. Those of another
/// architecture that get here have `ENOSYS` as well, or meet the rest of the program, which kills
/// who asks them.
fn unknown_first() -> BpfProgram {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        // The call's number is the first word of what a filter looks at.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, UNKNOWN),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, not_there),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_can_be_made_into_a_program_that_the_kernel_takes() {
        for calls in [Calls::Accepts, Calls::ConnectsToHandlers] {
            let program = program(calls, 1).unwrap();
            assert!(program.len() < 4096, "{}", program.len());
        }
    }

    #[test]
    fn a_program_that_was_made_before_is_the_one_that_a_child_would_have_made() {
        let parts = |program: &BpfProgram| -> Vec<(u16, u8, u8, u32)> {
            program.iter().map(|part| (part.code, part.jt, part.jf, part.k)).collect()
        };
        for calls in [Calls::Accepts, Calls::ConnectsToHandlers] {
            let before = program(calls, NOBODY).unwrap();
            assert_eq!(before.iter().filter(|part| part.k == NOBODY).count(), 1);
            for pid in [1, 2, 4_194_303] {
                assert_eq!(parts(&made_out_to(&before, pid)), parts(&program(calls, pid).unwrap()));
            }
        }
    }

    #[test]
    fn what_starts_a_program_or_looks_into_another_is_on_no_list() {
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_pidfd_getfd,
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_setuid,
            libc::SYS_open_by_handle_at,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_unshare,
        ];
        for calls in [Calls::Accepts, Calls::ConnectsToHandlers] {
            let conditional = conditional(calls, 1).unwrap();
            let left =
                |call: &i64| PLAIN.contains(call) || OLDER.contains(call) || conditional.contains_key(call);
            assert!(!never.iter().any(left));
        }
        assert!(!conditional(Calls::Accepts, 1).unwrap().contains_key(&libc::SYS_socket));
    }
}
