//! Empty: cargo reads no manifest without a target.
