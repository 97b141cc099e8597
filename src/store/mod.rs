//! What is kept beyond a process, and what replicas share. Connections are made when first needed, in the service that
//! uses them, and every question has a deadline: a store that hangs must cost its users that much and no more.

pub mod guarded;
pub mod postgres;
pub mod private;
pub mod records;
pub mod redis;
mod trust;
