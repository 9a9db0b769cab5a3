//! System calls that a running process is made to do, as somebody who has taken it over would.
//!
//! The process is stopped in the call that it waits in; the registers of one more call are put in
//! the place of its own, that call is done, and the registers are put back. So what the kernel
//! answers is what it answers this process, with all that confines it. Needs root, and knows the
//! registers of one architecture.

#![cfg(target_arch = "x86_64")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

/// Whether it can be done here.
pub fn possible() -> bool {
    super::network::root()
}

/// A process that is stopped until this is dropped.
pub struct Stopped {
    pid: i32,
    memory: File,
    registers: libc::user_regs_struct,
}

/// Room for a message.
const ROOM: i64 = 1 << 14;

/// What a process is told about a socket of its own.
struct Asked<'a>(&'a Stopped);

impl Asked<'_> {
    /// What a call with a socket, room and the length of that puts there.
    fn call(&self, number: i64, fd: i64, most: usize) -> Option<Vec<u8>> {
        self.at(|at| self.0.call(number, &[fd, at, at + 512].map(Argument::Number)), most)
    }

    fn kind(&self, fd: i64) -> Option<i32> {
        let (level, option) = (libc::SOL_SOCKET.into(), libc::SO_TYPE.into());
        let numbers = |at| [fd, level, option, at, at + 512].map(Argument::Number);
        let said = self.at(|at| self.0.call(libc::SYS_getsockopt, &numbers(at)), 4)?;
        Some(i32::from_ne_bytes(said.try_into().ok()?))
    }

    fn at(&self, ask: impl Fn(i64) -> i64, most: usize) -> Option<Vec<u8>> {
        // Below what a function may use without saying so.
        let at = (self.0.registers.rsp - 8192) & !15;
        self.0.memory.write_all_at(&[0; 512], at).expect("write its memory");
        let length = u32::try_from(most).expect("a length").to_ne_bytes();
        self.0.memory.write_all_at(&length, at + 512).expect("write its memory");
        (ask(at.cast_signed()) == 0).then(|| self.0.read(at, most))
    }
}

/// An argument of a system call.
pub enum Argument<'a> {
    /// As it stands.
    Number(i64),
    /// The address of these bytes, which are put into the process's memory.
    Bytes(&'a [u8]),
}

impl Stopped {
    /// Stops a process where it waits in a system call.
    pub fn at(pid: u32) -> Stopped {
        super::wait::until("the process to wait in a system call", || {
            let stopped = Stopped::anywhere(pid);
            (stopped.read(stopped.registers.rip - 2, 2) == [0x0f, 0x05]).then_some(stopped)
        })
    }

    fn anywhere(pid: u32) -> Stopped {
        let pid = i32::try_from(pid).expect("a pid");
        trace(libc::PTRACE_ATTACH, pid, std::ptr::null_mut());
        wait_stopped(pid);
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
        Stopped { pid, memory: memory.expect("open its memory"), registers: registers(pid) }
    }

    /// What the kernel answers the process; an error is its negative number.
    pub fn call(&self, number: i64, arguments: &[Argument<'_>]) -> i64 {
        let mut with = self.registers;
        // Below what a function may use without saying so.
        let mut room = (with.rsp - 4096) & !15;
        let mut values = [0_u64; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => number.cast_unsigned(),
                Argument::Bytes(bytes) => {
                    room = (room - bytes.len() as u64) & !15;
                    self.memory.write_all_at(bytes, room).expect("write its memory");
                    room
                }
            };
        }
        [with.rdi, with.rsi, with.rdx, with.r10, with.r8, with.r9] = values;
        with.rip -= 2;
        with.rax = number.cast_unsigned();
        // No call is to be gone on with.
        with.orig_rax = u64::MAX;
        set_registers(self.pid, &with);
        trace(libc::PTRACE_SINGLESTEP, self.pid, std::ptr::null_mut());
        wait_stopped(self.pid);
        registers(self.pid).rax.cast_signed()
    }

    /// Sends one of its descriptors so many times, in one message with a byte.
    pub fn send_descriptor(&self, to: i64, descriptor: i32, times: usize) -> i64 {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let (numbers, rights) = ([0, ROOM, 3, flags.into(), -1, 0], times * size_of::<i32>());
        let at = self.call(libc::SYS_mmap, &numbers.map(Argument::Number)).cast_unsigned();
        let word = |number: u64| number.to_ne_bytes();
        let half = |number: i32| number.to_ne_bytes();
        // A `msghdr`, its `iovec` and the byte, its `cmsghdr` and the descriptors.
        let mut bytes = Vec::new();
        bytes.extend([0, 0, at + 56, 1, at + 80, 16 + rights as u64, 0].iter().flat_map(|it| word(*it)));
        bytes.extend([at + 72, 1, u64::from(b'x')].iter().flat_map(|it| word(*it)));
        bytes.extend(word(16 + rights as u64));
        bytes.extend([libc::SOL_SOCKET, libc::SCM_RIGHTS].iter().flat_map(|it| half(*it)));
        bytes.extend(std::iter::repeat_n(half(descriptor), times).flatten());
        self.memory.write_all_at(&bytes, at).expect("write its memory");
        let not_waiting = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).into();
        let answer = self.call(
            libc::SYS_sendmsg,
            &[Argument::Number(to), Argument::Number(at.cast_signed()), Argument::Number(not_waiting)],
        );
        self.call(libc::SYS_munmap, &[Argument::Number(at.cast_signed()), Argument::Number(ROOM)]);
        answer
    }

    /// Its descriptors.
    pub fn descriptors(&self) -> Vec<i64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("its descriptors");
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Those of its sockets that are connected, of this kind, and whose name has this in it.
    pub fn sockets(&self, kind: i32, name: &str) -> Vec<i64> {
        self.sockets_where(kind, name, true)
    }

    /// Those that listen.
    pub fn listeners(&self, name: &str) -> Vec<i64> {
        self.sockets_where(libc::SOCK_STREAM, name, false)
    }

    fn sockets_where(&self, kind: i32, name: &str, connected: bool) -> Vec<i64> {
        let is_connected = |fd: i64, with: &Asked| with.call(libc::SYS_getpeername, fd, 128).is_some();
        let with = Asked(self);
        let is_wanted = |fd: &i64| {
            let said = with.call(libc::SYS_getsockname, *fd, 128).unwrap_or_default();
            // The name stands behind the family, and has its end.
            let named = said.get(2..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
            with.kind(*fd) == Some(kind)
                && is_connected(*fd, &with) == connected
                && String::from_utf8_lossy(named).contains(name)
                && named.is_empty() == name.is_empty()
        };
        self.descriptors().into_iter().filter(is_wanted).collect()
    }

    /// Bytes of its memory.
    pub fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, at).expect("read its memory");
        bytes
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        set_registers(self.pid, &self.registers);
        trace(libc::PTRACE_DETACH, self.pid, std::ptr::null_mut());
    }
}

fn registers(pid: i32) -> libc::user_regs_struct {
    // SAFETY: numbers alone, for which zero is a value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    trace(libc::PTRACE_GETREGS, pid, (&raw mut registers).cast());
    registers
}

fn set_registers(pid: i32, registers: &libc::user_regs_struct) {
    trace(libc::PTRACE_SETREGS, pid, std::ptr::from_ref(registers).cast_mut().cast());
}

fn trace(what: libc::c_uint, pid: i32, data: *mut libc::c_void) {
    // SAFETY: `data` is null or the address of registers that live through the call.
    let done = unsafe { libc::ptrace(what, pid, std::ptr::null_mut::<libc::c_void>(), data) };
    assert_eq!(done, 0, "trace process {pid}: {}", std::io::Error::last_os_error());
}

fn wait_stopped(pid: i32) {
    let mut status = 0;
    // SAFETY: the status is a number of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(waited == pid && libc::WIFSTOPPED(status), "process {pid} was to stop: {status:x}");
}
