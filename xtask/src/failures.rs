//! Names what failed, out of what the runners print, so that the end of a run says it again.
//!
//! It must never decide whether a run failed: the runner's exit code does. Start at [`Failures::read`].

/// How many lines are kept; beyond it they are counted.
const KEPT: usize = 20;

/// The lines of one runner's output that name a failed test.
#[derive(Default)]
pub struct Failures {
    lines: Vec<String>,
    more: usize,
}

impl Failures {
    /// Looks at one line: of libtest, pytest, Node's runner (TAP and its own form) or JUnit's console launcher.
    pub fn read(&mut self, line: &str) {
        let line = line.trim();
        if !names_a_failure(line) || self.lines.iter().any(|kept| kept == line) {
            return;
        }
        if self.lines.len() < KEPT {
            self.lines.push(line.to_owned());
        } else {
            self.more += 1;
        }
    }

    /// What `closing` says, then a line for each test that failed.
    pub fn after(&self, closing: &str) -> String {
        let mut told = vec![closing];
        told.extend(self.lines.iter().map(String::as_str));
        let more = format!("and {} more", self.more);
        if self.more > 0 {
            told.push(&more);
        }
        told.join("\n    ")
    }
}

fn names_a_failure(line: &str) -> bool {
    let starts = ["FAILED ", "ERROR ", "not ok ", "✖ "].iter().any(|start| line.starts_with(start));
    starts || (line.starts_with("test ") && line.ends_with(" ... FAILED")) || line.contains(" [X] ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_of_every_runner_is_named_once_and_nothing_else_is() {
        let mut failures = Failures::default();
        for line in [
            "test connection::tests::ends ... ok",
            "test connection::tests::begins ... FAILED",
            "FAILED tests/sdk/python/test_hub.py::test_twins - assert 1 == 2",
            "ERROR tests/sdk/python/test_hub.py::test_set_up",
            "ok 1 - comes back",
            "    not ok 2 - comes back after a restart",
            "    not ok 2 - comes back after a restart",
            "✖ comes back (12ms)",
            "│  ├─ sends() [OK]",
            "│  └─ receives() [X] expected: <1> but was: <2>",
            "160 passed, 1 failed",
        ] {
            failures.read(line);
        }
        assert_eq!(failures.lines.len(), 6);
        assert!(failures.after("closing").starts_with("closing\n    test connection::tests::begins"));
    }

    #[test]
    fn a_run_that_fails_everywhere_is_told_in_few_lines() {
        let mut failures = Failures::default();
        (0..=KEPT).for_each(|number| failures.read(&format!("not ok {number}")));
        assert!(failures.after("closing").ends_with("and 1 more"));
    }
}
