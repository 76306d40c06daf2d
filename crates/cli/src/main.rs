//! The binary `muster`.

mod config;

fn main() {
    let _ = config::load(None, std::env::vars());
}
