//! Puts the BPF object where the library embeds it from.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=AGENTSEC_BPF_OBJECT");
    let built = env::var_os("AGENTSEC_BPF_OBJECT").map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-changed={}", built.display());
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("agentsec-ebpf.o");
    if let Err(error) = fs::copy(&built, &embedded) {
        println!(
            "cargo::error=the BPF object {} cannot be read ({error}): run `cargo xtask build`, which makes it first",
            built.display()
        );
    }
}

/// Where `cargo xtask build` leaves the object.
fn default_object() -> PathBuf {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(Path::new(".")).join("target/bpf/agentsec-ebpf.o")
}
