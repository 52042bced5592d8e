//! What a user's op may do, and what becomes of its mistakes.
#![cfg(feature = "shaderc")]

mod common;
#[path = "ops/mistakes.rs"]
mod mistakes;
#[path = "ops/refused.rs"]
mod refused;
