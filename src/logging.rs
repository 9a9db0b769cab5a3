//! The log files: one line an event, each with its time, program, process and host.
