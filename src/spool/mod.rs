//! The delayed directory of one peer.
