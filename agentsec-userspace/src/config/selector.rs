//! Names and patterns: what a key such as `interface`, `unit` or `cgroup` means.

use std::fmt;

/// A name, or a pattern for names. In a pattern `*` is any run of characters and `?` any one, and neither is `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One thing; its agent is named after the section.
    Exact(String),
    /// Everything that matches, each an agent named after it.
    Pattern(String),
}

impl Selector {
    /// A pattern when `text` has a wildcard, else a name.
    pub(super) fn of(text: &str) -> Self {
        if is_pattern(text) { Self::Pattern(text.into()) } else { Self::Exact(text.into()) }
    }

    /// Whether it means `name`. Names may be paths: components are compared one by one.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Pattern(pattern) => matches_path(pattern, name),
        }
    }

    /// The name, unless it is a pattern.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name),
            Self::Pattern(_) => None,
        }
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Pattern(text) => text,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())
    }
}

/// Whether `text` has a wildcard.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Component by component, so that no wildcard reaches over a `/`.
fn matches_path(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut components) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), components.next()) {
            (Some(pattern), Some(component)) if wildcard(pattern, component) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether one component matches. Never goes back further than to the latest `*`.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + width(text[t])),
            Some(&byte) if byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    let next = from + width(text[from]);
                    star = Some((at, next));
                    (p, t) = (at + 1, next);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Bytes of the UTF-8 character that begins with `first`.
fn width(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, matches) in [
            ("veth*", "veth7", true),
            ("veth*", "veth", true),
            ("veth*", "eth0", false),
            ("v?th?", "veth7", true),
            ("v?th?", "veth", false),
            ("*a*b", "xaabab", true),
            ("*a*b", "xaaba", false),
            ("*", "", true),
            ("?", "é", true),
            ("??", "é", false),
            ("*?€", "xé€", true),
        ] {
            assert_eq!(wildcard(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn no_wildcard_reaches_over_a_slash() {
        for (pattern, path, matches) in [
            ("system.slice/agent-*.service", "system.slice/agent-a.service", true),
            ("system.slice/agent-*.service", "system.slice/agent-a/b.service", false),
            ("system.slice/*", "system.slice", false),
            ("*/x", "a/b/x", false),
            ("*/*/x", "a/b/x", true),
            ("a?b", "a/b", false),
        ] {
            assert_eq!(Selector::of(pattern).matches(path), matches, "{pattern} {path}");
        }
    }

    /// Straight from the definition, exponential and right.
    fn defined(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some(('*', after)), rest) => {
                defined(after, text) || rest.is_some_and(|(_, rest)| defined(pattern, rest))
            }
            (Some(_), None) => false,
            (Some((wanted, after)), Some((found, rest))) => {
                (*wanted == '?' || wanted == found) && defined(after, rest)
            }
        }
    }

    proptest! {
        #[test]
        fn a_wildcard_means_what_its_definition_says(pattern in "[aé€*?]{0,8}", text in "[aé€]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(wildcard(&pattern, &text), defined(&chars(&pattern), &chars(&text)));
        }
    }
}
