//! `lond`: serves the hosts of the network that call.

fn main() -> std::process::ExitCode {
    lonnet::lond::supervisor::main()
}
