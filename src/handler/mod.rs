//! What a request is passed to at `lond`.
