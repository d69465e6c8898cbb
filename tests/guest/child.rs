//! Tests that run in another process, which may crash or hang, and which has another environment.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nix::sys::signal::Signal;

/// Set in the other process.
const VARIABLE: &str = "PRIMESHARE_TEST_CHILD";

/// Whether this is the other process.
pub(crate) fn is_here() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// How a process ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Exited(i32),
    Killed(Signal),
    /// It printed nothing for too long, and was killed.
    Hung,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the process exits with {status}"),
            Self::Killed(signal) => write!(f, "the process is killed by {signal}"),
            Self::Hung => f.write_str("the process hangs"),
        }
    }
}

/// The other process; ended on drop.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    output: String,
}

impl Child {
    /// Starts the test of this name (with its module) in this environment.
    pub(crate) fn start(test: &str, environment: &[(&'static str, String)]) -> Self {
        // With one thread, libtest would begin a line before the test prints.
        let arguments = ["--exact", test, "--nocapture", "--test-threads=2"];
        Self::tests(&arguments, environment, true)
    }

    /// Starts all tests that libtest selects by these arguments in this environment, as tests of
    /// their own.
    pub(crate) fn of(arguments: &[&str], environment: &[(&'static str, String)]) -> Self {
        Self::tests(arguments, environment, false)
    }

    fn tests(arguments: &[&str], environment: &[(&'static str, String)], is_child: bool) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        if is_child {
            command.env(VARIABLE, "1");
        }
        let process = command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            lines,
            output: String::new(),
        }
    }

    /// The next line that it prints, or how it ended.
    pub(crate) fn next_line(&mut self, patience: Duration) -> Result<String, Ending> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                self.output += &line;
                self.output.push('\n');
                Ok(line)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Err(Ending::Hung),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = self.process.wait().unwrap();
                Err(match (status.code(), status.signal()) {
                    (Some(code), _) => Ending::Exited(code),
                    (None, signal) => Ending::Killed(signal.unwrap().try_into().unwrap()),
                })
            }
        }
    }

    /// Everything that it has printed so far.
    pub(crate) fn output(&self) -> &str {
        &self.output
    }

    /// Waits for its end, for as long as it prints something within every `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> Ending {
        loop {
            if let Err(ending) = self.next_line(patience) {
                return ending;
            }
        }
    }

    /// Waits for its end. Fails, and shows what it printed, unless the test has run and passed.
    pub(crate) fn assert_success(mut self, patience: Duration) {
        let ending = self.wait(patience);
        // A wrong name selects no test, and then nothing fails.
        let has_run = self.output.contains("1 passed");
        assert!(
            matches!(ending, Ending::Exited(0)) && has_run,
            "{ending}\n{}",
            self.output
        );
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
