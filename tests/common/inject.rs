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

/// An argument of a system call.
pub enum Argument<'a> {
    /// As it stands.
    Number(i64),
    /// The address of these bytes, which are put into the process's memory.
    Bytes(&'a [u8]),
}

impl Stopped {
    /// Stops a process that waits in a system call.
    pub fn at(pid: u32) -> Stopped {
        let pid = i32::try_from(pid).expect("a pid");
        trace(libc::PTRACE_ATTACH, pid, std::ptr::null_mut());
        wait_stopped(pid);
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
        let registers = registers(pid);
        let stopped = Stopped { pid, memory: memory.expect("open its memory"), registers };
        assert_eq!(stopped.read(registers.rip - 2, 2), [0x0f, 0x05], "it waits in a system call");
        stopped
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
