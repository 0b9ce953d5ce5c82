//! Protocols that refuse in the clear, told by the first bytes of an answer. Each is anchored at the answer's begin: a body
//! or a page that contains such words matches nothing. Where the words alone could be anybody's, the port has to be the protocol's.

use super::AuthBy;

/// The refusal that an answer begins with, from this port.
#[must_use]
pub fn refusal(bytes: &[u8], port: u16) -> Option<AuthBy> {
    let refused = match bytes.first()? {
        b'-' => redis(bytes) || pop3(bytes),
        b'E' => postgres(bytes),
        b'0'..=b'9' if is_reply(bytes) => reply(bytes, port),
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'*' => imap(bytes),
        0x05 | 0x01 => port == 1080 && socks(bytes),
        0x20 => matches!(port, 1883 | 8883) && mqtt(bytes),
        _ => false,
    };
    // These begin with any byte, or with one that is a digit as well.
    let binary = match port {
        3306 | 33060 => mysql(bytes),
        389 | 3268 => ldap(bytes),
        _ => false,
    };
    (refused || binary).then_some(AuthBy::Protocol(port))
}

/// `-WRONGPASS`, `-NOAUTH`, `-NOPERM`, and what servers before 6 say.
fn redis(bytes: &[u8]) -> bool {
    [&b"-WRONGPASS "[..], b"-NOAUTH ", b"-NOPERM ", b"-ERR invalid password"]
        .iter()
        .any(|word| bytes.starts_with(word))
}

/// RFC 3206: `-ERR [AUTH]`.
fn pop3(bytes: &[u8]) -> bool {
    bytes.to_ascii_uppercase().starts_with(b"-ERR [AUTH]")
}

/// An ErrorResponse whose SQLSTATE is of class 28, invalid authorization.
fn postgres(bytes: &[u8]) -> bool {
    let Some((length, fields)) = bytes.get(1..).and_then(|rest| rest.split_first_chunk()) else {
        return false;
    };
    let length = u32::from_be_bytes(*length) as usize;
    // The severity and its code come first, each a letter and a string that ends with zero.
    (8..4096).contains(&length)
        && fields.first() == Some(&b'S')
        && fields.split(|&byte| byte == 0).take(6).any(|field| field.starts_with(b"C28"))
}

/// A line of a reply as in SMTP and FTP: three digits, and a space or a hyphen.
fn is_reply(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && bytes[..3].iter().all(u8::is_ascii_digit) && matches!(bytes[3], b' ' | b'-')
}

/// 535 refuses credentials in SMTP (RFC 4954), 530 wants a login in both, 430 and 532 refuse it in FTP.
fn reply(bytes: &[u8], port: u16) -> bool {
    match &bytes[..3] {
        b"535" => true,
        b"530" => matches!(port, 21 | 25 | 465 | 587 | 2121 | 2525),
        b"430" | b"532" => matches!(port, 21 | 2121),
        _ => false,
    }
}

/// RFC 5530: `TAG NO [AUTHENTICATIONFAILED]` or `[AUTHORIZATIONFAILED]`.
fn imap(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default().to_ascii_uppercase();
    let mut words = line.split(|&byte| byte == b' ');
    let tagged = words.next().is_some_and(|tag| tag.len() <= 16) && words.next() == Some(b"NO");
    tagged && matches!(words.next(), Some(b"[AUTHENTICATIONFAILED]" | b"[AUTHORIZATIONFAILED]"))
}

/// An ERR packet of 1044, 1045, 1698 or 1142 (denied), or of a SQLSTATE of class 28.
fn mysql(bytes: &[u8]) -> bool {
    let Some(packet) = bytes.get(4..) else { return false };
    let [0xff, low, high, rest @ ..] = packet else { return false };
    let code = u16::from_le_bytes([*low, *high]);
    matches!(code, 1044 | 1045 | 1142 | 1698) || rest.starts_with(b"#28")
}

/// RFC 1929 refuses with a status that is not zero; RFC 1928 accepts none of the methods.
fn socks(bytes: &[u8]) -> bool {
    matches!(bytes, [0x05, 0xff] | [0x01, 1..=0xff])
}

/// CONNACK with 4 or 5 (3.1.1), or 0x86, 0x87, 0x8c (5).
fn mqtt(bytes: &[u8]) -> bool {
    matches!(bytes, [0x20, 2..=127, _, 4 | 5 | 0x86 | 0x87 | 0x8c, ..])
}

/// A bindResponse with invalidCredentials (49), inappropriateAuthentication (48) or insufficientAccessRights (50).
fn ldap(bytes: &[u8]) -> bool {
    // SEQUENCE, its length, INTEGER messageID, then [APPLICATION 1] with ENUMERATED resultCode.
    let Some(rest) = after_length(bytes) else { return false };
    let [0x02, id, rest @ ..] = rest else { return false };
    let Some([0x61, ..]) = rest.get(usize::from(*id)..) else { return false };
    let Some(response) = rest.get(usize::from(*id)..).and_then(after_length) else { return false };
    matches!(response, [0x0a, 0x01, 48..=50, ..])
}

/// What follows a tag and its length in BER.
fn after_length(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.get(1)? {
        length @ 0x81..=0x84 => bytes.get(2 + usize::from(length & 0x7f)..),
        0..=0x7f => bytes.get(2..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn postgres_error(code: &str) -> Vec<u8> {
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mpassword authentication failed\0\0");
        [&b"E"[..], &(fields.len() as u32 + 4).to_be_bytes(), fields.as_bytes()].concat()
    }

    #[test]
    fn refusals_of_each_protocol_are_told_from_its_other_answers() {
        let mysql =
            |code: u16| [&[40, 0, 0, 2, 0xff][..], &code.to_le_bytes(), b"#28000Access denied"].concat();
        let ldap = |code: u8| vec![0x30, 12, 2, 1, 1, 0x61, 7, 0x0a, 1, code, 4, 0, 4, 0];
        let rows: Vec<(&str, Vec<u8>, u16, bool)> = vec![
            (
                "Redis, a wrong password",
                b"-WRONGPASS invalid username-password pair\r\n".to_vec(),
                6379,
                true,
            ),
            ("Redis, none", b"-NOAUTH Authentication required.\r\n".to_vec(), 6379, true),
            ("Redis, another error", b"-ERR unknown command\r\n".to_vec(), 6379, false),
            ("Redis, a value", b"$11\r\n-WRONGPASS \r\n".to_vec(), 6379, false),
            ("PostgreSQL, a wrong password", postgres_error("28P01"), 5432, true),
            ("PostgreSQL, no such role", postgres_error("28000"), 5432, true),
            ("PostgreSQL, no such table", postgres_error("42P01"), 5432, false),
            ("MySQL", mysql(1045), 3306, true),
            ("MySQL elsewhere", mysql(1045), 9000, false),
            (
                "MySQL, no such table",
                [&[9, 0, 0, 2, 0xff][..], &1146u16.to_le_bytes(), b"#42S02"].concat(),
                3306,
                false,
            ),
            ("SMTP", b"535 5.7.8 Authentication credentials invalid\r\n".to_vec(), 587, true),
            ("SMTP, a greeting", b"220 mail ready\r\n".to_vec(), 25, false),
            ("FTP", b"530 Login incorrect.\r\n".to_vec(), 21, true),
            ("530 of somebody else", b"530 things\n".to_vec(), 8000, false),
            ("IMAP", b"a1 NO [AUTHENTICATIONFAILED] Authentication failed.\r\n".to_vec(), 143, true),
            ("IMAP, no such folder", b"a1 NO [NONEXISTENT] Unknown\r\n".to_vec(), 143, false),
            ("POP3", b"-ERR [AUTH] Authentication failed.\r\n".to_vec(), 110, true),
            ("LDAP, invalid credentials", ldap(49), 389, true),
            ("LDAP, success", ldap(0), 389, false),
            ("MQTT, not authorized", vec![0x20, 2, 0, 5], 1883, true),
            ("MQTT, accepted", vec![0x20, 2, 0, 0], 1883, false),
            ("SOCKS", vec![1, 1], 1080, true),
            ("SOCKS, welcome", vec![1, 0], 1080, false),
            ("a page about all this", b"<p>535 is a code, 530 too</p>".to_vec(), 21, false),
            ("nothing", Vec::new(), 21, false),
        ];
        for (what, bytes, port, refused) in rows {
            assert_eq!(refusal(&bytes, port).is_some(), refused, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..256), port: u16) {
            let _ = refusal(&bytes, port);
        }
    }
}
