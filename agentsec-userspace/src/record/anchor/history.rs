//! Signed notes, one after the other, each with an empty line behind it. Pure.
//!
//! A crash may tear the last one. What is no note is passed over, so the notes around it still count.

/// One note as it is appended to `before`, the end of what is there: a torn one in front of it is ended first.
#[must_use]
pub fn piece(before: &str, signed: &str) -> String {
    let whole = before.is_empty() || before.ends_with("\n\n");
    format!("{}{signed}\n", if whole { "" } else { "\n\n" })
}

/// The notes in `text`, in their order: lines of text, an empty line, and lines of signatures.
#[must_use]
pub fn notes(text: &str) -> Vec<&str> {
    let mut starts = Vec::new();
    let mut lines = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        starts.push(at);
        lines.push(line);
        at += line.len();
    }
    starts.push(at);
    let is_signature = |line: &str| line.starts_with("— ");
    let mut notes = Vec::new();
    let (mut floor, mut next) = (0, 0);
    while next < lines.len() {
        if !is_signature(lines[next]) || next == floor || lines[next - 1] != "\n" {
            next += 1;
            continue;
        }
        let before = lines[floor..next - 1].iter().rev();
        let words = before.take_while(|line| **line != "\n" && !is_signature(line)).count();
        let signatures = lines[next..].iter().take_while(|line| is_signature(line)).count();
        if words > 0 {
            notes.push(&text[starts[next - 1 - words]..starts[next + signatures]]);
        }
        next += signatures;
        floor = next;
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::evidence::note::Signer;
    use proptest::prelude::*;

    fn signed(size: u64) -> String {
        Signer::new("agentsec/host", &[7; 32]).unwrap().checkpoint(size, &[size as u8; 32])
    }

    #[test]
    fn notes_are_read_back_in_order() {
        let mut text = String::new();
        let all: Vec<String> = (0..5).map(signed).collect();
        all.iter().for_each(|note| text += &piece(&text, note));
        assert_eq!(notes(&text), all);
        // A single checkpoint is a history too, and so is one that witnesses have signed.
        assert_eq!(notes(&all[3]), [&all[3]]);
        let witnessed = format!("{}— witness AAAAAAAAAA==\n", all[3]);
        assert_eq!(notes(&witnessed), [&witnessed]);
        assert_eq!(notes(""), Vec::<&str>::new());
        assert_eq!(notes("words\n\nmore words\n"), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn a_torn_note_hides_no_other(cut in 0usize..200) {
            let (first, torn, last) = (signed(1), signed(2), signed(3));
            let mut text = piece("", &first);
            let piece_of = piece(&text, &torn);
            let cut = (0..=cut.min(piece_of.len())).rev().find(|at| piece_of.is_char_boundary(*at)).unwrap();
            text += &piece_of[..cut];
            let more = piece(&text, &last);
            text += &more;
            let key = Signer::new("agentsec/host", &[7; 32]).unwrap().public();
            let good: Vec<u64> =
                notes(&text).iter().filter_map(|note| key.checkpoint(note).ok()).map(|one| one.size).collect();
            prop_assert!(good == [1, 3] || good == [1, 2, 3], "{good:?} of {text}");
        }
    }
}
