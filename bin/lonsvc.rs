//! `lonsvc`: starts the services of this host, and keeps them running.

fn main() -> std::process::ExitCode {
    lonnet::lonsvc::supervisor::main()
}
