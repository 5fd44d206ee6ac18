//! Records what this binary was built for, for `/diag` and bug reports.

fn main() {
    for key in ["TARGET", "PROFILE"] {
        let value = std::env::var(key).unwrap_or_else(|_| "unknown".into());
        println!("cargo::rustc-env=SHIMMY_BUILD_{key}={value}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
