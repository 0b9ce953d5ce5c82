//! What came of a guest: read from its reports, told to people and programs.

use serde_json::{Value, json};

use super::guest::MARK;

/// Lines shown of a test program that failed, and of a console.
const SHOWN: usize = 120;

/// How a test came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, or its program ended in the middle of it.
    Failed,
    /// The test program ignores it, for this reason.
    Ignored(String),
}

/// One run of a test program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgramRun {
    /// Its name.
    pub program: String,
    /// Its tests, in their order.
    pub tests: Vec<(String, Outcome)>,
    /// Everything that it said.
    pub output: Vec<String>,
    /// How it ended; `None` when the guest ended first.
    pub code: Option<i32>,
    /// The guest's clock at its begin and end.
    pub seconds: (f64, f64),
    /// A test whose outcome has not been told yet.
    pending: Option<String>,
}

/// One guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Of the kernel, as it says itself.
    pub release: String,
    /// Its security modules.
    pub lsm: String,
    /// What ran.
    pub programs: Vec<ProgramRun>,
    /// Whether it came to its end.
    pub done: bool,
}

impl Report {
    /// Reads what a guest has written so far.
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            // A program that ends in the middle of a line leaves it to the mark.
            match line.find(MARK) {
                Some(at) => report.mark(&line[at + MARK.len()..]),
                None => report.line(line),
            }
        }
        report
    }

    fn mark(&mut self, words: &str) {
        let words: Vec<&str> = words.split_whitespace().collect();
        match words.as_slice() {
            ["kernel", release] => self.release = (*release).to_owned(),
            ["lsm", modules] => self.lsm = (*modules).to_owned(),
            ["begin", program, at] => {
                let at = at.parse().unwrap_or_default();
                let program = (*program).to_owned();
                self.programs.push(ProgramRun { program, seconds: (at, at), ..ProgramRun::default() });
            }
            ["end", _, code, at] => {
                if let Some(run) = self.programs.last_mut() {
                    run.end(code.parse().ok(), at.parse().unwrap_or_default());
                }
            }
            ["done"] => self.done = true,
            _ => {}
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(run) = self.programs.last_mut().filter(|run| run.code.is_none()) {
            run.line(line);
        }
    }

    /// How many tests came out so: passed, failed, ignored.
    pub fn counts(&self) -> (usize, usize, usize) {
        let tests = || self.programs.iter().flat_map(|run| &run.tests).map(|(_, outcome)| outcome);
        let count = |is: fn(&Outcome) -> bool| tests().filter(|outcome| is(outcome)).count();
        (
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| *outcome == Outcome::Failed),
            count(|outcome| matches!(outcome, Outcome::Ignored(_))),
        )
    }

    /// The tests that their programs ignored, and why.
    pub fn ignored(&self) -> Vec<(String, &str)> {
        let tests = self.programs.iter().flat_map(|run| run.tests.iter().map(move |test| (run, test)));
        tests
            .filter_map(|(run, (name, outcome))| match outcome {
                Outcome::Ignored(why) => Some((format!("{}: {name}", run.program), why.as_str())),
                Outcome::Passed | Outcome::Failed => None,
            })
            .collect()
    }

    /// What is wrong, a paragraph each; nothing, when what was to run ran and passed. `console` is what the guest's
    /// kernel has said, `why` how it ended if not by itself.
    pub fn faults(&self, expected: &[&str], why: Option<&str>, console: &str) -> Vec<String> {
        let mut faults: Vec<String> = self.programs.iter().filter_map(ProgramRun::fault).collect();
        let ran = |name: &&&str| !self.programs.iter().any(|run| run.program == **name);
        let missing: Vec<&str> = expected.iter().filter(ran).copied().collect();
        if why.is_some() || !self.done || !missing.is_empty() {
            let how = why.unwrap_or("it ended too early");
            let never = if missing.is_empty() {
                String::new()
            } else {
                format!("; never begun: {}", missing.join(", "))
            };
            let lines: Vec<&str> = console.lines().collect();
            faults.push(format!("{how}{never}; its console says\n{}", last(&lines)));
        } else if self.counts().0 == 0 {
            faults.push("no test ran: everything was skipped, or the filter matches nothing".to_owned());
        }
        faults
    }

    /// For programs.
    pub fn to_json(&self, left_out: &[(String, &str)], faults: &[String]) -> Value {
        let (passed, failed, ignored) = self.counts();
        let tests = self.programs.iter().flat_map(|run| {
            run.tests.iter().map(|(name, outcome)| {
                let (outcome, why) = match outcome {
                    Outcome::Passed => ("passed", None),
                    Outcome::Failed => ("failed", None),
                    Outcome::Ignored(why) => ("skipped", Some(why)),
                };
                json!({ "program": run.program, "test": name, "outcome": outcome, "why": why })
            })
        });
        let left_out = left_out.iter().map(|(what, why)| json!({ "what": what, "why": why }));
        json!({
            "kernel": self.release,
            "lsm": self.lsm,
            "passed": passed,
            "failed": failed,
            "skipped": ignored,
            "tests": tests.collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
            "faults": faults,
        })
    }
}

impl ProgramRun {
    /// Test output of threads and children may come between a test's name and its outcome.
    fn line(&mut self, line: &str) {
        self.output.push(line.to_owned());
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            self.pending = Some(name.to_owned());
            self.outcome(rest);
        } else if self.pending.is_some() {
            self.outcome(line);
        }
    }

    fn outcome(&mut self, text: &str) {
        let outcome = if text.ends_with("ok") {
            Outcome::Passed
        } else if text.ends_with("FAILED") {
            Outcome::Failed
        } else if let Some(why) = text.strip_prefix("ignored") {
            Outcome::Ignored(why.trim_start_matches([',', ' ']).to_owned())
        } else {
            return;
        };
        self.tests.extend(self.pending.take().map(|name| (name, outcome)));
    }

    fn end(&mut self, code: Option<i32>, at: f64) {
        self.code = code;
        self.seconds.1 = at;
        self.tests.extend(self.pending.take().map(|name| (name, Outcome::Failed)));
    }

    /// How many tests the program itself says have passed.
    fn said_passed(&self) -> Option<usize> {
        let summary = self.output.iter().rev().find_map(|line| line.strip_prefix("test result: "))?;
        let (_, numbers) = summary.split_once(". ")?;
        numbers.split_once(" passed")?.0.parse().ok()
    }

    fn fault(&self) -> Option<String> {
        let passed = self.tests.iter().filter(|(_, outcome)| *outcome == Outcome::Passed).count();
        let how = match self.code {
            Some(0) if self.said_passed() == Some(passed) => return None,
            Some(0) => format!("{passed} outcomes were read, it counts {:?}", self.said_passed()),
            // What busybox's timeout answers for a program that it has ended.
            Some(143) => "took too long".to_owned(),
            Some(code) => format!("ended with {code}"),
            None => "did not end".to_owned(),
        };
        let from = self.output.iter().position(|line| line == "failures:").unwrap_or_default();
        let lines: Vec<&str> = self.output[from..].iter().map(String::as_str).collect();
        Some(format!("{} {how}\n{}", self.program, last(&lines)))
    }
}

/// The last lines, indented.
fn last(lines: &[&str]) -> String {
    let from = lines.len().saturating_sub(SHOWN);
    lines[from..].iter().map(|line| format!("    {}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "@@agentsec kernel 6.12.1\r
@@agentsec lsm capability,bpf\r
@@agentsec begin first 1.5\r
running 3 tests\r
test one ... ok\r
test two ... noise of a child\r
more of it\r
ok\r
test three ... ignored, needs a device\r
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s\r
@@agentsec end first 0 3.5\r
@@agentsec done\r
";

    fn faults(text: &str) -> Vec<String> {
        Report::parse(text).faults(&["first"], None, "a console")
    }

    #[test]
    fn a_guest_that_comes_to_its_end_is_read_whole() {
        let report = Report::parse(GOOD);
        assert_eq!(
            (report.release.as_str(), report.lsm.as_str(), report.done),
            ("6.12.1", "capability,bpf", true)
        );
        assert_eq!(report.counts(), (2, 0, 1));
        assert_eq!(report.programs[0].tests[2], ("three".into(), Outcome::Ignored("needs a device".into())));
        assert_eq!(report.programs[0].seconds, (1.5, 3.5));
        assert_eq!(faults(GOOD), [""; 0]);
    }

    #[test]
    fn whatever_is_not_a_whole_success_is_a_fault() {
        let without = |line: &str| GOOD.replace(line, "");
        let one = |text: &str, says: &str| {
            let faults = faults(text);
            assert!(faults.iter().any(|fault| fault.contains(says)), "{says:?} is not in {faults:?}");
        };
        one("", "a console");
        one(&without("@@agentsec done\r\n"), "ended too early");
        one(&GOOD.replace("end first 0", "end first 101"), "first ended with 101");
        one(&GOOD.replace("end first 0", "end first 143"), "first took too long");
        one(&without("test one ... ok\r\n"), "1 outcomes were read");
        one(&without("@@agentsec end first 0 3.5\r\n"), "first did not end");
        one(&GOOD.replace("begin first", "begin other"), "never begun: first");
        let skipped = GOOD.replace(" ... ok", " ... ignored").replace("\r\nok\r", "\r\nignored\r");
        one(&skipped.replace("2 passed", "0 passed"), "no test ran");
    }

    #[test]
    fn a_guest_that_was_ended_is_a_fault_even_when_it_was_done() {
        let faults = Report::parse(GOOD).faults(&["first"], Some("it hung"), "panic");
        assert_eq!(faults, ["it hung; its console says\n    panic\n"]);
    }

    #[test]
    fn a_test_in_which_its_program_dies_has_failed() {
        let text = "@@agentsec begin first 1\ntest one ... \n@@agentsec end first 139 2\n";
        assert_eq!(Report::parse(text).programs[0].tests, [("one".to_owned(), Outcome::Failed)]);
    }
}
