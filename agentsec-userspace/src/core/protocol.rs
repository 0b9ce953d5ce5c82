//! Names of IP protocols, as operators write and read them.

use std::borrow::Cow;

/// The protocols with names: what agents talk by, and the tunnels that they could hide in.
const NAMES: [(u8, &str); 12] = [
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (132, "sctp"),
    (136, "udplite"),
];

/// Name of a protocol, else its number.
#[must_use]
pub fn protocol_name(number: u8) -> Cow<'static, str> {
    let named = NAMES.iter().find(|(known, _)| *known == number);
    named.map_or_else(|| number.to_string().into(), |(_, name)| (*name).into())
}

/// Number of a protocol that has a name.
#[must_use]
pub fn protocol_number(name: &str) -> Option<u8> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_or_numbers() {
        assert_eq!(protocol_name(6), "tcp");
        assert_eq!(protocol_name(89), "89");
        for (number, name) in NAMES {
            assert_eq!((protocol_name(number).as_ref(), protocol_number(name)), (name, Some(number)));
        }
        assert_eq!(protocol_number("any"), None);
    }
}
