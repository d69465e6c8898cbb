//! Commands as a person types them.

use std::ffi::OsStr;
use std::process::Command;

/// The line for a shell in the repository's root that runs the command again, with the variables that are set for it.
/// Variables that are removed come from an outer cargo; a shell does not have them.
pub(crate) fn line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        let value = quoted(value?);
        Some(format!("{}={value}", name.to_string_lossy()))
    });
    let is_cargo = std::env::var_os("CARGO").is_some_and(|cargo| cargo == command.get_program());
    let program = match is_cargo {
        true => "cargo".to_owned(),
        false => quoted(command.get_program()),
    };
    let words = set.chain([program]).chain(command.get_args().map(quoted));
    words.collect::<Vec<_>>().join(" ")
}

/// A word that a shell takes as it is.
pub(crate) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+=:,./@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_runs_the_line_as_the_command() -> anyhow::Result<()> {
        let arguments = ["plain", "", "a b", "$HOME", "it's", "*", "--skip=a::b", "~"];
        let mut command = Command::new("printf");
        command
            .arg("%s|")
            .args(arguments)
            .env("A", "b 'c' \"d\"")
            .env_remove("CARGO_PKG_NAME");
        let line = line(&command);
        assert!(
            line.starts_with(r#"A='b '\''c'\'' "d"' printf '%s|' plain "#),
            "{line}"
        );
        assert!(!line.contains("CARGO_PKG_NAME"), "{line}");
        let again = Command::new("sh").args(["-c", &line]).output()?;
        assert_eq!(again.stdout, command.output()?.stdout);
        assert_eq!(again.stdout, format!("{}|", arguments.join("|")).as_bytes());
        Ok(())
    }

    #[test]
    fn a_job_of_the_tests_reads_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.args(["test", "--all-features", "--test=guest", "--", "vulkan::"]);
        command.env("PRIMESHARE_GUEST_KIND", "compat");
        assert_eq!(
            line(&command),
            "PRIMESHARE_GUEST_KIND=compat cargo test --all-features --test=guest -- vulkan::"
        );
    }
}
