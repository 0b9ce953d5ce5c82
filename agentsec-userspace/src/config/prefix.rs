//! Address prefixes as operators write them.

use crate::core::address::{from_address, to_address};
use agentsec_common::endpoint::Address;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits before the IPv4 address in an IPv4-mapped one.
pub(super) const MAPPED_BITS: u32 = 96;
/// `::ffff:0:0`.
pub(super) const MAPPED_BASE: u128 = 0xffff << 32;

/// An address prefix; IPv4 ones are kept IPv4-mapped, as the kernel sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    pub(super) bits: u128,
    pub(super) length: u32,
}

impl Prefix {
    /// The prefix of `address`; the `Err` is the prefix without its host bits, or `None` for a length that the
    /// address does not have.
    pub fn new(address: IpAddr, length: u32) -> Result<Self, Option<Self>> {
        let (bits, offset) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), MAPPED_BITS),
            IpAddr::V6(v6) => (v6.to_bits(), 0),
        };
        let length = length.checked_add(offset).filter(|&length| length <= 128).ok_or(None)?;
        let trimmed = Self { bits: bits & mask(length), length };
        if trimmed.bits == bits { Ok(trimmed) } else { Err(Some(trimmed)) }
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Self { bits, length: 128 }
    }

    /// Its length as the kernel's tries want it, 0 to 128; IPv4 prefixes are 96 longer than written.
    #[must_use]
    pub fn mapped_length(&self) -> u32 {
        self.length
    }

    /// The prefix of the first `bits` of an address as the kernel has it.
    #[must_use]
    pub fn of(address: Address, bits: u32) -> Self {
        let whole = match from_address(address) {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let length = bits.min(128);
        Self { bits: whole.to_bits() & mask(length), length }
    }

    /// The one address that it is, if it is one.
    #[must_use]
    pub fn single(&self) -> Option<IpAddr> {
        (self.length == 128).then(|| Ipv6Addr::from_bits(self.bits).to_canonical())
    }

    /// As an operator would write it: a single address without its length.
    #[must_use]
    pub fn short(&self) -> String {
        self.single().map_or_else(|| self.to_string(), |address| address.to_string())
    }

    /// Whether every address of `other` is one of this prefix's. IPv6 prefixes cover no IPv4 addresses, however
    /// short they are.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.length <= other.length
            && other.bits & mask(self.length) == self.bits
    }

    /// Whether it is every address of its family.
    #[must_use]
    pub fn is_whole_family(&self) -> bool {
        self.length == if self.is_ipv4() { MAPPED_BITS } else { 0 }
    }

    /// Whether its addresses are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.length >= MAPPED_BITS && self.bits & mask(MAPPED_BITS) == MAPPED_BASE
    }

    /// Its address for the kernel's maps.
    #[must_use]
    pub fn address(&self) -> Address {
        to_address(Ipv6Addr::from_bits(self.bits))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ipv4() {
            write!(out, "{}/{}", Ipv4Addr::from_bits(self.bits as u32), self.length - MAPPED_BITS)
        } else {
            write!(out, "{}/{}", Ipv6Addr::from_bits(self.bits), self.length)
        }
    }
}

/// The first `length` of 128 bits.
pub(super) fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = String;

    /// An address, or a prefix without host bits.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is not an address or prefix"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| format!("{text:?} has no prefix length"))?,
            None => longest,
        };
        Self::new(address, length).map_err(|trimmed| match trimmed {
            Some(trimmed) => format!("{text:?} has host bits set, perhaps \"{trimmed}\" is meant"),
            None => format!("{text:?} has a prefix length above {longest}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_name_the_prefix_that_was_meant() {
        let prefix = Prefix::from_str;
        let message = prefix("10.1.2.3/8").unwrap_err();
        assert!(message.contains("\"10.0.0.0/8\""), "{message}");
        assert!(prefix("2001:db8::1/32").unwrap_err().contains("\"2001:db8::/32\""));
        assert!(prefix("10.0.0.0/33").unwrap_err().contains("above 32"));
        assert_eq!(prefix("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }
}
