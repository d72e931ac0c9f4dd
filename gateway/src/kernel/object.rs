//! The program as the BPF target's compiler made it, so that building the gateway needs no such compiler. That it is what
//! the sources in `gateway-ebpf` make is proven by `cargo xtask ebpf --check`.

/// An ELF object for the BPF machine.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../gateway-ebpf/prebuilt/smtp-gateway.bpf.o");

/// The name in it of the program for cards with an Ethernet header.
pub(super) const PROGRAM: &str = "smtp_gateway";
/// The same for cards without.
pub(super) const PROGRAM_IP: &str = "smtp_gateway_ip";
