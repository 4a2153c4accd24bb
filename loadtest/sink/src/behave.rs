//! Misbehaviour on command: what a path does instead of answering 200 at once.
//!
//! Refusing a connection cannot be done for one path, since the path is not
//! known before the connection is made: `close` and `reset` come nearest.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Paths that may have a rule of their own; past it a new rule is refused.
pub(crate) const RULES_MAX: usize = 20_000;
/// Longest delay.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(600);
/// Pause between the bytes of a `drip` that names none.
const DRIP_DEFAULT: Duration = Duration::from_millis(500);

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// 200, at once.
    Ok,
    /// This status, at once; with a `Retry-After` in seconds if there is one.
    Status(u16, Option<u32>),
    /// 200 after so long.
    Delay(Duration),
    /// No answer; the connection stays open.
    Hang,
    /// No answer; the connection is reset (RST).
    Reset,
    /// The head of a 200 at once, then one byte of its body each so often.
    Drip(Duration),
    /// No answer; the connection is closed.
    Close,
    /// 200, then the connection is closed though nothing announced it.
    CloseAfter,
}

/// A command: what to do, where, and for how many requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The path; `None` for every path without a rule of its own.
    pub(crate) path: Option<String>,
    /// What it does. [`Act::Ok`] ends a rule.
    pub(crate) act: Act,
    /// Requests after which the rule ends by itself.
    pub(crate) requests: Option<u64>,
}

/// The rules in force, shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Spares a well-behaved sink the lock.
    any: AtomicBool,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    by_path: HashMap<String, Rule>,
    global: Option<Rule>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    act: Act,
    left: Option<u64>,
}

impl Act {
    /// Whether the request counts as delivered: its answer is, or will be, 2xx.
    pub(crate) fn accepts(self) -> bool {
        match self {
            Self::Ok | Self::Delay(_) | Self::Drip(_) | Self::CloseAfter => true,
            Self::Status(status, _) => (200..300).contains(&status),
            Self::Hang | Self::Reset | Self::Close => false,
        }
    }
}

impl FromStr for Act {
    type Err = String;

    /// Reads `ok`, `status:503`, `status:429:5` (the last is `Retry-After`),
    /// `delay:MS`, `hang`, `reset`, `drip`, `drip:MS`, `close`, `close-after`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let what = parts.next().unwrap_or_default();
        let arguments: Vec<&str> = parts.collect();
        match (what, arguments.as_slice()) {
            ("ok", []) => Ok(Self::Ok),
            ("hang", []) => Ok(Self::Hang),
            ("reset", []) => Ok(Self::Reset),
            ("close", []) => Ok(Self::Close),
            ("close-after", []) => Ok(Self::CloseAfter),
            ("drip", []) => Ok(Self::Drip(DRIP_DEFAULT)),
            ("drip", [each]) => millis(each).map(Self::Drip),
            ("delay", [wait]) => millis(wait).map(Self::Delay),
            ("status", [code]) => status(code).map(|code| Self::Status(code, None)),
            ("status", [code, after]) => {
                let after = after
                    .parse()
                    .map_err(|_| format!("`{after}` is not a Retry-After in whole seconds"))?;
                status(code).map(|code| Self::Status(code, Some(after)))
            }
            _ => Err(format!(
                "`{text}` is unknown: expected ok, status:N, status:N:RETRY_AFTER_S, delay:MS, \
                 hang, reset, drip, drip:MS, close or close-after"
            )),
        }
    }
}

impl Behaviour {
    /// What the next request for `path` gets; counts it against the rule.
    pub(crate) fn next(&self, path: &str) -> Act {
        if !self.any.load(Ordering::Acquire) {
            return Act::Ok;
        }
        let mut rules = self.rules();
        if let Some(rule) = rules.by_path.get_mut(path) {
            let act = rule.act;
            if rule.spend() {
                rules.by_path.remove(path);
            }
            return act;
        }
        let Some(rule) = &mut rules.global else {
            return Act::Ok;
        };
        let act = rule.act;
        if rule.spend() {
            rules.global = None;
        }
        act
    }

    /// Puts a rule in force, or ends one.
    ///
    /// # Errors
    /// There are [`RULES_MAX`] already.
    pub(crate) fn command(&self, command: Command) -> Result<(), String> {
        let mut rules = self.rules();
        let rule = (command.act != Act::Ok).then_some(Rule {
            act: command.act,
            left: command.requests,
        });
        match (command.path, rule) {
            (None, rule) => rules.global = rule,
            (Some(path), None) => {
                rules.by_path.remove(&path);
            }
            (Some(path), Some(rule)) => {
                if rules.by_path.len() >= RULES_MAX && !rules.by_path.contains_key(&path) {
                    return Err(format!("at most {RULES_MAX} paths may have a rule"));
                }
                rules.by_path.insert(path, rule);
            }
        }
        let any = rules.global.is_some() || !rules.by_path.is_empty();
        self.any.store(any, Ordering::Release);
        Ok(())
    }

    /// Ends every rule.
    pub(crate) fn reset(&self) {
        let mut rules = self.rules();
        *rules = Rules::default();
        self.any.store(false, Ordering::Release);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    /// Counts one request; answers whether it was the last.
    fn spend(&mut self) -> bool {
        match &mut self.left {
            None => false,
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
        }
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .map(Duration::from_millis)
        .filter(|span| *span <= DELAY_MAX)
        .ok_or_else(|| format!("`{text}` is not a number of milliseconds up to 600000"))
}

fn status(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|code| (200..600).contains(code))
        .ok_or_else(|| format!("`{text}` is not a status from 200 to 599"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(path: Option<&str>, act: &str, requests: Option<u64>) -> Command {
        Command {
            path: path.map(str::to_owned),
            act: act.parse().expect("an act"),
            requests,
        }
    }

    #[test]
    fn acts_are_read_and_nonsense_is_not() {
        let ms = Duration::from_millis;
        for (text, act) in [
            ("ok", Act::Ok),
            ("status:503", Act::Status(503, None)),
            ("status:429:5", Act::Status(429, Some(5))),
            ("delay:200", Act::Delay(ms(200))),
            ("drip:10", Act::Drip(ms(10))),
            ("close-after", Act::CloseAfter),
        ] {
            assert_eq!(text.parse(), Ok(act), "{text}");
        }
        for text in [
            "",
            "status",
            "status:99",
            "status:600",
            "delay",
            "delay:-1",
            "delay:600001",
            "ok:1",
            "hang:1",
            "status:503:x",
        ] {
            assert!(text.parse::<Act>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_goes_before_all_paths_and_rules_end_by_themselves() {
        let behaviour = Behaviour::default();
        assert_eq!(behaviour.next("/a"), Act::Ok);
        behaviour.command(command(None, "hang", Some(2))).unwrap();
        behaviour
            .command(command(Some("/a"), "reset", Some(1)))
            .unwrap();
        assert_eq!(behaviour.next("/a"), Act::Reset);
        assert_eq!(behaviour.next("/a"), Act::Hang);
        assert_eq!(behaviour.next("/b"), Act::Hang);
        assert_eq!(behaviour.next("/b"), Act::Ok);
    }

    #[test]
    fn ok_ends_a_rule_and_reset_ends_all() {
        let behaviour = Behaviour::default();
        behaviour
            .command(command(Some("/a"), "close", None))
            .unwrap();
        behaviour
            .command(command(Some("/b"), "close", None))
            .unwrap();
        behaviour.command(command(Some("/a"), "ok", None)).unwrap();
        assert_eq!(behaviour.next("/a"), Act::Ok);
        assert_eq!(behaviour.next("/b"), Act::Close);
        behaviour.reset();
        assert_eq!(behaviour.next("/b"), Act::Ok);
    }

    #[test]
    fn rules_are_bounded() {
        let behaviour = Behaviour::default();
        for path in 0..RULES_MAX {
            let path = path.to_string();
            behaviour
                .command(command(Some(&path), "hang", None))
                .unwrap();
        }
        assert!(behaviour.command(command(Some("x"), "hang", None)).is_err());
        assert!(behaviour.command(command(Some("0"), "close", None)).is_ok());
    }
}
