//! An HTTP response cache for any Tower stack.

mod semantics;
