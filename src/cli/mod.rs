//! `lon`: one file a subcommand.
