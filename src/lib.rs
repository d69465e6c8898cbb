//! primeshare
