//! Secrets in command lines. Known ways of writing one are overwritten before anything reaches a disk; what is written in
//! another way is not known to be one.

use crate::core::secrets::{is_name_of_secret, is_of_name, is_of_token, token_bytes, userinfo};

/// What stands in a secret's place.
pub const REDACTED: &[u8] = b"[redacted]";

/// Flags whose value is `USER:PASSWORD`.
const USERS: [&str; 4] = ["-u", "--user", "--proxy-user", "-U"];

/// The arguments with their secrets overwritten, and how many there were.
#[must_use]
pub fn redact(arguments: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
    let mut count = 0;
    let mut shown = Vec::with_capacity(arguments.len());
    let mut previous: &[u8] = b"";
    for argument in arguments {
        shown.push(match kept(previous, argument) {
            Some(kept) => {
                count += 1;
                [&argument[..kept], REDACTED].concat()
            }
            None => words(&within(&tokens(argument, &mut count), &mut count), &mut count),
        });
        previous = argument;
    }
    (shown, count)
}

/// How much is shown of an argument that is a secret because of the one before it.
fn kept(previous: &[u8], argument: &[u8]) -> Option<usize> {
    if is_flag_of_secret(previous) && !argument.starts_with(b"--") {
        return Some(0);
    }
    let is_user = USERS.iter().any(|flag| flag.as_bytes() == previous);
    let colon = argument.iter().position(|byte| *byte == b':').filter(|_| is_user)?;
    Some(colon + 1)
}

/// Whether an argument is a flag such as `--token`, whose value comes next.
fn is_flag_of_secret(argument: &[u8]) -> bool {
    argument.starts_with(b"-")
        && !argument.iter().any(|byte| matches!(byte, b'=' | b':' | b' '))
        && is_name_of_secret(argument)
}

/// Overwrites secrets among the words of one argument, such as that of `sh -c`.
fn words(argument: &[u8], count: &mut usize) -> Vec<u8> {
    let (mut out, mut rest, mut previous) = (Vec::with_capacity(argument.len()), argument, &b""[..]);
    while !rest.is_empty() {
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let (blanks, more) = rest.split_at(blank);
        let (word, more) = more.split_at(end_of_word(more));
        out.extend_from_slice(blanks);
        match kept(previous, word).filter(|_| !word.is_empty()) {
            Some(kept) => {
                out.extend_from_slice(&word[..kept]);
                out.extend_from_slice(REDACTED);
                *count += 1;
            }
            None => out.extend_from_slice(word),
        }
        (previous, rest) = (word, more);
    }
    out
}

/// How long the word is with which a text begins; one in quotes ends with them.
fn end_of_word(text: &[u8]) -> usize {
    let quote = text.first().copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let closing = quote.and_then(|quote| text[1..].iter().position(|byte| *byte == quote));
    let blank = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    closing.map_or(blank, |closing| closing + 2)
}

/// Overwrites the secrets within one argument: `name=value`, `name: value`, `"name":"value"` and `scheme://user:secret@host`,
/// as often as they occur.
fn within(argument: &[u8], count: &mut usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(found) = rest.iter().position(|byte| matches!(byte, b'=' | b':')) {
        let (before, after) = rest.split_at(found + 1);
        out.extend_from_slice(before);
        rest = after;
        let name_begins =
            out[..out.len() - 1].iter().rposition(|byte| !is_of_quoted_name(*byte)).map_or(0, |at| at + 1);
        if is_name_of_secret(&out[name_begins..out.len() - 1]) {
            let (blank, value) = value_of(rest, before.ends_with(b":"));
            if value > 0 {
                out.extend_from_slice(&rest[..blank]);
                out.extend_from_slice(REDACTED);
                rest = &rest[blank + value..];
                *count += 1;
            }
        } else if before.ends_with(b":")
            && let Some(secret) = userinfo(rest)
        {
            out.extend_from_slice(&rest[..secret.start]);
            out.extend_from_slice(REDACTED);
            rest = &rest[secret.end..];
            *count += 1;
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Overwrites tokens that are known by their shape.
fn tokens(text: &[u8], count: &mut usize) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        let is_begin = at == 0 || !is_of_token(text[at - 1]);
        let token = if is_begin { token_bytes(&text[at..]) } else { 0 };
        if token > 0 {
            out.extend_from_slice(REDACTED);
            *count += 1;
        } else {
            out.push(text[at]);
        }
        at += token.max(1);
    }
    out
}

/// How many blanks and quotes come before a value, and how long it is. A header's value goes on over blanks.
fn value_of(rest: &[u8], is_header: bool) -> (usize, usize) {
    let blank = rest.iter().position(|byte| !matches!(byte, b' ' | b'"' | b'\'')).unwrap_or(rest.len());
    let ends = |byte: &u8| match byte {
        b'&' | b'"' | b'\'' | b';' | b'\n' | b'}' => true,
        b' ' | b',' => !is_header,
        _ => false,
    };
    let value = rest[blank..].iter().position(ends).unwrap_or(rest.len() - blank);
    (blank, value)
}

/// Quotes belong to a name in JSON.
fn is_of_quoted_name(byte: u8) -> bool {
    is_of_name(byte) || matches!(byte, b'"' | b'\'')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(line: &[&str]) -> String {
        let arguments: Vec<&[u8]> = line.iter().map(|argument| argument.as_bytes()).collect();
        let (shown, _) = redact(&arguments);
        shown
            .iter()
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn known_ways_of_writing_a_secret_are_overwritten() {
        for (line, expected) in [
            (&["mysql", "--password=hunter2", "db"][..], "mysql --password=[redacted] db"),
            (&["tool", "--api-key", "hunter2", "go"], "tool --api-key [redacted] go"),
            (&["tool", "--API_KEY=hunter2"], "tool --API_KEY=[redacted]"),
            (&["env", "OPENAI_API_KEY=hunter2", "run"], "env OPENAI_API_KEY=[redacted] run"),
            (&["curl", "-H", "Authorization: Bearer hunter2"], "curl -H Authorization: [redacted]"),
            (&["curl", "-u", "me:hunter2", "http://h/"], "curl -u me:[redacted] http://h/"),
            (
                &["curl", "https://me:hunter2@h/x?token=hunter2&y=1"],
                "curl https://me:[redacted]@h/x?token=[redacted]&y=1",
            ),
            (&["psql", "postgres://me:hun:ter2@h:5432/db"], "psql postgres://me:[redacted]@h:5432/db"),
            (
                &["sh", "-c", "TOKEN='hunter2' run; SECRET=hunter2 go"],
                "sh -c TOKEN='[redacted]' run; SECRET=[redacted] go",
            ),
            (&["x", r#"{"token":"hunter2","a":1}"#], r#"x {"token":"[redacted]","a":1}"#),
            (&["sh", "-c", "tool --token hunter2; go"], "sh -c tool --token [redacted] go"),
            (&["sh", "-c", "a --api-key 'hunter2 hunter2' -b"], "sh -c a --api-key [redacted] -b"),
            (&["sh", "-c", "curl -u me:hunter2 h && x"], "sh -c curl -u me:[redacted] h && x"),
            (&["sh", "-c", "a --token --verbose\n b"], "sh -c a --token --verbose\n b"),
            (&["x", "user[password]=hunter2"], "x user[password]=[redacted]"),
            (&["x", "--pass", "hunter2", "DB_PASS=hunter2"], "x --pass [redacted] DB_PASS=[redacted]"),
            (
                &["x", "sk-hunter2-AAAAAAAAAAAAAAA", "k:sk-hunter2-AAAAAAAAAAAAAAA"],
                "x [redacted] k:[redacted]",
            ),
            (&["x", "--token"], "x --token"),
            (&["x", "--token", "--verbose"], "x --token --verbose"),
            (&["x", "--token="], "x --token="),
            (&["nginx:", "worker", "process"], "nginx: worker process"),
            (&["x", "--keyboard=de", "http://h:80/p=1"], "x --keyboard=de http://h:80/p=1"),
        ] {
            assert_eq!(shown(line), expected);
            assert!(!shown(line).contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_comes_out_whole_and_a_flags_value_never(
            line: Vec<Vec<u8>>, secret in "[a-z0-9]{12}", name in "(--)?(my[-_])?(password|TOKEN|api[-_]key|secret)",
        ) {
            let mut arguments: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
            let (all, _) = redact(&arguments);
            prop_assert_eq!(all.len(), arguments.len());
            let flag = format!("{name}={secret}");
            arguments.push(b"");
            arguments.push(flag.as_bytes());
            let (all, count) = redact(&arguments);
            prop_assert!(count >= 1);
            let last = String::from_utf8_lossy(&all[all.len() - 1]).into_owned();
            prop_assert_eq!(last, format!("{}=[redacted]", name));
        }
    }
}
