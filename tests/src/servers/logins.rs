//! How a login goes in protocols that are spoken in the clear: the bytes of one accepted, one refused, and one that
//! is accepted before something else fails, which is no failed authentication.

use super::dialogue::Dialogue;

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RESP, as Redis speaks it.
    Redis,
    /// PostgreSQL's frontend/backend protocol 3.0, with a password in the clear.
    PostgreSql,
    /// MySQL's client/server protocol.
    MySql,
    /// SMTP with `AUTH PLAIN`.
    Smtp,
    /// FTP's control connection.
    Ftp,
    /// IMAP4rev1 with `LOGIN`.
    Imap,
    /// POP3 with `USER` and `PASS`.
    Pop3,
    /// LDAPv3 with a simple bind.
    Ldap,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The login is accepted.
    Accepted,
    /// The login is refused.
    Refused,
    /// The login is accepted, and what is asked for then fails.
    OtherError,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Redis,
        Self::PostgreSql,
        Self::MySql,
        Self::Smtp,
        Self::Ftp,
        Self::Imap,
        Self::Pop3,
        Self::Ldap,
    ];

    /// Where its servers usually listen.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::PostgreSql => 5432,
            Self::MySql => 3306,
            Self::Smtp => 25,
            Self::Ftp => 21,
            Self::Imap => 143,
            Self::Pop3 => 110,
            Self::Ldap => 389,
        }
    }

    /// The bytes by which its servers refuse a login: in every refused dialogue, and in no other.
    #[must_use]
    pub fn refusal(self) -> &'static [u8] {
        match self {
            Self::Redis => b"-WRONGPASS ",
            Self::PostgreSql => b"C28P01\0",
            // An error packet's number 1045 and the mark of its SQL state.
            Self::MySql => b"\xff\x15\x04#28000",
            Self::Smtp => b"535 ",
            Self::Ftp => b"530 ",
            Self::Imap => b"NO [AUTHENTICATIONFAILED]",
            Self::Pop3 => b"-ERR [AUTH]",
            // A bindResponse whose result is an enumeration: invalidCredentials.
            Self::Ldap => b"\x61\x07\x0a\x01\x31",
        }
    }

    /// The conversation.
    #[must_use]
    pub fn login(self, ending: Ending) -> Dialogue {
        match self {
            Self::Redis => redis(ending),
            Self::PostgreSql => postgresql(ending),
            Self::MySql => mysql(ending),
            Self::Smtp => smtp(ending),
            Self::Ftp => ftp(ending),
            Self::Imap => imap(ending),
            Self::Pop3 => pop3(ending),
            Self::Ldap => ldap(ending),
        }
    }
}

/// Ends a dialogue whose login alone decides: `login` is what the client says, `query` what it asks once it is in.
fn ending(
    before: Dialogue,
    ending: Ending,
    login: &[u8],
    [accepted, refused]: [&[u8]; 2],
    query: [&[u8]; 2],
) -> Dialogue {
    match ending {
        Ending::Accepted => before.turn(login, accepted),
        Ending::Refused => before.turn(login, refused),
        Ending::OtherError => before.turn(login, accepted).turn(query[0], query[1]),
    }
}

fn redis(how: Ending) -> Dialogue {
    ending(
        Dialogue::greeting(""),
        how,
        b"*3\r\n$4\r\nAUTH\r\n$5\r\nagent\r\n$5\r\nguess\r\n",
        [b"+OK\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"],
        [b"*1\r\n$5\r\nWHAT?\r\n", b"-ERR unknown command 'WHAT?'\r\n"],
    )
}

fn postgresql(how: Ending) -> Dialogue {
    let startup = [&[0, 3, 0, 0][..], b"user\0agent\0database\0agents\0\0"].concat();
    let startup = [&(startup.len() as u32 + 4).to_be_bytes()[..], &startup].concat();
    let error = |severity: &str, code: &str, message: &str| {
        let fields = format!("S{severity}\0V{severity}\0C{code}\0M{message}\0\0");
        postgresql_message(b'E', fields.as_bytes())
    };
    let ready = postgresql_message(b'Z', b"I");
    let query_fails =
        [error("ERROR", "42P01", "relation \"nothing\" does not exist"), ready.clone()].concat();
    ending(
        Dialogue::greeting("").turn(startup, postgresql_message(b'R', &[0, 0, 0, 3])),
        how,
        &postgresql_message(b'p', b"guess\0"),
        [
            &[postgresql_message(b'R', &[0; 4]), ready].concat(),
            &error("FATAL", "28P01", "password authentication failed for user \"agent\""),
        ],
        [&postgresql_message(b'Q', b"SELECT * FROM nothing\0"), &query_fails],
    )
}

fn postgresql_message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn mysql(how: Ending) -> Dialogue {
    // Version 10, server version, connection 7, the first 8 bytes of the salt, and a filler.
    let mut hello = b"\x0a8.0.36\0\x07\0\0\0saltsalt\0".to_vec();
    // Protocol 41 with secure connections and plugins; utf8mb4; autocommit; 21 bytes of salt; reserved.
    hello
        .extend(b"\x00\x82\xff\x02\x00\x08\x00\x15\0\0\0\0\0\0\0\0\0\0moresaltsalt\0mysql_native_password\0");
    // The same abilities, the longest packet, utf8mb4, reserved.
    let mut login = b"\x00\x82\x08\x00\0\0\0\x01\xff".to_vec();
    login.extend([0; 23]);
    login.extend(b"agent\0\x14");
    login.extend([0xa5; 20]);
    login.extend(b"mysql_native_password\0");
    ending(
        Dialogue::greeting(mysql_packet(0, &hello)),
        how,
        &mysql_packet(1, &login),
        [
            &mysql_packet(2, b"\0\0\0\x02\0\0\0"),
            &mysql_packet(
                2,
                b"\xff\x15\x04#28000Access denied for user 'agent'@'host' (using password: YES)",
            ),
        ],
        [
            &mysql_packet(0, b"\x03SELECT * FROM nothing"),
            &mysql_packet(1, b"\xff\x7a\x04#42S02Table 'agents.nothing' doesn't exist"),
        ],
    )
}

fn mysql_packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_le_bytes();
    [&length[..3], &[number], body].concat()
}

fn smtp(how: Ending) -> Dialogue {
    ending(
        Dialogue::greeting("220 mail.example.test ESMTP\r\n")
            .turn("EHLO agent.example.test\r\n", "250-mail.example.test\r\n250 AUTH PLAIN LOGIN\r\n"),
        how,
        b"AUTH PLAIN AGFnZW50AGd1ZXNz\r\n",
        [b"235 2.7.0 Authentication successful\r\n", b"535 5.7.8 Authentication credentials invalid\r\n"],
        [b"VRFY nobody\r\n", b"550 5.1.1 No such user\r\n"],
    )
}

fn ftp(how: Ending) -> Dialogue {
    ending(
        Dialogue::greeting("220 ftp.example.test ready\r\n")
            .turn("USER agent\r\n", "331 Password required for agent\r\n"),
        how,
        b"PASS guess\r\n",
        [b"230 User agent logged in\r\n", b"530 Login incorrect\r\n"],
        [b"SIZE nothing\r\n", b"550 nothing: No such file or directory\r\n"],
    )
}

fn imap(how: Ending) -> Dialogue {
    ending(
        Dialogue::greeting("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n"),
        how,
        b"a1 LOGIN agent guess\r\n",
        [b"a1 OK LOGIN completed\r\n", b"a1 NO [AUTHENTICATIONFAILED] Authentication failed\r\n"],
        [b"a2 SELECT nothing\r\n", b"a2 NO [NONEXISTENT] Unknown mailbox\r\n"],
    )
}

fn pop3(how: Ending) -> Dialogue {
    ending(
        Dialogue::greeting("+OK POP3 server ready\r\n").turn("USER agent\r\n", "+OK\r\n"),
        how,
        b"PASS guess\r\n",
        [b"+OK mailbox has 0 messages\r\n", b"-ERR [AUTH] Authentication failed\r\n"],
        [b"RETR 99\r\n", b"-ERR no such message\r\n"],
    )
}

fn ldap(how: Ending) -> Dialogue {
    // bindRequest of message 1: version 3, a name, and simple authentication.
    let bind = ber(&[0x60], &[&[2, 1, 3], &ber(&[4], &[b"cn=agent"])[..], &ber(&[0x80], &[b"guess"])]);
    // searchRequest of message 2: the base object "cn=nothing" with the filter (objectClass=*).
    let fixed = [10, 1, 0, 10, 1, 0, 2, 1, 0, 2, 1, 0, 1, 1, 0];
    let filter = ber(&[0x87], &[b"objectClass"]);
    let search = ber(&[0x63], &[&ber(&[4], &[b"cn=nothing"])[..], &fixed, &filter, &ber(&[0x30], &[])]);
    ending(
        Dialogue::greeting(""),
        how,
        &ldap_message(1, &bind),
        [&ldap_result(1, 0x61, 0), &ldap_result(1, 0x61, 49)],
        [&ldap_message(2, &search), &ldap_result(2, 0x65, 32)],
    )
}

fn ldap_message(id: u8, operation: &[u8]) -> Vec<u8> {
    ber(&[0x30], &[&[2, 1, id], operation])
}

/// An answer with this result code and neither a matched name nor a message.
fn ldap_result(id: u8, kind: u8, code: u8) -> Vec<u8> {
    ldap_message(id, &ber(&[kind], &[&[10, 1, code, 4, 0, 4, 0]]))
}

/// A value in the basic encoding, shorter than 128 bytes.
fn ber(tag: &[u8; 1], parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    debug_assert!(value.len() < 128, "longer values need a longer length");
    [&tag[..], &[value.len() as u8], &value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_logins_have_the_bytes_of_a_refusal() {
        for protocol in Protocol::ALL {
            for ending in [Ending::Accepted, Ending::Refused, Ending::OtherError] {
                let dialogue = protocol.login(ending);
                let mut said = dialogue.turns.iter().map(|turn| &turn.gets).chain([&dialogue.greeting]);
                let refusal = protocol.refusal();
                let refused = said.any(|bytes| bytes.windows(refusal.len()).any(|window| window == refusal));
                assert_eq!(refused, ending == Ending::Refused, "{protocol:?} {ending:?}");
            }
        }
    }
}
