//! `posthaste completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Cli, out};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  posthaste completions bash > ~/.local/share/bash-completion/completions/posthaste
  posthaste completions fish > ~/.config/fish/completions/posthaste.fish
  posthaste completions zsh > /usr/local/share/zsh/site-functions/_posthaste

A new shell has them.")]
pub(crate) struct Options {
    /// Whose words they are.
    shell: Shell,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    out::write(&script(options.shell))?;
    Ok(())
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "posthaste", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::{Command, ValueEnum as _};

    use super::*;

    /// Every command there is, by its words.
    fn paths(command: &Command, before: &[String], found: &mut Vec<Vec<String>>) {
        for sub in command.get_subcommands() {
            let path = [before, &[sub.get_name().to_owned()]].concat();
            found.push(path.clone());
            paths(sub, &path, found);
        }
    }

    /// How a script names a command.
    fn named(shell: Shell, path: &[String]) -> String {
        let (last, before) = path.split_last().unwrap();
        match shell {
            Shell::Bash => {
                let escaped = before.iter().map(|word| word.replace('-', "__subcmd__"));
                let before: String = escaped.map(|word| format!("__subcmd__{word}")).collect();
                format!("posthaste{before},{last})")
            }
            Shell::Zsh => format!("({last})\n_arguments"),
            Shell::Fish => format!(" -a \"{last}\""),
            _ => format!("'posthaste;{}'", path.join(";")),
        }
    }

    #[test]
    fn every_shell_knows_every_command() {
        let mut commands = Vec::new();
        paths(&Cli::command(), &[], &mut commands);
        assert!(commands.len() > 20, "{commands:?}");
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for path in &commands {
                let named = named(*shell, path);
                assert!(script.contains(&named), "{shell}: `{named}` is not there");
            }
        }
    }
}
