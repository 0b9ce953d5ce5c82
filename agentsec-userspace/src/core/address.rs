//! Addresses as they lie in maps and as people write them.

use agentsec_common::endpoint::{Address, MAPPED};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as it lies in maps.
#[must_use]
pub fn to_address(address: Ipv6Addr) -> Address {
    let octets = address.octets();
    std::array::from_fn(|word| u32::from_ne_bytes(std::array::from_fn(|byte| octets[4 * word + byte])))
}

/// An address from a map, as people write it.
#[must_use]
pub fn from_address(address: Address) -> IpAddr {
    let mut octets = [0; 16];
    for (four, word) in octets.chunks_exact_mut(4).zip(address) {
        four.copy_from_slice(&word.to_ne_bytes());
    }
    match address {
        [0, 0, MAPPED, v4] => IpAddr::V4(Ipv4Addr::from(v4.to_ne_bytes())),
        _ => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_shown_as_ipv4_and_any_other_as_ipv6() {
        let mapped = [0, 0, MAPPED, u32::from_ne_bytes([192, 0, 2, 7])];
        assert_eq!(from_address(mapped).to_string(), "192.0.2.7");
        let documentation =
            [u32::from_ne_bytes([0x20, 1, 0x0d, 0xb8]), 0, 0, u32::from_ne_bytes([0, 0, 0, 1])];
        assert_eq!(from_address(documentation).to_string(), "2001:db8::1");
    }
}
