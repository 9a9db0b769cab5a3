//! `lonc`: keeps a link to each host of the network.

fn main() -> std::process::ExitCode {
    lonnet::lonc::supervisor::main()
}
