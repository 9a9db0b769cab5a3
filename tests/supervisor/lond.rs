//! `lond`'s supervisor.

use crate::Test;

pub const TESTS: &[Test] = &[];
